assay_script_test(cli_logits TIER quick SCRIPT test_logits.sh)
