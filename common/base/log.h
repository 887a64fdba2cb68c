/* Logs of a program: "timestamp level component message key=value" on stderr, one write a line.
 * Layers under common/ return errors instead; services and the command line log. Any thread. */
#pragma once

#include "common/base/macros.h"

enum assay_log_level { ASSAY_LOG_DEBUG, ASSAY_LOG_INFO, ASSAY_LOG_WARN, ASSAY_LOG_ERROR };

/* Once, before threads start. `component` is not copied. */
void assay_log_init(const char *component, enum assay_log_level least);

/* The message first, then key=value pairs, as the format writes them. One line whatever stands in them: names and
 * sentences of peers are made harmless (text.h). Never a secret, never a user's text. */
void assay_log(enum assay_log_level level, const char *format, ...) ASSAY_PRINTF(2, 3);
