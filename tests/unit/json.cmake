assay_test(test_message_json TIER quick SOURCES test_message_json.c USES assay_wire assay_formats)
target_link_options(test_message_json PRIVATE -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc)
assay_test(test_reflection TIER quick SOURCES test_reflection.c test_wire_support.c USES assay_wire)
assay_test(test_yaml TIER quick SOURCES test_yaml.c USES assay_formats)
