model=$ASSAY_SOURCE/models/assay-tiny
run quantize "$model" --scheme nf5 -o out
run quantize "$model" --scheme nf4 --group-size 64 -o out
run quantize "$model" --scheme int4 --compute f16 -o out
run quantize "$model" --scheme int4 --group-size 128 -o out
run quantize nowhere --scheme int4 -o out
run quantize "$model" --scheme int4 -o nowhere/out
run dequantize nowhere -o out
run dequantize "$model" -o ..
mkdir full && touch full/file
run dequantize "$model" -o full
