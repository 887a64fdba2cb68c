assay_test(test_stats TIER quick SOURCES test_stats.c USES assay_stats PkgConfig::CJSON)
