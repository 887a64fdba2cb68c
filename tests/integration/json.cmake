assay_script_test(rpc_and_job_files TIER full SCRIPT rpc_and_job_files.py DEADLINE 240)
assay_script_test(protocol_example TIER full SCRIPT protocol_example.py DEADLINE 120)
