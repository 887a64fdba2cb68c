assay_test(test_golden_chat TIER quick SOURCES test_golden_chat.c USES assay_corpus)
