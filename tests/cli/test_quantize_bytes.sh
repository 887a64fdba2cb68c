#!/bin/bash
# assay quantize writes the same bytes on every path, with any number of threads, from version to version.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
checks=0

# expect DIGEST SCHEME
expect() {
    for path in scalar avx2 avx512; do
        for threads in 1 3; do
            rm -rf out
            ASSAY_CPU_MASK=$path "$ASSAY_BIN/assay" quantize "$ASSAY_SOURCE/models/assay-tiny" --scheme "$2" \
                --threads $threads -o out >said 2>&1 || cat said
            found=$(sha256sum <out/model.safetensors | cut -d' ' -f1)
            checks=$((checks + 1))
            if [ "$found" != "$1" ]; then
                echo "FAILED: $2 on $path with $threads threads: $found, wanted $1"
                failures=$((failures + 1))
            fi
        done
    done
}

expect c5f2122839342aa9151a63bdfc301004268451faf635fe717bce7c4f6c8bef19 int8
expect 427a4a4dc2f278ff99df3847fe85b5c858fc9bab354db9149c4a02e4b9b77b0d nf4
expect 7b7f8b219d73f893e178d8978b8beb65d82f3fb7fc24492a802490dcd8673ea8 nf4:double_quant=false
expect 1600353d3378fbc4ea1efb9ccce92c299ac41f205887fe9fb69b12a64bd9c627 int4
expect 8c7dd7f3571943a2e221f57bf3cc3b408c8306fefa4a46df867f749c0ee04749 int4:group_size=32
expect 34fb360ccba9cce2b2e873a10bd48e9f97ce1444420d4f4215dbd6a7c8d0826c fp16
expect c41cdeb964e30f24d3cbcad2efe0019418314e6351aab223276fc49f4e6e2db5 bf16
[ $failures -eq 0 ] && [ $checks -eq 42 ]
