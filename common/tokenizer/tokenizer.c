#include "common/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/tokenizer/hf/assay_hf.h"

#define TOKENIZER_FILE "tokenizer.json"
#define MODEL_FILE "tokenizer.model"
#define CONFIG_FILE "tokenizer_config.json"
#define ERROR_BYTES 384

struct assay_tokenizer {
    struct assay_hf *hf;
    struct assay_digest digest;
};

enum assay_status assay_tokenizer_parse(const void *json, size_t len, const char *what, struct assay_tokenizer **ret,
                                        struct assay_err *err)
{
    char error[ERROR_BYTES];
    struct assay_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", what);
    if (assay_hf_new(json, len, &tokenizer->hf, error, sizeof error) != 0) {
        free(tokenizer);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a tokenizer: %s", what, error);
    }
    tokenizer->digest = assay_digest_of_bytes(json, len);
    *ret = tokenizer;
    return ASSAY_OK;
}

static enum assay_status read_in(const char *dir, const char *file, size_t bytes_max, char path[ASSAY_PATH_MAX],
                                 char **ret, size_t *ret_len, struct assay_err *err)
{
    enum assay_status status = assay_path_join(path, dir, file, err);
    return status == ASSAY_OK ? assay_file_read(path, bytes_max, ret, ret_len, err) : status;
}

/* NOT_FOUND when there is no tokenizer.model. */
static enum assay_status convert(const char *dir, struct assay_tokenizer **ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], config_path[ASSAY_PATH_MAX], error[ERROR_BYTES];
    assay_auto(assay_free_ptr) char *model = NULL;
    assay_auto(assay_free_ptr) char *config = NULL;
    assay_auto(assay_free_ptr) char *json = NULL;
    size_t len = 0, config_len = 0, json_len = 0;
    enum assay_status status = read_in(dir, MODEL_FILE, ASSAY_TOKENIZER_FILE_BYTES_MAX, path, &model, &len, err);
    if (status == ASSAY_OK) {
        status = read_in(dir, CONFIG_FILE, ASSAY_JSON_FILE_BYTES_MAX, config_path, &config, &config_len, err);
        status = status == ASSAY_NOT_FOUND ? ASSAY_OK : status;
    }
    if (status != ASSAY_OK)
        return status;
    if (assay_hf_from_sentencepiece((const uint8_t *)model, len, (const uint8_t *)config, config_len, &json, &json_len,
                                    error, sizeof error) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s cannot be used: %s", path, error);
    return assay_tokenizer_parse(json, json_len, path, ret, err);
}

enum assay_status assay_tokenizer_open(const char *dir, struct assay_tokenizer **ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *json = NULL;
    size_t len;
    struct assay_err missing = ASSAY_ERR_INIT;
    enum assay_status status =
        read_in(dir, TOKENIZER_FILE, ASSAY_TOKENIZER_FILE_BYTES_MAX, path, &json, &len, &missing);
    if (status == ASSAY_OK)
        return assay_tokenizer_parse(json, len, path, ret, err);
    struct assay_err converting = ASSAY_ERR_INIT;
    if (status == ASSAY_NOT_FOUND && (status = convert(dir, ret, &converting)) != ASSAY_NOT_FOUND)
        missing = converting;
    if (err && status != ASSAY_OK)
        *err = missing;
    return status;
}

void assay_tokenizer_close(struct assay_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    assay_hf_free(tokenizer->hf);
    free(tokenizer);
}

struct assay_digest assay_tokenizer_digest(const struct assay_tokenizer *tokenizer)
{
    return tokenizer->digest;
}

size_t assay_tokenizer_vocab(const struct assay_tokenizer *tokenizer)
{
    return assay_hf_vocab(tokenizer->hf);
}

bool assay_tokenizer_id(const struct assay_tokenizer *tokenizer, const char *token, int32_t *ret)
{
    int64_t id = assay_hf_id(tokenizer->hf, (const uint8_t *)token, strlen(token));
    if (id < 0 || id > INT32_MAX)
        return false;
    *ret = (int32_t)id;
    return true;
}

bool assay_tokenizer_is_byte(const struct assay_tokenizer *tokenizer, int32_t id)
{
    return assay_hf_is_byte(tokenizer->hf, id);
}

enum assay_status assay_tokenizer_encode(const struct assay_tokenizer *tokenizer, const char *text, size_t len,
                                         bool special, int32_t **ret, size_t *ret_count, struct assay_err *err)
{
    char error[ERROR_BYTES];
    if (assay_hf_encode(tokenizer->hf, (const uint8_t *)text, len, special, ret, ret_count, error, sizeof error) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a text of %zu bytes cannot be tokenized: %s", len, error);
    return ASSAY_OK;
}

enum assay_status assay_tokenizer_encode_within(const struct assay_tokenizer *tokenizer, const char *text, size_t len,
                                                const char *pair, size_t pair_len, size_t tokens_max, int32_t **ret,
                                                int32_t **ret_types, size_t *ret_count, struct assay_err *err)
{
    char error[ERROR_BYTES];
    if (assay_hf_encode_within(tokenizer->hf, (const uint8_t *)text, len, (const uint8_t *)pair, pair_len, tokens_max,
                               ret, ret_types, ret_count, error, sizeof error) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a text of %zu bytes cannot be tokenized: %s",
                             len + (pair ? pair_len : 0), error);
    return ASSAY_OK;
}

enum assay_status assay_tokenizer_decode(const struct assay_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                         bool skip_special, char **ret, size_t *ret_len, struct assay_err *err)
{
    char error[ERROR_BYTES];
    if (assay_hf_decode(tokenizer->hf, ids, count, skip_special, ret, ret_len, error, sizeof error) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%zu token ids cannot be decoded: %s", count, error);
    return ASSAY_OK;
}
