echo text >text
mkdir model
run eval nowhere --variants int8 --corpus text
run eval text --variants int8 --corpus text
run eval model --variants int8 --corpus text
echo '{}' >model/config.json
run eval model --variants int8 --corpus nowhere
touch empty
run eval model --variants int8 --corpus empty
run eval model --variants int8 --corpus model
ls
