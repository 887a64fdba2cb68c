assay_test(test_golden_models TIER quick SOURCES test_golden_models.c USES assay_nn assay_formats assay_kernels)
assay_test(test_model_config TIER quick SOURCES test_model_config.c USES assay_nn assay_formats m)
assay_test(test_artifact_int8 TIER quick SOURCES test_artifact_int8.c artifact_fixture.c USES assay_nn assay_formats m)
assay_test(test_artifact_codes TIER quick SOURCES test_artifact_codes.c artifact_fixture.c USES assay_nn assay_formats assay_quant m)
