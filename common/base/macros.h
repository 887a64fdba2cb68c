/* Attributes and small idioms that every layer uses. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ASSAY_MUST_USE __attribute__((warn_unused_result))
#define ASSAY_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ASSAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Runs `release(&variable)` when the variable goes out of scope. */
#define assay_auto(release) __attribute__((cleanup(release)))

/* Hands over what *p points to and leaves NULL behind, so that a cleanup does nothing. */
#define assay_steal(p)                                                                                                 \
    (__extension__({                                                                                                   \
        __typeof__(*(p)) stolen_ = *(p);                                                                               \
        *(p) = NULL;                                                                                                   \
        stolen_;                                                                                                       \
    }))

#define ASSAY_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ASSAY_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Stops the process: for what cannot happen. Another worker gets the chunk. */
#define ASSAY_BUG(text) assay_bug(__FILE__, __LINE__, text)
_Noreturn void assay_bug(const char *file, int line, const char *text);

/* free() for assay_auto on a pointer of any type. */
void assay_free_ptr(void *pointer_to_pointer);
