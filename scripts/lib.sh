# What the scripts here share. To be sourced; messages begin with the name of the script that does.
# shellcheck shell=bash

ME=$(basename "$0" .sh)
readonly ME

doing() { printf '%s: %s\n' "$ME" "$*" >&2; }

# fail WHAT [WHAT-TO-DO...]
fail() {
    printf '%s: error: %s\n' "$ME" "$1" >&2
    shift
    (($# == 0)) || printf '  %s\n' "$@" >&2
    exit 1
}

# at_least HAVE WANT: compares dotted versions.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        # Without a terminal sudo could only wait for ever.
        if [[ -t 0 ]]; then sudo "$@"; else sudo -n "$@"; fi
    else
        return 127
    fi
}
