assay_test(test_template TIER quick SOURCES test_template.c USES assay_tokenizer)
assay_test(test_chat TIER quick SOURCES test_chat.c USES assay_corpus)
assay_test(test_sampler TIER quick SOURCES test_sampler.c USES assay_nn m)
