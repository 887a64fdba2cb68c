add_test(NAME cli_quantize COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run_case.sh quantize)
set_tests_properties(cli_quantize PROPERTIES LABELS quick TIMEOUT 30
  ENVIRONMENT "ASSAY_BIN=${CMAKE_BINARY_DIR}/bin;ASSAY_SOURCE=${CMAKE_SOURCE_DIR};ASSAY_SHARED=${ASSAY_SHARED}")
assay_script_test(cli_quantize_bytes TIER quick SCRIPT test_quantize_bytes.sh)
