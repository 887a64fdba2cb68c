foreach(case help help_eval help_jobs unknown_command usage_errors unknown_scheme missing_inputs unwritable no_stack bench)
  add_test(NAME cli_${case} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run_case.sh ${case})
  set_tests_properties(cli_${case} PROPERTIES LABELS quick TIMEOUT 30
    ENVIRONMENT "ASSAY_BIN=${CMAKE_BINARY_DIR}/bin;ASSAY_SOURCE=${CMAKE_SOURCE_DIR};ASSAY_SHARED=${ASSAY_SHARED}")
endforeach()
# It measures for a while, which sanitizers make longer still.
set_tests_properties(cli_bench PROPERTIES LABELS full TIMEOUT 120)
