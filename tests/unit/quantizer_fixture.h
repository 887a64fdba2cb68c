/* What the tests of the quantizer share: an empty artifacts directory, the bundled model, a job that can be cancelled
 * or killed at a step. Failures are the test's. */
#pragma once

#include <sys/types.h>

#include "common/artifact/job.h"
#include "common/formats/checkpoint.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"

struct quantizer_fixture {
    char root[ASSAY_PATH_MAX], artifacts[ASSAY_PATH_MAX], wanted[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct assay_quantize_job job;
    size_t cancel_at, kill_at, steps; /* 0: never */
};

int quantizer_set_up(void **state);
int quantizer_tear_down(void **state);
#define QUANTIZER_TEST(name) cmocka_unit_test_setup_teardown(name, quantizer_set_up, quantizer_tear_down)

/* Sets spec and the ids and paths that follow from it and from job.model_dir. */
void choose(struct quantizer_fixture *fixture, const char *spec);
/* Both true when the artifact was there already. */
bool quantize(struct quantizer_fixture *fixture, struct assay_manifest *manifest);
bool make(struct quantizer_fixture *fixture);
/* The same in a child process, which has a pool of its own; the exit code is 0 when it succeeded. */
pid_t make_in_child(struct quantizer_fixture *fixture);
/* How an attempt ended that is not to succeed. */
enum assay_status refused(struct quantizer_fixture *fixture, struct assay_err *err);

void join(char path[ASSAY_PATH_MAX], const char *a, const char *b);
struct assay_checkpoint *open_checkpoint(const char *dir);
size_t entries(const char *dir); /* hidden ones too */
void assert_same_file(const char *dir_a, const char *dir_b, const char *name);
/* A writable copy of the model; job.model_dir is then `dir`. */
void copy_model(struct quantizer_fixture *fixture, char dir[ASSAY_PATH_MAX]);
