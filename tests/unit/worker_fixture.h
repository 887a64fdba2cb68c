/* A worker between fakes of a coordinator and an evaluator, and leases for it. */
#pragma once

#include "tests/cmocka_all.h"

#include "services/inference/worker.h"
#include "tests/unit/worker_fakes.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"
#define CHUNK_TOKENS 48

struct fixture {
    char root[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct fakes *fakes;
    struct assay_loop *loop;
    struct assay_link *link;
    struct assay_models *models;
    struct assay_member *member;
    struct assay_worker *worker;
    int64_t retry_ms;
    bool is_stopped;
};

/* For cmocka; the worker is started by the test, and stopped at the latest by tear_down. */
int set_up(void **state);
int set_up_without_coordinator(void **state);
int tear_down(void **state);

void must(enum assay_status status, const struct assay_err *err);
/* The worker with short times. */
void start_worker(struct fixture *fixture, const char *precision, size_t batch_tokens, int64_t lease_wait_ms);
void stop_worker(struct fixture *fixture);
/* Chunks of `variant`, each a part of some ids and scored in its second half. */
struct fake_lease make_lease(unsigned char variant, const char *dir, size_t first, size_t count);

/* Conditions to wait for; the argument is a number, a size_t. */
bool completed_chunks(const struct fakes *fakes, const void *arg);
bool was_asked_again(const struct fakes *fakes, const void *arg); /* Lease, so often */
bool has_failure(const struct fakes *fakes, const void *arg);
void wait_until(struct fixture *fixture, bool (*done)(const struct fakes *, const void *), size_t number);
const struct fake_complete *last_complete(const struct fixture *fixture);
/* The record of each chunk of the lease has the bits that a forward pass over this chunk alone gives. */
void assert_records(struct fixture *fixture, const struct fake_lease *lease);
