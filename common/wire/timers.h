/* Timers of one loop: a heap by due time. Loop thread only. */
#pragma once

#include "common/wire/loop.h"

struct assay_timer;

struct assay_timers {
    struct assay_timer *slots;
    uint32_t *heap; /* slot numbers: heap_count in use, the earliest first, then the free ones */
    uint32_t slots_count, heap_count, capacity;
};

void assay_timers_release(struct assay_timers *timers);
/* 0 when out of memory. */
uint64_t assay_timers_add(struct assay_timers *timers, int64_t now_ms, int64_t delay_ms, int64_t period_ms,
                          assay_loop_fn fn, void *arg);
/* An id that is no longer there is fine. */
void assay_timers_cancel(struct assay_timers *timers, uint64_t id);
/* Milliseconds until the earliest is due, 0 when it is; -1 without timers. */
int64_t assay_timers_wait_ms(const struct assay_timers *timers, int64_t now_ms);
/* Runs what is due at now_ms. */
void assay_timers_run(struct assay_timers *timers, int64_t now_ms);
