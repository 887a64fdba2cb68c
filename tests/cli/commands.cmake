assay_script_test(cli_commands TIER quick SCRIPT commands.py)
