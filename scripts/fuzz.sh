#!/usr/bin/env bash
#
# Feeds hostile bytes to everything that reads them: every target in tests/fuzz, each for SECONDS (10
# unless told). A crash ends the run with the bytes that caused it in tests/fuzz/artifacts.
#
#   scripts/fuzz.sh [SECONDS]          the same inputs each time, made from the seeds in the repository
#   scripts/fuzz.sh --explore SECONDS  other inputs each time, made from what earlier runs found, too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A run that others must be able to repeat begins at the same place and keeps nothing.
FOUND=$(mktemp -d)
trap 'rm -rf -- "$SCRATCH"' EXIT
readonly SCRATCH=$FOUND
random=(-seed=1)
if [[ ${1:-} == --explore ]]; then
    shift
    FOUND="${XDG_CACHE_HOME:-$HOME/.cache}/clawker/fuzz"
    random=()
fi
readonly FOUND SECONDS_EACH=${1:-10}

# The instrumentation is a compiler flag that stable compilers hide.
export RUSTC_BOOTSTRAP=1
# The programs are not run here, so the kernel object is not built.
export CLAWKER_BPF_SKIP=1

fuzz() {
    cargo fuzz "$1" --fuzz-dir tests/fuzz --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" --sanitizer none "${@:2}"
}

mapfile -t targets < <(sed -n 's/^name = "\([a-z]*\)"$/\1/p' tests/fuzz/Cargo.toml)
((${#targets[@]})) || { echo "fuzz: no targets in tests/fuzz/Cargo.toml" >&2; exit 1; }
fuzz build
for target in "${targets[@]}"; do
    mkdir -p "$FOUND/$target"
    log=$SCRATCH/$target.log
    # What comes first is where new finds are kept.
    if ! fuzz run "$target" "$FOUND/$target" "tests/fuzz/seeds/$target" -- \
        "${random[@]}" -max_total_time="$SECONDS_EACH" -max_len=4096 -print_final_stats=1 >"$log" 2>&1; then
        cat "$log" >&2
        echo "fuzz: $target failed" >&2
        exit 1
    fi
    printf 'fuzz %-8s %s runs, %s inputs kept\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$(find "$FOUND/$target" -type f | wc -l)"
done
echo "fuzz summary: ${#targets[@]} targets, $SECONDS_EACH s each, no crash"
