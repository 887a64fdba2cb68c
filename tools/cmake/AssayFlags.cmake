# One interface target carries the flags of our own code; generated code does not use it.
add_library(assay_flags INTERFACE)
target_compile_definitions(assay_flags INTERFACE _GNU_SOURCE)
# -ffp-contract=off: whether a product and a sum become one rounding is written in the code, not chosen by the compiler.
target_compile_options(assay_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
  -ffp-contract=off -fno-omit-frame-pointer)
if(ASSAY_WERROR)
  target_compile_options(assay_flags INTERFACE -Werror)
endif()
if(ASSAY_SANITIZE)
  add_compile_options(-fsanitize=${ASSAY_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ASSAY_SANITIZE})
endif()
if(ASSAY_FUZZ)
  # The parsers themselves must be instrumented, or the fuzzer flies blind.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
target_include_directories(assay_flags INTERFACE ${CMAKE_SOURCE_DIR})
