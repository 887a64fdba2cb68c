/* Artifacts of the bundled model, and what happens when making one goes wrong. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/formats/checkpoint.h"
#include "common/quant/int8.h"
#include "services/quantizer/job.h"
#include "services/quantizer/method.h"
#include "services/quantizer/staging.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"

/* Bytes that may be written before the disk is full; negative: any number. */
static atomic_llong disk_left = -1;

ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
    if (fd > STDERR_FILENO && disk_left >= 0) {
        if ((size_t)disk_left < len) {
            errno = ENOSPC;
            return -1;
        }
        disk_left -= (long long)len;
    }
    return __real_write(fd, bytes, len);
}

struct fixture {
    char root[ASSAY_PATH_MAX], artifacts[ASSAY_PATH_MAX], wanted[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct assay_quantize_job job;
    size_t cancel_at, kill_at, steps; /* 0: never */
};

static void join(char path[ASSAY_PATH_MAX], const char *a, const char *b)
{
    assert_int_equal(assay_path_join(path, a, b, NULL), ASSAY_OK);
}

static bool on_cancelled(void *arg)
{
    struct fixture *fixture = arg;
    return fixture->cancel_at && fixture->steps >= fixture->cancel_at;
}

static void on_progress(void *arg, size_t done, size_t total)
{
    struct fixture *fixture = arg;
    assert_true(done <= total);
    fixture->steps++;
    if (fixture->kill_at && fixture->steps >= fixture->kill_at)
        kill(getpid(), SIGKILL);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
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

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    disk_left = -1;
    assay_pool_free(fixture->pool);
    enum assay_status status = assay_remove_tree(fixture->root, NULL);
    free(fixture);
    return status == ASSAY_OK ? 0 : -1;
}

/* Sets spec and the ids and paths that follow from it. */
static void choose(struct fixture *fixture, const char *spec)
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
static bool quantize(struct fixture *fixture, struct assay_manifest *manifest)
{
    bool was_cached = false;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_quantize(&fixture->job, manifest, &was_cached, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return was_cached;
}

static bool make(struct fixture *fixture)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached = quantize(fixture, &manifest);
    assay_manifest_release(&manifest);
    return was_cached;
}

/* The same in a child process, which has a pool of its own; the exit code is 0 when it succeeded. */
static pid_t make_in_child(struct fixture *fixture)
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

static enum assay_status refused(struct fixture *fixture, struct assay_err *err)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached;
    enum assay_status status = assay_quantize(&fixture->job, &manifest, &was_cached, err);
    assert_int_equal(status, err->status);
    if (status == ASSAY_OK)
        assay_manifest_release(&manifest);
    return status;
}

static struct assay_checkpoint *open_checkpoint(const char *dir)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return checkpoint;
}

static size_t entries(const char *dir)
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

static void assert_same_file(const char *dir_a, const char *dir_b, const char *name)
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
static void copy_model(struct fixture *fixture, char dir[ASSAY_PATH_MAX])
{
    char command[2 * ASSAY_PATH_MAX];
    join(dir, fixture->root, "model");
    snprintf(command, sizeof command, "mkdir %s && cp %s/config.json %s/*.safetensors %s/tokenizer*.json %s", dir,
             MODEL, MODEL, MODEL, dir);
    assert_int_equal(system(command), 0);
    fixture->job.model_dir = dir;
}

/* --- what is in an artifact --- */

struct weight {
    float *source, *decoded;
    int8_t *codes;
    float *scales;
    size_t rows, cols;
};

static struct weight encode_reference(const struct assay_tensor *tensor)
{
    struct weight weight = {.rows = tensor->shape[0], .cols = tensor->shape[1]};
    size_t elements = weight.rows * weight.cols;
    weight.source = malloc(elements * sizeof(float));
    weight.decoded = malloc(elements * sizeof(float));
    weight.codes = malloc(elements);
    weight.scales = malloc(weight.rows * sizeof(float));
    assert_true(assay_dtype_to_f32(tensor->dtype, tensor->data, elements, weight.source));
    assert_int_equal(assay_int8_encode(weight.source, weight.rows, weight.cols, weight.codes, weight.scales, NULL),
                     ASSAY_OK);
    assay_int8_decode(weight.codes, weight.scales, weight.rows, weight.cols, weight.decoded);
    return weight;
}

static void weight_release(struct weight *weight)
{
    free(weight->source);
    free(weight->decoded);
    free(weight->codes);
    free(weight->scales);
}

