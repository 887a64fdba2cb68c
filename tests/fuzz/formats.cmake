assay_fuzz(json SOURCES fuzz_json.c USES assay_formats)
assay_fuzz(safetensors SOURCES fuzz_safetensors.c USES assay_formats)
assay_fuzz(checkpoint SOURCES fuzz_checkpoint.c USES assay_formats)
assay_fuzz(tokenizer SOURCES fuzz_tokenizer.c USES assay_tokenizer)
