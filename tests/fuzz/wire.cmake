assay_fuzz(wire SOURCES fuzz_wire.c USES assay_wire)
