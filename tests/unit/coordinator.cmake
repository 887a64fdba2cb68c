assay_test(test_engine TIER quick SOURCES test_engine.c USES coordinator_parts)
assay_test(test_registry TIER quick SOURCES test_registry.c USES coordinator_parts)
assay_test(test_scheduler TIER quick SOURCES test_scheduler.c USES coordinator_parts)
assay_test(test_scheduler_loaded TIER quick SOURCES test_scheduler_loaded.c USES coordinator_parts)
assay_test(test_verdicts TIER quick SOURCES test_verdicts.c USES coordinator_parts)
assay_test(test_scheduler_sim TIER quick SOURCES test_scheduler_sim.c sim_stack.c USES coordinator_parts m)
# The same with 10 million chunks and 10,000 workers.
add_test(NAME scheduler_sim_large COMMAND test_scheduler_sim 10000000)
set_tests_properties(scheduler_sim_large PROPERTIES LABELS full TIMEOUT 600)
