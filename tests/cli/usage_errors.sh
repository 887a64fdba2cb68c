run eval
run eval model --variants int8
run eval model --corpus text
run eval model --variants int8 --corpus text --chunks many
run eval model --variants int8 --corpus text --chunks -1
run eval model --variants int8 --corpus text --max-kl nan
run eval model --variants int8 --corpus text --colour
run eval one two --variants int8 --corpus text
run eval model --variants int8 --corpus text --coordinator ipc:///x --keep-stack
run up --workers int8:fast
run up --cpus 0-
run up --listen 'tcp://127.0.0.1:*'
run down now
run cache
run cache empty
run cache prune
run cache prune --all --to-gb 1
run cache ls --dry-run
run cache stat --records
ASSAY_CHUNKS=x run eval model --variants int8 --corpus text
run eval model --variants int8 --corpus text --protocol mine
