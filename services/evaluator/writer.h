/* Writes records, in the order in which they are submitted: one thread checks their values, another one writes what
 * passed, a third one has the disk begin with it before the next sync. Whatever waits becomes one transaction, so that
 * many small Puts share one commit. */
#pragma once

#include "services/evaluator/records.h"

/* Records that may wait, all together; one request may be larger when it is alone. */
#define ASSAY_WRITER_WAITING_BYTES_MAX ((uint64_t)256 << 20)
/* Records of one transaction, or a single larger one: so few that what was copied into its pages is still in the cache
 * when the commit writes them. */
#define ASSAY_WRITER_BATCH_BYTES ((uint64_t)4 << 20)
#define ASSAY_WRITER_BATCH_RECORDS 1024
/* So much is written before the disk is told to begin with it. */
#define ASSAY_WRITER_BACK_BYTES ((uint64_t)16 << 20)
/* Between two syncs. */
#define ASSAY_WRITER_SYNC_MS 10000

struct assay_writer;

/* What is to be written, or, with no records, a question to be answered after all that was submitted before. The caller
 * keeps it and what it points to until done has run. */
struct assay_writer_entry {
    const struct assay_record *records;
    size_t count;
    /* Once, on one of the writer's threads: OK after the commit, else the error. */
    void (*done)(void *arg, const struct assay_err *err);
    void *arg;
    struct assay_writer_entry *next;
};

enum assay_status assay_writer_new(struct assay_records *records, struct assay_writer **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Any thread. RESOURCE_EXHAUSTED: too much waits. UNAVAILABLE: the writer is ending. done does not run then. */
enum assay_status assay_writer_submit(struct assay_writer *writer, struct assay_writer_entry *entry,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* Bytes of records that wait to be written. Any thread. */
uint64_t assay_writer_waiting_bytes(struct assay_writer *writer);
/* Refuses what comes, finishes what waits, syncs. */
void assay_writer_stop(struct assay_writer *writer);
/* Stops it first. NULL is fine. */
void assay_writer_free(struct assay_writer *writer);
