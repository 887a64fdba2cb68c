assay_test(test_json TIER quick SOURCES test_json.c USES assay_formats)
assay_test(test_safetensors TIER quick SOURCES test_safetensors.c USES assay_formats)
assay_test(test_checkpoint TIER quick SOURCES test_checkpoint.c USES assay_formats)
