# Finds or installs a Go compiler for the scripts that build public Go modules. To be sourced after
# lib.sh.
# shellcheck shell=bash

# The compiler that find_go has found.
GO=

# go_version GO: prints 1.26.8; nothing if it does not run.
go_version() { "$1" version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p'; }

# find_go MIN: sets GO to a compiler of at least this version. Debian keeps versioned ones out of PATH.
find_go() {
    local candidate have
    for candidate in go /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
        have=$(go_version "$candidate" || true)
        if [[ -n $have ]] && at_least "$have" "$1"; then
            GO=$candidate
            return
        fi
    done
    return 1
}

# install_go MIN LOG: the newest compiler that this release of Debian or Ubuntu has, if it will do.
install_go() {
    local package
    command -v apt-get >/dev/null || return 1
    doing "apt-get update"
    as_root apt-get update -qq >&2 || doing "apt-get update failed; going on with the lists that are here"
    package=$(apt-cache search --names-only '^golang-1\.[0-9]+-go$' | cut -d ' ' -f 1 | sort -V | tail -n 1)
    [[ -n $package ]] && at_least "$(sed 's/^golang-\(.*\)-go$/\1/' <<<"$package")" "$1" || return 1
    doing "installing $package"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$package" >"$2" 2>&1 </dev/null ||
        { tail -n 5 "$2" >&2 && return 1; }
}
