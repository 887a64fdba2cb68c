#include "common/nn/pooling.h"

#include <math.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/formats/json.h"

#define MODULES_FILE "modules.json"
#define POOLING_FILE "config.json"
#define SENTENCE_FILE "sentence_bert_config.json"
#define PROMPTS_FILE "config_sentence_transformers.json"

/* NULL when the file is not there. */
static enum assay_status load_optional(const char *dir, const char *file, char path[ASSAY_PATH_MAX], cJSON **ret,
                                       struct assay_err *err)
{
    struct assay_err found = ASSAY_ERR_INIT;
    *ret = NULL;
    enum assay_status status = assay_path_join(path, dir, file, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_json_load(path, ret, &found);
    if (status == ASSAY_NOT_FOUND)
        return ASSAY_OK;
    if (status != ASSAY_OK && err)
        *err = found;
    return status;
}

/* Of all modes exactly one is on. */
static enum assay_status read_modes(const cJSON *config, const char *path, struct assay_pooling *pooling,
                                    struct assay_err *err)
{
    static const struct {
        const char *member, *name; /* the latter as `pooling_mode` */
        enum assay_pooling_kind kind;
    } modes[] = {
        {"pooling_mode_mean_tokens", "mean", ASSAY_POOLING_MEAN},
        {"pooling_mode_cls_token", "cls", ASSAY_POOLING_FIRST},
        {"pooling_mode_max_tokens", "max", ASSAY_POOLING_MAX},
        {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", ASSAY_POOLING_MEAN_ROOT},
        {"pooling_mode_weightedmean_tokens", "weightedmean", ASSAY_POOLING_MEAN_WEIGHTED},
        {"pooling_mode_lasttoken", "lasttoken", ASSAY_POOLING_LAST},
    };
    const char *mode = NULL, *on = NULL;
    pooling->kind = ASSAY_POOLING_MEAN;
    enum assay_status status = assay_json_get_string(config, path, "pooling_mode", false, &mode, err);
    for (size_t i = 0; i < ASSAY_COUNT(modes) && status == ASSAY_OK; i++) {
        bool value = mode && strcmp(mode, modes[i].name) == 0;
        if (!mode)
            status = assay_json_get_bool(config, path, modes[i].member, false, &value, err);
        if (status == ASSAY_OK && value && on)
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s together with %s is not implemented", path, on,
                                 modes[i].member);
        if (value) {
            on = modes[i].member;
            pooling->kind = modes[i].kind;
        }
    }
    if (status == ASSAY_OK && mode && !on)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: pooling_mode \"%.100s\" is not implemented; mean, cls, max, mean_sqrt_len_tokens, "
                             "weightedmean and lasttoken are",
                             path, mode);
    return status;
}

static enum assay_status read_pooling(const char *dir, const char *folder, struct assay_pooling *pooling,
                                      struct assay_err *err)
{
    char inner[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
    assay_auto(assay_json_delete) cJSON *config = NULL;
    if (!assay_path_is_name(folder))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s/" MODULES_FILE ": \"%s\" is not the name of a folder",
                             dir, folder);
    enum assay_status status = assay_path_join(inner, dir, folder, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, inner, POOLING_FILE, err);
    if (status == ASSAY_OK)
        status = assay_json_load(path, &config, err);
    return status == ASSAY_OK ? read_modes(config, path, pooling, err) : status;
}

/* "sentence_transformers.models.Pooling" -> "Pooling" */
static const char *kind_of(const char *type)
{
    const char *dot = strrchr(type, '.');
    return dot ? dot + 1 : type;
}

