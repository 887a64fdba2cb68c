#include "services/coordinator/bits.h"

#include <stdlib.h>

#define WORD_BITS 64u

bool assay_bits_init(struct assay_bits *bits, size_t count)
{
    *bits = (struct assay_bits){0};
    size_t words = ASSAY_MAX(count, 1);
    do {
        words = (words + WORD_BITS - 1) / WORD_BITS;
        uint64_t *level = bits->depth < ASSAY_BITS_LEVELS_MAX ? calloc(words, sizeof *level) : NULL;
        if (!level) {
            assay_bits_release(bits);
            return false;
        }
        bits->levels[bits->depth++] = level;
    } while (words > 1);
    return true;
}

void assay_bits_release(struct assay_bits *bits)
{
    for (unsigned level = 0; level < bits->depth; level++)
        free(bits->levels[level]);
    *bits = (struct assay_bits){0};
}

bool assay_bits_has(const struct assay_bits *bits, size_t number)
{
    return bits->levels[0][number / WORD_BITS] >> number % WORD_BITS & 1;
}

void assay_bits_add(struct assay_bits *bits, size_t number)
{
    if (assay_bits_has(bits, number))
        return;
    bits->members++;
    for (unsigned level = 0; level < bits->depth; level++) {
        uint64_t *word = &bits->levels[level][number / WORD_BITS];
        bool was_empty = *word == 0;
        *word |= (uint64_t)1 << number % WORD_BITS;
        if (!was_empty)
            return;
        number /= WORD_BITS;
    }
}

void assay_bits_remove(struct assay_bits *bits, size_t number)
{
    if (!assay_bits_has(bits, number))
        return;
    bits->members--;
    for (unsigned level = 0; level < bits->depth; level++) {
        uint64_t *word = &bits->levels[level][number / WORD_BITS];
        *word &= ~((uint64_t)1 << number % WORD_BITS);
        if (*word)
            return;
        number /= WORD_BITS;
    }
}

size_t assay_bits_first(const struct assay_bits *bits)
{
    if (bits->members == 0)
        return SIZE_MAX;
    size_t number = 0;
    for (unsigned level = bits->depth; level-- > 0;)
        number = number * WORD_BITS + (size_t)__builtin_ctzll(bits->levels[level][number]);
    return number;
}