static void int8_weights_are_the_reference_encoding_and_all_else_is_copied(void **state)
{
    struct fixture *fixture = *state;
    choose(fixture, "int8");
    assert_false(make(fixture));
    struct assay_checkpoint *source = open_checkpoint(MODEL), *artifact = open_checkpoint(fixture->wanted);
    size_t quantized = 0;
    for (size_t i = 0; i < assay_checkpoint_count(source); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(source, i);
        const struct assay_tensor *found = assay_checkpoint_find(artifact, tensor->name);
        assert_non_null(found);
        if (!strstr(tensor->name, "_proj.weight")) {
            assert_int_equal(found->dtype, tensor->dtype);
            assert_int_equal(found->bytes, tensor->bytes);
            assert_memory_equal(found->data, tensor->data, tensor->bytes);
            continue;
        }
        char scale_name[256];
        snprintf(scale_name, sizeof scale_name, "%s_scale", tensor->name);
        const struct assay_tensor *scales = assay_checkpoint_find(artifact, scale_name);
        struct weight weight = encode_reference(tensor);
        assert_non_null(scales);
        assert_true(found->dtype == ASSAY_I8 && found->rank == 2 && found->shape[0] == weight.rows &&
                    found->shape[1] == weight.cols);
        assert_true(scales->dtype == ASSAY_F32 && scales->rank == 2 && scales->shape[0] == weight.rows &&
                    scales->shape[1] == 1);
        assert_memory_equal(found->data, weight.codes, weight.rows * weight.cols);
        assert_memory_equal(scales->data, weight.scales, weight.rows * sizeof(float));
        weight_release(&weight);
        quantized++;
    }
    assert_int_equal(quantized, 6 * 7);
    assert_int_equal(assay_checkpoint_count(artifact), assay_checkpoint_count(source) + quantized);
    assay_checkpoint_close(source);
    assay_checkpoint_close(artifact);
    assert_same_file(MODEL, fixture->wanted, "tokenizer.json");
}

static void int8_config_says_compressed_tensors_per_channel(void **state)
{
    struct fixture *fixture = *state;
    choose(fixture, "int8");
    make(fixture);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    const cJSON *config = assay_checkpoint_config(artifact);
    const cJSON *quantization = cJSON_GetObjectItem(config, "quantization_config");
    const cJSON *group = cJSON_GetObjectItem(cJSON_GetObjectItem(quantization, "config_groups"), "group_0");
    const cJSON *weights = cJSON_GetObjectItem(group, "weights");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(config, "torch_dtype")), "float32");
    assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(config, "hidden_size")), 192);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "quant_method")), "compressed-tensors");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "format")), "int-quantized");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "quantization_status")), "compressed");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(group, "targets"), 0)), "Linear");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(weights, "strategy")), "channel");
    assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(weights, "num_bits")), 8);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(weights, "symmetric")));
    assay_checkpoint_close(artifact);
}

static void threads_do_not_change_a_byte(void **state)
{
    struct fixture *fixture = *state;
    char other[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    make(fixture);
    join(other, fixture->root, "one-by-two-threads");
    assert_int_equal(rename(fixture->wanted, other), 0);
    assay_pool_free(fixture->pool);
    assert_int_equal(assay_pool_new(1, NULL, &fixture->pool, NULL), ASSAY_OK);
    fixture->job.pool = fixture->pool;
    assert_false(make(fixture));
    assert_same_file(fixture->wanted, other, "model.safetensors");
    assert_same_file(fixture->wanted, other, "config.json");
}

static void fp32_artifact_links_to_the_checkpoint_and_copies_nothing(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
    struct fixture *fixture = *state;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    choose(fixture, "fp32");
    assert_false(quantize(fixture, &manifest));
    assert_int_equal(manifest.artifact_bytes, manifest.source_bytes);
    assert_int_equal(manifest.kept_bytes, manifest.source_bytes);
    assert_int_equal(manifest.errors_count, 0);
    assay_manifest_release(&manifest);
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char path[ASSAY_PATH_MAX], target[ASSAY_PATH_MAX] = "";
        join(path, fixture->wanted, files[i]);
        assert_true(readlink(path, target, sizeof target - 1) > 0);
        assert_int_equal(target[0], '/');
    }
    assert_int_equal(entries(fixture->wanted), ASSAY_COUNT(files) + 1);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    assert_int_equal(assay_checkpoint_find(artifact, "model.norm.weight")->dtype, ASSAY_BF16);
    assay_checkpoint_close(artifact);
    struct assay_model_id id;
    assert_int_equal(assay_checkpoint_id(fixture->wanted, NULL, NULL, &id, NULL), ASSAY_OK);
    assert_true(assay_digest_equal(&id.digest, &fixture->job.model_id.digest));
}

