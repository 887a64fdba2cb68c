assay_fuzz(gguf SOURCES fuzz_gguf.c USES assay_formats)
