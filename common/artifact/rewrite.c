/* Rewrites a checkpoint weight by weight: memory for one tensor's codes and, by thread, for two blocks of rows. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/artifact/checks.h"
#include "common/artifact/method.h"
#include "common/base/limits.h"

#define WEIGHTS_FILE "model.safetensors"

/* One tensor of the source and what becomes of it. */
struct weight_plan {
    const struct assay_tensor *tensor;
    size_t parts_count; /* 0: copied */
    struct assay_part parts[ASSAY_PARTS_MAX];
    size_t bytes[ASSAY_PARTS_MAX];
};

struct plan {
    struct weight_plan *weights; /* one a tensor of the source, in name order */
    size_t weights_count;
    struct assay_tensor *outputs; /* as declared to the writer */
    size_t outputs_count;
    size_t quantized_count;
};

/* One weight, encoded by all threads. */
struct encoding {
    const struct assay_method *method;
    const struct assay_spec *spec;
    const struct assay_tensor *tensor;
    size_t rows, cols;
    bool turned; /* the source is [cols, rows] */
    void *parts[ASSAY_PARTS_MAX];
    float *scratch; /* [threads, 2, ASSAY_REWRITE_ROWS, cols] */
    struct assay_block_sums *sums;
    pthread_mutex_t lock; /* guards what follows: the failure of the first block that failed */
    size_t failed_block;
    struct assay_err err;
};

bool assay_is_linear_weight(const struct assay_tensor *tensor)
{
    static const char suffix[] = ".weight";
    static const char *const not_linear[] = {"embed", "norm", "lm_head", "wte", "wpe"};
    static const char router[] = "gate"; /* of experts; "gate_proj" is a linear layer */
    size_t len = strlen(tensor->name);
    bool is_float = tensor->dtype == ASSAY_F32 || tensor->dtype == ASSAY_F16 || tensor->dtype == ASSAY_BF16;
    if (tensor->rank != 2 || !is_float || assay_tensor_elements(tensor) == 0 || len <= strlen(suffix) ||
        strcmp(tensor->name + len - strlen(suffix), suffix) != 0)
        return false;
    size_t module_end = len - strlen(suffix), module = module_end;
    while (module > 0 && tensor->name[module - 1] != '.')
        module--;
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)ASSAY_MIN(module_end - module, sizeof name - 1), tensor->name + module);
    for (size_t i = 0; i < ASSAY_COUNT(not_linear); i++)
        if (strstr(name, not_linear[i]))
            return false;
    return strcmp(name, router) != 0;
}

/* Whether weights are quantized along the source's columns: the architecture has outputs there, and the files are not
 * those of a plain checkpoint. */
static bool turns(const struct assay_making *making, const struct assay_method *method)
{
    return method->config && assay_making_architecture(making)->transposed;
}

/* The first path component that is a number: "model.layers.3.mlp" is in layer 3. */
static int32_t layer_of(const char *name)
{
    for (const char *p = name; p; p = strchr(p, '.')) {
        p += *p == '.';
        char *end;
        unsigned long layer = *p >= '0' && *p <= '9' ? strtoul(p, &end, 10) : ASSAY_MODEL_LAYERS_MAX;
        if (layer < ASSAY_MODEL_LAYERS_MAX && *end == '.')
            return (int32_t)layer;
    }
    return -1;
}

static enum assay_status out_of_memory(const char *what, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while quantizing %s", what);
}

/* --- planning --- */

/* "model.layers.0.mlp.up_proj" + ".weight_scale" */
static enum assay_status declare_part(struct assay_making *making, struct plan *plan, struct weight_plan *weight,
                                      size_t index, struct assay_err *err)
{
    const struct assay_part *part = &weight->parts[index];
    struct assay_tensor output = {.dtype = part->dtype, .rank = part->rank};
    memcpy(output.shape, part->shape, part->rank * sizeof part->shape[0]);
    output.bytes = assay_tensor_elements(&output) * assay_dtype_bytes(output.dtype);
    weight->bytes[index] = output.bytes;
    if (part->kind == ASSAY_PART_ROOM)
        return ASSAY_OK;
    size_t module = strlen(weight->tensor->name) - strlen(".weight");
    char *name = assay_arena_alloc(&making->manifest->arena, module + strlen(part->suffix) + 1);
    if (!name)
        return out_of_memory(weight->tensor->name, err);
    memcpy(name, weight->tensor->name, module);
    strcpy(name + module, part->suffix);
    output.name = name;
    plan->outputs[plan->outputs_count++] = output;
    *(part->kind == ASSAY_PART_CODES ? &making->manifest->code_bytes : &making->manifest->scale_bytes) += output.bytes;
    return ASSAY_OK;
}

