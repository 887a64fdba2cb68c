assay_test(test_fetch TIER quick SOURCES test_fetch.c USES assay_artifact)
assay_test(test_shard_map TIER quick SOURCES test_shard_map.c USES coordinator_parts)
