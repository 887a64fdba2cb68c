#include "cli/model_describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/artifact/method.h"
#include "common/tokenizer/tokenizer.h"

/* --- words --- */

const char *model_describe_windows(const struct assay_model_config *config, char text[MODEL_TEXT_BYTES])
{
    size_t windowed = 0;
    for (size_t i = 0; i < config->layers; i++)
        windowed += config->windowed[i];
    if (windowed == 0)
        snprintf(text, MODEL_TEXT_BYTES, "none");
    else
        snprintf(text, MODEL_TEXT_BYTES, "%zu in %zu of %zu layers", config->window, windowed, config->layers);
    return text;
}

static const char *rope_name(enum assay_rope_kind kind)
{
    static const char *const names[] = {
        [ASSAY_ROPE_DEFAULT] = "default", [ASSAY_ROPE_LINEAR] = "linear", [ASSAY_ROPE_DYNAMIC] = "dynamic",
        [ASSAY_ROPE_LLAMA3] = "llama3",   [ASSAY_ROPE_YARN] = "yarn",     [ASSAY_ROPE_LONGROPE] = "longrope"};
    return names[kind];
}

const char *model_describe_positions(const struct assay_model_config *config, char text[MODEL_TEXT_BYTES])
{
    if (config->rotary_dim == 0)
        snprintf(text, MODEL_TEXT_BYTES, "an embedding each");
    else
        snprintf(text, MODEL_TEXT_BYTES, "rope %s over %zu of %zu, theta %g", rope_name(config->rope.kind),
                 config->rotary_dim, config->head_dim, config->rope.theta);
    return text;
}

/* --- tensors --- */

static bool is_floating(enum assay_dtype dtype)
{
    return dtype == ASSAY_F32 || dtype == ASSAY_F16 || dtype == ASSAY_BF16 || dtype == ASSAY_F64;
}

static void count_tensors(struct model_description *m)
{
    size_t counts[64] = {0}, used = 0;
    for (size_t i = 0; i < assay_checkpoint_count(m->checkpoint); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(m->checkpoint, i);
        m->stored_bytes += tensor->bytes;
        m->parameters += is_floating(tensor->dtype) ? assay_tensor_elements(tensor) : 0;
        counts[ASSAY_MIN((size_t)tensor->dtype, ASSAY_COUNT(counts) - 1)]++;
    }
    for (size_t i = 0; i < ASSAY_COUNT(counts); i++)
        if (counts[i] > 0 && used < sizeof m->dtypes)
            used += (size_t)snprintf(m->dtypes + used, sizeof m->dtypes - used, "%s%s in %zu tensors", used ? ", " : "",
                                     assay_dtype_name((enum assay_dtype)i), counts[i]);
}

/* --- precisions --- */

/* Bytes that stand for one weight under a method. */
static enum assay_status plan_bytes(const struct assay_method *method, const struct assay_spec *spec,
                                    const struct assay_tensor *tensor, bool turned, uint64_t *bytes,
                                    struct assay_err *err)
{
    struct assay_part parts[ASSAY_PARTS_MAX];
    size_t count = 0;
    enum assay_status status = method->plan(spec, tensor->shape[turned], tensor->shape[!turned], parts, &count, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "tensor %s", tensor->name);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t elements = 1;
        for (size_t j = 0; j < parts[i].rank; j++)
            elements *= parts[i].shape[j];
        *bytes += parts[i].kind == ASSAY_PART_ROOM ? 0 : elements * assay_dtype_bytes(parts[i].dtype);
    }
    return ASSAY_OK;
}

static enum assay_status resolve(const struct model_description *m, const struct assay_method *method, bool turned,
                                 struct assay_spec *spec, struct assay_err *err)
{
    size_t tensors = assay_checkpoint_count(m->checkpoint), count = 0;
    assay_auto(assay_free_ptr) size_t *cols = calloc(tensors + 1, sizeof *cols);
    if (!cols)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", tensors);
    for (size_t i = 0; i < tensors; i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(m->checkpoint, i);
        if (assay_is_linear_weight(tensor))
            cols[count++] = tensor->shape[!turned];
    }
    if (method->resolve)
        method->resolve(spec, cols, count);
    return ASSAY_OK;
}

