/* Reads members of one JSON object; the first failure stays, and what is read after it is meaningless. */
#pragma once

#include "common/nn/family.h"

struct assay_reader {
    const cJSON *object;
    const char *what;
    struct assay_err *err;
    enum assay_status status;
};

static inline const cJSON *assay_reader_member(const struct assay_reader *r, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->object, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

static inline size_t assay_reader_size(struct assay_reader *r, const char *key, bool required, size_t otherwise,
                                       size_t max)
{
    int64_t value = (int64_t)otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_int(r->object, r->what, key, required, 1, (int64_t)max, &value, r->err);
    return (size_t)value;
}

static inline double assay_reader_double(struct assay_reader *r, const char *key, bool required, double otherwise)
{
    double value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_double(r->object, r->what, key, required, &value, r->err);
    return value;
}

static inline bool assay_reader_bool(struct assay_reader *r, const char *key, bool otherwise)
{
    bool value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_bool(r->object, r->what, key, false, &value, r->err);
    return value;
}

static inline const char *assay_reader_string(struct assay_reader *r, const char *key, const char *otherwise)
{
    const char *value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_string(r->object, r->what, key, false, &value, r->err);
    return value;
}

/* Options of config.json that change what a model computes and that are not in `own`, which NULL ends: UNIMPLEMENTED by
 * name. */
enum assay_status assay_options_check(const cJSON *config, const char *what, const char *architecture,
                                      const char *const *own, struct assay_err *err) ASSAY_MUST_USE;

/* The name of an activation, as transformers has them. */
enum assay_status assay_activation_parse(const char *name, const char *what, enum assay_activation *ret,
                                         struct assay_err *err) ASSAY_MUST_USE;

/* latent, experts, and the sizes of heads. What comes before them is set. */
enum assay_status assay_config_read_latent(const cJSON *config, const char *what, struct assay_model_config *c,
                                           struct assay_err *err) ASSAY_MUST_USE;

/* rope, local_rope, rotary_dim and, where the rope reaches further, positions_max. What comes before them is set. */
enum assay_status assay_config_read_rope(const cJSON *config, const char *what, struct assay_model_config *c,
                                         struct assay_err *err) ASSAY_MUST_USE;
