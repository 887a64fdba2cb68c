#!/usr/bin/env bash
# From a fresh checkout to tested: installs what is missing, builds, and runs the tests of the tiers quick and full.
# usage: tools/run_tests.sh [--quick] [--checks] [--sanitizers]
#   --quick        the quick tier alone
#   --checks       tools/check.sh as well
#   --sanitizers   the quick tier again under the address and undefined-behaviour sanitizers, and under that for threads
# ASSAY_SHARED names the folder of golden outputs (default: ../shared); ASSAY_JOBS how many jobs build at once; one test
# more runs, as many of them wait most of the time.
# Exit status: 0 all passed, 1 something failed, 3 usage. A run in which no test ran has failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 5

tiers='quick|full'
checks=false
presets=(dev)
for argument in "$@"; do
    case $argument in
    --quick) tiers=quick ;;
    --checks) checks=true ;;
    --sanitizers) presets+=(asan tsan) ;;
    *)
        printf 'run_tests: unknown argument "%s" (known: --quick --checks --sanitizers)\n' "$argument" >&2
        exit 3
        ;;
    esac
done
jobs=${ASSAY_JOBS:-$(nproc)}
shared=$(realpath -m "${ASSAY_SHARED:-../shared}")
closing=()
failed=0

# conclude WHAT "" | failed...: keeps a line for the end
conclude()
{
    closing+=("$1: $2")
    [[ $2 == ok* ]] || failed=1
}

# attribute FILE NAME: a number of the first <testsuite> of a JUnit file, 0 when it is not there
attribute()
{
    local value
    value=$(sed -n "/<testsuite/,/>/s/.*[[:space:]]$2=\"\([0-9]*\)\".*/\1/p" "$1" 2>/dev/null | head -n 1)
    printf '%d' "${value:-0}"
}

# The kernel may place the program where the thread sanitizer keeps its shadow; without randomisation it does not.
fixed_layout()
{
    if setarch "$(uname -m)" -R true 2>/dev/null; then
        setarch "$(uname -m)" -R "$@"
    else
        "$@"
    fi
}

run_preset()
{
    local preset=$1 label=$2 results status=0 tests skipped bad start=$SECONDS run=(ctest)
    [[ $preset == tsan ]] && run=(fixed_layout ctest)
    printf '\n== %s: build\n' "$preset"
    if ! cmake --preset "$preset" -DASSAY_SHARED="$shared" || ! cmake --build --preset "$preset" -j "$jobs"; then
        conclude "tests, $preset" "failed to build"
        return
    fi
    printf '\n== %s: test\n' "$preset"
    results=$PWD/build/$preset/tests.xml
    rm -f "$results"
    "${run[@]}" --preset "$preset" -L "^($label)\$" --no-tests=error -j $((jobs + 1)) --output-junit "$results" </dev/null || status=$?
    tests=$(attribute "$results" tests)
    skipped=$(($(attribute "$results" skipped) + $(attribute "$results" disabled)))
    bad=$(attribute "$results" failures)
    if ((status == 0 && tests > skipped)); then
        conclude "tests, $preset, $label" "ok: $((tests - skipped)) passed, $skipped skipped, $((SECONDS - start)) s with the build"
    else
        conclude "tests, $preset, $label" "failed: $bad failed, $((tests - skipped - bad)) passed, $skipped skipped"
    fi
}

install=(tools/install_deps.sh)
$checks && install+=(--checks)
"${install[@]}" || exit
[[ -d $shared ]] || printf 'run_tests: %s is absent: tests that compare with golden outputs are skipped (with CI=true they fail)\n' "$shared"

if $checks; then
    printf '\n== checks\n'
    if tools/check.sh; then conclude checks ok; else conclude checks failed; fi
fi
for preset in "${presets[@]}"; do
    if [[ $preset == dev ]]; then run_preset dev "$tiers"; else run_preset "$preset" quick; fi
done

printf '\n'
printf '%s\n' "${closing[@]}"
if ((failed)); then
    printf 'run_tests: FAILED\n'
    exit 1
fi
printf 'run_tests: all passed\n'
