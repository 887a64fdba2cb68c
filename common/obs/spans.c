#include "common/obs/spans.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/clock.h"

static struct {
    pthread_mutex_t lock;
    uint64_t next; /* sequence of the next span, from 1 */
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .next = 1};

/* Of the ring; by itself, since it begins with zeros, which need no room in the program's file. */
static struct assay_span ring_at[ASSAY_SPANS_MAX];

static struct assay_metric *_Atomic durations;

static bool is_trace_id(const char *text)
{
    return text && strlen(text) == ASSAY_SPAN_TRACE_DIGITS &&
           strspn(text, "0123456789abcdef") == ASSAY_SPAN_TRACE_DIGITS;
}

static _Thread_local char trace_current[ASSAY_SPAN_TRACE_DIGITS + 1];

void assay_trace_set(const char *trace_id)
{
    memset(trace_current, 0, sizeof trace_current);
    if (is_trace_id(trace_id))
        memcpy(trace_current, trace_id, ASSAY_SPAN_TRACE_DIGITS);
}

const char *assay_trace_current(void)
{
    return trace_current;
}

void assay_span_begin(struct assay_span *span, const char *name, const char *trace_id)
{
    static _Thread_local uint32_t thread;
    if (!thread)
        thread = (uint32_t)gettid();
    *span = (struct assay_span){.name = name, .begin_us = assay_now_us(), .thread = thread};
    if (!trace_id)
        trace_id = trace_current;
    if (is_trace_id(trace_id))
        memcpy(span->trace_id, trace_id, ASSAY_SPAN_TRACE_DIGITS);
    prctl(PR_GET_NAME, span->thread_name);
}

static struct assay_span_attribute *attribute(struct assay_span *span, const char *key)
{
    if (span->attributes_count == ASSAY_SPAN_ATTRIBUTES_MAX)
        return NULL;
    struct assay_span_attribute *added = &span->attributes[span->attributes_count++];
    added->key = key;
    return added;
}

void assay_span_number(struct assay_span *span, const char *key, int64_t number)
{
    struct assay_span_attribute *added = attribute(span, key);
    if (added)
        added->number = number;
}

void assay_span_text(struct assay_span *span, const char *key, const char *text)
{
    struct assay_span_attribute *added = attribute(span, key);
    if (!added)
        return;
    added->is_text = true;
    size_t length = strnlen(text, ASSAY_SPAN_TEXT_MAX + 1);
    if (length > ASSAY_SPAN_TEXT_MAX) {
        length = ASSAY_SPAN_TEXT_MAX;
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(added->text, text, length);
}

void assay_span_end(struct assay_span *span)
{
    span->end_us = assay_now_us();
    assay_span_keep(span);
}

void assay_span_keep(struct assay_span *span)
{
    struct assay_metric *family = atomic_load_explicit(&durations, memory_order_acquire);
    if (family)
        assay_histogram_observe(assay_metric_series(family, &span->name),
                                (uint64_t)ASSAY_MAX(span->end_us - span->begin_us, 0));
    pthread_mutex_lock(&ring.lock);
    span->sequence = ring.next++;
    ring_at[span->sequence % ASSAY_SPANS_MAX] = *span;
    pthread_mutex_unlock(&ring.lock);
}

size_t assay_spans_read(const char *trace_id, uint64_t from, struct assay_span *ret, size_t max, uint64_t *ret_next,
                        uint64_t *ret_lost)
{
    size_t count = 0;
    pthread_mutex_lock(&ring.lock);
    uint64_t oldest = ring.next > ASSAY_SPANS_MAX ? ring.next - ASSAY_SPANS_MAX : 1;
    uint64_t at = ASSAY_MIN(ASSAY_MAX(from, oldest), ring.next);
    *ret_lost = oldest > ASSAY_MAX(from, 1) ? oldest - ASSAY_MAX(from, 1) : 0;
    for (; at < ring.next && count < max; at++) {
        const struct assay_span *span = &ring_at[at % ASSAY_SPANS_MAX];
        if (!trace_id || strcmp(span->trace_id, trace_id) == 0)
            ret[count++] = *span;
    }
    *ret_next = at;
    pthread_mutex_unlock(&ring.lock);
    return count;
}

void assay_spans_measure(struct assay_metrics *metrics)
{
    static const struct assay_metric_row row = {
        .name = "assay_stage_duration_seconds",
        .help = "How long the stages of the work took, by name; the spans of a trace are the same stages.",
        .type = ASSAY_METRIC_HISTOGRAM,
        .scale = 1e-6,
        .labels = {"stage"},
        .buckets = assay_metric_latency_us,
        .buckets_count = ASSAY_METRIC_LATENCY_COUNT};
    atomic_store_explicit(&durations, metrics ? assay_metrics_add(metrics, &row) : NULL, memory_order_release);
}
