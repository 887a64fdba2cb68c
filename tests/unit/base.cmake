assay_test(test_base TIER quick SOURCES test_base.c USES assay_base m)
assay_test(test_text TIER quick SOURCES test_text.c USES assay_base)
assay_test(test_system TIER quick SOURCES test_system.c USES assay_base)
