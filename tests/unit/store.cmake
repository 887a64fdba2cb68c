assay_test(test_store TIER quick SOURCES test_store.c USES assay_store)
