/* Rope parameters of config.json. transformers 5 has all in rope_parameters; 4 has rope_theta beside rope_scaling,
 * whose rope_type was once called type. */
#include <math.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/config_reader.h"

static const char *const kind_names[] = {
    [ASSAY_ROPE_DEFAULT] = "default", [ASSAY_ROPE_LINEAR] = "linear", [ASSAY_ROPE_DYNAMIC] = "dynamic",
    [ASSAY_ROPE_LLAMA3] = "llama3",   [ASSAY_ROPE_YARN] = "yarn",     [ASSAY_ROPE_LONGROPE] = "longrope",
};

/* What is being read. */
struct source {
    const cJSON *config;
    struct assay_reader *r; /* of the object with the parameters; of {} where there is none */
    struct assay_model_config *c;
};

static enum assay_status parse_kind(const struct assay_family *family, const char *name, const char *what,
                                    enum assay_rope_kind *ret, struct assay_err *err)
{
    if (family->yarn_is_longrope && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0))
        name = "longrope";
    for (size_t i = 0; i < ASSAY_COUNT(kind_names); i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            *ret = (enum assay_rope_kind)i;
            return ASSAY_OK;
        }
    }
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: the rope type '%.60s' is not implemented; these are: default, linear, dynamic, llama3, "
                         "yarn, longrope",
                         what, name);
}

/* Every member of the object is one that we know. */
static enum assay_status check_members(const cJSON *rope, const char *what, struct assay_err *err)
{
    static const char *const known[] = {"rope_theta",
                                        "rope_type",
                                        "type",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "beta_fast",
                                        "beta_slow",
                                        "short_factor",
                                        "long_factor",
                                        "low_freq_factor",
                                        "truncate",
                                        "mscale",
                                        "finetuned",
                                        "attention_factor",
                                        "high_freq_factor",
                                        "mscale_all_dim",
                                        "partial_rotary_factor"};
    const cJSON *item;
    cJSON_ArrayForEach(item, rope)
    {
        size_t i = 0;
        while (i < ASSAY_COUNT(known) && strcmp(item->string, known[i]) != 0)
            i++;
        if (i == ASSAY_COUNT(known) && !cJSON_IsNull(item))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the rope option '%.60s' is not implemented", what,
                                 item->string);
    }
    return ASSAY_OK;
}

static bool is_number_above(double value, double floor_of, double ceiling)
{
    return value > floor_of && value <= ceiling;
}

static enum assay_status check_rope(const struct assay_rope *rope, size_t rotary_dim, const char *what,
                                    struct assay_err *err)
{
    if (!is_number_above(rope->theta, 1, 1e12))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: rope_theta is %g, wanted a number above 1", what,
                             rope->theta);
    if (!(rope->factor >= 1 && rope->factor <= 1e6))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the rope factor is %g, wanted at least 1", what,
                             rope->factor);
    if (rope->kind == ASSAY_ROPE_LLAMA3 && !(rope->low_freq_factor > 0 && isfinite(rope->high_freq_factor) &&
                                             rope->high_freq_factor > rope->low_freq_factor))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: low_freq_factor %g and high_freq_factor %g, wanted 0 < low < high", what,
                             rope->low_freq_factor, rope->high_freq_factor);
    if (rope->kind == ASSAY_ROPE_DYNAMIC && rotary_dim <= 2)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: dynamic rope needs a head_dim above 2", what);
    if (rope->kind == ASSAY_ROPE_YARN &&
        !(is_number_above(rope->beta_fast, 0, 1e6) && is_number_above(rope->beta_slow, 0, 1e6)))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: beta_fast %g and beta_slow %g, wanted numbers above 0",
                             what, rope->beta_fast, rope->beta_slow);
    if (!is_number_above(rope->attention_factor, 0, 1e6))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: attention_factor is %g, wanted a number above 0", what,
                             rope->attention_factor);
    return ASSAY_OK;
}

