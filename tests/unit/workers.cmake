assay_test(test_quantizer TIER quick SOURCES test_quantizer.c quantizer_fixture.c USES assay_artifact)
assay_test(test_quantizer_faults TIER quick SOURCES test_quantizer_faults.c quantizer_fixture.c USES assay_artifact)
# The disk is made to fill up where the code under test writes.
target_link_options(test_quantizer_faults PRIVATE -Wl,--wrap=write)
assay_test(test_quantizer_serve TIER quick SOURCES test_quantizer_serve.c USES assay_quantizer_core)
assay_test(test_worker TIER quick SOURCES test_worker.c worker_fixture.c worker_fakes.c USES assay_inference_core assay_quantizer_core)
assay_test(test_worker_models TIER quick SOURCES test_worker_models.c worker_fixture.c worker_fakes.c USES assay_inference_core)
assay_test(test_models TIER quick SOURCES test_models.c USES assay_inference_core)
