/* UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF. Any thread. */
#pragma once

#include "common/base/status.h"

/* Bytes of the character at text, of which `left` > 0 bytes are there; 0 when it is none. */
size_t assay_utf8_character(const void *text, size_t left);

/* Bytes before the first place that is no character; `bytes` when all of them are. */
size_t assay_utf8_prefix(const void *text, size_t bytes);