static enum assay_status plan_weight(struct assay_making *making, const struct assay_method *method, struct plan *plan,
                                     struct weight_plan *weight, struct assay_err *err)
{
    const struct assay_tensor *tensor = weight->tensor;
    if (!assay_is_linear_weight(tensor)) {
        plan->outputs[plan->outputs_count++] = *tensor;
        making->manifest->kept_bytes += tensor->bytes;
        return ASSAY_OK;
    }
    bool turned = turns(making, method);
    enum assay_status status = method->plan(&making->spec, tensor->shape[turned], tensor->shape[!turned], weight->parts,
                                            &weight->parts_count, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "tensor %s", tensor->name);
    plan->quantized_count++;
    for (size_t i = 0; i < weight->parts_count && status == ASSAY_OK; i++)
        status = declare_part(making, plan, weight, i, err);
    return status;
}

/* What the spec leaves to the model. */
static enum assay_status resolve(struct assay_making *making, const struct assay_method *method, struct assay_err *err)
{
    size_t tensors = assay_checkpoint_count(making->source), count = 0;
    assay_auto(assay_free_ptr) size_t *cols = calloc(tensors + 1, sizeof *cols);
    if (!cols)
        return out_of_memory(making->job->model_dir, err);
    for (size_t i = 0; i < tensors; i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(making->source, i);
        if (assay_is_linear_weight(tensor))
            cols[count++] = tensor->shape[!turns(making, method)];
    }
    if (method->resolve)
        method->resolve(&making->spec, cols, count);
    return ASSAY_OK;
}

static enum assay_status plan_all(struct assay_making *making, const struct assay_method *method, struct plan *plan,
                                  struct assay_err *err)
{
    struct assay_arena *arena = &making->manifest->arena;
    plan->weights_count = assay_checkpoint_count(making->source);
    plan->weights = assay_arena_alloc(arena, (plan->weights_count + 1) * sizeof *plan->weights);
    plan->outputs = assay_arena_alloc(arena, (plan->weights_count * ASSAY_PARTS_MAX + 1) * sizeof *plan->outputs);
    if (!plan->weights || !plan->outputs)
        return out_of_memory(making->job->model_dir, err);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < plan->weights_count && status == ASSAY_OK; i++) {
        plan->weights[i].tensor = assay_checkpoint_at(making->source, i);
        status = plan_weight(making, method, plan, &plan->weights[i], err);
    }
    if (status == ASSAY_OK && plan->quantized_count == 0)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s has no weights of linear layers to quantize",
                               making->job->model_dir);
    making->manifest->errors = assay_arena_alloc(arena, (plan->quantized_count + 1) * sizeof *making->manifest->errors);
    if (status == ASSAY_OK && !making->manifest->errors)
        status = out_of_memory(making->job->model_dir, err);
    return status;
}

/* --- one weight --- */

static enum assay_status check_finite(const struct encoding *encoding, const float *weights, size_t begin, size_t end,
                                      struct assay_err *err)
{
    size_t n = (end - begin) * encoding->cols, i = 0;
    if (assay_all_finite(weights, n))
        return ASSAY_OK;
    while (i + 1 < n && isfinite(weights[i]))
        i++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s: row %zu, column %zu is %s, wanted a finite number",
                         encoding->tensor->name, begin + i / encoding->cols, i % encoding->cols,
                         isnan(weights[i]) ? "NaN" : "infinite");
}

/* The same out of a source that is [cols, rows]. */
static void read_turned_rows(const struct encoding *encoding, size_t begin, size_t end, float *weights)
{
    size_t size = assay_dtype_bytes(encoding->tensor->dtype);
    float column[ASSAY_REWRITE_ROWS];
    for (size_t i = 0; i < encoding->cols; i++) {
        assay_widen(encoding->tensor->dtype,
                    (const unsigned char *)encoding->tensor->data + (i * encoding->rows + begin) * size, end - begin,
                    column);
        for (size_t r = 0; r < end - begin; r++)
            weights[r * encoding->cols + i] = column[r];
    }
}

/* Rows [begin, end) of the source as f32. */
static void read_rows(const struct encoding *encoding, size_t begin, size_t end, float *weights)
{
    if (encoding->turned) {
        read_turned_rows(encoding, begin, end, weights);
        return;
    }
    size_t row_bytes = encoding->cols * assay_dtype_bytes(encoding->tensor->dtype);
    assay_widen(encoding->tensor->dtype, (const unsigned char *)encoding->tensor->data + begin * row_bytes,
                (end - begin) * encoding->cols, weights);
}

/* Room of a thread: two blocks of rows. */
static float *scratch_of(const struct encoding *encoding, size_t thread)
{
    return encoding->scratch + thread * 2 * ASSAY_REWRITE_ROWS * encoding->cols;
}

