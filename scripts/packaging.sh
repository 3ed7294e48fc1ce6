#!/usr/bin/env bash
#
# Holds every command line that is shipped or documented against the programs. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Usage: scripts/packaging.sh EBPF-MANAGER OTLP-BRIDGE

Takes every call of the two programs in packaging/*.service, packaging/Dockerfile.* and the console examples
and inline code of docs/runbook.md, docs/packaging.md and README.md, and asks the programs (`--help`) whether they know the
subcommands and the options. Also checks the units with systemd-analyze where there is one.

Exit status: 0 all known, 1 something is not, 2 wrong use.
END
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
esac
(($# == 2)) || { usage >&2 && exit 2; }
readonly LOADER=$1 BRIDGE=$2

# calls: one line a call, `file: program arguments`.
calls() {
    local file
    for file in packaging/*.service; do
        sed -n 's/^Exec[A-Za-z]*=[-@:+!]*//p' "$file" | sed "s|^|$file: |"
    done
    for file in packaging/Dockerfile.*; do
        # ["/usr/bin/x", "a"] as words; a CMD alone goes behind the entry point.
        sed -n 's/^ *\(ENTRYPOINT\|CMD\) *\[\(.*\)\].*/\1 \2/p' "$file" | tr -d '",' |
            awk -v file="$file" '
                $1 == "ENTRYPOINT" { entry = $2; next }
                { sub(/^CMD /, ""); print file ": " ($1 ~ /^\// ? $0 : entry " " $0) }'
    done
    for file in docs/runbook.md docs/packaging.md README.md; do
        # Lines of console blocks that begin with a prompt.
        awk '/^```console/ { on = 1; next } /^```/ { on = 0 } on && /^\$ / { sub(/^\$ (sudo )?/, ""); print }' "$file" |
            grep -E '^(ebpf-manager|otlp-bridge)( |$)' | sed "s|^|$file: |" || true
        # And what is set as code in the text, if it is a whole call.
        grep -oE '`(ebpf-manager|otlp-bridge) [^`]+`' "$file" | tr -d '`' | sed "s|^|$file: |" || true
    done
}

failed=0
# complain FILE WHAT
complain() {
    printf 'packaging: %s: %s\n' "$1" "$2" >&2
    failed=1
}

# check FILE PROGRAM ARGUMENT...
check() {
    local file=$1 program=$2 help word
    local -a path=()
    shift 2
    case ${program##*/} in
    ebpf-manager) program=$LOADER ;;
    otlp-bridge) program=$BRIDGE ;;
    *) return 0 ;;
    esac
    # Subcommands: words before the first option, which a help names at the beginning of a line.
    help=$("$program" --help 2>&1)
    for word; do
        # Where no commands are left, words are arguments of the last one.
        [[ $word =~ ^[a-z][a-z-]*$ ]] || break
        if ((${#path[@]} == 0)) || grep -q '^Commands:' <<<"$help"; then
            if grep -Eq "^  $word( |\$)" <<<"$help"; then
                path+=("$word")
                help=$("$program" "${path[@]}" --help 2>&1)
            else
                complain "$file" "${program##*/} ${path[*]} does not know the command $word"
                return
            fi
        else
            break
        fi
    done
    for word; do
        # What follows is the command's of `run`.
        [[ $word != -- ]] || break
        [[ $word == --?* ]] || continue
        grep -Eq -- "(^|[ ,[])${word%%=*}([ =,]|\$)" <<<"$help" ||
            complain "$file" "${program##*/} ${path[*]} does not know the option ${word%%=*}"
    done
}

count=0
while IFS= read -r line; do
    # Quotes are the shell's: words are enough to look options up.
    read -ra words <<<"${line#*: }"
    check "${line%%: *}" "${words[@]}"
    count=$((count + 1))
done < <(calls)
((count > 0)) || fail "no call was found" "has the form of the files changed?"

if command -v systemd-analyze >/dev/null; then
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    for unit in packaging/*.service; do
        # The programs need not be installed here.
        sed -E 's#/usr/bin/(ebpf-manager|otlp-bridge)#/bin/true#; /^Documentation=man:/d' "$unit" >"$place/${unit##*/}"
        said=$(systemd-analyze verify "$place/${unit##*/}" 2>&1 | grep -F "${unit##*/}" || true)
        [[ -z $said ]] || complain "$unit" "$said"
    done
fi
((failed)) || printf 'packaging: %s calls, all known\n' "$count"
exit "$failed"
