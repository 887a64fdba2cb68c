assay_test(test_wire_calls TIER quick SOURCES test_wire_calls.c test_wire_support.c USES assay_wire)
