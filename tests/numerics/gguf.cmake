assay_test(test_gguf_tokenizers TIER full SOURCES test_gguf_tokenizers.c ../unit/gguf_writer.c
  USES assay_formats assay_tokenizer)
assay_test(test_gguf_models TIER quick SOURCES test_gguf_models.c golden_engine.c USES assay_formats assay_nn m)
assay_test(test_gguf_sentencepiece TIER full SOURCES test_gguf_sentencepiece.c ../unit/gguf_writer.c
  USES assay_formats assay_tokenizer)
assay_test(test_gguf_smollm2 TIER full SOURCES test_gguf_smollm2.c golden_engine.c USES assay_formats assay_nn m)
