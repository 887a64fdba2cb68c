assay_script_test(eval_figures TIER full SCRIPT eval_figures.py DEADLINE 240)
assay_script_test(eval_survives_kills TIER full SCRIPT eval_survives_kills.py DEADLINE 240)
assay_script_test(eval_bad_input TIER full SCRIPT eval_bad_input.py DEADLINE 240)
assay_script_test(eval_bits TIER full SCRIPT eval_bits.py DEADLINE 240)
