assay_fuzz(message_json SOURCES fuzz_message_json.c USES assay_wire assay_formats)
