assay_bench(bench_gemm SOURCES bench_gemm.c USES assay_kernels m)
