assay_bench(bench_garbage SOURCES bench_garbage.c USES assay_wire)
add_test(NAME garbage COMMAND bench_garbage 30000 check)
add_test(NAME garbage_cut COMMAND bench_garbage 5000 cut check)
set_tests_properties(garbage garbage_cut PROPERTIES LABELS full TIMEOUT 240)
