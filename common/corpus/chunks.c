#include "common/corpus/chunks.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"

static const struct assay_protocol protocols[] = {
    {
        .name = "llamacpp-512",
        .window = 512,
        .score_begin = 256,
        .score_end = 511,
        .tokens_min = 1024,
        .bos_each_chunk = true,
        .average = ASSAY_AVERAGE_TOKENS,
    },
    {
        /* The text tokenized once with what the tokenizer adds, so BOS stands before the first chunk alone. Chunks are
         * equally long: the mean of chunk means is the mean of tokens. */
        .name = "gptq-2048",
        .window = 2048,
        .score_begin = 0,
        .score_end = 2047,
        .tokens_min = 2048,
        .bos_each_chunk = false,
        .average = ASSAY_AVERAGE_TOKENS,
    },
};

const struct assay_protocol *assay_protocol_find(const char *name)
{
    for (size_t i = 0; i < ASSAY_COUNT(protocols); i++) {
        if (strcmp(protocols[i].name, name) == 0)
            return &protocols[i];
    }
    return NULL;
}

const char *assay_protocol_names(void)
{
    return "llamacpp-512, gptq-2048";
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ids are digested as they lie in memory");

/* What the tokenizer puts around every text: a beginning (BOS) and an end (EOS, [SEP]). */
struct frame {
    size_t prefix, suffix; /* tokens */
    int32_t bos;           /* the first one of the prefix */
};

/* Looks at how one letter is framed: a text of its own could begin or end with the very tokens that are added. */
static enum assay_status find_frame(const struct assay_tokenizer *tokenizer, struct frame *ret, struct assay_err *err)
{
    assay_auto(assay_free_ptr) int32_t *plain = NULL, *framed = NULL;
    size_t plain_count = 0, framed_count = 0;
    enum assay_status status = assay_tokenizer_encode(tokenizer, "a", 1, false, &plain, &plain_count, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_encode(tokenizer, "a", 1, true, &framed, &framed_count, err);
    if (status != ASSAY_OK)
        return status;
    for (size_t prefix = 0; plain_count && prefix + plain_count <= framed_count; prefix++) {
        if (memcmp(framed + prefix, plain, plain_count * sizeof *plain) != 0)
            continue;
        *ret = (struct frame){prefix, framed_count - prefix - plain_count, framed[0]};
        return ASSAY_OK;
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "cannot tell which tokens the tokenizer adds: 'a' has %zu tokens, %zu with special ones",
                         plain_count, framed_count);
}

struct assay_chunk_key assay_chunk_key_of(const struct assay_digest *tokenizer, const int32_t *ids, size_t tokens,
                                          size_t score_begin, size_t score_end)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.chunk.v1");
    assay_hash_digest(&hash, tokenizer);
    assay_hash_bytes(&hash, ids, tokens * sizeof *ids);
    assay_hash_u64(&hash, score_begin);
    assay_hash_u64(&hash, score_end);
    assay_hash_u64(&hash, 0); /* generation parameters: none */
    return (struct assay_chunk_key){assay_hash_final(&hash)};
}

/* ids are the tokens of the whole text, BOS included, any suffix not. They are taken over on success. */
static enum assay_status cut(const struct assay_protocol *protocol, const struct assay_digest *tokenizer,
                             const struct frame *frame, int32_t **ids, size_t tokens, size_t chunks_max,
                             struct assay_chunks *ret, struct assay_err *err)
{
    if (tokens < protocol->tokens_min)
        return assay_err_set(err, ASSAY_OUT_OF_RANGE, "the text has %zu tokens; %s needs at least %zu", tokens,
                             protocol->name, protocol->tokens_min);
    size_t count = tokens / protocol->window;
    if (chunks_max)
        count = ASSAY_MIN(count, chunks_max);
    struct assay_chunk *at = calloc(count, sizeof *at);
    if (!at)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu chunks", count);
    for (size_t i = 0; i < count; i++) {
        int32_t *first = *ids + i * protocol->window;
        if (protocol->bos_each_chunk && frame->prefix > 0)
            *first = frame->bos;
        at[i].ids = first;
        at[i].tokens = (uint32_t)protocol->window;
        at[i].score_begin = (uint32_t)protocol->score_begin;
        at[i].score_end = (uint32_t)protocol->score_end;
        at[i].key = assay_chunk_key_of(tokenizer, first, protocol->window, protocol->score_begin, protocol->score_end);
    }
    *ret = (struct assay_chunks){at, count, assay_steal(ids), tokens, frame->prefix > 0};
    return ASSAY_OK;
}

enum assay_status assay_corpus_check(const char *text, size_t len, struct assay_err *err)
{
    size_t good = assay_utf8_prefix(text, len);
    if (good == len)
        return ASSAY_OK;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found 0x%02x at byte %zu, wanted a text in UTF-8",
                         (unsigned)(unsigned char)text[good], good);
}

enum assay_status assay_chunks_cut(const struct assay_protocol *protocol, const struct assay_tokenizer *tokenizer,
                                   const char *text, size_t len, size_t chunks_max, struct assay_chunks *ret,
                                   struct assay_err *err)
{
    assay_auto(assay_free_ptr) int32_t *ids = NULL;
    size_t tokens = 0;
    struct frame frame = {0};
    enum assay_status status = find_frame(tokenizer, &frame, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_encode(tokenizer, text, len, true, &ids, &tokens, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_digest digest = assay_tokenizer_digest(tokenizer);
    return cut(protocol, &digest, &frame, &ids, tokens - ASSAY_MIN(tokens, frame.suffix), chunks_max, ret, err);
}

void assay_chunks_release(struct assay_chunks *chunks)
{
    free(chunks->at);
    free(chunks->ids);
    *chunks = (struct assay_chunks){0};
}
