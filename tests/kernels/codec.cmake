assay_test(check_codec TIER quick SOURCES check_codec.c check_support.c USES assay_kernels assay_quant m)
