#include "common/wire/timers.h"

#include <stdlib.h>

#define NOT_IN_HEAP UINT32_MAX

struct assay_timer {
    int64_t due_ms, period_ms;
    assay_loop_fn fn;
    void *arg;
    uint32_t generation; /* distinguishes the timers that used this slot */
    uint32_t heap_at;    /* NOT_IN_HEAP: the slot is free */
};

void assay_timers_release(struct assay_timers *timers)
{
    free(timers->slots);
    free(timers->heap);
    *timers = (struct assay_timers){0};
}

static void place(struct assay_timers *timers, uint32_t at, uint32_t slot)
{
    timers->heap[at] = slot;
    timers->slots[slot].heap_at = at;
}

static int64_t due_at(const struct assay_timers *timers, uint32_t at)
{
    return timers->slots[timers->heap[at]].due_ms;
}

static void sift_up(struct assay_timers *timers, uint32_t at)
{
    uint32_t slot = timers->heap[at];
    int64_t due_ms = timers->slots[slot].due_ms;
    while (at > 0 && due_at(timers, (at - 1) / 2) > due_ms) {
        place(timers, at, timers->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(timers, at, slot);
}

static void sift_down(struct assay_timers *timers, uint32_t at)
{
    uint32_t slot = timers->heap[at];
    int64_t due_ms = timers->slots[slot].due_ms;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= timers->heap_count)
            break;
        if (child + 1 < timers->heap_count && due_at(timers, child + 1) < due_at(timers, child))
            child++;
        if (due_at(timers, child) >= due_ms)
            break;
        place(timers, at, timers->heap[child]);
        at = child;
    }
    place(timers, at, slot);
}

static bool grow(struct assay_timers *timers)
{
    uint32_t capacity = timers->capacity ? 2 * timers->capacity : 64;
    struct assay_timer *slots = realloc(timers->slots, capacity * sizeof *slots);
    if (!slots)
        return false;
    timers->slots = slots;
    uint32_t *heap = realloc(timers->heap, capacity * sizeof *heap);
    if (!heap)
        return false;
    timers->heap = heap;
    timers->capacity = capacity;
    return true;
}

/* A free slot: an old one that has no timer, else a new one. NOT_IN_HEAP when out of memory. */
static uint32_t take_slot(struct assay_timers *timers)
{
    if (timers->heap_count < timers->slots_count)
        return timers->heap[timers->heap_count];
    if (timers->slots_count == timers->capacity && !grow(timers))
        return NOT_IN_HEAP;
    timers->slots[timers->slots_count] = (struct assay_timer){.heap_at = NOT_IN_HEAP};
    return timers->slots_count++;
}

static void put(struct assay_timers *timers, uint32_t slot)
{
    timers->heap[timers->heap_count] = slot;
    sift_up(timers, timers->heap_count++);
}

uint64_t assay_timers_add(struct assay_timers *timers, int64_t now_ms, int64_t delay_ms, int64_t period_ms,
                          assay_loop_fn fn, void *arg)
{
    uint32_t slot = take_slot(timers);
    if (slot == NOT_IN_HEAP)
        return 0;
    struct assay_timer *timer = &timers->slots[slot];
    timer->generation++;
    /* The clock is cut to whole milliseconds; one more keeps a timer from running early. */
    timer->due_ms = now_ms + (delay_ms > 0 ? ASSAY_MIN(delay_ms, INT64_MAX / 4) + 1 : 0);
    timer->period_ms = period_ms;
    timer->fn = fn;
    timer->arg = arg;
    put(timers, slot);
    return (uint64_t)timer->generation << 32 | (slot + 1);
}

static void take_out(struct assay_timers *timers, uint32_t slot)
{
    uint32_t at = timers->slots[slot].heap_at;
    timers->slots[slot].heap_at = NOT_IN_HEAP;
    uint32_t last = timers->heap[--timers->heap_count];
    timers->heap[timers->heap_count] = slot; /* free slots stand behind the heap */
    if (last == slot)
        return;
    place(timers, at, last);
    sift_down(timers, at);
    sift_up(timers, timers->slots[last].heap_at);
}

void assay_timers_cancel(struct assay_timers *timers, uint64_t id)
{
    uint32_t slot = (uint32_t)id - 1;
    if (id == 0 || slot >= timers->slots_count)
        return;
    const struct assay_timer *timer = &timers->slots[slot];
    if (timer->generation == (uint32_t)(id >> 32) && timer->heap_at != NOT_IN_HEAP)
        take_out(timers, slot);
}

int64_t assay_timers_wait_ms(const struct assay_timers *timers, int64_t now_ms)
{
    return timers->heap_count == 0 ? -1 : ASSAY_MAX(due_at(timers, 0) - now_ms, 0);
}

void assay_timers_run(struct assay_timers *timers, int64_t now_ms)
{
    while (timers->heap_count > 0 && due_at(timers, 0) <= now_ms) {
        uint32_t slot = timers->heap[0];
        struct assay_timer *timer = &timers->slots[slot];
        assay_loop_fn fn = timer->fn;
        void *arg = timer->arg;
        take_out(timers, slot);
        if (timer->period_ms > 0) {
            timer->due_ms = now_ms + timer->period_ms;
            put(timers, slot);
        }
        fn(arg);
    }
}
