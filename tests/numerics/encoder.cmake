assay_test(test_golden_encoder TIER quick SOURCES test_golden_encoder.c USES assay_nn assay_formats m)
assay_test(test_sentences TIER quick SOURCES test_sentences.c USES assay_nn assay_formats m)
assay_test(test_encoders TIER quick SOURCES test_encoders.c USES assay_nn assay_formats m)
