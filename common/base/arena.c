#include "common/base/arena.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64
#define BLOCK_BYTES (64 * 1024)

struct assay_arena_block {
    struct assay_arena_block *next;
    size_t used;
    size_t capacity;
    _Alignas(ALIGNMENT) unsigned char data[];
};

void *assay_arena_alloc(struct assay_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct assay_arena_block *block = arena->blocks;
    if (!block || block->capacity - block->used < rounded) {
        size_t capacity = ASSAY_MAX(rounded, (size_t)BLOCK_BYTES);
        block = aligned_alloc(ALIGNMENT, sizeof *block + capacity);
        if (!block)
            return NULL;
        *block = (struct assay_arena_block){.next = arena->blocks, .capacity = capacity};
        arena->blocks = block;
    }
    void *result = block->data + block->used;
    block->used += rounded;
    return memset(result, 0, bytes);
}

char *assay_arena_strdup(struct assay_arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = assay_arena_alloc(arena, bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

void assay_arena_release(struct assay_arena *arena)
{
    struct assay_arena_block *block = arena->blocks;
    while (block) {
        struct assay_arena_block *next = block->next;
        free(block);
        block = next;
    }
    arena->blocks = NULL;
}
