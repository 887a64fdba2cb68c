/* Rewrites a checkpoint weight by weight: memory for the largest tensor's codes and, by thread, for two blocks of rows.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/artifact/method.h"
#include "common/base/limits.h"

#define WEIGHTS_FILE "model.safetensors"
#define STRIP_ROWS ((size_t)8)

/* One tensor of the source and what becomes of it. */
struct weight_plan {
    const struct assay_tensor *tensor;
    bool turned;        /* the source is [cols, rows] */
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

/* Memory for any weight of the plan, taken once: fresh memory costs more than what is written there. */
struct room {
    void *parts[ASSAY_PARTS_MAX];
    float *scratch;                /* [threads, 2, strip] */
    size_t strip;                  /* the most elements that go through all passes at once */
    struct assay_error_sums *sums; /* one a block */
};

/* The file of weights being written. */
struct writing {
    struct assay_making *making;
    const struct assay_method *method;
    const struct assay_codec_ops *ops;
    struct assay_safetensors_writer *file;
    struct room room;
};

/* One weight, encoded by all threads. */
struct encoding {
    const struct assay_method *method;
    const struct assay_codec_ops *ops;
    const struct assay_spec *spec;
    const struct assay_tensor *tensor;
    size_t rows, cols;
    bool turned; /* the source is [cols, rows] */
    const struct room *room;
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

static size_t rows_of(const struct weight_plan *weight)
{
    return weight->tensor->shape[weight->turned];
}

static size_t cols_of(const struct weight_plan *weight)
{
    return weight->tensor->shape[!weight->turned];
}

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
    weight->turned = turns(making, method);
    enum assay_status status =
        method->plan(&making->spec, rows_of(weight), cols_of(weight), weight->parts, &weight->parts_count, err);
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

/* The sentence for weights that an encoder refused: `why` unless one is not finite. */
static void refuse(const struct encoding *encoding, const float *weights, const struct assay_rows *rows,
                   struct assay_err *why)
{
    size_t n = (rows->end - rows->begin) * rows->cols, i = 0;
    while (i < n && isfinite(weights[i]))
        i++;
    if (i == n)
        assay_err_prefix(why, "tensor %s", encoding->tensor->name);
    else
        assay_err_set(why, ASSAY_INVALID_ARGUMENT, "tensor %s: row %zu, column %zu is %s, wanted a finite number",
                      encoding->tensor->name, rows->begin + i / rows->cols, i % rows->cols,
                      isnan(weights[i]) ? "NaN" : "infinite");
}

/* Rows that go through all passes while they are in the cache: whole words of zero points, whole blocks of nf4, whole
 * lanes of sums; all of the block where the columns do not allow it. */
static size_t strip_rows(size_t cols)
{
    return cols % STRIP_ROWS == 0 ? STRIP_ROWS : ASSAY_REWRITE_ROWS;
}

/* Room of a thread: two strips of rows. */
static float *scratch_of(const struct encoding *encoding, size_t thread)
{
    return encoding->room->scratch + thread * 2 * encoding->room->strip;
}

/* Rows out of a source that is [cols, rows]. */
static void read_turned_rows(const struct encoding *encoding, const struct assay_rows *rows, float *weights)
{
    size_t size = assay_dtype_bytes(encoding->tensor->dtype), count = rows->end - rows->begin;
    const unsigned char *bytes = encoding->tensor->data;
    float column[ASSAY_REWRITE_ROWS];
    for (size_t i = 0; i < rows->cols; i++) {
        encoding->ops->widen(encoding->tensor->dtype, bytes + (i * encoding->rows + rows->begin) * size, count, column);
        for (size_t r = 0; r < count; r++)
            weights[r * rows->cols + i] = column[r];
    }
}

/* Rows of the source as f32: where they lie when they are, else in the thread's room. */
static const float *read_rows(const struct encoding *encoding, const struct assay_rows *rows, size_t thread)
{
    const struct assay_tensor *tensor = encoding->tensor;
    const unsigned char *bytes = tensor->data;
    float *room = scratch_of(encoding, thread);
    if (encoding->turned) {
        read_turned_rows(encoding, rows, room);
        return room;
    }
    bytes += rows->begin * rows->cols * assay_dtype_bytes(tensor->dtype);
    if (tensor->dtype == ASSAY_F32 && (uintptr_t)bytes % _Alignof(float) == 0)
        return (const float *)(const void *)bytes;
    encoding->ops->widen(tensor->dtype, bytes, (rows->end - rows->begin) * rows->cols, room);
    return room;
}

static void measure(const struct encoding *encoding, const struct assay_rows *rows, const float *source, size_t block,
                    size_t thread)
{
    float *decoded = scratch_of(encoding, thread) + encoding->room->strip;
    encoding->method->decode(encoding->spec, rows, decoded);
    encoding->ops->add_errors(source, decoded, (rows->end - rows->begin) * rows->cols, &encoding->room->sums[block]);
}

static void note_failure(struct encoding *encoding, size_t block, const struct assay_err *err)
{
    pthread_mutex_lock(&encoding->lock);
    if (block < encoding->failed_block) {
        encoding->failed_block = block;
        encoding->err = *err;
    }
    pthread_mutex_unlock(&encoding->lock);
}

/* Encodes or measures a block, or both, strip by strip. */
static void pass(struct encoding *encoding, size_t block, size_t thread, bool encodes, bool measures)
{
    size_t strip = strip_rows(encoding->cols), begin = block * ASSAY_REWRITE_ROWS;
    size_t end = ASSAY_MIN(begin + ASSAY_REWRITE_ROWS, encoding->rows);
    struct assay_err err = ASSAY_ERR_INIT;
    if (measures)
        encoding->room->sums[block] = (struct assay_error_sums){0};
    for (; begin < end; begin += strip) {
        const struct assay_rows rows = {begin, ASSAY_MIN(begin + strip, end), encoding->cols, encoding->room->parts,
                                        encoding->ops};
        const float *source = read_rows(encoding, &rows, thread);
        if (encodes && encoding->method->encode(encoding->spec, source, &rows, &err) != ASSAY_OK) {
            refuse(encoding, source, &rows, &err);
            note_failure(encoding, block, &err);
            return;
        }
        if (measures)
            measure(encoding, &rows, source, block, thread);
    }
}

static void encode_block(void *arg, size_t block, size_t thread)
{
    struct encoding *encoding = arg;
    pass(encoding, block, thread, true, !encoding->method->finish_decides);
}

static void measure_block(void *arg, size_t block, size_t thread)
{
    pass(arg, block, thread, false, true);
}

static void run_encoding(struct assay_pool *pool, struct encoding *encoding, size_t blocks)
{
    const struct assay_rows all = {0, encoding->rows, encoding->cols, encoding->room->parts, encoding->ops};
    assay_pool_run(pool, blocks, encode_block, encoding);
    if (encoding->failed_block != SIZE_MAX)
        return;
    if (encoding->method->finish)
        encoding->method->finish(encoding->spec, &all);
    if (encoding->method->finish_decides)
        assay_pool_run(pool, blocks, measure_block, encoding);
}

static double sum_of(const double lanes[ASSAY_ERROR_LANES])
{
    double sum = 0;
    for (size_t lane = 0; lane < ASSAY_ERROR_LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static struct assay_tensor_error error_of(const struct encoding *encoding, size_t blocks)
{
    double xx = 0, yy = 0, xy = 0, squared = 0, most = 0;
    for (size_t i = 0; i < blocks; i++) {
        const struct assay_error_sums *sums = &encoding->room->sums[i];
        xx += sum_of(sums->xx);
        yy += sum_of(sums->yy);
        xy += sum_of(sums->xy);
        squared += sum_of(sums->difference_squared);
        for (size_t lane = 0; lane < ASSAY_ERROR_LANES; lane++)
            most = fmax(most, sums->difference_max[lane]);
    }
    return (struct assay_tensor_error){
        .tensor = encoding->tensor->name,
        .layer = layer_of(encoding->tensor->name),
        .cosine = xx > 0 && yy > 0 ? xy / (sqrt(xx) * sqrt(yy)) : NAN,
        .relative_frobenius = xx > 0 ? sqrt(squared / xx) : NAN,
        .max_abs = most,
        .elements = assay_tensor_elements(encoding->tensor),
    };
}

static size_t blocks_of(size_t rows)
{
    return (rows + ASSAY_REWRITE_ROWS - 1) / ASSAY_REWRITE_ROWS;
}

static enum assay_status encode_weight(struct assay_making *making, struct encoding *encoding, struct assay_err *err)
{
    size_t blocks = blocks_of(encoding->rows);
    run_encoding(making->job->pool, encoding, blocks);
    if (encoding->failed_block != SIZE_MAX)
        return assay_err_set(err, encoding->err.status, "%s", encoding->err.text);
    making->manifest->errors[making->manifest->errors_count] = error_of(encoding, blocks);
    return ASSAY_OK;
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

static enum assay_status quantize_weight(struct writing *writing, const struct weight_plan *weight,
                                         struct assay_err *err)
{
    struct encoding encoding = {
        .method = writing->method,
        .ops = writing->ops,
        .spec = &writing->making->spec,
        .tensor = weight->tensor,
        .rows = rows_of(weight),
        .cols = cols_of(weight),
        .turned = weight->turned,
        .room = &writing->room,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .failed_block = SIZE_MAX,
    };
    enum assay_status status = encode_weight(writing->making, &encoding, err);
    if (status == ASSAY_OK)
        status = keep_error_name(writing->making, err);
    for (size_t i = 0; i < weight->parts_count && status == ASSAY_OK; i++)
        if (weight->parts[i].kind != ASSAY_PART_ROOM)
            status = assay_safetensors_append(writing->file, writing->room.parts[i], weight->bytes[i], err);
    pthread_mutex_destroy(&encoding.lock);
    return status;
}

static void room_release(struct room *room)
{
    for (size_t i = 0; i < ASSAY_PARTS_MAX; i++)
        free(room->parts[i]);
    free(room->scratch);
    free(room->sums);
}

static enum assay_status room_take(const struct assay_making *making, const struct plan *plan, struct room *ret,
                                   struct assay_err *err)
{
    size_t bytes[ASSAY_PARTS_MAX] = {0}, strip = 0, blocks = 0, threads = assay_pool_threads(making->job->pool);
    for (size_t i = 0; i < plan->weights_count; i++) {
        const struct weight_plan *weight = &plan->weights[i];
        for (size_t part = 0; part < weight->parts_count; part++)
            bytes[part] = ASSAY_MAX(bytes[part], weight->bytes[part]);
        if (weight->parts_count) {
            strip = ASSAY_MAX(strip, strip_rows(cols_of(weight)) * cols_of(weight));
            blocks = ASSAY_MAX(blocks, blocks_of(rows_of(weight)));
        }
    }
    struct room room = {.strip = strip,
                        .scratch = calloc(threads * 2 * strip, sizeof *room.scratch),
                        .sums = calloc(blocks, sizeof *room.sums)};
    bool failed = !room.scratch || !room.sums;
    for (size_t i = 0; i < ASSAY_PARTS_MAX; i++) {
        room.parts[i] = bytes[i] ? malloc(bytes[i]) : NULL;
        failed |= bytes[i] && !room.parts[i];
    }
    if (failed) {
        room_release(&room);
        return out_of_memory(making->job->model_dir, err);
    }
    *ret = room;
    return ASSAY_OK;
}

/* --- files --- */

static enum assay_status write_tensors(struct writing *writing, const struct plan *plan, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < plan->weights_count && status == ASSAY_OK; i++) {
        const struct weight_plan *weight = &plan->weights[i];
        status = assay_making_step(writing->making, i, plan->weights_count, err);
        if (status == ASSAY_OK)
            status = weight->parts_count
                         ? quantize_weight(writing, weight, err)
                         : assay_safetensors_append(writing->file, weight->tensor->data, weight->tensor->bytes, err);
        assay_checkpoint_forget(writing->making->source, weight->tensor);
    }
    return status;
}

static enum assay_status write_weights(struct assay_making *making, const struct assay_method *method,
                                       const struct plan *plan, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    const struct assay_kernels *kernels;
    struct writing writing = {.making = making, .method = method};
    enum assay_status status = assay_kernels_select(&kernels, err);
    if (status == ASSAY_OK)
        status = room_take(making, plan, &writing.room, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, making->dir, WEIGHTS_FILE, err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, plan->outputs, plan->outputs_count, &writing.file, err);
    if (status == ASSAY_OK) {
        writing.ops = assay_codec_ops(kernels);
        status = write_tensors(&writing, plan, err);
        if (status == ASSAY_OK)
            status = assay_safetensors_finish(writing.file, err);
        else
            assay_safetensors_abandon(writing.file);
    }
    room_release(&writing.room);
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
