#include "services/evaluator/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/obs/spans.h"

struct assay_writer {
    struct assay_records *records;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct assay_writer_entry *first, **last;
    uint64_t waiting_bytes;
    bool stop;
};

static uint64_t bytes_of(const struct assay_writer_entry *entry)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < entry->count; i++)
        bytes += entry->records[i].rows * entry->records[i].cols * assay_record_value_bytes(entry->records[i].dtype);
    return bytes;
}

/* --- writing --- */

/* The entries of one transaction; those that failed the check are answered and gone. */
struct group {
    struct assay_writer_entry *entries;
    struct assay_record *records;
    size_t records_count;
};

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

static enum assay_status check(const struct assay_writer_entry *entry, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < entry->count && status == ASSAY_OK; i++)
        status = assay_record_check(&entry->records[i], err);
    return status;
}

/* Answers what is not valid and gathers the records of the rest. */
static void gather(struct group *group)
{
    struct assay_writer_entry **link = &group->entries;
    group->records_count = 0;
    while (*link) {
        struct assay_writer_entry *entry = *link;
        struct assay_err err = ASSAY_ERR_INIT;
        if (check(entry, &err) != ASSAY_OK) {
            *link = entry->next;
            entry->done(entry->arg, &err);
            continue;
        }
        memcpy(group->records + group->records_count, entry->records, entry->count * sizeof *entry->records);
        group->records_count += entry->count;
        link = &entry->next;
    }
}

/* One entry that does not fit must not take the others down with it. */
static void write_each(struct assay_writer *writer, struct assay_writer_entry *entries)
{
    for (struct assay_writer_entry *entry = entries, *next; entry; entry = next) {
        struct assay_err err = ASSAY_ERR_INIT;
        next = entry->next;
        if (assay_records_put(writer->records, entry->records, entry->count, &err) != ASSAY_OK)
            assay_log(ASSAY_LOG_WARN, "records refused reason=\"%s\"", err.text);
        entry->done(entry->arg, &err);
    }
}

static void write_group(struct assay_writer *writer, struct assay_writer_entry *entries, size_t records_count)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct group group = {entries, malloc(records_count * sizeof *group.records), 0};
    if (!group.records) {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu records", records_count);
        answer_all(entries, &err);
        return;
    }
    gather(&group);
    enum assay_status status = ASSAY_OK;
    if (group.entries && group.entries->next)
        status = assay_records_put(writer->records, group.records, group.records_count, &err);
    if (group.entries && (!group.entries->next || status != ASSAY_OK))
        write_each(writer, group.entries);
    else
        answer_all(group.entries, &err);
    free(group.records);
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

static void *writer_main(void *arg)
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
        } else if (writer->first) {
            struct assay_writer_entry *queue = writer->first;
            writer->first = NULL;
            writer->last = &writer->first;
            writer->waiting_bytes = 0;
            pthread_mutex_unlock(&writer->lock);
            write_queue(writer, queue);
            pthread_mutex_lock(&writer->lock);
        } else if (writer->stop) {
            break;
        } else {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += left_ms / 1000 + 1;
            pthread_cond_timedwait(&writer->changed, &writer->lock, &until);
        }
    }
    pthread_mutex_unlock(&writer->lock);
    flush(writer);
    return NULL;
}

/* --- for others --- */

enum assay_status assay_writer_new(struct assay_records *records, struct assay_writer **ret, struct assay_err *err)
{
    struct assay_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the writer");
    writer->records = records;
    writer->last = &writer->first;
    pthread_mutex_init(&writer->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&writer->changed, &attr);
    pthread_condattr_destroy(&attr);
    int failed = pthread_create(&writer->thread, NULL, writer_main, writer);
    if (failed) {
        pthread_cond_destroy(&writer->changed);
        pthread_mutex_destroy(&writer->lock);
        free(writer);
        return assay_err_errno(err, failed, "cannot start the writer's thread");
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
    } else if (writer->first && writer->waiting_bytes + bytes > ASSAY_WRITER_WAITING_BYTES_MAX) {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                               "%llu bytes of records wait to be written already, at most %llu may; try again later",
                               (unsigned long long)writer->waiting_bytes,
                               (unsigned long long)ASSAY_WRITER_WAITING_BYTES_MAX);
    } else {
        entry->next = NULL;
        *writer->last = entry;
        writer->last = &entry->next;
        writer->waiting_bytes += bytes;
        pthread_cond_signal(&writer->changed);
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
    writer->stop = true;
    pthread_cond_signal(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    if (!stopped)
        pthread_join(writer->thread, NULL);
}

void assay_writer_free(struct assay_writer *writer)
{
    if (!writer)
        return;
    assay_writer_stop(writer);
    pthread_cond_destroy(&writer->changed);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}
