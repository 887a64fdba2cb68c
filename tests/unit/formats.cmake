assay_test(test_json TIER quick SOURCES test_json.c USES assay_formats)
assay_test(test_safetensors TIER quick SOURCES test_safetensors.c USES assay_formats)
assay_test(test_checkpoint TIER quick SOURCES test_checkpoint.c USES assay_formats)
assay_test(test_quant TIER quick SOURCES test_quant.c USES assay_quant)
assay_test(test_tokenizer TIER quick SOURCES test_tokenizer.c USES assay_tokenizer)
assay_test(test_chunks TIER quick SOURCES test_chunks.c USES assay_corpus)
assay_test(test_formats_memory TIER quick SOURCES test_formats_memory.c USES assay_formats)
target_link_options(test_formats_memory PRIVATE
  -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=strdup)
