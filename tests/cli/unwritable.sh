echo text >text
mkdir model
echo '{}' >model/config.json
run up --data text/stack
run eval model --variants int8 --corpus text --data text/stack --out out
run eval model --variants int8 --corpus text --out text/out
# Root writes everywhere: the rest is for others.
mkdir closed
chmod 500 closed
if [ "$(id -u)" = 0 ]; then as_other="setpriv --reuid=65534 --regid=65534 --clear-groups"; else as_other=; fi
chmod o+rx "$scratch" "$scratch/case" closed
cp "$ASSAY_BIN/assay" assay
$as_other ./assay up --data closed/stack
echo "exit $?"