/* All but a head of its own, which workers do not load. */
static enum assay_status measure(const struct model_description *m, const struct assay_method *method,
                                 const struct assay_tensor *head, uint64_t *ret, struct assay_err *err)
{
    const struct assay_architecture *architecture = assay_architecture_find(m->config.architecture);
    bool turned = architecture->transposed && method->config;
    struct assay_spec spec;
    uint64_t bytes = 0;
    enum assay_status status = assay_spec_parse(assay_scheme_name(method->scheme), &spec, err);
    if (status == ASSAY_OK && method->plan)
        status = resolve(m, method, turned, &spec, err);
    for (size_t i = 0; i < assay_checkpoint_count(m->checkpoint) && status == ASSAY_OK; i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(m->checkpoint, i);
        if (tensor == head)
            continue;
        if (method->plan && assay_is_linear_weight(tensor))
            status = plan_bytes(method, &spec, tensor, turned, &bytes, err);
        else
            bytes += tensor->bytes;
    }
    *ret = bytes;
    return status;
}

static void measure_precisions(struct model_description *m, const struct assay_tensor *head)
{
    static const struct assay_method *const methods[] = {
#define ASSAY_METHOD(name) &assay_method_##name,
#include "common/artifact/methods.inc"
#undef ASSAY_METHOD
    };
    for (size_t i = 0; i < ASSAY_MIN(ASSAY_COUNT(methods), (size_t)MODEL_PRECISIONS_MAX); i++) {
        struct model_precision *p = &m->precisions[m->precisions_count++];
        struct assay_err err = ASSAY_ERR_INIT;
        p->name = assay_scheme_name(methods[i]->scheme);
        if (m->quantization && methods[i]->plan)
            p->status = assay_err_set(&err, ASSAY_FAILED_PRECONDITION, "the checkpoint is quantized already");
        else if (!m->runs)
            p->status = assay_err_set(&err, ASSAY_FAILED_PRECONDITION, "the model does not run");
        else
            p->status = measure(m, methods[i], head, &p->worker_bytes, &err);
        snprintf(p->reason, sizeof p->reason, "%s", err.text);
    }
}

/* --- head and tokenizer --- */

/* *ret becomes a head's own matrix, or NULL. */
static void describe_head(struct model_description *m, const struct assay_tensor **ret)
{
    const cJSON *config = assay_checkpoint_config(m->checkpoint);
    const struct assay_architecture *architecture = assay_architecture_of(config);
    struct assay_err err = ASSAY_ERR_INIT;
    if (!architecture || assay_head_figures_read(config, architecture, m->dir, &m->head, &err) != ASSAY_OK)
        return;
    char name[ASSAY_HEAD_NAME_BYTES], full[ASSAY_HEAD_NAME_BYTES + 8];
    assay_head_name(architecture, m->checkpoint, m->head.tied, name);
    snprintf(full, sizeof full, "%s.weight", name);
    const struct assay_tensor *weight = assay_checkpoint_find(m->checkpoint, full);
    if (!weight)
        return;
    m->has_head = true;
    m->head_bias = architecture->head_bias;
    m->head_bytes = weight->bytes;
    m->head_digest = assay_head_content_digest(architecture, m->checkpoint, &m->head);
    *ret = m->head.tied ? NULL : weight;
}

static bool is_file(const char *dir, const char *name)
{
    char path[ASSAY_PATH_MAX];
    return assay_path_join(path, dir, name, NULL) == ASSAY_OK && access(path, R_OK) == 0;
}

