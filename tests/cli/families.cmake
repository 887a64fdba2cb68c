add_test(NAME cli_model_inspect COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run_case.sh model_inspect)
set_tests_properties(cli_model_inspect PROPERTIES LABELS quick TIMEOUT 30
  ENVIRONMENT "ASSAY_BIN=${CMAKE_BINARY_DIR}/bin;ASSAY_SOURCE=${CMAKE_SOURCE_DIR};ASSAY_SHARED=${ASSAY_SHARED}")
