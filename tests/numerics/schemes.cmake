assay_test(test_golden_schemes TIER quick SOURCES test_golden_schemes.c USES assay_formats assay_quant m)
