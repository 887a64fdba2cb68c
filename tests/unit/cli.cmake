assay_test(test_assess TIER quick SOURCES test_assess.c report_fixture.c USES assay_cli m)
assay_test(test_report TIER quick SOURCES test_report.c report_fixture.c USES assay_cli)
assay_test(test_supervisor TIER quick SOURCES test_supervisor.c USES assay_cli)
assay_test(test_cli_words TIER quick SOURCES test_cli_words.c USES assay_cli)
