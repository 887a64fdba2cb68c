assay_bench(bench_obs SOURCES bench_obs.c USES assay_wire)
