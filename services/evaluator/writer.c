#include "services/evaluator/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/obs/spans.h"

/* Entries in order. */
struct queue {
    struct assay_writer_entry *first, **last;
    pthread_cond_t changed;
};

/* In the order in which they begin; they end in the other one. */
enum { WRITING_BACK, WRITING, CHECKING, THREADS };

struct assay_writer {
    struct assay_records *records;
    pthread_t threads[THREADS];
    size_t threads_count;
    pthread_mutex_t lock; /* guards what follows */
    struct queue incoming, checked;
    uint64_t waiting_bytes; /* of both */
    bool stop, checking_ended, writing_ended;
    uint64_t written_bytes; /* since the disk was last told to begin */
    pthread_cond_t written;
};

static void queue_init(struct queue *queue)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->changed, &attr);
    pthread_condattr_destroy(&attr);
    queue->last = &queue->first;
}

static void queue_push(struct queue *queue, struct assay_writer_entry *entry)
{
    entry->next = NULL;
    *queue->last = entry;
    queue->last = &entry->next;
    pthread_cond_signal(&queue->changed);
}

static struct assay_writer_entry *queue_take_all(struct queue *queue)
{
    struct assay_writer_entry *first = queue->first;
    queue->first = NULL;
    queue->last = &queue->first;
    return first;
}

static uint64_t record_bytes(const struct assay_record *record)
{
    return record->rows * record->cols * assay_record_value_bytes(record->dtype);
}

static uint64_t bytes_of(const struct assay_writer_entry *entry)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < entry->count; i++)
        bytes += record_bytes(&entry->records[i]);
    return bytes;
}

/* --- checking, on a thread of its own: reading every value takes a fifth as long as writing it --- */

static enum assay_status check(const struct assay_writer_entry *entry, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < entry->count && status == ASSAY_OK; i++)
        status = assay_record_check(&entry->records[i], err);
    return status;
}

/* Answers the entry when it is not valid, else hands it on. */
static void check_entry(struct assay_writer *writer, struct assay_writer_entry *entry)
{
    struct assay_err err = ASSAY_ERR_INIT;
    uint64_t bytes = bytes_of(entry);
    bool valid = check(entry, &err) == ASSAY_OK;
    pthread_mutex_lock(&writer->lock);
    if (valid)
        queue_push(&writer->checked, entry);
    else
        writer->waiting_bytes -= bytes;
    pthread_mutex_unlock(&writer->lock);
    if (!valid)
        entry->done(entry->arg, &err);
}

