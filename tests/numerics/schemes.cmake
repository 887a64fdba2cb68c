assay_test(test_golden_schemes TIER quick SOURCES test_golden_schemes.c USES assay_formats assay_quant m)
assay_test(test_golden_e2e TIER quick SOURCES test_golden_e2e.c USES assay_nn assay_artifact)
