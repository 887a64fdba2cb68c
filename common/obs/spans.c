#include "common/obs/spans.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/clock.h"

/* A span in the ring, followed by its attributes: key, kind, and then a number, or as many characters as the kind says.
 * Most have few and short ones, so that a record is less than half as large as a span. */
struct record {
    const char *name;
    int64_t begin_us, end_us;
    uint32_t thread;
    uint16_t bytes; /* with the attributes; a multiple of 8 */
    bool overlaps;
    uint8_t attributes_count;
    char trace_id[ASSAY_SPAN_TRACE_DIGITS]; /* zeros for none */
    char thread_name[16];
};

#define NUMBER_KIND 255
#define RECORD_BYTES_MAX                                                                                               \
    (sizeof(struct record) + ASSAY_SPAN_ATTRIBUTES_MAX * (sizeof(char *) + 1 + ASSAY_SPAN_TEXT_MAX) + 7)

static struct {
    pthread_mutex_t lock;
    uint64_t oldest, next; /* sequences, from 1 */
    size_t begin, end;     /* where the oldest record is, and where the next one goes */
    size_t last;           /* behind the record after which the others go on at 0; only where end <= begin */
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .oldest = 1, .next = 1};

/* By itself, since it begins with zeros, which need no room in the program's file. */
static _Alignas(struct record) unsigned char ring_at[ASSAY_SPANS_BYTES];

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

static unsigned char *put(unsigned char *at, const void *from, size_t bytes)
{
    memcpy(at, from, bytes);
    return at + bytes;
}

/* Returns the record's size. */
static size_t pack(const struct assay_span *span, unsigned char ret[RECORD_BYTES_MAX])
{
    struct record record = {.name = span->name,
                            .begin_us = span->begin_us,
                            .end_us = span->end_us,
                            .thread = span->thread,
                            .overlaps = span->overlaps,
                            .attributes_count = span->attributes_count};
    memcpy(record.trace_id, span->trace_id, sizeof record.trace_id);
    memcpy(record.thread_name, span->thread_name, sizeof record.thread_name);
    unsigned char *at = ret + sizeof record;
    for (size_t i = 0; i < span->attributes_count; i++) {
        const struct assay_span_attribute *from = &span->attributes[i];
        uint8_t kind = from->is_text ? (uint8_t)strlen(from->text) : NUMBER_KIND;
        at = put(at, &from->key, sizeof from->key);
        at = put(at, &kind, 1);
        at = from->is_text ? put(at, from->text, kind) : put(at, &from->number, sizeof from->number);
    }
    record.bytes = (uint16_t)(((size_t)(at - ret) + 7) / 8 * 8);
    memcpy(ret, &record, sizeof record);
    return record.bytes;
}

static const unsigned char *get(const unsigned char *at, void *to, size_t bytes)
{
    memcpy(to, at, bytes);
    return at + bytes;
}

static void unpack(const unsigned char *at, struct assay_span *ret)
{
    struct record record;
    at = get(at, &record, sizeof record);
    *ret = (struct assay_span){.name = record.name,
                               .begin_us = record.begin_us,
                               .end_us = record.end_us,
                               .thread = record.thread,
                               .overlaps = record.overlaps,
                               .attributes_count = record.attributes_count};
    memcpy(ret->trace_id, record.trace_id, sizeof record.trace_id);
    memcpy(ret->thread_name, record.thread_name, sizeof record.thread_name);
    for (size_t i = 0; i < record.attributes_count; i++) {
        struct assay_span_attribute *to = &ret->attributes[i];
        uint8_t kind;
        at = get(at, &to->key, sizeof to->key);
        at = get(at, &kind, 1);
        to->is_text = kind != NUMBER_KIND;
        at = to->is_text ? get(at, to->text, kind) : get(at, &to->number, sizeof to->number);
    }
}

static struct record record_at(size_t at)
{
    struct record record;
    memcpy(&record, ring_at + at, sizeof record);
    return record;
}

/* Where the record behind the one at `at` is. */
static size_t behind(size_t at)
{
    at += record_at(at).bytes;
    return ring.end <= ring.begin && at == ring.last ? 0 : at;
}

static bool is_of(size_t at, const char *trace_id)
{
    const struct record record = record_at(at);
    return strncmp(record.trace_id, trace_id, sizeof record.trace_id) == 0;
}

/* Forgets the oldest spans behind ring.end until so many bytes are free there. With the lock. */
static void forget(size_t bytes)
{
    while (ring.oldest < ring.next && ring.begin >= ring.end && ring.begin - ring.end < bytes) {
        ring.begin = behind(ring.begin);
        ring.oldest++;
    }
}

static void make_room(size_t bytes)
{
    if (sizeof ring_at - ring.end < bytes) {
        forget(sizeof ring_at);
        ring.last = ring.end;
        ring.end = 0;
    }
    forget(bytes);
}

void assay_span_keep(struct assay_span *span)
{
    struct assay_metric *family = atomic_load_explicit(&durations, memory_order_acquire);
    if (family)
        assay_histogram_observe(assay_metric_series(family, &span->name),
                                (uint64_t)ASSAY_MAX(span->end_us - span->begin_us, 0));
    unsigned char record[RECORD_BYTES_MAX];
    size_t bytes = pack(span, record);
    pthread_mutex_lock(&ring.lock);
    if (ring.next == 1)
        memset(ring_at, 0, sizeof ring_at); /* all of its memory now: what a process holds does not grow with its age */
    span->sequence = ring.next;
    make_room(bytes);
    memcpy(ring_at + ring.end, record, bytes);
    ring.end += bytes;
    ring.next++;
    pthread_mutex_unlock(&ring.lock);
}

size_t assay_spans_read(const char *trace_id, uint64_t from, struct assay_span *ret, size_t max, uint64_t *ret_next,
                        uint64_t *ret_lost)
{
    size_t count = 0;
    pthread_mutex_lock(&ring.lock);
    *ret_lost = ring.oldest > ASSAY_MAX(from, 1) ? ring.oldest - ASSAY_MAX(from, 1) : 0;
    uint64_t sequence = ring.oldest;
    for (size_t at = ring.begin; sequence < ring.next && count < max; sequence++, at = behind(at)) {
        if (sequence < from || (trace_id && !is_of(at, trace_id)))
            continue;
        unpack(ring_at + at, &ret[count]);
        ret[count++].sequence = sequence;
    }
    *ret_next = sequence;
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
