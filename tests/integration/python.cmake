assay_script_test(python_client TIER full SCRIPT python_client.py DEADLINE 240)
