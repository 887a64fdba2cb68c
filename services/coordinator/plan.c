#include "services/coordinator/plan.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/base/paths.h"
#include "common/wire/spec_message.h"

static const Assay__V1__VariantSpec *spec_at(const Assay__V1__SubmitJobRequest *request, size_t index)
{
    return index == 0 ? request->reference : request->variants[index - 1];
}

enum assay_status assay_plan_check(const Assay__V1__SubmitJobRequest *request, struct assay_err *err)
{
    if (!request->reference || request->n_variants == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a job needs a reference and at least one variant, found %s and %zu",
                             request->reference ? "one" : "none", request->n_variants);
    if (request->n_variants > ASSAY_JOB_VARIANTS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a job has at most %d variants, found %zu",
                             ASSAY_JOB_VARIANTS_MAX, request->n_variants);
    if (!request->model_dir || request->model_dir[0] != '/')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "model_dir is an absolute path, found '%.200s'",
                             request->model_dir ? request->model_dir : "");
    if (!request->protocol || !assay_protocol_find(request->protocol))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "unknown perplexity protocol '%.100s'; there is: %s",
                             request->protocol ? request->protocol : "", assay_protocol_names());
    if (request->has_record_dtype && request->record_dtype != ASSAY__V1__DTYPE__DTYPE_F32 &&
        request->record_dtype != ASSAY__V1__DTYPE__DTYPE_F16)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "record_dtype is F32 or F16, found %d",
                             (int)request->record_dtype);
    if (request->priority < -ASSAY_PRIORITY_MAX || request->priority > ASSAY_PRIORITY_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "priority is %d to %d, found %d", -ASSAY_PRIORITY_MAX,
                             ASSAY_PRIORITY_MAX, (int)request->priority);
    for (size_t i = 0; i <= request->n_variants; i++) {
        struct assay_spec spec;
        enum assay_status status = assay_spec_of_message(spec_at(request, i), &spec, err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

/* The digest of a file, kept under what changes when its contents do. */
static enum assay_status file_digest(void *arg, const char *path, struct assay_digest *ret, struct assay_err *err)
{
    struct assay_store *store = arg;
    struct assay_file_identity file;
    enum assay_status status = assay_file_identify(path, &file, err);
    if (status != ASSAY_OK)
        return status;
    const uint64_t key[] = {file.device,      file.inode,     file.bytes,     file.modified_s,
                            file.modified_ns, file.changed_s, file.changed_ns};
    void *value = NULL;
    size_t bytes;
    if (assay_store_get(store, "digests", key, sizeof key, &value, &bytes, NULL) == ASSAY_OK && bytes == sizeof *ret) {
        memcpy(ret, value, sizeof *ret);
        free(value);
        return ASSAY_OK;
    }
    free(value);
    bool may_keep = assay_file_is_settled(&file);
    status = assay_digest_file(path, ret, err);
    if (status != ASSAY_OK || !may_keep)
        return status;
    const struct assay_put put = {"digests", key, sizeof key, ret, sizeof *ret};
    return assay_store_put(store, &put, 1, err);
}

static enum assay_status plan_model(const char *dir, struct assay_store *store, struct assay_plan *plan,
                                    struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_model_config_read(assay_checkpoint_config(checkpoint), dir, &plan->model, err);
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++)
        plan->parameters += assay_tensor_elements(assay_checkpoint_at(checkpoint, i));
    assay_checkpoint_close(checkpoint);
    return status == ASSAY_OK ? assay_checkpoint_id(dir, file_digest, store, &plan->model_id, err) : status;
}

static enum assay_status check_ids(const struct assay_plan *plan, const char *model_dir, struct assay_err *err)
{
    if (plan->protocol->window > plan->model.positions_max)
        return assay_err_set(err, ASSAY_OUT_OF_RANGE,
                             "protocol %s runs %zu tokens at once, %s has max_position_embeddings %zu",
                             plan->protocol->name, plan->protocol->window, model_dir, plan->model.positions_max);
    for (size_t i = 0; i < plan->chunks.count; i++) {
        const struct assay_chunk *chunk = &plan->chunks.at[i];
        for (size_t t = 0; t < chunk->tokens; t++)
            if (chunk->ids[t] < 0 || (size_t)chunk->ids[t] >= plan->model.vocab)
                return assay_err_set(
                    err, ASSAY_INVALID_ARGUMENT,
                    "the tokenizer of %s gives id %d, its vocab_size is %zu: they do not belong together", model_dir,
                    chunk->ids[t], plan->model.vocab);
    }
    return ASSAY_OK;
}

static enum assay_status plan_chunks(const Assay__V1__SubmitJobRequest *request, const char *corpus,
                                     size_t corpus_bytes, struct assay_plan *plan, struct assay_err *err)
{
    struct assay_tokenizer *tokenizer = NULL;
    enum assay_status status = assay_corpus_check(corpus, corpus_bytes, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "corpus %.150s", request->corpus_name ? request->corpus_name : "");
        return status;
    }
    status = assay_tokenizer_open(request->model_dir, &tokenizer, err);
    if (status != ASSAY_OK)
        return status;
    plan->tokenizer_digest = assay_tokenizer_digest(tokenizer);
    status = assay_chunks_cut(plan->protocol, tokenizer, corpus, corpus_bytes, request->chunks_max, &plan->chunks, err);
    assay_tokenizer_close(tokenizer);
    /* The tokenizer took a hundred times the text, and each thread's arena would keep that for the next job. */
    malloc_trim(0);
    if (status == ASSAY_OUT_OF_RANGE && request->corpus_name)
        assay_err_prefix(err, "corpus %.150s", request->corpus_name);
    if (status != ASSAY_OK)
        return status;
    if (plan->chunks.count > ASSAY_JOB_CHUNKS_MAX)
        return assay_err_set(err, ASSAY_OUT_OF_RANGE, "the corpus gives %zu chunks, a job has at most %u",
                             plan->chunks.count, ASSAY_JOB_CHUNKS_MAX);
    for (size_t i = 0; i < plan->chunks.count; i++)
        plan->scored_positions += plan->chunks.at[i].score_end - plan->chunks.at[i].score_begin;
    return check_ids(plan, request->model_dir, err);
}

