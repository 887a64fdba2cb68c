assay_fuzz(config SOURCES fuzz_config.c USES assay_nn assay_artifact assay_formats)
assay_fuzz(model SOURCES fuzz_model.c directory.c USES assay_nn assay_artifact assay_formats)
