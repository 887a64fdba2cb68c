/* A heap of things that carry their node: the one with the smallest key stands first, the older one among equals.
 * Each change takes O(log n) steps, which are counted. Pure; the caller locks. */
#pragma once

#include "common/base/status.h"

struct assay_heap_node {
    int64_t key;
    uint64_t order; /* among equal keys the smaller comes first */
    size_t place;   /* the heap's; 0 = in no heap */
};

struct assay_heap {
    struct assay_heap_node **at; /* at[1] is the first */
    size_t count, capacity;
    uint64_t *steps; /* counted here; may be NULL */
};

/* The struct that has `node` as its member. */
#define ASSAY_HEAP_OWNER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

void assay_heap_release(struct assay_heap *heap);
/* Makes room, so that the next pushes up to `count` nodes in all succeed. False: out of memory. */
bool assay_heap_reserve(struct assay_heap *heap, size_t count);
/* Room was reserved; the node is in no heap. */
void assay_heap_push(struct assay_heap *heap, struct assay_heap_node *node);
void assay_heap_remove(struct assay_heap *heap, struct assay_heap_node *node); /* in no heap is fine */
/* The node's key has changed. */
void assay_heap_moved(struct assay_heap *heap, struct assay_heap_node *node);
/* NULL when empty. */
struct assay_heap_node *assay_heap_first(const struct assay_heap *heap);
