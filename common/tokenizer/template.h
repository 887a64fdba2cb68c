/* Chat templates (Jinja) as transformers renders them: trim_blocks and lstrip_blocks, tojson without escapes for HTML,
 * Python's printing and methods, loop controls, raise_exception, strftime_now. A template is immutable: any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

struct assay_template;

/* INVALID_ARGUMENT with `what` and the line for a text that is no template. */
enum assay_status assay_template_parse(const char *source, size_t len, const char *what, struct assay_template **ret,
                                       struct assay_err *err) ASSAY_MUST_USE;
void assay_template_free(struct assay_template *template); /* NULL is fine */

/* Text (malloc, NUL-terminated) of the template with `variables`, a JSON object. strftime_now prints now_s, seconds
 * since 1970, in UTC. INVALID_ARGUMENT with the line for what the template refuses (raise_exception), cannot be done
 * with these variables, or is not supported: nothing is guessed. */
enum assay_status assay_template_render(const struct assay_template *template, const char *variables, size_t len,
                                        int64_t now_s, char **ret, size_t *ret_len,
                                        struct assay_err *err) ASSAY_MUST_USE;