struct indexed_key {
    struct assay_chunk_key key;
    size_t index;
};

static int compare_indexed(const void *a, const void *b)
{
    const struct indexed_key *x = a, *y = b;
    int order = memcmp(&x->key, &y->key, sizeof x->key);
    if (order)
        return order;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int compare_index(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

/* A text that stands twice in a corpus gives one chunk to run. */
static enum assay_status plan_runs(struct assay_plan *plan, struct assay_err *err)
{
    size_t count = plan->chunks.count;
    assay_auto(assay_free_ptr) struct indexed_key *sorted = malloc(count * sizeof *sorted);
    plan->run_keys = malloc(count * sizeof *plan->run_keys);
    plan->run_chunks = malloc(count * sizeof *plan->run_chunks);
    if (!sorted || !plan->run_keys || !plan->run_chunks)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu chunks", count);
    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct indexed_key){plan->chunks.at[i].key, i};
    qsort(sorted, count, sizeof *sorted, compare_indexed);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || memcmp(&sorted[i].key, &sorted[i - 1].key, sizeof sorted[i].key) != 0)
            plan->run_chunks[plan->run_count++] = sorted[i].index;
    qsort(plan->run_chunks, plan->run_count, sizeof *plan->run_chunks, compare_index);
    for (size_t i = 0; i < plan->run_count; i++)
        plan->run_keys[i] = plan->chunks.at[plan->run_chunks[i]].key;
    return ASSAY_OK;
}

static enum assay_status plan_variants(const Assay__V1__SubmitJobRequest *request, const char *data_dir,
                                       struct assay_plan *plan, struct assay_err *err)
{
    plan->variants_count = 1 + request->n_variants;
    plan->variants = calloc(plan->variants_count, sizeof *plan->variants);
    if (!plan->variants)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu variants", plan->variants_count);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < plan->variants_count && status == ASSAY_OK; i++) {
        struct assay_plan_variant *variant = &plan->variants[i];
        status = assay_spec_of_message(spec_at(request, i), &variant->spec, err);
        if (status != ASSAY_OK)
            break;
        assay_spec_format(&variant->spec, variant->label);
        variant->id = assay_variant_id_of(&plan->model_id, &variant->spec);
        char hex[ASSAY_DIGEST_HEX], name[sizeof ASSAY_ARTIFACTS_DIR + ASSAY_DIGEST_HEX];
        snprintf(name, sizeof name, "%s/%s", ASSAY_ARTIFACTS_DIR, assay_digest_hex(&variant->id.digest, hex));
        status = assay_path_join(variant->artifact_dir, data_dir, name, err);
        while (!assay_digest_equal(&plan->variants[variant->same_as].id.digest, &variant->id.digest))
            variant->same_as++;
    }
    return status;
}

enum assay_status assay_plan_make(const Assay__V1__SubmitJobRequest *request, const char *corpus, size_t corpus_bytes,
                                  const char *data_dir, struct assay_store *store, struct assay_plan *ret,
                                  struct assay_err *err)
{
    struct assay_plan plan = {0};
    enum assay_status status = assay_plan_check(request, err);
    if (status == ASSAY_OK) {
        plan.protocol = assay_protocol_find(request->protocol);
        plan.record_dtype = request->has_record_dtype ? request->record_dtype : ASSAY__V1__DTYPE__DTYPE_F32;
        status = plan_model(request->model_dir, store, &plan, err);
    }
    if (status == ASSAY_OK)
        status = plan_chunks(request, corpus, corpus_bytes, &plan, err);
    if (status == ASSAY_OK)
        status = plan_runs(&plan, err);
    if (status == ASSAY_OK)
        status = plan_variants(request, data_dir, &plan, err);
    if (status != ASSAY_OK) {
        assay_plan_release(&plan);
        return status;
    }
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.corpus.v1");
    assay_hash_bytes(&hash, corpus, corpus_bytes);
    plan.corpus_digest = assay_hash_final(&hash);
    *ret = plan;
    return ASSAY_OK;
}

void assay_plan_release(struct assay_plan *plan)
{
    assay_chunks_release(&plan->chunks);
    free(plan->run_keys);
    free(plan->run_chunks);
    free(plan->variants);
    *plan = (struct assay_plan){0};
}
