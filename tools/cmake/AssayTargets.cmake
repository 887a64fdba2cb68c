# One verb per intention: a layer, a program, a test, a fuzz target, a benchmark.

# assay_layer(NAME SOURCES file... [USES layer-or-library...])
function(assay_layer name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_library(assay_${name} STATIC ${A_SOURCES})
  target_link_libraries(assay_${name} PUBLIC assay_flags ${A_USES})
endfunction()

# assay_program(NAME SOURCES file... [USES layer-or-library...])
function(assay_program name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE assay_flags ${A_USES})
  install(TARGETS ${name} RUNTIME DESTINATION bin)
endfunction()

# assay_test(NAME TIER quick|full|long SOURCES file... [USES ...] [DEADLINE seconds] [ARGS ...])
# A cmocka program; each test has its own process and deadline.
function(assay_test name)
  cmake_parse_arguments(A "" "TIER;DEADLINE" "SOURCES;USES;ARGS" ${ARGN})
  if(NOT A_DEADLINE)
    set(A_DEADLINE 60)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE assay_flags ${A_USES} PkgConfig::CMOCKA)
  target_compile_definitions(${name} PRIVATE
    ASSAY_SHARED_DIR="${ASSAY_SHARED}" ASSAY_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${A_TIER} TIMEOUT ${A_DEADLINE} SKIP_RETURN_CODE 77)
endfunction()

# assay_script_test(NAME TIER tier SCRIPT file [DEADLINE seconds]): a shell or Python test over the real programs.
function(assay_script_test name)
  cmake_parse_arguments(A "" "TIER;SCRIPT;DEADLINE" "ARGS" ${ARGN})
  if(NOT A_DEADLINE)
    set(A_DEADLINE 120)
  endif()
  add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/${A_SCRIPT} ${A_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${A_TIER} TIMEOUT ${A_DEADLINE} SKIP_RETURN_CODE 77
    ENVIRONMENT "ASSAY_BIN=${CMAKE_BINARY_DIR}/bin;ASSAY_SOURCE=${CMAKE_SOURCE_DIR};ASSAY_SHARED=${ASSAY_SHARED}")
endfunction()

# assay_bench(NAME SOURCES file... [USES ...]): prints figures, asserts nothing.
function(assay_bench name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE assay_flags ${A_USES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endfunction()

# assay_fuzz(NAME SOURCES file... [USES ...]): LLVMFuzzerTestOneInput. With ASSAY_FUZZ a libFuzzer program;
# always a program that replays tests/fuzz/corpus/NAME in the quick tier.
function(assay_fuzz name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  if(ASSAY_FUZZ)
    add_executable(fuzz_${name} ${A_SOURCES})
    target_link_libraries(fuzz_${name} PRIVATE assay_flags ${A_USES})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  endif()
  add_executable(replay_${name} ${A_SOURCES} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
  target_link_libraries(replay_${name} PRIVATE assay_flags ${A_USES})
  add_test(NAME fuzz_replay_${name} COMMAND replay_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
  set_tests_properties(fuzz_replay_${name} PROPERTIES LABELS quick TIMEOUT 60)
endfunction()
