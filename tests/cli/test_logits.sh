#!/bin/bash
# assay logits and assay compare-logits: results, exit codes, sentences.
set -u
assay=$ASSAY_BIN/assay
model=$ASSAY_SOURCE/models/assay-tiny
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

# expect CODE WORDS COMMAND...: the exit code, and the words on stderr (none wanted: none there).
expect() {
    local code=$1 words=$2 got
    shift 2
    "$@" >out 2>err
    got=$?
    if [ $got -ne "$code" ] || { [ -n "$words" ] && ! grep -qF -- "$words" err; } || { [ -z "$words" ] && [ -s err ]; }; then
        echo "FAILED: $* -> exit $got (wanted $code), stderr (wanted '$words'): $(cat err)"
        failures=$((failures + 1))
    fi
}

# result KEY PATTERN: a line of the JSON that the last command printed.
result() {
    if ! grep -qE "\"$1\":[[:space:]]*$2,?\$" out; then
        echo "FAILED: wanted $1 $2 in $(cat out)"
        failures=$((failures + 1))
    fi
}

echo '[5, 17, 300, 42, 7, 1999, 8]' >ids.json
echo '[5]' >one.json
echo '[5, 99999]' >beyond.json
echo '[5, "x"]' >word.json
echo '{"ids": [1]}' >object.json

expect 0 '' "$assay" logits "$model" --ids ids.json -o a.safetensors --threads 1
expect 0 '' "$assay" logits "$model" --ids ids.json --output=b.safetensors --threads 3
cmp a.safetensors b.safetensors || failures=$((failures + 1))
ASSAY_CPU_MASK=scalar expect 0 '' "$assay" logits "$model" --ids ids.json -o c.safetensors
cmp a.safetensors c.safetensors || failures=$((failures + 1))
expect 0 '' "$assay" logits "$model" --ids one.json -o one.safetensors --json
result tokens 1
result vocabulary 4096
grep -q top1 out || failures=$((failures + 1))

expect 0 '' "$assay" compare-logits a.safetensors b.safetensors --ids ids.json --json
result kl_mean 0
result kl_max 0
result same_top1 1
result n 6
result ppl '[0-9.]+'
expect 0 '' "$assay" compare-logits a.safetensors b.safetensors --ids ids.json
grep -q '^same top-1 *100.000 %$' out || failures=$((failures + 1))

expect 3 'ids' "$assay" logits "$model" -o x.safetensors
expect 3 'wanted 2' "$assay" compare-logits a.safetensors --ids ids.json
expect 4 'array of token ids' "$assay" logits "$model" --ids object.json -o x.safetensors
expect 4 'element 1' "$assay" logits "$model" --ids word.json -o x.safetensors
expect 4 '99999' "$assay" logits "$model" --ids beyond.json -o x.safetensors
expect 4 'nowhere' "$assay" logits nowhere --ids ids.json -o x.safetensors
expect 4 'missing.json' "$assay" logits "$model" --ids missing.json -o x.safetensors
expect 4 '7 rows for 2 ids' "$assay" compare-logits a.safetensors b.safetensors --ids beyond.json
expect 4 'at least 2' "$assay" compare-logits one.safetensors one.safetensors --ids one.json
expect 4 "no tensor 'logits'" "$assay" compare-logits "$model/model.safetensors" a.safetensors --ids ids.json
expect 4 '1 rows for 7 ids' "$assay" compare-logits a.safetensors one.safetensors --ids ids.json
ls x.safetensors* 2>/dev/null && failures=$((failures + 1))
[ $failures -eq 0 ]
