#!/usr/bin/env bash
# From a fresh checkout to a report: installs what is missing, builds, and measures what int8 costs the bundled model.
# usage: tools/run_demo.sh [ARGUMENTS OF assay eval]      e.g. tools/run_demo.sh --chunks 64
# The report lies in out/report. Exit status: that of `assay eval` (0 pass, 1 fail, 2 inconclusive, 3 and above: it did not get that far).
set -euo pipefail
cd "$(dirname "$0")/.."

tools/install_deps.sh
# A warning that another compiler has thought of is no reason to go without a report; the tests are built with warnings as errors.
cmake --preset release -DASSAY_WERROR=OFF
cmake --build --preset release -j "${ASSAY_JOBS:-$(nproc)}" \
    --target assay assay-coordinator assay-quantizer assay-inference assay-evaluator

command=(build/release/bin/assay eval models/assay-tiny --reference fp32 --variants int8
    --corpus data/wikitext-2/wiki.test.head.raw --out out/report "$@")
printf '\n$ %s\n' "${command[*]}"
exit_code=0
"${command[@]}" </dev/null || exit_code=$?
printf '\nrun_demo: exit code %d; the report:\n' "$exit_code"
find out/report -type f -printf '  %p (%s bytes)\n' 2>/dev/null | sort
exit "$exit_code"
