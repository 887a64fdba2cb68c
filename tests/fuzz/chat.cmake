assay_fuzz(sentencepiece SOURCES fuzz_sentencepiece.c USES assay_tokenizer)
assay_fuzz(template SOURCES fuzz_template.c USES assay_tokenizer)
