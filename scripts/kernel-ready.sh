#!/usr/bin/env bash
#
# Says what this machine lacks to run the kernel tests and benchmarks, all of it at once, and how to get
# it. Exit status 1 if anything is missing: a tier of tests that cannot run has failed.
set -euo pipefail

# bpf_loop.
readonly FLOOR=5.17

missing=0
# lack WHAT REMEDY
lack() {
    printf 'missing: %s\n  -> %s\n' "$1" "$2" >&2
    missing=1
}

release=$(uname -r)
[[ $(printf '%s\n%s\n' "$FLOOR" "$release" | sort -V | head -n 1) == "$FLOOR" ]] ||
    lack "Linux $FLOOR or later (this is $release)" "boot a newer kernel"
[[ -r /sys/kernel/btf/vmlinux ]] ||
    lack "the kernel's type information, /sys/kernel/btf/vmlinux" "use a kernel with CONFIG_DEBUG_INFO_BTF=y"
awk '$3 == "cgroup2" { found = 1 } END { exit !found }' /proc/mounts ||
    lack "cgroup v2" "mount -t cgroup2 none /sys/fs/cgroup (hybrid: /sys/fs/cgroup/unified)"
# `ebpf-manager` mounts the BPF file system itself where there is none.
[[ -d /sys/fs/bpf ]] ||
    lack "BPF file systems: no directory /sys/fs/bpf" "use a kernel with CONFIG_BPF_SYSCALL=y, with /sys mounted"
if ((EUID == 0)); then
    unshare --net true 2>/dev/null || lack "permission to make network namespaces" "run as root of the machine, not of a container"
elif ! command -v sudo >/dev/null; then
    lack "root" "run this as root, or install sudo"
fi
exit "$missing"