static void near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("found %.17g, wanted %.17g", got, want);
}

static void manifest_has_the_errors_and_bytes_of_the_artifact(void **state)
{
    struct fixture *fixture = *state;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    choose(fixture, "int8");
    quantize(fixture, &manifest);
    struct assay_checkpoint *source = open_checkpoint(MODEL);
    assert_int_equal(manifest.errors_count, 42);
    for (size_t i = 0; i < manifest.errors_count; i++) {
        const struct assay_tensor_error *error = &manifest.errors[i];
        struct weight weight = encode_reference(assay_checkpoint_find(source, error->tensor));
        double xx = 0, yy = 0, xy = 0, dd = 0, most = 0;
        for (size_t k = 0; k < weight.rows * weight.cols; k++) {
            double x = weight.source[k], y = weight.decoded[k];
            xx += x * x, yy += y * y, xy += x * y, dd += (x - y) * (x - y);
            most = fmax(most, fabs(x - y));
        }
        near(error->cosine, xy / sqrt(xx * yy), 1e-12);
        near(error->relative_frobenius, sqrt(dd / xx), 1e-10);
        near(error->max_abs, most, 0);
        assert_true(error->cosine > 0.999 && error->cosine < 1);
        assert_int_equal(error->elements, weight.rows * weight.cols);
        assert_int_equal(error->layer, (int)strtol(error->tensor + strlen("model.layers."), NULL, 10));
        weight_release(&weight);
    }
    assay_checkpoint_close(source);
    assert_int_equal(manifest.tensors, 56);
    assert_int_equal(manifest.parameters, 3148224);
    assert_int_equal(manifest.source_bytes, 2 * 3148224);
    assert_int_equal(manifest.code_bytes + manifest.kept_bytes / 2, 3148224);
    assert_int_equal(manifest.artifact_bytes, manifest.code_bytes + manifest.scale_bytes + manifest.kept_bytes);
    assert_true(manifest.head.tied && manifest.head.vocab == 4096);
    assay_manifest_release(&manifest);
}

static void second_request_finds_the_artifact_with_the_same_figures(void **state)
{
    struct fixture *fixture = *state;
    struct assay_manifest first = ASSAY_MANIFEST_INIT, second = ASSAY_MANIFEST_INIT;
    choose(fixture, "int8");
    assert_false(quantize(fixture, &first));
    size_t steps = fixture->steps;
    assert_true(quantize(fixture, &second));
    assert_int_equal(fixture->steps, steps);
    assert_string_equal(first.spec, second.spec);
    assert_int_equal(first.artifact_bytes, second.artifact_bytes);
    assert_int_equal(first.parameters, second.parameters);
    assert_int_equal(first.tensors, second.tensors);
    assert_int_equal(first.errors_count, second.errors_count);
    for (size_t i = 0; i < first.errors_count; i++) {
        assert_string_equal(first.errors[i].tensor, second.errors[i].tensor);
        near(second.errors[i].cosine, first.errors[i].cosine, 0);
        near(second.errors[i].relative_frobenius, first.errors[i].relative_frobenius, 0);
        near(second.errors[i].max_abs, first.errors[i].max_abs, 0);
    }
    assay_manifest_release(&first);
    assay_manifest_release(&second);
}

/* --- what can go wrong --- */

static void a_killed_maker_leaves_nothing_under_the_digest_and_the_next_run_succeeds(void **state)
{
    struct fixture *fixture = *state;
    size_t removed = 0;
    choose(fixture, "int8");
    fixture->kill_at = 30;
    pid_t child = make_in_child(fixture);
    fixture->kill_at = 0;
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome) && WTERMSIG(outcome) == SIGKILL);
    assert_int_not_equal(access(fixture->wanted, F_OK), 0);
    assert_int_equal(entries(fixture->artifacts), 1);
    assert_int_equal(assay_staging_sweep(fixture->artifacts, &removed, NULL), ASSAY_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(entries(fixture->artifacts), 0);
    assert_false(make(fixture));
    assert_true(make(fixture));
}

