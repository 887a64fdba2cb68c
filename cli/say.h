/* How commands speak to their user besides the result. */
#pragma once

#include "common/base/settings.h"

/* "assay COMMAND: sentence" on stderr, without the control characters that a peer may have sent; returns the exit code
 * of err->status. */
int assay_say_failure(const char *command, const struct assay_err *err);

/* The same where a bad setting is the only source of INVALID_ARGUMENT: that is a usage error then. */
int assay_say_setting_failure(const char *command, const struct assay_err *err);

/* Parses the arguments. True: go on. False: *ret_exit is what to end with (0 after --help, 3 after a usage error, which
 * has been told). */
bool assay_say_parse(const char *name, const struct assay_command *command, int argc, char **argv, int *ret_exit);

/* The member of `names` that a mistyped `word` may have meant: at most two edits away, or one that begins with it.
 * NULL when none is near. */
const char *assay_say_nearest(const char *word, const char *const *names, size_t count);
