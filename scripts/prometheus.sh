#!/usr/bin/env bash
#
# Fetches the Prometheus that the tests ask, unless it is there already. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
# Has everything that the configuration and the panels use.
readonly MIN=2.40

usage() {
    cat <<END
Usage: scripts/prometheus.sh [--quiet]

Takes the programs prometheus and promtool out of the package \`prometheus\` of this Debian or Ubuntu (apt checks
its signature) without installing it, and prints where they are. They are kept in
\${XDG_CACHE_HOME:-~/.cache}/clawker/prometheus-VERSION, with links in clawker/bin; a second run fetches nothing.

The tests are of queries and of the configuration. compose.yaml names a later version, which takes both.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 they are there, 1 they cannot be had, 2 wrong use.
END
}

# version PROGRAM: prints 2.42.0; nothing if it does not run.
version() { "$1" --version 2>&1 | sed -n '1s/^[a-z]*, version \([0-9.]*\).*/\1/p'; }

# usable DIR
usable() {
    local program have
    for program in prometheus promtool; do
        [[ -x $1/$program ]] || return 1
        have=$(version "$1/$program")
        [[ -n $have ]] && at_least "$have" "$MIN" || return 1
    done
}

# The version that apt would take; nothing where it knows none.
candidate() { apt-cache policy prometheus 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)$/\1/p'; }

fetch() {
    local want dir=$CACHE/prometheus.new package
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    want=$(candidate)
    if [[ -z $want ]]; then
        doing "apt-get update"
        as_root apt-get update -qq >&2 || return 1
        want=$(candidate)
    fi
    [[ -n $want ]] || return 1
    doing "fetching prometheus $want"
    rm -rf "$dir" && mkdir -p "$dir" || return 1
    (cd "$dir" && apt-get download -qq "prometheus=$want" >/dev/null 2>&1) || return 1
    package=$(find "$dir" -name 'prometheus_*.deb')
    dpkg-deb -x "$package" "$dir/whole" && mv "$dir"/whole/usr/bin/{prometheus,promtool} "$dir" || return 1
    rm -rf "$dir/whole" "$package"
    usable "$dir" || return 1
    FOUND="$CACHE/prometheus-$(version "$dir/prometheus")"
    rm -rf "$FOUND" && mv "$dir" "$FOUND"
}

FOUND=
# What is there, the newest first.
find_here() {
    local dir
    while read -r dir; do
        if usable "$dir"; then
            FOUND=$dir
            return
        fi
    done < <(find "$CACHE" -maxdepth 1 -type d -name 'prometheus-*' | sort -Vr)
    return 1
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
        printf 'prometheus: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

mkdir -p "$CACHE/bin"
# One at a time: two runs would fetch the same thing twice.
exec 9>"$CACHE/.prometheus-lock"
flock 9

find_here || fetch ||
    fail "the tests ask a Prometheus $MIN or later, which is not here" \
        "this release of the system has none as the package \`prometheus\`;" \
        "put prometheus and promtool into $CACHE/prometheus-VERSION"
for program in prometheus promtool; do
    [[ $(readlink "$CACHE/bin/$program" || true) == "$FOUND/$program" ]] || ln -sfn "$FOUND/$program" "$CACHE/bin/$program"
done
((QUIET)) || printf '%-14s %s\n' prometheus "$(version "$FOUND/prometheus") ($FOUND/prometheus)"
