/* Directories that the user names. */
#pragma once

#include "common/base/fs.h"

/* Makes path and its parents with `mode` unless they are there, and checks that files can be made in it. The sentence
 * names the part of the path that stands in the way. PERMISSION_DENIED, ALREADY_EXISTS (a file is there), or as
 * assay_mkdirs. */
enum assay_status assay_directory_make(const char *path, unsigned mode, struct assay_err *err) ASSAY_MUST_USE;
