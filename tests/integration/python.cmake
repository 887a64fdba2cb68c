assay_script_test(python_wire TIER full SCRIPT python_wire.py DEADLINE 120)
assay_script_test(python_client TIER full SCRIPT python_client.py DEADLINE 240)
assay_script_test(python_worker TIER full SCRIPT python_worker.py DEADLINE 240)
assay_script_test(python_transformers TIER full SCRIPT python_transformers.py DEADLINE 600)
