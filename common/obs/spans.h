/* Spans: what a process did for which trace, from when to when. The last ASSAY_SPANS_BYTES of them are kept in
 * a ring, and their durations in a histogram by name. There is one ring a process, as there is one log. Any thread. */
#pragma once

#include "common/obs/metrics.h"

/* 17,000 spans with two numbers each, 7,000 with as many and as long attributes as there may be. */
#define ASSAY_SPANS_BYTES ((size_t)2 << 20)
#define ASSAY_SPAN_ATTRIBUTES_MAX 5
#define ASSAY_SPAN_TEXT_MAX 31
/* 32 hexadecimal digits, or "" for work that belongs to no trace. */
#define ASSAY_SPAN_TRACE_DIGITS 32

struct assay_span_attribute {
    const char *key; /* static */
    bool is_text;
    int64_t number;
    char text[ASSAY_SPAN_TEXT_MAX + 1]; /* cut */
};

/* On the stack of whoever does the work. Spans of one thread nest; one that overlaps others of its thread, as calls
 * that wait for something, says so with `overlaps`. */
struct assay_span {
    const char *name; /* static; a few dozen in the program */
    uint64_t sequence;
    int64_t begin_us, end_us; /* monotonic */
    char trace_id[ASSAY_SPAN_TRACE_DIGITS + 1];
    char thread_name[16];
    uint32_t thread;
    bool overlaps;
    uint8_t attributes_count;
    struct assay_span_attribute attributes[ASSAY_SPAN_ATTRIBUTES_MAX];
};

/* The trace that the calling thread works for, until it says otherwise; NULL, or what is not 32 lower-case hexadecimal
 * digits, stands for none. Calls that the thread makes carry it, and spans that name no trace are of it. */
void assay_trace_set(const char *trace_id);
const char *assay_trace_current(void); /* "" for none; the thread's own */

/* trace_id NULL: the thread's. One that is not 32 hexadecimal digits is taken for "". */
void assay_span_begin(struct assay_span *span, const char *name, const char *trace_id);
/* What does not fit any more is left out. */
void assay_span_number(struct assay_span *span, const char *key, int64_t number);
void assay_span_text(struct assay_span *span, const char *key, const char *text);
/* Ends it now and keeps it. */
void assay_span_end(struct assay_span *span);
/* Keeps one whose begin_us and end_us are known. */
void assay_span_keep(struct assay_span *span);

/* Up to `max` spans of a trace (NULL: of all, those of none too) with sequence >= from, oldest first. *ret_next: from
 * where to read on; equal to the sequence of the next span when all were read. *ret_lost: spans with sequence >= from
 * that are no longer there, whatever their trace. Returns the count. */
size_t assay_spans_read(const char *trace_id, uint64_t from, struct assay_span *ret, size_t max, uint64_t *ret_next,
                        uint64_t *ret_lost);

/* From now on durations are counted in assay_stage_duration_seconds{stage} of this registry; NULL ends that. */
void assay_spans_measure(struct assay_metrics *metrics);
