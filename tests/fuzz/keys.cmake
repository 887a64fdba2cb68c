assay_fuzz(keys SOURCES fuzz_keys.c USES assay_wire)
