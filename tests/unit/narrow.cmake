assay_test(test_narrow TIER quick SOURCES test_narrow.c USES assay_inference_core)
