corpus=$ASSAY_SOURCE/tests/fuzz/corpus/gguf
run import "$corpus/llama" -o model
ls -A . model
cat model/config.json
printf ab >text
run tokenize model --file text --json --special
run import "$corpus/llama" -o model
mkdir empty
run import "$corpus/llama_freqs" -o empty --json
run import "$corpus/type" -o other
run import "$corpus/cut" -o other
run import "$corpus/none" -o other
run import nowhere.gguf -o other
run import "$corpus/llama" -o ''
run import "$corpus/llama" -o text/other
run import "$corpus/llama"
ls -A