static double mscale_of(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void read_yarn(struct assay_reader *r, struct assay_rope *rope)
{
    double mscale = assay_reader_double(r, "mscale", false, 0);
    double all = assay_reader_double(r, "mscale_all_dim", false, 0);
    double otherwise = mscale_of(rope->factor, 1);
    if (mscale != 0 && all != 0)
        otherwise = mscale_of(rope->factor, mscale) / mscale_of(rope->factor, all);
    rope->beta_fast = assay_reader_double(r, "beta_fast", false, 32);
    rope->beta_slow = assay_reader_double(r, "beta_slow", false, 1);
    rope->truncate = assay_reader_bool(r, "truncate", true);
    rope->attention_factor = assay_reader_double(r, "attention_factor", false, otherwise);
    if (all != 0)
        rope->score_factor = mscale_of(rope->factor, all) * mscale_of(rope->factor, all);
}

static void read_factors(struct assay_reader *r, const char *key, size_t pairs, float *factors)
{
    const cJSON *list = assay_reader_member(r, key), *item;
    size_t i = 0;
    if (r->status != ASSAY_OK)
        return;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != pairs || pairs > ASSAY_ROPE_PAIRS_MAX) {
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is to have %zu numbers, at most %d", r->what,
                                  key, pairs, ASSAY_ROPE_PAIRS_MAX);
        return;
    }
    cJSON_ArrayForEach(item, list)
    {
        if (r->status == ASSAY_OK && (!cJSON_IsNumber(item) || !is_number_above(item->valuedouble, 0, 1e6)))
            r->status =
                assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s[%zu] is no number above 0", r->what, key, i);
        if (r->status == ASSAY_OK)
            factors[i++] = (float)item->valuedouble;
    }
}

static void read_longrope(struct assay_reader *r, size_t rotary_dim, struct assay_rope *rope)
{
    read_factors(r, "short_factor", rotary_dim / 2, rope->short_factors);
    read_factors(r, "long_factor", rotary_dim / 2, rope->long_factors);
    double otherwise = 1;
    if (rope->factor > 1)
        otherwise = sqrt(1 + log(rope->factor) / log((double)rope->original_positions));
    rope->attention_factor = assay_reader_double(r, "attention_factor", false, otherwise);
}

/* original_max_position_embeddings beside the object goes before that within. */
static size_t read_original(const struct source *s)
{
    static const char key[] = "original_max_position_embeddings";
    const struct assay_family *family = s->c->family;
    struct assay_reader top = {s->config, s->r->what, s->r->err, s->r->status};
    size_t within = assay_reader_size(s->r, key, false, s->c->positions_max, ASSAY_MODEL_VOCAB_MAX);
    if (family->original_positions)
        within = family->original_positions;
    within = assay_reader_size(&top, key, false, within, ASSAY_MODEL_VOCAB_MAX);
    if (s->r->status == ASSAY_OK)
        s->r->status = top.status;
    return within;
}

static void read_parameters(const struct source *s, struct assay_rope *rope)
{
    struct assay_reader *r = s->r;
    bool scaled = rope->kind != ASSAY_ROPE_DEFAULT;
    bool implied = rope->kind == ASSAY_ROPE_YARN || rope->kind == ASSAY_ROPE_LONGROPE;
    if (rope->kind == ASSAY_ROPE_LLAMA3 || implied)
        rope->original_positions = read_original(s);
    if (scaled)
        rope->factor =
            assay_reader_double(r, "factor", !implied, (double)s->c->positions_max / (double)rope->original_positions);
    if (rope->kind == ASSAY_ROPE_LLAMA3) {
        rope->low_freq_factor = assay_reader_double(r, "low_freq_factor", true, 0);
        rope->high_freq_factor = assay_reader_double(r, "high_freq_factor", true, 0);
    }
    if (rope->kind == ASSAY_ROPE_YARN)
        read_yarn(r, rope);
    else if (rope->kind == ASSAY_ROPE_LONGROPE)
        read_longrope(r, s->c->rotary_dim, rope);
    else if (r->status == ASSAY_OK && assay_reader_double(r, "attention_factor", false, 1) != 1)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: attention_factor of rope type %s other than 1 is not implemented", r->what,
                                  kind_names[rope->kind]);
}

/* One rope; `object` may be NULL. */
static enum assay_status read_one(const cJSON *config, const cJSON *object, const char *what, double theta,
                                  struct assay_model_config *c, struct assay_rope *ret, struct assay_err *err)
{
    static const cJSON nothing = {.type = cJSON_Object};
    if (object && !cJSON_IsObject(object))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: rope_parameters or rope_scaling is not an object", what);
    struct assay_reader r = {object ? object : &nothing, what, err, ASSAY_OK};
    const struct source source = {config, &r, c};
    struct assay_rope rope = {.factor = 1, .attention_factor = 1, .score_factor = 1};
    rope.original_positions = c->positions_max;
    rope.theta = assay_reader_double(&r, "rope_theta", false, theta);
    const char *kind = assay_reader_string(&r, "rope_type", assay_reader_string(&r, "type", "default"));
    if (r.status == ASSAY_OK)
        r.status = check_members(r.object, what, err);
    if (r.status == ASSAY_OK)
        r.status = parse_kind(c->family, kind, what, &rope.kind, err);
    if (r.status == ASSAY_OK)
        read_parameters(&source, &rope);
    if (r.status == ASSAY_OK)
        r.status = check_rope(&rope, c->rotary_dim, what, err);
    if (r.status == ASSAY_OK)
        *ret = rope;
    return r.status;
}

