/* A coordinator and an evaluator as the worker's tests want them: on one loop of their own, in the test's process. */
#pragma once

#include <pthread.h>

#include "common/base/fs.h"
#include "common/wire/server.h"
#include "proto/control.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/work.pb-c.h"

enum { FAKE_LEASES_MAX = 8, FAKE_CHUNKS_MAX = 64, FAKE_COMPLETES_MAX = 64 };

struct fake_chunk {
    unsigned char key[32];
    const int32_t *ids;
    uint32_t tokens, begin, end;
};

/* A lease to hand out. */
struct fake_lease {
    unsigned char variant_id[32];
    const char *scheme, *artifact_dir, *evaluator;
    size_t count;
    struct fake_chunk chunks[FAKE_CHUNKS_MAX];
    bool is_broken; /* its lists differ in length */
};

/* A Complete that came in. */
struct fake_complete {
    uint64_t service_id, lease_id, tokens, compute_us;
    size_t count;
    unsigned char keys[FAKE_CHUNKS_MAX][32];
    bool acknowledged; /* all keys were stored at that time */
    char failure[512];
    uint32_t failure_status;
    bool too_large;
};

struct fake_record {
    unsigned char key[32], variant_id[32];
    char numerics_id[64];
    size_t rows, width;
    float *hidden;
};

struct fakes {
    struct assay_loop *loop;
    struct assay_server *coordinator, *evaluator;
    char coordinator_endpoint[ASSAY_PATH_MAX], evaluator_endpoint[ASSAY_PATH_MAX];
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    /* what the fakes are to do */
    struct fake_lease leases[FAKE_LEASES_MAX];
    size_t leases_count, leases_given;
    int64_t park_ms;               /* how long a Lease waits when there is none */
    uint64_t lost_lease_id;        /* Completes of it learn that it is lost; leases are numbered from 1 */
    uint64_t forgotten_service_id; /* Leases of it are NOT_FOUND; services are numbered from 1 */
    size_t puts_to_fail;           /* the next so many Puts */
    enum assay_status put_failure;
    bool hold_puts; /* Puts wait until fakes_release_puts */
    /* what they saw */
    size_t registrations, lease_calls, puts;
    char precision[64], numerics_id[64];
    uint32_t chunks_max;
    uint64_t memory_bytes;
    unsigned char loaded[16][32];           /* of the last Lease */
    size_t loaded_count, beat_loaded_count; /* the latter of the last heartbeat */
    struct fake_complete completes[FAKE_COMPLETES_MAX];
    size_t completes_count;
    struct fake_record records[FAKE_CHUNKS_MAX];
    size_t records_count;
    Assay__V1__ServiceCounters counters; /* of the last heartbeat */
    struct assay_call *held[16];
    size_t held_count;
};

/* Serves at once; `dir` is ours alone. The coordinator only when `with_coordinator`; else fakes_start_coordinator. */
struct fakes *fakes_new(const char *dir, bool with_coordinator);
void fakes_start_coordinator(struct fakes *fakes);
void fakes_free(struct fakes *fakes);

void fakes_add_lease(struct fakes *fakes, const struct fake_lease *lease);
void fakes_release_puts(struct fakes *fakes);
/* Waits until `done` holds, called with the lock held; false after 20 s. */
bool fakes_wait(struct fakes *fakes, bool (*done)(const struct fakes *fakes, const void *arg), const void *arg);
/* The record of a chunk, or NULL. Locked by the caller, or nothing runs any more. */
const struct fake_record *fakes_record(const struct fakes *fakes, const unsigned char key[32]);
