/* A temporary directory whose files are pieces of an input. */
#pragma once

#include "common/base/macros.h"

/* Writes the pieces of the input, which lines "---" part, as files of these names; what is missing is empty. The
 * directory is the same at every call and is removed at the end of the program. Aborts when it cannot be written. */
const char *fuzz_directory_fill(const char *const *names, size_t count, const uint8_t *data, size_t size);
