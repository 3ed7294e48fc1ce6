#!/usr/bin/env bash
#
# Makes a machine able to build and test this repository. See usage() for what that takes.
#
# Whatever is there already is left alone, so that a second run costs less than a second. Nothing is
# removed from the machine and nothing outside the cache directory and the package database is written.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Versions that belong together. bpf-linker must be built with the LLVM of the compiler whose output it
# reads, and never with an older patch level.
readonly BPF_LINKER_VERSION=0.13.0
readonly BPF_LINKER_LLVMS="21 22 23" # its features
readonly LLVMS_TEXT="21, 22 or 23"
readonly NEXTEST_VERSION=0.9.151
readonly DENY_VERSION=0.20.2
readonly FUZZ_VERSION=0.13.2
# `rust-version` in Cargo.toml.
readonly MIN_RUST=1.95

readonly BUILD_PACKAGES=(ca-certificates gcc libc6-dev make)
# What llvm-config asks for when bpf-linker is linked; the version of LLVM comes in front.
readonly LINKER_PACKAGES=(g++ zlib1g-dev libzstd-dev libxml2-dev)
readonly DEBIAN_RUST_PACKAGES=(rustc-web cargo-web rust-web-src)
# What the kernel tier starts, and the packages it is in.
readonly TEST_PROGRAMS=(ip:iproute2 nft:nftables python3:python3 unshare:util-linux)

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
readonly NOTE="$CACHE/bpf-toolchain"

usage() {
    cat <<END
Usage: scripts/toolchain.sh [--test] [--quiet] [--bpf-rust NAME]

Finds or installs everything that building this repository needs, and prints what it found:

  * Rust $MIN_RUST or later for the programs; this must be there already
  * a Rust compiler with the source of its core library, for the kernel object: a rustup toolchain
    that has the rust-src component, or else Debian's ${DEBIAN_RUST_PACKAGES[*]}
  * bpf-linker $BPF_LINKER_VERSION, built with that compiler's version of LLVM
  * the packages that those need, through apt-get, as root or with sudo

Options:
  --test           also cargo-nextest $NEXTEST_VERSION, cargo-deny $DENY_VERSION, cargo-fuzz $FUZZ_VERSION and
                   the programs that the kernel tests start: ${TEST_PROGRAMS[*]%%:*}
  --quiet          print only what is being installed, and errors
  --bpf-rust NAME  build the kernel object with this rustup toolchain, or with the compiler in
                   /usr/bin if NAME is "system"; CLAWKER_BPF_RUST=NAME does the same for
                   every run, also those that make starts
  -h, --help       print this

What is built is kept in \${XDG_CACHE_HOME:-~/.cache}/clawker, by version. The file bpf-toolchain there
tells loader/build.rs which compiler and linker to use; the variables CLAWKER_BPF_CARGO and
CLAWKER_BPF_LINKER overrule it.

Exit status: 0 everything is there, 1 something is missing and could not be installed, 2 wrong use.
END
}

say() { ((QUIET)) || printf '%-14s %s\n' "$1" "$2"; }

# ------------------------------------------------------------------------------------ Debian packages

has_apt() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

# missing PACKAGE...: prints those that are not installed.
missing() {
    local package
    for package; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

APT_FRESH=0
# Package lists are missing on a new machine and soon out of date on others.
apt_refresh() {
    ((APT_FRESH)) && return
    APT_FRESH=1
    doing "apt-get update"
    as_root apt-get update -qq >&2 || doing "apt-get update failed; going on with the lists that are here"
}

# candidate PACKAGE: version that apt would install, empty if there is none.
candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -vx '(none)' || true
}

