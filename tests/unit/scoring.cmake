assay_test(test_stats TIER quick SOURCES test_stats.c USES assay_stats PkgConfig::CJSON)
assay_test(test_scoring TIER quick SOURCES test_scoring.c USES assay_nn)
assay_test(test_score_heads TIER quick SOURCES test_score_heads.c USES assay_nn assay_formats)
