assay_test(test_generator TIER quick SOURCES test_generator.c USES assay_nn)
