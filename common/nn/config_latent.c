/* Members of config.json that only families with latent attention and experts have. */
#include <math.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/config_reader.h"

/* What transformers has built in, and what files say all the same. */
static enum assay_status check_words(const cJSON *config, const char *what, struct assay_err *err)
{
    static const struct {
        const char *key, *wanted;
    } words[] = {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}};
    for (size_t i = 0; i < ASSAY_COUNT(words); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, words[i].key);
        if (item && !cJSON_IsNull(item) && !(cJSON_IsString(item) && strcmp(item->valuestring, words[i].wanted) == 0))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s '%.40s' is not implemented; %s is", what,
                                 words[i].key, cJSON_IsString(item) ? item->valuestring : "(no text)", words[i].wanted);
    }
    const cJSON *every = cJSON_GetObjectItemCaseSensitive(config, "moe_layer_freq");
    if (every && !cJSON_IsNull(every) && !(cJSON_IsNumber(every) && every->valuedouble == 1))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: moe_layer_freq other than 1 is not implemented", what);
    return ASSAY_OK;
}

static void read_latent(struct assay_reader *r, struct assay_model_config *c)
{
    size_t fixed = assay_reader_size(r, "qk_nope_head_dim", false, 128, ASSAY_MODEL_DIM_MAX);
    bool direct = cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(r->object, "q_lora_rank"));
    c->latent.q_rank = direct ? 0 : assay_reader_size(r, "q_lora_rank", false, 1536, ASSAY_MODEL_DIM_MAX);
    c->latent.kv_rank = assay_reader_size(r, "kv_lora_rank", false, 512, ASSAY_MODEL_DIM_MAX);
    c->latent.interleaved = assay_reader_bool(r, "rope_interleave", true);
    c->rotary_dim = assay_reader_size(r, "qk_rope_head_dim", false, 64, 2 * ASSAY_ROPE_PAIRS_MAX);
    c->value_dim = assay_reader_size(r, "v_head_dim", false, 128, ASSAY_MODEL_DIM_MAX);
    c->head_dim = fixed + c->rotary_dim;
}

static void read_experts(struct assay_reader *r, struct assay_model_config *c)
{
    const cJSON *first = assay_reader_member(r, "first_k_dense_replace");
    bool at_once = cJSON_IsNumber(first) && first->valuedouble == 0;
    c->experts.count = assay_reader_size(r, "n_routed_experts", false, 256, ASSAY_MODEL_EXPERTS_MAX);
    c->experts.used = assay_reader_size(r, "num_experts_per_tok", false, 8, ASSAY_MODEL_EXPERTS_MAX);
    c->experts.groups = assay_reader_size(r, "n_group", false, 8, ASSAY_MODEL_EXPERTS_MAX);
    c->experts.groups_used = assay_reader_size(r, "topk_group", false, 4, ASSAY_MODEL_EXPERTS_MAX);
    c->experts.shared = assay_reader_size(r, "n_shared_experts", false, 1, ASSAY_MODEL_EXPERTS_MAX);
    c->experts.intermediate = assay_reader_size(r, "moe_intermediate_size", false, 2048, ASSAY_MODEL_DIM_MAX);
    c->experts.first = at_once ? 0 : assay_reader_size(r, "first_k_dense_replace", false, 3, ASSAY_MODEL_LAYERS_MAX);
    c->experts.normalized = assay_reader_bool(r, "norm_topk_prob", true);
    c->experts.scale = (float)assay_reader_double(r, "routed_scaling_factor", false, 2.5);
}

static enum assay_status check(const struct assay_model_config *c, const char *what, struct assay_err *err)
{
    size_t each = c->experts.count / c->experts.groups;
    if (c->rotary_dim % 2 != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: qk_rope_head_dim is %zu, wanted an even number", what,
                             c->rotary_dim);
    if (c->kv_heads != c->heads)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: %zu key-value heads for %zu heads are not implemented for %s", what, c->kv_heads,
                             c->heads, c->architecture);
    if (c->experts.count % c->experts.groups != 0 || each < 2)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu experts in %zu groups, wanted two or more in each",
                             what, c->experts.count, c->experts.groups);
    if (c->experts.groups_used > c->experts.groups || c->experts.used > c->experts.groups_used * each)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %zu experts of %zu groups are to be chosen of %zu in %zu", what, c->experts.used,
                             c->experts.groups_used, c->experts.count, c->experts.groups);
    if (c->heads * ASSAY_MAX(c->head_dim, c->value_dim) > ASSAY_MODEL_DIM_MAX ||
        c->experts.shared * c->experts.intermediate > ASSAY_MODEL_DIM_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: heads or shared experts are wider than %u", what,
                             ASSAY_MODEL_DIM_MAX);
    if (!(isfinite(c->experts.scale) && c->experts.scale > 0))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: routed_scaling_factor is %g, wanted a number above 0",
                             what, (double)c->experts.scale);
    return ASSAY_OK;
}

enum assay_status assay_config_read_latent(const cJSON *config, const char *what, struct assay_model_config *c,
                                           struct assay_err *err)
{
    struct assay_reader r = {config, what, err, ASSAY_OK};
    enum assay_status status = check_words(config, what, err);
    if (status != ASSAY_OK)
        return status;
    read_latent(&r, c);
    read_experts(&r, c);
    return r.status == ASSAY_OK ? check(c, what, err) : r.status;
}
