#!/usr/bin/env bash
#
# Builds the CoreDNS that the tests ask and fetches what keeps its log, unless they are there already. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/go.sh
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
# As in tests/coredns/go.mod.
readonly MIN_GO=1.26

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly HERE SOURCE="$HERE/tests/coredns"

usage() {
    cat <<END
Usage: scripts/coredns.sh [--quiet]

Builds tests/coredns, the stock CoreDNS with those of its own plugins that a rendered Corefile names, from
the public Go module, and prints where it is. The version is that of tests/coredns/go.mod, the checksums
those of go.sum. It is kept in \${XDG_CACHE_HOME:-~/.cache}/clawker/coredns-VERSION-CHECKSUM, with a link to
it in clawker/bin/coredns; a second run builds nothing.

svlogd, which keeps its log in the shipped image, comes from the package \`runit\` of Debian or Ubuntu, of which
nothing is installed.

Needs Go $MIN_GO or later, and installs that of Debian or Ubuntu where there is none.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 it is there, 1 it cannot be built, 2 wrong use.
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
        printf 'coredns: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

VERSION=$(sed -n 's/^require github.com\/coredns\/coredns v\([0-9.]*\)$/\1/p' "$SOURCE/go.mod")
[[ -n $VERSION ]] || fail "no version of CoreDNS in $SOURCE/go.mod"
SUM=$(cat "$SOURCE"/{go.mod,go.sum,main.go} "${BASH_SOURCE[0]}" | sha256sum | head -c 12)
readonly VERSION SUM DIR="$CACHE/coredns-$VERSION-$SUM"

mkdir -p "$CACHE/bin"
# One at a time: two runs would build the same thing twice.
exec 9>"$CACHE/.coredns-lock"
flock 9

if [[ ! -x $DIR/coredns ]]; then
    find_go "$MIN_GO" || { install_go "$MIN_GO" "$CACHE/apt.log" && find_go "$MIN_GO"; } ||
        fail "the CoreDNS that the tests ask is built with Go $MIN_GO or later, which is not here" \
            "put one into PATH or into /usr/local/go; this release of the system has none as a package," \
            "a later one (or its backports) has golang-$MIN_GO-go"
    doing "building CoreDNS $VERSION with $("$GO" version) (a minute, once)"
    mkdir -p "$DIR"
    # -mod=readonly: what go.mod and go.sum do not name is not built. The lock is not the compiler's to hold.
    (cd "$SOURCE" && env -u GOFLAGS -u GOOS -u GOARCH CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off "$GO" build \
        -mod=readonly -buildvcs=false -trimpath -ldflags="-s -w" -o "$DIR/coredns.new" . </dev/null 9>&-) ||
        fail "CoreDNS does not build" "the messages above say why; its source is $SOURCE"
    mv "$DIR/coredns.new" "$DIR/coredns"
fi
# svlogd of this release of the system, taken out of its package.
fetch_svlogd() {
    local new=$CACHE/svlogd.new
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    doing "fetching svlogd"
    rm -rf "$new" && mkdir -p "$new" || return 1
    (cd "$new" && apt-get download -qq runit) >/dev/null 2>&1 || {
        as_root apt-get update -qq >&2 && (cd "$new" && apt-get download -qq runit) >/dev/null 2>&1
    } || return 1
    dpkg-deb -x "$new"/runit_*.deb "$new/whole" && mv "$new/whole/usr/bin/svlogd" "$CACHE/bin/svlogd" || return 1
    rm -rf "$new"
}
[[ -x $CACHE/bin/svlogd ]] || fetch_svlogd ||
    fail "the tests keep the log of CoreDNS with svlogd, which is not here" \
        "put the one of runit into $CACHE/bin"

[[ $("$DIR/coredns" -version 2>/dev/null) == *"CoreDNS-$VERSION"* ]] ||
    fail "CoreDNS was built but does not run" "try: $DIR/coredns -version"
[[ $(readlink "$CACHE/bin/coredns" || true) == "$DIR/coredns" ]] || ln -sfn "$DIR/coredns" "$CACHE/bin/coredns"
((QUIET)) || printf '%-14s %s\n' coredns "$VERSION ($DIR/coredns)"
