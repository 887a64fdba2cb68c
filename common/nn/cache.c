#include "common/nn/cache.h"

#include <stdlib.h>

#include "common/nn/cache_impl.h"
#include "common/nn/model_impl.h"

enum assay_status assay_cache_new(const struct assay_model *model, enum assay_dtype dtype, size_t tokens_max,
                                  struct assay_cache **ret, struct assay_err *err)
{
    const struct assay_model_config *c = &model->config;
    if (tokens_max < 1 || tokens_max > c->positions_max)
        return assay_err_set(err, ASSAY_OUT_OF_RANGE, "a cache of %zu tokens, the model takes 1 to %zu", tokens_max,
                             c->positions_max);
    struct assay_cache *cache = calloc(1, sizeof *cache);
    if (cache)
        cache->kv = calloc(c->layers, sizeof *cache->kv);
    if (!cache || !cache->kv) {
        free(cache);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a cache of %zu layers", c->layers);
    }
    cache->tokens_max = tokens_max;
    cache->layers = c->layers;
    cache->shape = assay_model_attention_shape(c);
    for (size_t i = 0; i < c->layers; i++) {
        enum assay_status status = assay_kv_new(&cache->shape, dtype, tokens_max, &cache->kv[i], err);
        if (status != ASSAY_OK) {
            assay_cache_free(cache);
            return status;
        }
    }
    *ret = cache;
    return ASSAY_OK;
}

void assay_cache_free(struct assay_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < cache->layers; i++)
        assay_kv_release(&cache->kv[i]);
    free(cache->kv);
    free(cache);
}

size_t assay_cache_tokens(const struct assay_cache *cache)
{
    return cache->tokens;
}

size_t assay_cache_tokens_max(const struct assay_cache *cache)
{
    return cache->tokens_max;
}

size_t assay_cache_bytes(const struct assay_cache *cache)
{
    return cache->layers * assay_kv_bytes(&cache->shape, &cache->kv[0]);
}

void assay_cache_truncate(struct assay_cache *cache, size_t tokens)
{
    cache->tokens = ASSAY_MIN(cache->tokens, tokens);
}

bool assay_cache_wants_all(const struct assay_model *model)
{
    const struct assay_model_config *c = &model->config;
    return c->rotary_dim > 0 && (c->rope.kind == ASSAY_ROPE_DYNAMIC || c->rope.kind == ASSAY_ROPE_LONGROPE);
}

bool assay_cache_turned(const struct assay_model *model, const struct assay_cache *cache, size_t tokens)
{
    const struct assay_model_config *c = &model->config;
    return c->rotary_dim > 0 && c->rope.kind == ASSAY_ROPE_LONGROPE && cache->tokens > 0 &&
           cache->tokens <= c->rope.original_positions && tokens > c->rope.original_positions;
}