static void a_sweep_spares_the_living(void **state)
{
    struct fixture *fixture = *state;
    struct assay_staging staging;
    size_t removed = 7;
    choose(fixture, "int8");
    assert_int_equal(assay_staging_open(fixture->artifacts, &fixture->job.variant_id, &staging, NULL), ASSAY_OK);
    assert_int_equal(assay_staging_sweep(fixture->artifacts, &removed, NULL), ASSAY_OK);
    assert_int_equal(removed, 0);
    assert_int_equal(access(staging.dir, F_OK), 0);
    assay_staging_abandon(&staging);
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_dead_makers_directory_of_the_same_pid_is_used_again(void **state)
{
    struct fixture *fixture = *state;
    char name[128], hex[ASSAY_DIGEST_HEX], left_over[ASSAY_PATH_MAX], file[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    snprintf(name, sizeof name, ".tmp-%s-%ld", assay_digest_hex(&fixture->job.variant_id.digest, hex), (long)getpid());
    join(left_over, fixture->artifacts, name);
    join(file, left_over, "model.safetensors");
    assert_int_equal(mkdir(left_over, 0755), 0);
    assert_int_equal(assay_file_write(file, "half", 4, NULL), ASSAY_OK);
    assert_false(make(fixture));
    assert_int_equal(entries(fixture->artifacts), 1);
}

static void two_processes_that_make_one_artifact_both_succeed(void **state)
{
    enum { MAKERS = 3 };
    struct fixture *fixture = *state;
    choose(fixture, "int8");
    pid_t makers[MAKERS];
    for (size_t i = 0; i < MAKERS; i++)
        makers[i] = make_in_child(fixture);
    for (size_t i = 0; i < MAKERS; i++) {
        int outcome;
        assert_int_equal(waitpid(makers[i], &outcome, 0), makers[i]);
        assert_true(WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0);
    }
    assert_int_equal(entries(fixture->artifacts), 1);
    assert_true(make(fixture));
}

static void paths_and_ids_that_do_not_follow_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char elsewhere[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    snprintf(elsewhere, sizeof elsewhere, "%.1000s/../%.1000s", fixture->artifacts, fixture->wanted);
    const char *const dirs[] = {"", "/etc", fixture->artifacts, elsewhere};
    for (size_t i = 0; i < ASSAY_COUNT(dirs); i++) {
        fixture->job.wanted_dir = dirs[i];
        assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "artifact_dir"));
    }
    fixture->job.wanted_dir = fixture->wanted;
    fixture->job.model_dir = "models/assay-tiny";
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "absolute"));
    fixture->job.model_dir = MODEL;
    fixture->job.model_id.digest.bytes[0] ^= 1;
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "variant_id"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_checkpoint_with_other_contents_than_its_id_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char model[ASSAY_PATH_MAX], command[ASSAY_PATH_MAX + 64];
    copy_model(fixture, model);
    choose(fixture, "int8");
    snprintf(command, sizeof command, "printf ' ' >> %s/config.json", model);
    assert_int_equal(system(command), 0);
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "has changed"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_full_disk_is_resource_exhausted_and_leaves_nothing(void **state)
{
    static const long long room[] = {0, 1000, 1000000, 3400000, 4100000};
    struct fixture *fixture = *state;
    choose(fixture, "int8");
    for (size_t i = 0; i < ASSAY_COUNT(room); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        disk_left = room[i];
        assert_int_equal(refused(fixture, &err), ASSAY_RESOURCE_EXHAUSTED);
        disk_left = -1;
        assert_non_null(strstr(err.text, "No space left on device"));
        assert_int_equal(entries(fixture->artifacts), 0);
    }
    assert_false(make(fixture));
}

static void a_cancelled_job_stops_at_the_next_tensor_and_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    choose(fixture, "int8");
    fixture->cancel_at = 11;
    assert_int_equal(refused(fixture, &err), ASSAY_CANCELLED);
    assert_int_equal(fixture->steps, 11);
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_damaged_artifact_is_made_again(void **state)
{
    static const char *const damages[] = {
        "truncate -s -1 %s/model.safetensors", "rm %s/config.json",           "rm %s/manifest.json",
        "echo '{}' > %s/manifest.json",        "echo '[' > %s/manifest.json", "sed -i s/a/b/g %s/manifest.json"};
    struct fixture *fixture = *state;
    choose(fixture, "int8");
    make(fixture);
    for (size_t i = 0; i < ASSAY_COUNT(damages); i++) {
        char command[ASSAY_PATH_MAX + 64];
        snprintf(command, sizeof command, damages[i], fixture->wanted);
        assert_int_equal(system(command), 0);
        assert_false(make(fixture));
        assert_true(make(fixture));
        assert_int_equal(entries(fixture->artifacts), 1);
    }
}