/* How many elements of a head rotate. */
static enum assay_status read_rotary(const cJSON *config, const cJSON *rope, const char *what,
                                     struct assay_model_config *c, struct assay_err *err)
{
    const struct assay_family *family = c->family;
    struct assay_reader top = {config, what, err, ASSAY_OK};
    double fraction = assay_reader_double(&top, family->keys.rotary, false, family->rotary);
    if (cJSON_IsObject(rope)) {
        struct assay_reader r = {rope, what, err, top.status};
        fraction = assay_reader_double(&r, "partial_rotary_factor", false, fraction);
        top.status = r.status;
    }
    if (top.status != ASSAY_OK)
        return top.status;
    if (fraction != 1 && !family->partial_rotary)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: partial_rotary_factor other than 1 is not implemented for %s", what,
                             family->architecture);
    if (!is_number_above(fraction, 0, 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: partial_rotary_factor is %g, wanted above 0 and at most 1", what, fraction);
    c->rotary_dim = (size_t)((double)c->head_dim * fraction);
    if (c->rotary_dim == 0 || c->rotary_dim % 2 != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %zu elements of a head rotate, wanted an even number above 0", what, c->rotary_dim);
    return ASSAY_OK;
}

/* Layers with and without a window have a rope each: two objects in one, or rope_scaling for the latter alone. */
static enum assay_status read_both(const cJSON *config, const cJSON *rope, const char *what,
                                   struct assay_model_config *c, struct assay_err *err)
{
    struct assay_reader top = {config, what, err, ASSAY_OK};
    double global = assay_reader_double(&top, "rope_theta", false, c->family->theta);
    double local = assay_reader_double(&top, "rope_local_base_freq", false, 10000);
    const cJSON *full = cJSON_GetObjectItemCaseSensitive(rope, "full_attention");
    const cJSON *sliding = cJSON_GetObjectItemCaseSensitive(rope, "sliding_attention");
    if (!full && !sliding)
        full = rope;
    else if (cJSON_GetArraySize(rope) != (full != NULL) + (sliding != NULL))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: rope_parameters beside those of full_attention and sliding_attention", what);
    enum assay_status status = top.status;
    if (status == ASSAY_OK)
        status = read_one(config, cJSON_IsNull(full) ? NULL : full, what, global, c, &c->rope, err);
    if (status == ASSAY_OK)
        status = read_one(config, cJSON_IsNull(sliding) ? NULL : sliding, what, local, c, &c->local_rope, err);
    return status;
}

enum assay_status assay_config_read_rope(const cJSON *config, const char *what, struct assay_model_config *c,
                                         struct assay_err *err)
{
    const struct assay_family *family = c->family;
    struct assay_reader top = {config, what, err, ASSAY_OK};
    const cJSON *rope = assay_reader_member(&top, "rope_parameters");
    if (!rope)
        rope = assay_reader_member(&top, "rope_scaling");
    enum assay_status status = c->rotary_dim ? ASSAY_OK : read_rotary(config, rope, what, c, err);
    if (status == ASSAY_OK && family->local_rope)
        status = read_both(config, rope, what, c, err);
    else if (status == ASSAY_OK)
        status = read_one(config, rope, what, assay_reader_double(&top, family->keys.theta, false, family->theta), c,
                          &c->rope, err);
    if (status != ASSAY_OK || top.status != ASSAY_OK)
        return status == ASSAY_OK ? top.status : status;
    double reach = 0;
    if (c->rope.kind == ASSAY_ROPE_DYNAMIC || c->rope.kind == ASSAY_ROPE_YARN)
        reach = (double)c->rope.original_positions * c->rope.factor;
    c->positions_max = ASSAY_MAX(c->positions_max, (size_t)fmin(reach, ASSAY_MODEL_VOCAB_MAX));
    return ASSAY_OK;
}