static void describe_tokenizer(struct model_description *m)
{
    char path[ASSAY_PATH_MAX], kind[64] = "sentencepiece";
    const bool json = is_file(m->dir, "tokenizer.json");
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_tokenizer *tokenizer = NULL;
    if (!json && !is_file(m->dir, "tokenizer.model")) {
        snprintf(m->tokenizer, sizeof m->tokenizer, "none");
        return;
    }
    if (assay_tokenizer_open(m->dir, &tokenizer, &err) != ASSAY_OK) {
        snprintf(m->tokenizer, sizeof m->tokenizer, "cannot be used: %s", err.text);
        return;
    }
    assay_auto(assay_json_delete) cJSON *object = NULL;
    if (json && assay_path_join(path, m->dir, "tokenizer.json", &err) == ASSAY_OK &&
        assay_json_load(path, &object, &err) == ASSAY_OK) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, "model"), "type");
        snprintf(kind, sizeof kind, "%s", cJSON_IsString(type) ? type->valuestring : "kind not named");
    }
    snprintf(m->tokenizer, sizeof m->tokenizer, "%s (%s), %zu tokens", json ? "tokenizer.json" : "tokenizer.model",
             kind, assay_tokenizer_vocab(tokenizer));
    assay_tokenizer_close(tokenizer);
}

/* --- all --- */

static void describe_config(struct model_description *m)
{
    const cJSON *config = assay_checkpoint_config(m->checkpoint);
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "architectures");
    const cJSON *name = cJSON_GetArrayItem(names, 0);
    snprintf(m->architecture, sizeof m->architecture, "%s",
             cJSON_IsString(name) ? name->valuestring : "(config.json names none)");
    const cJSON *method = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(config, "quantization_config"), "quant_method");
    m->quantization = cJSON_IsString(method) ? method->valuestring : NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    m->is_encoder = assay_encoder_is(config);
    if (m->is_encoder) {
        m->runs = assay_encoder_config_read(config, m->dir, &m->encoder, &err) == ASSAY_OK &&
                  assay_encoder_measure(m->checkpoint, &m->encoder_bytes, &err) == ASSAY_OK;
        snprintf(m->reason, sizeof m->reason, "%s", err.text);
        return;
    }
    m->has_config = assay_model_config_read(config, m->dir, &m->config, &err) == ASSAY_OK;
    m->runs = m->has_config && assay_model_check(m->checkpoint, &err) == ASSAY_OK;
    if (m->has_config) {
        m->chunk_tokens = ASSAY_MIN((size_t)MODEL_CHUNK_TOKENS, m->config.positions_max);
        m->chunk_bytes = assay_model_forward_bytes(&m->config, m->chunk_tokens, 1);
    }
    snprintf(m->reason, sizeof m->reason, "%s", err.text);
}

enum assay_status model_describe(const char *dir, struct model_description **ret, struct assay_err *err)
{
    struct model_description *m = calloc(1, sizeof *m);
    const struct assay_tensor *head = NULL;
    if (!m)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    snprintf(m->dir, sizeof m->dir, "%s", dir);
    enum assay_status status = assay_checkpoint_open(dir, &m->checkpoint, err);
    if (status != ASSAY_OK) {
        model_description_free(m);
        return status;
    }
    describe_config(m);
    count_tensors(m);
    describe_head(m, &head);
    describe_tokenizer(m);
    if (m->has_config)
        measure_precisions(m, head);
    *ret = m;
    return ASSAY_OK;
}

void model_description_free(struct model_description *description)
{
    if (!description)
        return;
    assay_checkpoint_close(description->checkpoint);
    free(description);
}

static void add_shape(cJSON *root, const struct assay_model_config *c)
{
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {{"hidden", c->hidden},     {"layers", c->layers},           {"heads", c->heads},
                 {"kv_heads", c->kv_heads}, {"head_dim", c->head_dim},       {"intermediate", c->intermediate},
                 {"vocab", c->vocab},       {"positions", c->positions_max}, {"rotary_dim", c->rotary_dim},
                 {"window", c->window},     {"experts", c->experts.count},   {"experts_a_row", c->experts.used}};
    cJSON *shape = cJSON_AddObjectToObject(root, "shape");
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++)
        cJSON_AddNumberToObject(shape, sizes[i].name, (double)sizes[i].value);
    cJSON_AddStringToObject(shape, "rope", c->rotary_dim ? rope_name(c->rope.kind) : "none");
    cJSON *windowed = cJSON_AddArrayToObject(shape, "windowed_layers");
    for (size_t i = 0; i < c->layers; i++)
        if (c->windowed[i])
            cJSON_AddItemToArray(windowed, cJSON_CreateNumber((double)i));
}

