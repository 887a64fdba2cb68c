assay_bench(bench_score SOURCES bench_score.c USES assay_nn)