static void links_to_files_that_were_touched_are_looked_at_again(void **state)
{
    struct fixture *fixture = *state;
    char model[ASSAY_PATH_MAX], command[ASSAY_PATH_MAX + 64];
    struct assay_err err = ASSAY_ERR_INIT;
    copy_model(fixture, model);
    choose(fixture, "fp32");
    assert_false(make(fixture));
    assert_true(make(fixture));
    snprintf(command, sizeof command, "touch -d 2001-01-01 %s/model.safetensors", model);
    assert_int_equal(system(command), 0);
    assert_false(make(fixture));
    assert_true(make(fixture));
    snprintf(command, sizeof command, "printf ' ' >> %s/config.json", model);
    assert_int_equal(system(command), 0);
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
}

static void a_weight_that_is_no_number_is_refused_by_name_row_and_column(void **state)
{
    struct fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char model[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
    float weights[100][3] = {{0}};
    weights[71][2] = NAN;
    join(model, fixture->root, "model");
    assert_int_equal(mkdir(model, 0755), 0);
    join(path, model, "config.json");
    assert_int_equal(assay_file_write(path, "{}", 2, NULL), ASSAY_OK);
    const struct assay_tensor tensors[] = {
        {.name = "lm_head.weight", .dtype = ASSAY_F32, .rank = 2, .shape = {2, 3}},
        {.name = "model.layers.0.mlp.up_proj.weight", .dtype = ASSAY_F32, .rank = 2, .shape = {100, 3}},
    };
    struct assay_safetensors_writer *writer;
    join(path, model, "model.safetensors");
    assert_int_equal(assay_safetensors_create(path, tensors, 2, &writer, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, weights, 2 * 3 * sizeof(float), NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, weights, sizeof weights, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_finish(writer, NULL), ASSAY_OK);
    fixture->job.model_dir = model;
    choose(fixture, "int8");
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "model.layers.0.mlp.up_proj.weight: row 71, column 2 is NaN"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_quantized_checkpoint_is_not_quantized_again(void **state)
{
    struct fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char first[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    make(fixture);
    memcpy(first, fixture->wanted, sizeof first);
    fixture->job.model_dir = first;
    choose(fixture, "int8");
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "quantized already"));
}

static void only_matrices_of_linear_layers_are_quantized(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum assay_dtype dtype;
        size_t rank;
        bool is_linear;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_BF16, 2, true},
        {"model.layers.11.mlp.down_proj.weight", ASSAY_F32, 2, true},
        {"model.layers.0.self_attn.q_proj.bias", ASSAY_F32, 1, false},
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_F32, 1, false},
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_I8, 2, false},
        {"model.layers.0.input_layernorm.weight", ASSAY_F32, 2, false},
        {"model.embed_tokens.weight", ASSAY_F32, 2, false},
        {"lm_head.weight", ASSAY_F32, 2, false},
        {"weight", ASSAY_F32, 2, false},
        {".weight", ASSAY_F32, 2, false},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        const struct assay_tensor tensor = {
            .name = cases[i].name, .dtype = cases[i].dtype, .rank = cases[i].rank, .shape = {2, 2}};
        if (assay_is_linear_weight(&tensor) != cases[i].is_linear)
            fail_msg("%s, rank %zu", cases[i].name, cases[i].rank);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(int8_weights_are_the_reference_encoding_and_all_else_is_copied),
        T(int8_config_says_compressed_tensors_per_channel),
        T(threads_do_not_change_a_byte),
        T(fp32_artifact_links_to_the_checkpoint_and_copies_nothing),
        T(manifest_has_the_errors_and_bytes_of_the_artifact),
        T(second_request_finds_the_artifact_with_the_same_figures),
        T(a_killed_maker_leaves_nothing_under_the_digest_and_the_next_run_succeeds),
        T(a_sweep_spares_the_living),
        T(a_dead_makers_directory_of_the_same_pid_is_used_again),
        T(two_processes_that_make_one_artifact_both_succeed),
        T(paths_and_ids_that_do_not_follow_are_refused),
        T(a_checkpoint_with_other_contents_than_its_id_is_refused),
        T(a_full_disk_is_resource_exhausted_and_leaves_nothing),
        T(a_cancelled_job_stops_at_the_next_tensor_and_leaves_nothing),
        T(a_damaged_artifact_is_made_again),
        T(links_to_files_that_were_touched_are_looked_at_again),
        T(a_weight_that_is_no_number_is_refused_by_name_row_and_column),
        T(a_quantized_checkpoint_is_not_quantized_again),
        T(only_matrices_of_linear_layers_are_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
