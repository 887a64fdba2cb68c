#include "tests/unit/quantizer_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void join(char path[ASSAY_PATH_MAX], const char *a, const char *b)
{
    assert_int_equal(assay_path_join(path, a, b, NULL), ASSAY_OK);
}

static bool on_cancelled(void *arg)
{
    struct quantizer_fixture *fixture = arg;
    return fixture->cancel_at && fixture->steps >= fixture->cancel_at;
}

static void on_progress(void *arg, size_t done, size_t total)
{
    struct quantizer_fixture *fixture = arg;
    assert_true(done <= total);
    fixture->steps++;
    if (fixture->kill_at && fixture->steps >= fixture->kill_at)
        kill(getpid(), SIGKILL);
}

int quantizer_set_up(void **state)
{
    struct quantizer_fixture *fixture = calloc(1, sizeof *fixture);
    strcpy(fixture->root, "/tmp/assay-quantizer-XXXXXX");
    if (!mkdtemp(fixture->root))
        return -1;
    join(fixture->artifacts, fixture->root, "artifacts");
    assert_int_equal(mkdir(fixture->artifacts, 0755), 0);
    assert_int_equal(assay_pool_new(2, NULL, &fixture->pool, NULL), ASSAY_OK);
    fixture->job = (struct assay_quantize_job){
        .artifacts_dir = fixture->artifacts,
        .wanted_dir = fixture->wanted,
        .model_dir = MODEL,
        .pool = fixture->pool,
        .cancelled = on_cancelled,
        .progress = on_progress,
        .arg = fixture,
    };
    *state = fixture;
    return 0;
}

int quantizer_tear_down(void **state)
{
    struct quantizer_fixture *fixture = *state;
    assay_pool_free(fixture->pool);
    enum assay_status status = assay_remove_tree(fixture->root, NULL);
    free(fixture);
    return status == ASSAY_OK ? 0 : -1;
}

/* Sets spec and the ids and paths that follow from it. */
void choose(struct quantizer_fixture *fixture, const char *spec)
{
    struct assay_quantize_job *job = &fixture->job;
    struct assay_err err = ASSAY_ERR_INIT;
    char hex[ASSAY_DIGEST_HEX];
    if (assay_spec_parse(spec, &job->spec, &err) != ASSAY_OK ||
        assay_checkpoint_id(job->model_dir, NULL, NULL, &job->model_id, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    job->variant_id = assay_variant_id_of(&job->model_id, &job->spec);
    join(fixture->wanted, fixture->artifacts, assay_digest_hex(&job->variant_id.digest, hex));
}

/* True when the artifact was there already. */
bool quantize(struct quantizer_fixture *fixture, struct assay_manifest *manifest)
{
    bool was_cached = false;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_quantize(&fixture->job, manifest, &was_cached, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return was_cached;
}

bool make(struct quantizer_fixture *fixture)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached = quantize(fixture, &manifest);
    assay_manifest_release(&manifest);
    return was_cached;
}

/* The same in a child process, which has a pool of its own; the exit code is 0 when it succeeded. */
pid_t make_in_child(struct quantizer_fixture *fixture)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached;
    bool made = assay_pool_new(1, NULL, &fixture->job.pool, NULL) == ASSAY_OK &&
                assay_quantize(&fixture->job, &manifest, &was_cached, NULL) == ASSAY_OK;
    _exit(made ? 0 : 1);
}

enum assay_status refused(struct quantizer_fixture *fixture, struct assay_err *err)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached;
    enum assay_status status = assay_quantize(&fixture->job, &manifest, &was_cached, err);
    assert_int_equal(status, err->status);
    if (status == ASSAY_OK)
        assay_manifest_release(&manifest);
    return status;
}

struct assay_checkpoint *open_checkpoint(const char *dir)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return checkpoint;
}

size_t entries(const char *dir)
{
    char command[ASSAY_PATH_MAX + 32];
    unsigned long count = 0;
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%lu", &count), 1);
    pclose(pipe);
    return count;
}

static void read_file(const char *dir, const char *name, char **bytes, size_t *len)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    join(path, dir, name);
    if (assay_file_read(path, 1 << 28, bytes, len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

void assert_same_file(const char *dir_a, const char *dir_b, const char *name)
{
    char *a, *b;
    size_t a_len, b_len;
    read_file(dir_a, name, &a, &a_len);
    read_file(dir_b, name, &b, &b_len);
    assert_int_equal(a_len, b_len);
    assert_memory_equal(a, b, a_len);
    free(a);
    free(b);
}

/* A writable copy of the model; fixture->job then means it. */
void copy_model(struct quantizer_fixture *fixture, char dir[ASSAY_PATH_MAX])
{
    char command[2 * ASSAY_PATH_MAX];
    join(dir, fixture->root, "model");
    snprintf(command, sizeof command, "mkdir %s && cp %s/config.json %s/*.safetensors %s/tokenizer*.json %s", dir,
             MODEL, MODEL, MODEL, dir);
    assert_int_equal(system(command), 0);
    fixture->job.model_dir = dir;
}
