assay_test(test_schemes TIER quick SOURCES test_schemes.c quantizer_fixture.c USES assay_artifact)