# need WHAT-FOR PACKAGE...: installs those that are missing. Elsewhere than on Debian and Ubuntu there is
# nothing to do but to go on and see.
need() {
    local what=$1 wanted
    shift
    has_apt || return 0
    mapfile -t wanted < <(missing "$@")
    ((${#wanted[@]})) || return 0
    apt_refresh
    doing "installing ${wanted[*]}"
    # --no-remove: Debian's Rust packages conflict with others, and a machine's own must not go.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${wanted[@]}" >"$CACHE/apt.log" 2>&1 </dev/null || {
        tail -n 20 "$CACHE/apt.log" >&2
        fail "cannot install what $what needs: ${wanted[*]}" \
            "install them as root (apt-get install ${wanted[*]}) and run this script again"
    }
}

# ---------------------------------------------------------------------------------------- compilers

# field NAME COMMAND...: a line of `rustc -vV`.
field() {
    local name=$1
    shift
    "$@" -vV 2>/dev/null | sed -n "s/^$name: //p"
}

check_rust() {
    local version
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        [[ -z ${SUDO_USER:-} ]] ||
            fail "root has no Rust (no cargo and rustc in root's PATH)" \
                "run this as $SUDO_USER: it uses sudo itself where root is needed"
        fail "there is no Rust on this machine (no cargo and rustc in PATH)" \
            "install Rust $MIN_RUST or later, with rustup or as Debian's rustc-web and cargo-web"
    fi
    version=$(field release rustc) || true
    [[ -n $version ]] || fail "rustc in PATH does not run" "try: rustc -vV"
    at_least "$version" "$MIN_RUST" ||
        fail "rustc in PATH is $version and this repository needs $MIN_RUST or later" \
            "with rustup: rustup update stable" \
            "on Debian: apt-get install rustc-web cargo-web"
    say rust "$version ($(command -v rustc))"
}

has_core_source() { [[ -f $1/lib/rustlib/src/rust/library/core/src/lib.rs ]]; }

# llvm_usable MAJOR: bpf-linker can be built with this LLVM, and its files are here or can be had.
llvm_usable() {
    [[ " $BPF_LINKER_LLVMS " == *" $1 "* ]] || return 1
    [[ -x $(linker_path "$1") || -x /usr/lib/llvm-$1/bin/llvm-config ]] && return
    has_apt || return 1
    [[ -n $(candidate "llvm-$1-dev") ]] && return
    apt_refresh
    [[ -n $(candidate "llvm-$1-dev") ]]
}

# Results of the search for a compiler.
BPF_CARGO='' BPF_RUST='' BPF_LLVM=''

# consider RUSTC CARGO...: takes this compiler if it will do.
consider() {
    local rustc=$1 version llvm
    shift
    version=$(field release "$rustc") && llvm=$(field 'LLVM version' "$rustc") || return 1
    at_least "${version:-0}" "$MIN_RUST" && llvm_usable "${llvm%%.*}" || return 1
    BPF_CARGO="$*" BPF_RUST=$version BPF_LLVM=$llvm
}

rustup_home() { printf '%s' "${RUSTUP_HOME:-$HOME/.rustup}"; }

# consider_rustup NAME
consider_rustup() {
    local dir
    dir="$(rustup_home)/toolchains/$1"
    has_core_source "$dir" && consider "$dir/bin/rustc" rustup run "$1" cargo
}

# Any toolchain of rustup that has its own source, nightlies first. `clawker-bpf` is Debian's.
find_in_rustup() {
    local name
    command -v rustup >/dev/null || return 1
    while read -r name; do
        [[ $name == clawker-bpf ]] || ! consider_rustup "$name" || return 0
    done < <(
        cd "$(rustup_home)/toolchains" 2>/dev/null || exit 0
        printf '%s\n' nightly* | sort -rV
        printf '%s\n' * | grep -v '^nightly' | sort -rV
    )
    return 1
}

# The compiler in /usr/bin. rustup's cargo is first in PATH where there is rustup, and its proxies pick
# the compiler: it has to know ours by a name.
find_in_system() {
    [[ -x /usr/bin/cargo ]] && has_core_source /usr || return 1
    if command -v rustup >/dev/null; then
        consider /usr/bin/rustc rustup run clawker-bpf cargo || return 1
        [[ $(readlink -f "$(rustup_home)/toolchains/clawker-bpf" || true) == /usr ]] ||
            rustup toolchain link clawker-bpf /usr
    else
        # Another compiler may come first in PATH, and cargo would take that.
        consider /usr/bin/rustc env RUSTC=/usr/bin/rustc /usr/bin/cargo
    fi
}

install_system_rust() {
    local have
    has_apt || return 1
    [[ -n $(missing "${DEBIAN_RUST_PACKAGES[@]}") ]] || return 1
    apt_refresh
    have=$(candidate rustc-web)
    [[ -n $have ]] && at_least "$have" "$MIN_RUST" || return 1
    # Another Rust from apt would have to go for this one.
    if dpkg-query -W -f='${db:Status-Status}\n' rustc rustup 2>/dev/null | grep -q '^installed'; then
        return 1
    fi
    need "the kernel object" "${DEBIAN_RUST_PACKAGES[@]}"
}

# The source of a toolchain that is here already is a few megabytes, and needs no root.
add_rust_src() {
    local active version
    command -v rustup >/dev/null || return 1
    active=$(rustup show active-toolchain 2>/dev/null | cut -d ' ' -f 1) || return 1
    version=$(field 'LLVM version' "$(rustup_home)/toolchains/$active/bin/rustc") || return 1
    llvm_usable "${version%%.*}" || return 1
    doing "adding the component rust-src to the toolchain $active"
    # rustup waits for long where nothing answers.
    timeout 60 rustup component add rust-src --toolchain "$active" >&2 ||
        { doing "rustup cannot get it; looking elsewhere" && return 1; }
    consider_rustup "$active"
}

find_bpf_rust() {
    case $BPF_CHOICE in
    '')
        find_in_rustup || find_in_system || add_rust_src ||
            { install_system_rust && find_in_system; } ||
            fail "no Rust compiler here can build the kernel object" \
                "one is needed that has the source of its core library and LLVM $LLVMS_TEXT:" \
                "  with rustup: rustup component add rust-src, and the package llvm-VERSION-dev of its LLVM" \
                "    (rustc -vV prints the version; distributions that lack it get it from the LLVM project)" \
                "  on Debian: apt-get install ${DEBIAN_RUST_PACKAGES[*]}"
        ;;
    system)
        find_in_system || { install_system_rust && find_in_system; } ||
            fail "/usr/bin/rustc cannot build the kernel object" \
                "it must be $MIN_RUST or later with LLVM $LLVMS_TEXT and its source: ${DEBIAN_RUST_PACKAGES[*]}"
        ;;
    *)
        consider_rustup "$BPF_CHOICE" ||
            fail "the rustup toolchain $BPF_CHOICE cannot build the kernel object" \
                "it must be $MIN_RUST or later with LLVM $LLVMS_TEXT, have the component rust-src," \
                "and llvm-VERSION-dev of its LLVM must be installed or installable"
        ;;
    esac
    say "bpf rust" "$BPF_RUST with LLVM $BPF_LLVM ($BPF_CARGO)"
}

