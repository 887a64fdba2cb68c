/* Reads and checks the vocabulary of a GGUF file. */
#include "common/formats/gguf_vocabulary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_impl.h"
#include "common/formats/gguf_text.h"

void assay_gguf_vocabulary_release(struct assay_gguf_vocabulary *v)
{
    free(v->tokens);
    free(v->types);
    free(v->merges);
    free(v->scores);
    *v = (struct assay_gguf_vocabulary){0};
}

enum assay_gguf_token_type assay_gguf_token_type_of(const struct assay_gguf_vocabulary *v, size_t id)
{
    return v->types ? (enum assay_gguf_token_type)v->types[id] : ASSAY_GGUF_TOKEN_NORMAL;
}

bool assay_gguf_token_is_special(const struct assay_gguf_vocabulary *v, size_t id)
{
    enum assay_gguf_token_type type = assay_gguf_token_type_of(v, id);
    return type == ASSAY_GGUF_TOKEN_CONTROL || type == ASSAY_GGUF_TOKEN_UNKNOWN;
}

bool assay_gguf_token_is_added(const struct assay_gguf_vocabulary *v, size_t id)
{
    return assay_gguf_token_is_special(v, id) || assay_gguf_token_type_of(v, id) == ASSAY_GGUF_TOKEN_USER_DEFINED;
}

/* Byte-level BPE has a pre-tokenizer, sentencepiece has none. */
static enum assay_status read_kind(const struct assay_gguf *file, struct assay_gguf_vocabulary *v,
                                   struct assay_err *err)
{
    struct assay_gguf_text model = {"", 0}, pre = {"default", 7}, architecture = {"", 0};
    char room[104];
    enum assay_status status = assay_gguf_get_text(file, "tokenizer.ggml.model", true, &model, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_text(file, "tokenizer.ggml.pre", false, &pre, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_text(file, "general.architecture", false, &architecture, err);
    if (status != ASSAY_OK)
        return status;
    v->right_stripped = assay_gguf_text_is(architecture, "phi3");
    if (assay_gguf_text_is(model, "llama"))
        return ASSAY_OK;
    if (!assay_gguf_text_is(model, "gpt2"))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: a vocabulary of the kind '%s' is not implemented; byte-level BPE ('gpt2') and "
                             "sentencepiece ('llama') are",
                             assay_gguf_what(file), assay_gguf_cut(model, room));
    v->pre = assay_gguf_pre_find(pre);
    if (!v->pre)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the pre-tokenizer '%s' is not implemented; these are: %s",
                             assay_gguf_what(file), assay_gguf_cut(pre, room), assay_gguf_pre_names());
    return ASSAY_OK;
}

static enum assay_status read_specials(const struct assay_gguf *file, struct assay_gguf_vocabulary *v,
                                       struct assay_err *err)
{
    const struct {
        const char *key;
        int64_t *id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", &v->bos},
               {"tokenizer.ggml.eos_token_id", &v->eos},
               {"tokenizer.ggml.unknown_token_id", &v->unknown},
               {"tokenizer.ggml.padding_token_id", &v->padding}};
    static const int64_t usual[] = {1, 2, 0}; /* what sentencepiece has where a file does not say */
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(ids) && status == ASSAY_OK; i++) {
        *ids[i].id = v->pre || i == 3 ? -1 : usual[i];
        if (*ids[i].id >= (int64_t)v->tokens_count)
            *ids[i].id = -1;
        status = assay_gguf_get_int(file, ids[i].key, false, 0, (int64_t)v->tokens_count - 1, ids[i].id, err);
    }
    v->add_bos = v->pre ? v->pre->bos_otherwise : true;
    v->add_space = true;
    if (status == ASSAY_OK)
        status = assay_gguf_get_bool(file, "tokenizer.ggml.add_bos_token", false, &v->add_bos, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_bool(file, "tokenizer.ggml.add_eos_token", false, &v->add_eos, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_bool(file, "tokenizer.ggml.add_space_prefix", false, &v->add_space, err);
    if (status == ASSAY_OK && ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0)))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: the vocabulary adds a token at the %s of a text and does not say which",
                             assay_gguf_what(file), v->add_bos && v->bos < 0 ? "begin" : "end");
    return status;
}

static int compare_tokens(const void *a, const void *b)
{
    return assay_gguf_text_compare(*(const struct assay_gguf_text *)a, *(const struct assay_gguf_text *)b);
}

static enum assay_status refuse_twice(const struct assay_gguf *file, const struct assay_gguf_vocabulary *v,
                                      struct assay_err *err)
{
    char room[104];
    assay_auto(assay_free_ptr) struct assay_gguf_text *sorted = calloc(v->tokens_count, sizeof *sorted);
    if (!sorted)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(file));
    memcpy(sorted, v->tokens, v->tokens_count * sizeof *sorted);
    qsort(sorted, v->tokens_count, sizeof *sorted, compare_tokens);
    for (size_t i = 1; i < v->tokens_count; i++)
        if (compare_tokens(&sorted[i - 1], &sorted[i]) == 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the token '%s' stands twice in the vocabulary",
                                 assay_gguf_what(file), assay_gguf_cut(sorted[i], room));
    return ASSAY_OK;
}

