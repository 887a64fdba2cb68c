assay_test(test_golden_int8 TIER quick SOURCES test_golden_int8.c USES assay_formats assay_quant m)
assay_test(test_golden_tokenizers TIER quick SOURCES test_golden_tokenizers.c USES assay_formats assay_tokenizer)