# -------------------------------------------------------------------------------------------- tools

# runs PROGRAM VERSION
runs() { [[ -x $1 && $("$1" --version 2>/dev/null | head -n 1) == *" $2"* ]]; }

# ensure NAME VERSION PROGRAM ARGUMENT...: has cargo build it unless it is there, with this machine's
# settings for other builds kept out.
ensure() {
    local name=$1 version=$2 program=$3
    shift 3
    runs "$program" "$version" && return
    doing "building $name $version (some minutes)"
    (
        cd "$CACHE"
        unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_TARGET CARGO_TARGET_DIR CARGO_ENCODED_RUSTFLAGS
        # The lock is ours to hold, not that of a daemon which a compiler might start.
        cargo install --quiet --locked --force --root "${program%/bin/*}" "$name" --version "=$version" "$@" </dev/null 9>&-
    ) || fail "$name $version does not build" "the messages above say why"
    runs "$program" "$version" || fail "$name was built but does not run" "try: $program --version"
}

linker_path() { printf '%s' "$CACHE/bpf-linker-$BPF_LINKER_VERSION-llvm$1/bin/bpf-linker"; }

LINKER=
ensure_linker() {
    local major=${BPF_LLVM%%.*} prefix version
    prefix=/usr/lib/llvm-$major
    LINKER=$(linker_path "$major")
    if ! runs "$LINKER" "$BPF_LINKER_VERSION"; then
        need bpf-linker "llvm-$major-dev" "libpolly-$major-dev" "${LINKER_PACKAGES[@]}"
        [[ -x $prefix/bin/llvm-config ]] ||
            fail "LLVM $major is not installed: no $prefix/bin/llvm-config" "install llvm-$major-dev"
    fi
    (
        export LLVM_PREFIX=$prefix "LLVM_SYS_${major}1_PREFIX=$prefix" RUSTFLAGS="-L $prefix/lib"
        ensure bpf-linker "$BPF_LINKER_VERSION" "$LINKER" --no-default-features --features "llvm-$major"
    )
    # Only known while the package that bpf-linker was built with is still there.
    version=$("$prefix/bin/llvm-config" --version 2>/dev/null) || version=$BPF_LLVM
    at_least "$version" "$BPF_LLVM" ||
        fail "LLVM in $prefix is older than the compiler's $BPF_LLVM, whose output it cannot read" \
            "upgrade libllvm$major and llvm-$major-dev"
    say bpf-linker "$BPF_LINKER_VERSION with LLVM $major ($LINKER)"
}

