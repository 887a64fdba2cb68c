#include "services/coordinator/heap.h"

#include <stdlib.h>

void assay_heap_release(struct assay_heap *heap)
{
    free(heap->at);
    *heap = (struct assay_heap){0};
}

bool assay_heap_reserve(struct assay_heap *heap, size_t count)
{
    if (count + 1 <= heap->capacity)
        return true;
    size_t capacity = ASSAY_MAX(ASSAY_MAX(16, 2 * heap->capacity), count + 1);
    struct assay_heap_node **grown = realloc(heap->at, capacity * sizeof *grown);
    if (!grown)
        return false;
    heap->at = grown;
    heap->capacity = capacity;
    return true;
}

static bool before(const struct assay_heap *heap, const struct assay_heap_node *a, const struct assay_heap_node *b)
{
    if (heap->steps)
        ++*heap->steps;
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void put(struct assay_heap *heap, size_t place, struct assay_heap_node *node)
{
    heap->at[place] = node;
    node->place = place;
}

static void settle(struct assay_heap *heap, struct assay_heap_node *node, size_t place)
{
    while (place > 1 && before(heap, node, heap->at[place / 2])) {
        put(heap, place, heap->at[place / 2]);
        place /= 2;
    }
    for (;;) {
        size_t child = 2 * place;
        if (child > heap->count)
            break;
        if (child < heap->count && before(heap, heap->at[child + 1], heap->at[child]))
            child++;
        if (!before(heap, heap->at[child], node))
            break;
        put(heap, place, heap->at[child]);
        place = child;
    }
    put(heap, place, node);
}

void assay_heap_push(struct assay_heap *heap, struct assay_heap_node *node)
{
    if (heap->count + 1 >= heap->capacity || node->place)
        ASSAY_BUG("a heap has no room for a node, or the node is in a heap");
    heap->count++;
    settle(heap, node, heap->count);
}

void assay_heap_remove(struct assay_heap *heap, struct assay_heap_node *node)
{
    if (!node->place)
        return;
    size_t place = node->place;
    struct assay_heap_node *last = heap->at[heap->count--];
    node->place = 0;
    if (last != node)
        settle(heap, last, place);
}

void assay_heap_moved(struct assay_heap *heap, struct assay_heap_node *node)
{
    settle(heap, node, node->place);
}

struct assay_heap_node *assay_heap_first(const struct assay_heap *heap)
{
    return heap->count ? heap->at[1] : NULL;
}