static void *checking_main(void *arg)
{
    struct assay_writer *writer = arg;
    pthread_setname_np(pthread_self(), "assay-checker");
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        if (writer->incoming.first) {
            struct assay_writer_entry *entry = queue_take_all(&writer->incoming), *next;
            pthread_mutex_unlock(&writer->lock);
            for (; entry; entry = next) {
                next = entry->next; /* whoever has it next may free it */
                check_entry(writer, entry);
            }
            pthread_mutex_lock(&writer->lock);
        } else if (writer->stop) {
            break;
        } else {
            pthread_cond_wait(&writer->incoming.changed, &writer->lock);
        }
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

/* --- writing --- */

/* Entries that hold records, as long as they fit one transaction. `*queue` is what is left. */
static struct assay_writer_entry *take_group(struct assay_writer_entry **queue, size_t *records_count)
{
    struct assay_writer_entry *taken = *queue, **end = &taken;
    uint64_t bytes = 0;
    size_t count = 0;
    while (*end && (*end)->count > 0) {
        bytes += bytes_of(*end);
        count += (*end)->count;
        if (end != &taken && (bytes > ASSAY_WRITER_BATCH_BYTES || count > ASSAY_WRITER_BATCH_RECORDS)) {
            count -= (*end)->count;
            break;
        }
        end = &(*end)->next;
    }
    *queue = *end;
    *end = NULL;
    *records_count = count;
    return taken;
}

static void answer_all(struct assay_writer_entry *entries, const struct assay_err *err)
{
    for (struct assay_writer_entry *entry = entries, *next; entry; entry = next) {
        next = entry->next; /* done may free the entry */
        entry->done(entry->arg, err);
    }
}

static enum assay_status put_noted(struct assay_writer *writer, const struct assay_record *records, size_t count,
                                   struct assay_err *err)
{
    enum assay_status status = assay_records_put(writer->records, records, count, err);
    pthread_mutex_lock(&writer->lock);
    for (size_t i = 0; i < count; i++)
        writer->written_bytes += record_bytes(&records[i]);
    if (writer->written_bytes >= ASSAY_WRITER_BACK_BYTES)
        pthread_cond_signal(&writer->written);
    pthread_mutex_unlock(&writer->lock);
    return status;
}

/* The disk works while records come, so that a sync does not hold them up for as long as all of them take. */
static void *writing_back_main(void *arg)
{
    struct assay_writer *writer = arg;
    pthread_setname_np(pthread_self(), "assay-back");
    pthread_mutex_lock(&writer->lock);
    while (!writer->writing_ended) {
        if (writer->written_bytes < ASSAY_WRITER_BACK_BYTES) {
            pthread_cond_wait(&writer->written, &writer->lock);
            continue;
        }
        writer->written_bytes = 0;
        pthread_mutex_unlock(&writer->lock);
        assay_records_write_back(writer->records);
        pthread_mutex_lock(&writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

/* Records of an entry, in as many transactions as they want. What stands behind one that fails is not written; what
 * stands before it is, as if the entry had been put in parts: whoever puts it again finds these there. */
static enum assay_status put_sliced(struct assay_writer *writer, const struct assay_record *records, size_t count,
                                    struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t begin = 0, end; begin < count && status == ASSAY_OK; begin = end) {
        uint64_t bytes = record_bytes(&records[begin]);
        for (end = begin + 1; end < count && bytes + record_bytes(&records[end]) <= ASSAY_WRITER_BATCH_BYTES; end++)
            bytes += record_bytes(&records[end]);
        status = put_noted(writer, records + begin, end - begin, err);
    }
    return status;
}

/* One entry that does not fit must not take the others down with it. */
static void write_each(struct assay_writer *writer, struct assay_writer_entry *entries)
{
    for (struct assay_writer_entry *entry = entries, *next; entry; entry = next) {
        struct assay_err err = ASSAY_ERR_INIT;
        next = entry->next;
        if (put_sliced(writer, entry->records, entry->count, &err) != ASSAY_OK)
            assay_log(ASSAY_LOG_WARN, "records refused reason=\"%s\"", err.text);
        entry->done(entry->arg, &err);
    }
}

static void write_group(struct assay_writer *writer, struct assay_writer_entry *entries, size_t records_count)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (!entries->next) {
        write_each(writer, entries);
        return;
    }
    struct assay_record *records = malloc(records_count * sizeof *records);
    if (!records) {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu records", records_count);
        answer_all(entries, &err);
        return;
    }
    size_t count = 0;
    for (const struct assay_writer_entry *entry = entries; entry; entry = entry->next) {
        memcpy(records + count, entry->records, entry->count * sizeof *records);
        count += entry->count;
    }
    if (put_noted(writer, records, count, &err) == ASSAY_OK)
        answer_all(entries, &err);
    else
        write_each(writer, entries);
    free(records);
}

static void write_queue(struct assay_writer *writer, struct assay_writer_entry *queue)
{
    while (queue) {
        size_t records_count;
        struct assay_writer_entry *entry = queue;
        if (entry->count == 0) {
            struct assay_err none = ASSAY_ERR_INIT;
            queue = entry->next;
            entry->done(entry->arg, &none);
            continue;
        }
        entry = take_group(&queue, &records_count);
        struct assay_span span;
        assay_span_begin(&span, "commit", NULL);
        write_group(writer, entry, records_count);
        assay_span_number(&span, "records", (int64_t)records_count);
        assay_span_end(&span);
    }
}

static void flush(struct assay_writer *writer)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_records_flush(writer->records, &err) != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "sync failed reason=\"%s\"", err.text);
}