# ensure_tool NAME VERSION ARGUMENT...: a cargo subcommand, also reachable as $CACHE/bin/NAME.
ensure_tool() {
    local name=$1 version=$2 program=$CACHE/$1-$2/bin/$1
    shift 2
    ensure "$name" "$version" "$program" "$@"
    mkdir -p "$CACHE/bin"
    [[ $(readlink "$CACHE/bin/$name" || true) == "$program" ]] || ln -sfn "$program" "$CACHE/bin/$name"
    say "$name" "$version ($program)"
}

# The build script builds the kernel object again when the note changes: leave it alone if it is right.
write_note() {
    local text
    text=$(printf '%s\n%s' "$BPF_CARGO" "$LINKER")
    [[ -f $NOTE && $(<"$NOTE") == "$text" ]] && return
    printf '%s\n' "$text" >"$NOTE.new"
    mv "$NOTE.new" "$NOTE"
}

# absent PROGRAM:PACKAGE...: prints the entries whose program is not here. The directories of
# administrators' programs are not in everybody's PATH.
absent() {
    local entry PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    for entry; do
        command -v "${entry%%:*}" >/dev/null || printf '%s\n' "$entry"
    done
}

ensure_test_programs() {
    local wanted
    mapfile -t wanted < <(absent "${TEST_PROGRAMS[@]}")
    ((${#wanted[@]} == 0)) || need "the kernel tests" "${wanted[@]#*:}"
    mapfile -t wanted < <(absent "${TEST_PROGRAMS[@]}")
    ((${#wanted[@]} == 0)) ||
        fail "the kernel tests start programs that are not here: ${wanted[*]%%:*}" \
            "on Debian and Ubuntu they are in: ${wanted[*]#*:}"
    say "test programs" "${TEST_PROGRAMS[*]%%:*}"
}

# --------------------------------------------------------------------------------------------- main

QUIET=0 TEST=0 BPF_CHOICE=${CLAWKER_BPF_RUST:-}
while (($#)); do
    case $1 in
    --test) TEST=1 ;;
    --quiet) QUIET=1 ;;
    --bpf-rust)
        [[ -n ${2:-} ]] || { echo "toolchain: --bpf-rust needs a name" >&2; exit 2; }
        BPF_CHOICE=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        printf 'toolchain: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

# One at a time: two runs would build the same things twice, over each other.
mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"
flock 9

need "the build" "${BUILD_PACKAGES[@]}"
check_rust
if [[ -n ${CLAWKER_BPF_CARGO:-} && -n ${CLAWKER_BPF_LINKER:-} ]]; then
    say "bpf rust" "$CLAWKER_BPF_CARGO (CLAWKER_BPF_CARGO)"
    say bpf-linker "$CLAWKER_BPF_LINKER (CLAWKER_BPF_LINKER)"
else
    find_bpf_rust
    ensure_linker
    write_note
fi
if ((TEST)); then
    ensure_tool cargo-nextest "$NEXTEST_VERSION" --no-default-features
    ensure_tool cargo-deny "$DENY_VERSION"
    ensure_tool cargo-fuzz "$FUZZ_VERSION"
    ensure_test_programs
fi
