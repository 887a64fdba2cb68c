assay_script_test(observability TIER full SCRIPT observability.py DEADLINE 240)
