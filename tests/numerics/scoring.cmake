assay_test(test_golden_kl TIER quick SOURCES test_golden_kl.c USES assay_nn assay_formats)
assay_test(test_scoring_bounds TIER quick SOURCES test_scoring_bounds.c USES assay_nn)
