assay_test(test_engine TIER quick SOURCES test_engine.c USES coordinator_parts)
assay_test(test_registry TIER quick SOURCES test_registry.c USES coordinator_parts)
assay_test(test_scheduler TIER quick SOURCES test_scheduler.c USES coordinator_parts)
assay_test(test_verdicts TIER quick SOURCES test_verdicts.c USES coordinator_parts)