static enum assay_status read_modules(const cJSON *modules, const char *dir, const char *path,
                                      struct assay_pooling *pooling, struct assay_err *err)
{
    pooling->normalize = false;
    const cJSON *module;
    cJSON_ArrayForEach(module, modules)
    {
        const char *type = NULL, *folder = "";
        enum assay_status status = assay_json_get_string(module, path, "type", true, &type, err);
        if (status == ASSAY_OK)
            status = assay_json_get_string(module, path, "path", false, &folder, err);
        if (status != ASSAY_OK)
            return status;
        const char *kind = kind_of(type);
        if (strcmp(kind, "Pooling") == 0)
            status = read_pooling(dir, folder, pooling, err);
        else if (strcmp(kind, "Normalize") == 0)
            pooling->normalize = true;
        else if (strcmp(kind, "Transformer") != 0 || folder[0])
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the module %s (path \"%s\") is not implemented", path,
                                 type, folder);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status read_length(const char *dir, size_t positions, struct assay_pooling *pooling,
                                     struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_json_delete) cJSON *config = NULL;
    int64_t tokens = (int64_t)positions;
    bool lower = false;
    enum assay_status status = load_optional(dir, SENTENCE_FILE, path, &config, err);
    if (status != ASSAY_OK || !config)
        return status;
    status = assay_json_get_int(config, path, "max_seq_length", false, 2, INT32_MAX, &tokens, err);
    if (status == ASSAY_OK)
        status = assay_json_get_bool(config, path, "do_lower_case", false, &lower, err);
    if (status == ASSAY_OK && lower)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: do_lower_case is not implemented", path);
    pooling->tokens_max = ASSAY_MIN((size_t)tokens, positions);
    return status;
}

/* A prompt that stands before every text. */
static enum assay_status refuse_prompt(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    const char *name = NULL;
    assay_auto(assay_json_delete) cJSON *config = NULL;
    enum assay_status status = load_optional(dir, PROMPTS_FILE, path, &config, err);
    if (status == ASSAY_OK && config)
        status = assay_json_get_string(config, path, "default_prompt_name", false, &name, err);
    if (status == ASSAY_OK && name)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: default_prompt_name \"%.100s\" is not implemented", path,
                             name);
    return status;
}

enum assay_status assay_pooling_read(const char *dir, size_t positions, struct assay_pooling *ret,
                                     struct assay_err *err)
{
    struct assay_pooling pooling = {.tokens_max = positions, .normalize = true};
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_json_delete) cJSON *modules = NULL;
    enum assay_status status = load_optional(dir, MODULES_FILE, path, &modules, err);
    if (status == ASSAY_OK && modules && !cJSON_IsArray(modules))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a list of modules", path);
    if (status == ASSAY_OK && modules)
        status = read_modules(modules, dir, path, &pooling, err);
    pooling.is_stated = modules != NULL;
    if (status == ASSAY_OK)
        status = refuse_prompt(dir, err);
    if (status == ASSAY_OK)
        status = read_length(dir, positions, &pooling, err);
    if (status == ASSAY_OK)
        *ret = pooling;
    return status;
}

/* One dimension of hidden[tokens, width]. */
static double pool(enum assay_pooling_kind kind, const float *hidden, size_t tokens, size_t width)
{
    double sum = 0, highest = -INFINITY, n = (double)tokens;
    if (kind == ASSAY_POOLING_FIRST || kind == ASSAY_POOLING_LAST)
        return (double)hidden[kind == ASSAY_POOLING_FIRST ? 0 : (tokens - 1) * width];
    for (size_t t = 0; t < tokens; t++) {
        double x = (double)hidden[t * width];
        sum += kind == ASSAY_POOLING_MEAN_WEIGHTED ? (double)(t + 1) * x : x;
        highest = x > highest || isnan(x) ? x : highest;
    }
    switch (kind) {
    case ASSAY_POOLING_MEAN_ROOT:
        return sum / sqrt(n);
    case ASSAY_POOLING_MEAN_WEIGHTED:
        return sum / (n * (n + 1) / 2);
    case ASSAY_POOLING_MAX:
        return highest;
    case ASSAY_POOLING_MEAN:
    case ASSAY_POOLING_FIRST:
    case ASSAY_POOLING_LAST:
        break;
    }
    return sum / n;
}

void assay_pooling_apply(const struct assay_pooling *pooling, const float *hidden, size_t tokens, size_t width,
                         float *embedding)
{
    double squares = 0;
    for (size_t i = 0; i < width; i++) {
        embedding[i] = (float)pool(pooling->kind, hidden + i, tokens, width);
        squares += (double)embedding[i] * (double)embedding[i];
    }
    /* As torch's normalize: a length below 1e-12 counts as 1e-12. */
    double length = fmax(sqrt(squares), 1e-12);
    for (size_t i = 0; i < width && pooling->normalize; i++)
        embedding[i] = (float)((double)embedding[i] / length);
}
