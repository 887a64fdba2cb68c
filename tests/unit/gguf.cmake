assay_test(test_gguf TIER quick SOURCES test_gguf.c gguf_writer.c USES assay_formats m)
assay_test(test_gguf_import TIER quick SOURCES test_gguf_import.c gguf_writer.c USES assay_formats m)
assay_test(test_gguf_blocks TIER quick SOURCES test_gguf_blocks.c gguf_writer.c USES assay_formats)
