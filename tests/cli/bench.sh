# The keys of `assay bench --json`, and that every bench runs at another shape with two threads.
for what in engine score decode quantize; do
  echo "\$ assay bench $what --json"
  "$ASSAY_BIN/assay" bench "$what" --shape "$ASSAY_SOURCE/models/assay-tiny" --threads 2 --json >result
  code=$?
  sed -n 's/^\t"\([a-z0-9_]*\)":.*/\1/p' result
  echo "exit $code"
done
run bench
run bench nothing
run bench score --shape nowhere
