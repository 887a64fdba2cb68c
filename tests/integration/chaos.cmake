assay_script_test(chaos TIER full SCRIPT chaos.py ARGS --rounds 4 --first 18 DEADLINE 300)