static enum assay_status check_merges(const struct assay_gguf *file, const struct assay_gguf_vocabulary *v,
                                      struct assay_err *err)
{
    char room[104];
    for (size_t i = 0; i < v->merges_count; i++) {
        struct assay_gguf_text merge = v->merges[i];
        const char *space = memchr(merge.bytes, ' ', merge.len);
        size_t before = space ? (size_t)(space - merge.bytes) : 0;
        size_t after = space ? merge.len - before - 1 : 0;
        if (before == 0 || after == 0 || memchr(space + 1, ' ', after))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: merge %zu is '%s', wanted two parts and a space",
                                 assay_gguf_what(file), i, assay_gguf_cut(merge, room));
    }
    return ASSAY_OK;
}

/* One score a token, and nothing that changes texts beforehand. */
static enum assay_status check_scores(const struct assay_gguf *file, const struct assay_gguf_vocabulary *v,
                                      struct assay_err *err)
{
    bool fewer_spaces = false;
    if (v->scores_count != v->tokens_count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu scores for %zu tokens", assay_gguf_what(file),
                             v->scores_count, v->tokens_count);
    for (size_t i = 0; i < v->scores_count; i++)
        if (!isfinite(v->scores[i]))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the score of token %zu is %g", assay_gguf_what(file),
                                 i, (double)v->scores[i]);
    enum assay_status status =
        assay_gguf_get_bool(file, "tokenizer.ggml.remove_extra_whitespaces", false, &fewer_spaces, err);
    if (status == ASSAY_OK && (fewer_spaces || assay_gguf_has(file, "tokenizer.ggml.precompiled_charsmap")))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: a vocabulary with %s is not implemented",
                             assay_gguf_what(file),
                             fewer_spaces ? "remove_extra_whitespaces" : "a precompiled_charsmap");
    return status;
}

/* Converters fill up with "[PADn]" to the rows of the embedding; tokenizers have none of these. */
static void drop_padding(struct assay_gguf_vocabulary *v)
{
    while (v->types && v->tokens_count > 1) {
        size_t last = v->tokens_count - 1;
        char name[32];
        snprintf(name, sizeof name, "[PAD%zu]", last);
        if (v->types[last] != ASSAY_GGUF_TOKEN_UNUSED || !assay_gguf_text_is(v->tokens[last], name))
            return;
        v->tokens_count--;
    }
}

static enum assay_status read_lists(const struct assay_gguf *file, struct assay_gguf_vocabulary *v,
                                    struct assay_err *err)
{
    enum assay_status status =
        assay_gguf_get_texts(file, "tokenizer.ggml.tokens", true, &v->tokens, &v->tokens_count, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_ints(file, "tokenizer.ggml.token_type", false, &v->types, &v->types_count, err);
    if (status == ASSAY_OK && v->pre)
        status = assay_gguf_get_texts(file, "tokenizer.ggml.merges", true, &v->merges, &v->merges_count, err);
    if (status == ASSAY_OK && !v->pre)
        status = assay_gguf_get_floats(file, "tokenizer.ggml.scores", true, &v->scores, &v->scores_count, err);
    return status;
}

static enum assay_status check(const struct assay_gguf *file, uint64_t vocab_max, struct assay_gguf_vocabulary *v,
                               struct assay_err *err)
{
    if (v->tokens_count == 0 || v->tokens_count > vocab_max)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %zu tokens for %llu rows of the embedding, wanted at least one and no more than rows",
                             assay_gguf_what(file), v->tokens_count, (unsigned long long)vocab_max);
    if (v->types && v->types_count != v->tokens_count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu token types for %zu tokens", assay_gguf_what(file),
                             v->types_count, v->tokens_count);
    for (size_t i = 0; i < v->types_count; i++)
        if (v->types[i] < ASSAY_GGUF_TOKEN_NORMAL || v->types[i] > ASSAY_GGUF_TOKEN_BYTE)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the type of token %zu is %lld, wanted 1 to 6",
                                 assay_gguf_what(file), i, (long long)v->types[i]);
    enum assay_status status = v->pre ? check_merges(file, v, err) : check_scores(file, v, err);
    if (status != ASSAY_OK)
        return status;
    drop_padding(v);
    status = read_specials(file, v, err);
    return status == ASSAY_OK ? refuse_twice(file, v, err) : status;
}

enum assay_status assay_gguf_vocabulary_read(const struct assay_gguf *file, uint64_t vocab_max,
                                             struct assay_gguf_vocabulary *ret, struct assay_err *err)
{
    struct assay_gguf_vocabulary v = {0};
    enum assay_status status = read_kind(file, &v, err);
    if (status == ASSAY_OK)
        status = read_lists(file, &v, err);
    if (status == ASSAY_OK)
        status = check(file, vocab_max, &v, err);
    if (status == ASSAY_OK)
        *ret = v;
    else
        assay_gguf_vocabulary_release(&v);
    return status;
}
