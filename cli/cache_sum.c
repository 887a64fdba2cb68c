#include "cli/cache_sum.h"

#include <stdlib.h>
#include <string.h>

#include "cli/words.h"

enum assay_status assay_cache_sum_add(struct assay_cache_sum *sum, const char *endpoint, struct assay_reply *reply,
                                      struct assay_err *err)
{
    if (sum->count == ASSAY_SHARDS_MAX) {
        assay_reply_free(reply);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "more than %d evaluators", ASSAY_SHARDS_MAX);
    }
    sum->endpoints[sum->count] = endpoint;
    sum->replies[sum->count++] = reply;
    return ASSAY_OK;
}

static bool same_bytes(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool same_variant(const Assay__V1__CacheVariant *a, const Assay__V1__CacheVariant *b)
{
    return a->has_variant_id == b->has_variant_id && same_bytes(a->variant_id, b->variant_id) &&
           strcmp(assay_word_or(a->numerics_id, ""), assay_word_or(b->numerics_id, "")) == 0 && a->dtype == b->dtype;
}

static void add_variant(struct assay_cache_sum *sum, const Assay__V1__CacheVariant *variant)
{
    for (size_t i = 0; i < sum->total.n_variants; i++) {
        Assay__V1__CacheVariant *there = &sum->variants[i];
        if (!same_variant(there, variant))
            continue;
        there->chunks += variant->chunks;
        there->bytes += variant->bytes;
        there->pinned += variant->pinned;
        there->last_used_wall_ms = ASSAY_MAX(there->last_used_wall_ms, variant->last_used_wall_ms);
        if (!there->label && variant->label) {
            there->label = variant->label;
            there->has_model_id = variant->has_model_id;
            there->model_id = variant->model_id;
        }
        return;
    }
    sum->variants[sum->total.n_variants++] = *variant;
}

static int by_bytes_descending(const void *a, const void *b)
{
    const Assay__V1__CacheVariant *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

enum assay_status assay_cache_sum_end(struct assay_cache_sum *sum, struct assay_err *err)
{
    Assay__V1__CacheStatReply *total = &sum->total;
    size_t variants = 0;
    assay__v1__cache_stat_reply__init(total);
    for (size_t i = 0; i < sum->count; i++)
        variants += ((const Assay__V1__CacheStatReply *)assay_reply_message(sum->replies[i]))->n_variants;
    sum->variants = calloc(variants + 1, sizeof *sum->variants);
    total->variants = calloc(variants + 1, sizeof *total->variants);
    if (!sum->variants || !total->variants)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu variants", variants);
    for (size_t i = 0; i < sum->count; i++) {
        const Assay__V1__CacheStatReply *stat = assay_reply_message(sum->replies[i]);
        total->records += stat->records;
        total->record_bytes += stat->record_bytes;
        total->samples += stat->samples;
        total->sample_bytes += stat->sample_bytes;
        total->quota_bytes += stat->quota_bytes;
        total->store_bytes += stat->store_bytes;
        total->pinned += stat->pinned;
        total->pinned_bytes += stat->pinned_bytes;
        for (size_t j = 0; j < stat->n_variants; j++)
            add_variant(sum, stat->variants[j]);
    }
    if (total->n_variants > 0)
        qsort(sum->variants, total->n_variants, sizeof *sum->variants, by_bytes_descending);
    for (size_t i = 0; i < total->n_variants; i++)
        total->variants[i] = &sum->variants[i];
    return ASSAY_OK;
}

void assay_cache_sum_release(struct assay_cache_sum *sum)
{
    for (size_t i = 0; i < sum->count; i++)
        assay_reply_free(sum->replies[i]);
    free(sum->total.variants);
    free(sum->variants);
    *sum = (struct assay_cache_sum){.count = 0};
}
