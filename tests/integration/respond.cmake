assay_script_test(respond TIER full SCRIPT respond.py DEADLINE 300)
assay_script_test(python_respond TIER full SCRIPT python_respond.py DEADLINE 240)