static void add_encoder(cJSON *root, const struct model_description *m)
{
    const struct assay_encoder_config *c = &m->encoder;
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {{"hidden", c->hidden},
                 {"layers", c->layers},
                 {"heads", c->heads},
                 {"head_dim", c->hidden / c->heads},
                 {"intermediate", c->intermediate},
                 {"vocab", c->vocab},
                 {"positions", c->positions},
                 {"types", c->types},
                 {"labels", c->labels}};
    cJSON *shape = cJSON_AddObjectToObject(root, "shape");
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++)
        cJSON_AddNumberToObject(shape, sizes[i].name, (double)sizes[i].value);
    cJSON_AddNumberToObject(root, "worker_bytes", (double)m->encoder_bytes);
}

static void add_head(cJSON *root, const struct model_description *m)
{
    char hex[ASSAY_DIGEST_HEX];
    cJSON *head = cJSON_AddObjectToObject(root, "head");
    cJSON_AddBoolToObject(head, "tied", m->head.tied);
    cJSON_AddBoolToObject(head, "bias", m->head_bias);
    cJSON_AddNumberToObject(head, "logit_scale", (double)m->head.logit_scale);
    if (m->head.soft_cap > 0)
        cJSON_AddNumberToObject(head, "soft_cap", (double)m->head.soft_cap);
    else
        cJSON_AddNullToObject(head, "soft_cap");
    cJSON_AddNumberToObject(head, "used_vocab", m->has_config ? (double)m->config.vocab_used : 0);
    cJSON_AddStringToObject(head, "digest", assay_digest_hex(&m->head_digest, hex));
    cJSON_AddNumberToObject(head, "bytes", (double)m->head_bytes);
}

static void add_precisions(cJSON *root, const struct model_description *m)
{
    cJSON *list = cJSON_AddArrayToObject(root, "precisions");
    for (size_t i = 0; i < m->precisions_count; i++) {
        const struct model_precision *p = &m->precisions[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "scheme", p->name);
        cJSON_AddBoolToObject(object, "runs", p->status == ASSAY_OK);
        if (p->status == ASSAY_OK)
            cJSON_AddNumberToObject(object, "worker_bytes", (double)p->worker_bytes);
        else
            cJSON_AddStringToObject(object, "reason", p->reason);
        cJSON_AddItemToArray(list, object);
    }
}

cJSON *model_description_json(const struct model_description *m)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", m->dir);
    cJSON_AddStringToObject(root, "architecture", m->architecture);
    cJSON_AddStringToObject(root, "kind", m->is_encoder ? "encoder" : "decoder");
    cJSON_AddBoolToObject(root, "runs", m->runs);
    if (m->runs)
        cJSON_AddNullToObject(root, "reason");
    else
        cJSON_AddStringToObject(root, "reason", m->reason);
    cJSON_AddNumberToObject(root, "parameters", (double)m->parameters);
    cJSON_AddNumberToObject(root, "stored_bytes", (double)m->stored_bytes);
    cJSON_AddStringToObject(root, "dtypes", m->dtypes);
    if (m->quantization)
        cJSON_AddStringToObject(root, "quantization", m->quantization);
    else
        cJSON_AddNullToObject(root, "quantization");
    cJSON_AddStringToObject(root, "tokenizer", m->tokenizer);
    if (m->has_config)
        add_shape(root, &m->config);
    if (m->is_encoder && m->runs)
        add_encoder(root, m);
    if (m->has_head)
        add_head(root, m);
    if (m->has_config)
        cJSON_AddNumberToObject(root, "chunk_tokens", (double)m->chunk_tokens);
    if (m->has_config)
        cJSON_AddNumberToObject(root, "chunk_bytes", (double)m->chunk_bytes);
    add_precisions(root, m);
    return root;
}
