#!/usr/bin/env bash
#
# Makes a machine able to run the docker tier of tests. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What the tests start, and the packages of Debian and Ubuntu it is in.
readonly PROGRAMS=(dockerd:docker.io docker:docker.io containerd:containerd
    containerd-shim-runc-v2:containerd runc:runc iptables:iptables tar:tar python3:python3)
# Statically linked: it runs in an image that holds nothing else.
readonly BUSYBOX=/bin/busybox
readonly POLICY=/usr/sbin/policy-rc.d

usage() {
    cat <<END
Usage: scripts/engine.sh [--quiet]

Finds or installs the container engine that the docker tier of tests starts for itself, and prints the
versions: Debian's docker.io with containerd and runc, iptables, a static busybox and python3 for the
images. Packages come through apt-get, as root or with sudo; no service is started by installing them.

The tests use an engine of their own (data, socket, network and cgroups), never the machine's.

Options:
  --quiet     print only what is being installed, and errors
  -h, --help  print this

Exit status: 0 everything is there, 1 something is missing and could not be installed, 2 wrong use.
END
}

QUIET=0
while (($#)); do
    case $1 in
    --quiet) QUIET=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        printf 'engine: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

# Daemons are in places that are not everybody's.
PATH=$PATH:/usr/sbin:/sbin

# missing: packages of what is not there, once each.
missing() {
    local program
    {
        for program in "${PROGRAMS[@]}"; do
            command -v "${program%%:*}" >/dev/null || echo "${program#*:}"
        done
        static "$BUSYBOX" || echo busybox-static
    } | sort -u
}

# static PROGRAM: it is there and asks for no loader.
static() { [[ -x $1 ]] && ! ldd "$1" >/dev/null 2>&1; }

install_packages() {
    local log
    command -v apt-get >/dev/null || return 1
    log=$(mktemp)
    doing "installing $*"
    as_root apt-get update -qq >&2 || doing "apt-get update failed; going on with the lists that are here"
    # The packages would start the machine's own engine, which would change its network.
    if [[ ! -e $POLICY ]]; then
        trap 'as_root rm -f "$POLICY"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null && as_root chmod 755 "$POLICY" || return 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null || tail -n 5 "$log" >&2
    rm -f "$log"
}

mapfile -t packages < <(missing)
if ((${#packages[@]})); then
    install_packages "${packages[@]}" || true
    mapfile -t packages < <(missing)
    ((${#packages[@]} == 0)) ||
        fail "the docker tier of tests lacks programs that could not be installed" \
            "install the packages (Debian, Ubuntu): ${packages[*]}"
fi

((QUIET)) && exit
version() { printf '%-14s %s\n' "$1" "$("${@:2}" 2>/dev/null | head -n 1)"; }
version engine dockerd --version
version containerd containerd --version
version runc runc --version
version iptables iptables --version
version busybox "$BUSYBOX"
