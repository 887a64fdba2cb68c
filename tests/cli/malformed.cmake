assay_script_test(cli_malformed TIER full SCRIPT malformed.py)
