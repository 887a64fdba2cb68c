#include "services/evaluator/shard_id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/fs.h"

#define ID_HEX (2 * ASSAY_SHARD_ID_BYTES)
/* A file that holds anything else is read no further. */
#define FILE_BYTES_MAX 4096

static enum assay_status make_id(const char *path, struct assay_shard_id *ret, struct assay_err *err)
{
    char text[ID_HEX + 2];
    struct assay_shard_id id;
    if (getrandom(id.bytes, sizeof id.bytes, 0) != sizeof id.bytes)
        return assay_err_set(err, ASSAY_INTERNAL, "found no random bytes for the id in %s", path);
    for (size_t i = 0; i < sizeof id.bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", id.bytes[i]);
    strcat(text, "\n");
    enum assay_status status = assay_file_write(path, text, strlen(text), err);
    if (status == ASSAY_OK)
        *ret = id;
    return status;
}

static bool parse_id(const char *text, struct assay_shard_id *ret)
{
    if (strspn(text, "0123456789abcdef") != ID_HEX)
        return false;
    for (size_t i = 0; i < sizeof ret->bytes; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};
        ret->bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

enum assay_status assay_shard_id_of_store(const char *store_dir, struct assay_shard_id *ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t bytes = 0;
    int len = snprintf(path, sizeof path, "%s.id", store_dir);
    if (len < 0 || len >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes", ASSAY_PATH_MAX - 1);
    enum assay_status status = assay_file_read(path, FILE_BYTES_MAX, &text, &bytes, err);
    if (status == ASSAY_NOT_FOUND)
        return make_id(path, ret, err);
    if (status == ASSAY_OK && !parse_id(text, ret))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s holds no id of %d lower-case hexadecimal digits; remove it and a new one is made",
                             path, ID_HEX);
    return status;
}
