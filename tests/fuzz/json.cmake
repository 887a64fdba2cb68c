assay_fuzz(message_json SOURCES fuzz_message_json.c USES assay_wire assay_formats)
assay_fuzz(job_file SOURCES fuzz_job_file.c USES assay_wire assay_formats)
