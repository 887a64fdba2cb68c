#include "common/artifact/kept_digests.h"

#include <stdlib.h>

#include "common/base/log.h"

struct assay_digest assay_kept_file_key(const struct assay_file_identity *file)
{
    const uint64_t fields[] = {file->device,      file->inode,     file->bytes,     file->modified_s,
                               file->modified_ns, file->changed_s, file->changed_ns};
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.kept_file.v1");
    for (size_t i = 0; i < ASSAY_COUNT(fields); i++)
        assay_hash_u64(&hash, fields[i]);
    return assay_hash_final(&hash);
}

struct assay_digest assay_kept_head_key(const struct assay_model_id *model)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.kept_head.v1");
    assay_hash_digest(&hash, &model->digest);
    return assay_hash_final(&hash);
}

bool assay_kept_find(const char *dir, const struct assay_digest *key, struct assay_digest *ret)
{
    char path[ASSAY_PATH_MAX], hex[ASSAY_DIGEST_HEX];
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t len = 0;
    return dir && assay_path_join(path, dir, assay_digest_hex(key, hex), NULL) == ASSAY_OK &&
           assay_file_read(path, ASSAY_DIGEST_HEX, &text, &len, NULL) == ASSAY_OK &&
           assay_digest_parse(text, ret, NULL) == ASSAY_OK;
}

void assay_kept_put(const char *dir, const struct assay_digest *key, const struct assay_digest *value)
{
    char path[ASSAY_PATH_MAX], name[ASSAY_DIGEST_HEX], hex[ASSAY_DIGEST_HEX];
    struct assay_err err = ASSAY_ERR_INIT;
    if (!dir)
        return;
    enum assay_status status = assay_mkdirs(dir, 0755, &err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, assay_digest_hex(key, name), &err);
    if (status == ASSAY_OK)
        status = assay_file_write(path, assay_digest_hex(value, hex), ASSAY_DIGEST_HEX - 1, &err);
    if (status != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "a digest is not kept reason=\"%s\"", err.text);
}
