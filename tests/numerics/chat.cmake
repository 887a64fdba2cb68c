assay_test(test_golden_chat TIER quick SOURCES test_golden_chat.c USES assay_corpus)
assay_test(test_golden_sentencepiece TIER quick SOURCES test_golden_sentencepiece.c USES assay_tokenizer)