static void *writing_main(void *arg)
{
    struct assay_writer *writer = arg;
    pthread_setname_np(pthread_self(), "assay-writer");
    int64_t sync_at_ms = assay_now_ms() + ASSAY_WRITER_SYNC_MS;
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        int64_t left_ms = sync_at_ms - assay_now_ms();
        if (left_ms <= 0) {
            pthread_mutex_unlock(&writer->lock);
            flush(writer);
            pthread_mutex_lock(&writer->lock);
            sync_at_ms = assay_now_ms() + ASSAY_WRITER_SYNC_MS;
        } else if (writer->checked.first) {
            struct assay_writer_entry *queue = queue_take_all(&writer->checked);
            for (const struct assay_writer_entry *entry = queue; entry; entry = entry->next)
                writer->waiting_bytes -= bytes_of(entry);
            pthread_mutex_unlock(&writer->lock);
            write_queue(writer, queue);
            pthread_mutex_lock(&writer->lock);
        } else if (writer->checking_ended) {
            break;
        } else {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += left_ms / 1000 + 1;
            pthread_cond_timedwait(&writer->checked.changed, &writer->lock, &until);
        }
    }
    pthread_mutex_unlock(&writer->lock);
    flush(writer);
    return NULL;
}

/* --- for others --- */

static void release(struct assay_writer *writer)
{
    pthread_cond_destroy(&writer->incoming.changed);
    pthread_cond_destroy(&writer->checked.changed);
    pthread_cond_destroy(&writer->written);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}

/* Tells a thread, if it is there, that nothing comes any more, and waits until it has done the rest. */
static void end_thread(struct assay_writer *writer, size_t thread, bool *no_more, pthread_cond_t *changed)
{
    pthread_mutex_lock(&writer->lock);
    *no_more = true;
    pthread_cond_signal(changed);
    pthread_mutex_unlock(&writer->lock);
    if (thread < writer->threads_count)
        pthread_join(writer->threads[thread], NULL);
}

static void end_threads(struct assay_writer *writer)
{
    end_thread(writer, CHECKING, &writer->stop, &writer->incoming.changed);
    end_thread(writer, WRITING, &writer->checking_ended, &writer->checked.changed);
    end_thread(writer, WRITING_BACK, &writer->writing_ended, &writer->written);
}

enum assay_status assay_writer_new(struct assay_records *records, struct assay_writer **ret, struct assay_err *err)
{
    struct assay_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the writer");
    writer->records = records;
    queue_init(&writer->incoming);
    queue_init(&writer->checked);
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->written, NULL);
    static void *(*const mains[THREADS])(void *) = {writing_back_main, writing_main, checking_main};
    for (; writer->threads_count < THREADS; writer->threads_count++) {
        size_t next = writer->threads_count;
        int failed = pthread_create(&writer->threads[next], NULL, mains[next], writer);
        if (failed) {
            end_threads(writer);
            release(writer);
            return assay_err_errno(err, failed, "cannot start the writer's threads");
        }
    }
    *ret = writer;
    return ASSAY_OK;
}

enum assay_status assay_writer_submit(struct assay_writer *writer, struct assay_writer_entry *entry,
                                      struct assay_err *err)
{
    uint64_t bytes = bytes_of(entry);
    enum assay_status status = ASSAY_OK;
    pthread_mutex_lock(&writer->lock);
    if (writer->stop) {
        status = assay_err_set(err, ASSAY_UNAVAILABLE, "the evaluator is shutting down");
    } else if (writer->waiting_bytes > 0 && writer->waiting_bytes + bytes > ASSAY_WRITER_WAITING_BYTES_MAX) {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                               "%llu bytes of records wait to be written already, at most %llu may; try again later",
                               (unsigned long long)writer->waiting_bytes,
                               (unsigned long long)ASSAY_WRITER_WAITING_BYTES_MAX);
    } else {
        queue_push(&writer->incoming, entry);
        writer->waiting_bytes += bytes;
    }
    pthread_mutex_unlock(&writer->lock);
    return status;
}

uint64_t assay_writer_waiting_bytes(struct assay_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    uint64_t bytes = writer->waiting_bytes;
    pthread_mutex_unlock(&writer->lock);
    return bytes;
}

void assay_writer_stop(struct assay_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    bool stopped = writer->stop;
    pthread_mutex_unlock(&writer->lock);
    if (!stopped)
        end_threads(writer);
}

void assay_writer_free(struct assay_writer *writer)
{
    if (!writer)
        return;
    assay_writer_stop(writer);
    release(writer);
}
