# Precisions are left out: they come and go with the schemes.
vectors=$ASSAY_SOURCE/tests/vectors/families
inspect() { run model inspect "$@" | grep -v '^  [a-z]'; }
inspect "$vectors/gemma2"
inspect "$vectors/deepseek_v3"
inspect "$vectors/gpt2_scaled"
inspect "$vectors/phi_head_bias"
cp -r "$vectors/qwen3_upper_windows" changed
chmod -R u+w changed
sed -i 's/"use_cache": true/"use_cache": true, "partial_rotary_factor": 0.5/' changed/config.json
inspect changed
sed -i 's/, "partial_rotary_factor": 0.5//; s/"intermediate_size": 32/"intermediate_size": 33/' changed/config.json
inspect changed
sed -i 's/Qwen3ForCausalLM/MambaForCausalLM/' changed/config.json
inspect changed
for encoder in roberta_labels distilbert_sentences llama_sentences; do
    inspect "$ASSAY_SOURCE/tests/vectors/encoders/$encoder"
done
cp -r "$ASSAY_SOURCE/tests/vectors/encoders/xlmr_score" encoder
chmod -R u+w encoder
sed -i 's/"is_decoder": false/"is_decoder": true/' encoder/config.json
inspect encoder
run model inspect "$vectors/gemma2" --json | grep -c '"scheme"' | sed 's/^[1-9][0-9]*$/schemes are listed/'
run model inspect nowhere
run model look nowhere
run model
