assay_test(test_golden_generation TIER quick SOURCES test_golden_generation.c golden_engine.c USES assay_nn assay_formats assay_kernels)
assay_test(test_golden_text TIER quick SOURCES test_golden_text.c golden_engine.c USES assay_nn assay_formats assay_kernels)
