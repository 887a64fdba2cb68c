echo text >text
run eval model --variants int9 --corpus text
run eval model --variants int8,int8 --corpus text
run eval model --variants int8, --corpus text
run eval model --variants int8:colour=red --corpus text
run eval model --variants int8 --reference float --corpus text
