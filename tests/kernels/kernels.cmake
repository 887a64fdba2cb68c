assay_test(check_kernels TIER quick SOURCES check_kernels.c check_codes.c check_products.c check_support.c USES assay_kernels m)
assay_test(check_growth TIER quick SOURCES check_growth.c check_support.c USES assay_kernels m)
