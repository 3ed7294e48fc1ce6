#!/usr/bin/env bash
#
# Builds the OpenTelemetry Collector that the tests send to, unless it is there already. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/go.sh
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
# As in tests/collector/go.mod.
readonly MIN_GO=1.25

# The newest release of the exporter that can be had as a module, and its checksum (as in go.sum; a module that is
# edited has none there).
readonly EXPORTER=github.com/open-telemetry/opentelemetry-collector-contrib/exporter/opensearchexporter@v0.115.0
readonly EXPORTER_SUM=h1:qcIFa/1/nEhKraiKLxjHv+/C2Mu5kpJvMCIgi6tV/Oc=

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly HERE SOURCE="$HERE/tests/collector"

usage() {
    cat <<END
Usage: scripts/collector.sh [--quiet]

Builds tests/collector, an OpenTelemetry Collector with the components that collector-config/ names and a
file exporter, from public Go modules, and prints where it is. The versions are those of
tests/collector/go.mod, the checksums those of go.sum. It is kept in \${XDG_CACHE_HOME:-~/.cache}/clawker/otelcol-VERSION-CHECKSUM, with a
link to it in clawker/bin/otelcol; a second run builds nothing.

Needs Go $MIN_GO or later, and installs that of Debian or Ubuntu where there is none.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 it is there, 1 it cannot be built, 2 wrong use.
END
}

# go_here COMMAND...: the compiler, in the directory of the build. The lock is not its to hold.
go_here() {
    (cd "$BUILD" && env -u GOFLAGS -u GOOS -u GOARCH CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off "$GO" "$@" </dev/null 9>&-)
}

# The exporter is older than the core that it is built against: it asks a host for extensions in the old way, and
# has no setting for the queue, which the shipped configuration turns off. Both are put in here.
exporter() {
    local answer source dir=$BUILD/opensearchexporter
    answer=$(go_here mod download -json "$EXPORTER") || return 1
    grep -qF "\"Sum\": \"$EXPORTER_SUM\"" <<<"$answer" || { doing "the checksum of $EXPORTER is another" && return 1; }
    source=$(sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$answer")
    cp -r "$source" "$dir" && chmod -R u+w "$dir" && rm -f "$dir"/*_test.go || return 1
    edit "$dir/sso_log_exporter.go" 's/ToClient(ctx, host, /ToClient(ctx, host.GetExtensions(), /'
    edit "$dir/sso_trace_exporter.go" 's/ToClient(ctx, host, /ToClient(ctx, host.GetExtensions(), /'
    edit "$dir/config.go" 's|^\t"go.opentelemetry.io/collector/config/confighttp"$|&\n\t"go.opentelemetry.io/collector/config/configoptional"|'
    edit "$dir/config.go" 's|^\tMappingsSettings .*`mapstructure:"mapping"`$|&\n\tQueue configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`|'
    edit "$dir/factory.go" 's|^\t"go.opentelemetry.io/collector/config/confighttp"$|&\n\t"go.opentelemetry.io/collector/config/configoptional"|'
    edit "$dir/factory.go" 's|^\t\tMappingsSettings: MappingsSettings{.*|&\n\t\tQueue: configoptional.Some(exporterhelper.NewDefaultQueueConfig()),|'
    edit "$dir/factory.go" 's|^\t\texporterhelper.WithRetry(c.BackOffConfig),$|&\n\t\texporterhelper.WithQueue(c.Queue),|'
}

# edit FILE EXPRESSION: an edit that changes nothing was made for another file.
edit() {
    local before
    before=$(cksum <"$1")
    sed -i "$2" "$1"
    [[ $before != "$(cksum <"$1")" ]] || fail "$1 is not what it was" "no line of it fits: $2"
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
        printf 'collector: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

VERSION=$(sed -n 's/^\tgo.opentelemetry.io\/collector\/otelcol v\([0-9.]*\)$/\1/p' "$SOURCE/go.mod")
[[ -n $VERSION ]] || fail "no version of the collector in $SOURCE/go.mod"
SUM=$(cat "$SOURCE"/{go.mod,go.sum,main.go} "${BASH_SOURCE[0]}" | sha256sum | head -c 12)
readonly VERSION SUM DIR="$CACHE/otelcol-$VERSION-$SUM"

mkdir -p "$CACHE/bin"
# One at a time: two runs would build the same thing twice.
exec 9>"$CACHE/.collector-lock"
flock 9

if [[ ! -x $DIR/otelcol ]]; then
    find_go "$MIN_GO" || { install_go "$MIN_GO" "$CACHE/apt.log" && find_go "$MIN_GO"; } ||
        fail "the collector that the tests send to is built with Go $MIN_GO or later, which is not here" \
            "put one into PATH or into /usr/local/go; this release of the system has none as a package," \
            "a later one (or its backports) has golang-$MIN_GO-go"
    doing "building the OpenTelemetry Collector $VERSION with $("$GO" version) (some minutes, once)"
    BUILD=$(mktemp -d "$CACHE/.collector.XXXXXX")
    trap 'rm -rf "$BUILD"' EXIT
    mkdir -p "$DIR"
    cp "$SOURCE"/{go.mod,go.sum,main.go} "$BUILD"
    # -mod=readonly: what go.mod and go.sum do not name is not built.
    exporter && go_here build -mod=readonly -buildvcs=false -trimpath -ldflags="-s -w -X main.version=$VERSION" \
        -o "$DIR/otelcol.new" . ||
        fail "the collector does not build" "the messages above say why; its source is $SOURCE"
    mv "$DIR/otelcol.new" "$DIR/otelcol"
fi
[[ $("$DIR/otelcol" --version 2>/dev/null) == *" $VERSION" ]] ||
    fail "the collector was built but does not run" "try: $DIR/otelcol --version"
[[ $(readlink "$CACHE/bin/otelcol" || true) == "$DIR/otelcol" ]] || ln -sfn "$DIR/otelcol" "$CACHE/bin/otelcol"
((QUIET)) || printf '%-14s %s\n' collector "$VERSION ($DIR/otelcol)"