static struct assay_rows rows_of(const struct encoding *encoding, size_t block)
{
    size_t begin = block * ASSAY_REWRITE_ROWS, end = ASSAY_MIN(begin + ASSAY_REWRITE_ROWS, encoding->rows);
    return (struct assay_rows){begin, end, encoding->cols, encoding->parts};
}

static void encode_block(void *arg, size_t block, size_t thread)
{
    struct encoding *encoding = arg;
    struct assay_rows rows = rows_of(encoding, block);
    float *source = scratch_of(encoding, thread);
    struct assay_err err = ASSAY_ERR_INIT;
    read_rows(encoding, rows.begin, rows.end, source);
    enum assay_status status = check_finite(encoding, source, rows.begin, rows.end, &err);
    if (status == ASSAY_OK) {
        status = encoding->method->encode(encoding->spec, source, &rows, &err);
        if (status != ASSAY_OK)
            assay_err_prefix(&err, "tensor %s", encoding->tensor->name);
    }
    if (status == ASSAY_OK)
        return;
    pthread_mutex_lock(&encoding->lock);
    if (block < encoding->failed_block) {
        encoding->failed_block = block;
        encoding->err = err;
    }
    pthread_mutex_unlock(&encoding->lock);
}

static void measure_block(void *arg, size_t block, size_t thread)
{
    struct encoding *encoding = arg;
    struct assay_rows rows = rows_of(encoding, block);
    float *source = scratch_of(encoding, thread), *decoded = source + ASSAY_REWRITE_ROWS * encoding->cols;
    read_rows(encoding, rows.begin, rows.end, source);
    encoding->method->decode(encoding->spec, &rows, decoded);
    assay_block_sums(source, decoded, (rows.end - rows.begin) * encoding->cols, &encoding->sums[block]);
}

/* All blocks are encoded before any is decoded: what is made of the whole tensor decides what codes stand for. */
static void run_encoding(struct assay_pool *pool, struct encoding *encoding, size_t blocks)
{
    const struct assay_rows all = {0, encoding->rows, encoding->cols, encoding->parts};
    assay_pool_run(pool, blocks, encode_block, encoding);
    if (encoding->failed_block != SIZE_MAX)
        return;
    if (encoding->method->finish)
        encoding->method->finish(encoding->spec, &all);
    assay_pool_run(pool, blocks, measure_block, encoding);
}

static struct assay_tensor_error error_of(const struct encoding *encoding, size_t blocks)
{
    struct assay_block_sums all = {0};
    for (size_t i = 0; i < blocks; i++) {
        const struct assay_block_sums *sums = &encoding->sums[i];
        all.xx += sums->xx;
        all.yy += sums->yy;
        all.xy += sums->xy;
        all.difference_squared += sums->difference_squared;
        all.difference_max = fmax(all.difference_max, sums->difference_max);
    }
    return (struct assay_tensor_error){
        .tensor = encoding->tensor->name,
        .layer = layer_of(encoding->tensor->name),
        .cosine = all.xx > 0 && all.yy > 0 ? all.xy / (sqrt(all.xx) * sqrt(all.yy)) : NAN,
        .relative_frobenius = all.xx > 0 ? sqrt(all.difference_squared / all.xx) : NAN,
        .max_abs = all.difference_max,
        .elements = assay_tensor_elements(encoding->tensor),
    };
}

static enum assay_status encode_weight(struct assay_making *making, struct encoding *encoding, struct assay_err *err)
{
    struct assay_pool *pool = making->job->pool;
    size_t blocks = (encoding->rows + ASSAY_REWRITE_ROWS - 1) / ASSAY_REWRITE_ROWS;
    size_t scratch_rows = assay_pool_threads(pool) * 2 * ASSAY_REWRITE_ROWS;
    encoding->scratch = calloc(scratch_rows * encoding->cols, sizeof *encoding->scratch);
    encoding->sums = calloc(blocks, sizeof *encoding->sums);
    enum assay_status status = ASSAY_OK;
    if (!encoding->scratch || !encoding->sums) {
        status = out_of_memory(encoding->tensor->name, err);
    } else {
        run_encoding(pool, encoding, blocks);
        if (encoding->failed_block != SIZE_MAX)
            status = assay_err_set(err, encoding->err.status, "%s", encoding->err.text);
        else
            making->manifest->errors[making->manifest->errors_count] = error_of(encoding, blocks);
    }
    free(encoding->scratch);
    free(encoding->sums);
    return status;
}

/* The manifest outlives the checkpoint, whose names the errors must not keep. */
static enum assay_status keep_error_name(struct assay_making *making, struct assay_err *err)
{
    struct assay_manifest *manifest = making->manifest;
    struct assay_tensor_error *error = &manifest->errors[manifest->errors_count];
    error->tensor = assay_arena_strdup(&manifest->arena, error->tensor);
    if (!error->tensor)
        return out_of_memory(making->job->model_dir, err);
    manifest->errors_count++;
    return ASSAY_OK;
}

