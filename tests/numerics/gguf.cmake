assay_test(test_gguf_tokenizers TIER full SOURCES test_gguf_tokenizers.c ../unit/gguf_writer.c
  USES assay_formats assay_tokenizer)
