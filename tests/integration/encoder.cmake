assay_script_test(embed_minilm TIER full SCRIPT embed_minilm.py DEADLINE 300)
