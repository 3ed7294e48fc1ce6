#!/usr/bin/env bash
#
# Builds the programs for images and other machines: static, so that they need no file but themselves.
# See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly PROGRAMS=(ebpf-manager otlp-bridge provision)

usage() {
    cat <<END
Usage: scripts/dist.sh [PROGRAM...]

Builds ${PROGRAMS[*]} (or those that are named) as static release programs and puts them
into target/dist, from where packaging/Dockerfile.* can take them. Names of users, groups and hosts
are looked up in /etc and by DNS alone: other services of nsswitch.conf are not there.

Exit status: 0 built, 1 failed, 2 wrong use.
END
}

wanted=()
for name; do
    case $name in
    -h | --help)
        usage
        exit 0
        ;;
    ebpf-manager | otlp-bridge | provision) wanted+=("$name") ;;
    *)
        printf 'dist: unknown argument: %s\n\n' "$name" >&2
        usage >&2
        exit 2
        ;;
    esac
done
((${#wanted[@]})) || wanted=("${PROGRAMS[@]}")

target=$(rustc -vV | sed -n 's/^host: //p')
dir=${CARGO_TARGET_DIR:-target}
# A named target, although it is this machine's: the flags are for the programs then, not for macros and
# build scripts, which cannot be static.
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" "${wanted[@]/#/--package=}" --bins ||
    fail "the programs do not build" "the messages above say why"
mkdir -p target/dist
for name in "${wanted[@]}"; do
    install -m 755 "$dir/$target/release/$name" "target/dist/$name"
    # An interpreter in the program headers would be looked for at the start, and an image has none.
    if readelf --program-headers "target/dist/$name" | grep -q INTERP; then
        fail "target/dist/$name is not static" "RUSTFLAGS of this machine may overrule it: unset CARGO_ENCODED_RUSTFLAGS"
    fi
    printf '%-14s %s\n' "$name" "target/dist/$name ($(stat -c %s "target/dist/$name") bytes)"
done
