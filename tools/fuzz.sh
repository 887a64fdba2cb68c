#!/bin/bash
# Builds one fuzz target with clang 14, address and undefined sanitizers, and runs it.
#
# usage: tools/fuzz.sh TARGET SECONDS [LIBFUZZER-OPTION...]
#        tools/fuzz.sh --list
#
# Seeds are tests/fuzz/corpus/TARGET; what it finds on the way stays in build/fuzz/corpus/TARGET, an input that breaks something in
# build/fuzz/found/TARGET-*: mend the fault and add the input to the seeds, which every test run replays.
# ASSAY_CARGO_TARGET_DIR is where the tokenizer's library is built (build/cargo).
set -euo pipefail
cd "$(dirname "$0")/.."
targets=$(sed -n 's/^assay_fuzz(\([a-z0-9_]*\) .*/\1/p' tests/fuzz/*.cmake | sort)
if [ "${1:-}" = --list ]; then
    echo "$targets"
    exit 0
fi
if [ $# -lt 2 ] || ! grep -qx -- "$1" <<<"$targets" || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: tools/fuzz.sh TARGET SECONDS [LIBFUZZER-OPTION...]; targets: $(tr '\n' ' ' <<<"$targets")" >&2
    exit 3
fi
target=$1 seconds=$2
shift 2
cmake --preset fuzz ${ASSAY_CARGO_TARGET_DIR:+-DASSAY_CARGO_TARGET_DIR="$ASSAY_CARGO_TARGET_DIR"} >/dev/null
cmake --build --preset fuzz --target "fuzz_$target"
mkdir -p "build/fuzz/corpus/$target" build/fuzz/found
exec "build/fuzz/bin/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/found/$target-" "$@" "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target"