static enum assay_status quantize_weight(struct assay_making *making, const struct assay_method *method,
                                         const struct weight_plan *weight, struct assay_safetensors_writer *writer,
                                         struct assay_err *err)
{
    bool turned = turns(making, method);
    struct encoding encoding = {
        .method = method,
        .spec = &making->spec,
        .tensor = weight->tensor,
        .rows = weight->tensor->shape[turned],
        .cols = weight->tensor->shape[!turned],
        .turned = turned,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .failed_block = SIZE_MAX,
    };
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < weight->parts_count && status == ASSAY_OK; i++) {
        encoding.parts[i] = malloc(weight->bytes[i] + 1);
        status = encoding.parts[i] ? ASSAY_OK : out_of_memory(weight->tensor->name, err);
    }
    if (status == ASSAY_OK)
        status = encode_weight(making, &encoding, err);
    if (status == ASSAY_OK)
        status = keep_error_name(making, err);
    for (size_t i = 0; i < weight->parts_count && status == ASSAY_OK; i++)
        if (weight->parts[i].kind != ASSAY_PART_ROOM)
            status = assay_safetensors_append(writer, encoding.parts[i], weight->bytes[i], err);
    for (size_t i = 0; i < ASSAY_PARTS_MAX; i++)
        free(encoding.parts[i]);
    pthread_mutex_destroy(&encoding.lock);
    return status;
}

/* --- files --- */

static enum assay_status write_weights(struct assay_making *making, const struct assay_method *method,
                                       const struct plan *plan, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors_writer *writer = NULL;
    enum assay_status status = assay_path_join(path, making->dir, WEIGHTS_FILE, err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, plan->outputs, plan->outputs_count, &writer, err);
    if (status != ASSAY_OK)
        return status;
    for (size_t i = 0; i < plan->weights_count && status == ASSAY_OK; i++) {
        const struct weight_plan *weight = &plan->weights[i];
        status = assay_making_step(making, i, plan->weights_count, err);
        if (status == ASSAY_OK)
            status = weight->parts_count
                         ? quantize_weight(making, method, weight, writer, err)
                         : assay_safetensors_append(writer, weight->tensor->data, weight->tensor->bytes, err);
    }
    if (status != ASSAY_OK) {
        assay_safetensors_abandon(writer);
        return status;
    }
    status = assay_safetensors_finish(writer, err);
    return status == ASSAY_OK ? assay_making_add_file(making, WEIGHTS_FILE, false, err) : status;
}

/* Methods say "lm_head". False when out of memory. */
static bool name_head(cJSON *quantization, const char *head)
{
    static const char *const lists[] = {"ignore", "llm_int8_skip_modules", "modules_to_not_convert"};
    bool done = true;
    for (size_t i = 0; i < ASSAY_COUNT(lists) && strcmp(head, "lm_head") != 0; i++) {
        cJSON *list = cJSON_GetObjectItemCaseSensitive(quantization, lists[i]);
        for (int j = 0; j < cJSON_GetArraySize(list); j++) {
            const cJSON *item = cJSON_GetArrayItem(list, j);
            if (cJSON_IsString(item) && strcmp(item->valuestring, "lm_head") == 0)
                done = cJSON_ReplaceItemInArray(list, j, cJSON_CreateString(head)) && done;
        }
    }
    return done;
}

/* Scales are f32, and readers of those layouts take their dtype from the model's. */
static enum assay_status write_config(struct assay_making *making, const struct assay_method *method,
                                      struct assay_err *err)
{
    struct assay_config_change change = {.dtype = method->dtype};
    if (method->config) {
        change.quantization = method->config(&making->spec);
        if (!change.quantization || !name_head(change.quantization, assay_making_architecture(making)->head)) {
            cJSON_Delete(change.quantization);
            return out_of_memory(making->job->model_dir, err);
        }
    }
    return assay_making_write_config(making, &change, err);
}

enum assay_status assay_rewrite(struct assay_making *making, const struct assay_method *method, struct assay_err *err)
{
    struct plan plan = {0};
    if (cJSON_HasObjectItem(assay_checkpoint_config(making->source), "quantization_config"))
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                             "%s is quantized already (config.json has quantization_config); give the original model",
                             making->job->model_dir);
    enum assay_status status = resolve(making, method, err);
    if (status == ASSAY_OK)
        status = plan_all(making, method, &plan, err);
    if (status == ASSAY_OK)
        status = write_weights(making, method, &plan, err);
    if (status == ASSAY_OK)
        status = write_config(making, method, err);
    if (status == ASSAY_OK)
        status = assay_making_add_companions(making, false, err);
    return status == ASSAY_OK ? assay_making_step(making, plan.weights_count, plan.weights_count, err) : status;
}
