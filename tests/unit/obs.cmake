assay_test(test_metrics TIER quick SOURCES test_metrics.c USES assay_obs)
assay_test(test_http TIER quick SOURCES test_http.c USES assay_obs)
assay_test(test_spans TIER quick SOURCES test_spans.c USES assay_obs)
assay_test(test_rpc_metrics TIER quick SOURCES test_rpc_metrics.c test_wire_support.c USES assay_wire)
