assay_bench(bench_records SOURCES bench_records.c USES assay_wire assay_proto Threads::Threads)
