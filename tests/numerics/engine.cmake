assay_test(test_golden_models TIER quick SOURCES test_golden_models.c USES assay_nn assay_formats assay_kernels)
