/* A set of small numbers as bits, with a tree of summaries above it: the smallest member is found in as many steps as
 * the tree has levels (four for ten million). Pure; the caller locks. */
#pragma once

#include "common/base/status.h"

#define ASSAY_BITS_LEVELS_MAX 6

struct assay_bits {
    uint64_t *levels[ASSAY_BITS_LEVELS_MAX]; /* [0] are the bits; a bit of level k says that a word of k-1 is not 0 */
    unsigned depth;
    size_t members;
};

/* An empty set of numbers below `count`. False: out of memory. */
bool assay_bits_init(struct assay_bits *bits, size_t count);
void assay_bits_release(struct assay_bits *bits); /* zeros are fine */
bool assay_bits_has(const struct assay_bits *bits, size_t number);
/* A number that is there already, or not there, is fine. */
void assay_bits_add(struct assay_bits *bits, size_t number);
void assay_bits_remove(struct assay_bits *bits, size_t number);
/* The smallest member; SIZE_MAX when there is none. */
size_t assay_bits_first(const struct assay_bits *bits);
