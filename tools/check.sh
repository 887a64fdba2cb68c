#!/usr/bin/env bash
# Everything that is checked beside the tests. One line each: ok, failed or SKIPPED; details go to stderr.
# usage: tools/check.sh       exit status: 0 all ok, 1 something failed
# With CI=true a check whose tool is missing has failed; else it is skipped, by name.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 5
export PYTHONDONTWRITEBYTECODE=1

failed=0
verdict()
{
    printf '%s: %s\n' "$1" "$2"
    [[ $2 == failed* ]] && failed=1
    return 0
}

# needs CHECK TOOL: false, with the verdict printed, when the tool is missing
needs()
{
    command -v "$2" >/dev/null && return 0
    if [[ ${CI:-} == true ]]; then
        verdict "$1" "failed: $2 is missing (tools/install_deps.sh --checks)"
    else
        verdict "$1" "SKIPPED: $2 is missing (tools/install_deps.sh --checks)"
    fi
    return 1
}

sources()
{
    git ls-files -z --cached --others --exclude-standard -- "$@" |
        while IFS= read -r -d '' file; do [[ -f $file ]] && printf '%s\0' "$file"; done
}

check_format()
{
    needs format clang-format-14 || return
    local count complaints
    count=$(sources '*.c' '*.h' | tr -cd '\0' | wc -c)
    if complaints=$(sources '*.c' '*.h' | xargs -0 -r clang-format-14 --dry-run -Werror 2>&1); then
        verdict format "ok: $count files"
    else
        sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error:.*/\1/p' <<<"$complaints" | sort | uniq -c |
            sed 's/^ *\([0-9]*\) \(.*\)/format: \2: \1 places/' >&2
        verdict format "failed (clang-format-14 -i FILE mends it)"
    fi
}

check_cppcheck()
{
    needs cppcheck cppcheck || return
    local count
    count=$(sources '*.c' ':!tests' | tr -cd '\0' | wc -c)
    mkdir -p build/cppcheck
    if sources '*.c' ':!tests' | tr '\0' '\n' | cppcheck --quiet --file-list=- --cppcheck-build-dir=build/cppcheck \
        -j "$(nproc)" -I . -D_GNU_SOURCE -D__x86_64__ -U__clang__ --std=c11 --platform=unix64 --library=posix --library=tools/cppcheck.cfg \
        --enable=warning,performance,portability --suppressions-list=tools/cppcheck.supp --inline-suppr \
        --max-configs=4 --template='{file}:{line}: {severity}: {message} [{id}]' --error-exitcode=1; then
        verdict cppcheck "ok: $count files"
    else
        verdict cppcheck "failed"
    fi
}

check_alerts()
{
    needs alerts promtool || return
    local said
    if said=$(cd compose/prometheus && promtool check config prometheus.yml 2>&1 && promtool test rules alerts_test.yml 2>&1); then
        verdict alerts "ok: $(grep -c -- '- alert:' compose/prometheus/alerts.yml) rules, their tests"
    else
        printf '%s\n' "$said" >&2
        verdict alerts "failed"
    fi
}

for script in check_layers check_style; do
    python3 "tools/$script.py" --self-test || failed=1
    python3 "tools/$script.py" || failed=1
done
python3 tools/check_docs.py || failed=1
python3 tools/check_compose.py || failed=1
check_format
check_cppcheck
check_alerts

if ((failed)); then
    printf 'checks: FAILED\n'
    exit 1
fi
printf 'checks: ok\n'
