#!/usr/bin/env bash
#
# Builds the compose plugin that the stack tier of tests runs compose.yaml with. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/go.sh
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
readonly MODULE=github.com/docker/compose/v2 VERSION=2.40.3
# Of the module's files; those of what it is built from are in its own go.sum.
readonly SUM=h1:XeYkQu1svDtyfZPv5nTwFryQ25ZJMkIlc4pz9HalMPI=
# As in the module's go.mod.
readonly MIN_GO=1.24.9

usage() {
    cat <<END
Usage: scripts/compose.sh [--quiet]

Builds the plugin of the docker client that makes \`docker compose\`, version $VERSION, from its public Go
module, and prints where it is. It is kept in \${XDG_CACHE_HOME:-~/.cache}/clawker/compose-VERSION, which
is a configuration directory for \`docker --config\`: nothing is installed, and a plugin that the machine
has is left alone. A second run builds nothing.

Needs Go $MIN_GO or later, and installs that of Debian or Ubuntu where there is none.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 it is there, 1 it cannot be built, 2 wrong use.
END
}

# source_of: prints the directory with the module's files, downloaded and compared with SUM.
source_of() {
    local answer sum
    answer=$(cd / && env -u GOFLAGS GOTOOLCHAIN=local "$GO" mod download -json "$MODULE@v$VERSION" 9>&-) ||
        fail "$MODULE v$VERSION cannot be had" "the messages above say why; go env GOPROXY says where it is looked for"
    sum=$(sed -n 's/^\t"Sum": "\(.*\)",$/\1/p' <<<"$answer")
    [[ $sum == "$SUM" ]] || fail "$MODULE v$VERSION has checksum ${sum:-none} instead of $SUM" \
        "do not use it; remove it with: go clean -modcache"
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$answer"
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
        printf 'compose: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

readonly DIR="$CACHE/compose-$VERSION" PLUGIN="$CACHE/compose-$VERSION/cli-plugins/docker-compose"
mkdir -p "$CACHE"
# One at a time: two runs would build the same thing twice.
exec 9>"$CACHE/.compose-lock"
flock 9

if [[ ! -x $PLUGIN ]]; then
    find_go "$MIN_GO" || { install_go "$MIN_GO" "$CACHE/apt.log" && find_go "$MIN_GO"; } ||
        fail "the compose plugin that the tests use is built with Go $MIN_GO or later, which is not here" \
            "put one into PATH or into /usr/local/go; this release of the system has none as a package," \
            "a later one (or its backports) has golang-${MIN_GO%.*}-go"
    SOURCE=$(source_of)
    doing "building docker compose $VERSION with $("$GO" version) (some ten minutes, once)"
    mkdir -p "$DIR/cli-plugins"
    # In the module's own directory: its go.mod excludes versions, which a module that needs it would not.
    (
        cd "$SOURCE"
        env -u GOFLAGS -u GOOS -u GOARCH CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off \
            "$GO" build -mod=readonly -buildvcs=false -trimpath \
            -ldflags="-s -w -X $MODULE/internal.Version=v$VERSION" -o "$PLUGIN.new" ./cmd </dev/null 9>&-
    ) || fail "docker compose does not build" "the messages above say why; its source is $SOURCE"
    mv "$PLUGIN.new" "$PLUGIN"
fi
[[ $("$PLUGIN" version --short 2>/dev/null) == "$VERSION" ]] ||
    fail "docker compose was built but does not run" "try: $PLUGIN version"
((QUIET)) || printf '%-14s %s\n' compose "$VERSION ($PLUGIN)"
