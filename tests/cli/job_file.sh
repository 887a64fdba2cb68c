printf 'model: m\nvariants:\n  - int8\n  - int99\n' >wrong.yaml
printf 'model: nothing\nvariants: [int8]\ncorpus: text\nmax_kl: 1\n' >unknown.yaml
printf 'model: nothing\nvariants: [int8]\ncorpus: text\n' >job.yaml
printf 'model: nothing\nvariants: [int8]\n' >no_corpus.yaml
run eval --job absent.yaml
run eval --job wrong.yaml
run eval --job unknown.yaml
run eval --job job.yaml
run eval --job job.yaml other
run eval --job=no_corpus.yaml
run eval --job job.yaml --protocol mine
run eval --name --job job.yaml
run eval --job job.yaml --dump-config
ASSAY_JOB=wrong.yaml run eval m
printf 'model: nothing\nvariants: [int8]\ncorpus: text\nrecord_dtype: f16\n' >half.yaml
printf 'model: nothing\nvariants: [int8]\ncorpus: text\nrecord_dtype: bf16\n' >other_dtype.yaml
run eval --job half.yaml --dump-config
run eval --job half.yaml --record-dtype f32 --dump-config
run eval --job other_dtype.yaml
