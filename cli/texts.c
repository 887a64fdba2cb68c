#include "cli/texts.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/formats/json.h"

void assay_texts_release(struct assay_texts *texts)
{
    free(texts->at);
    free(texts->pairs);
    free(texts->bytes);
    cJSON_Delete(texts->json);
    *texts = (struct assay_texts){0};
}

static enum assay_status from_json(const char *file, size_t len, struct assay_texts *texts, struct assay_err *err)
{
    cJSON *json = NULL;
    enum assay_status status = assay_json_parse(texts->bytes, len, file, &json, err);
    if (status != ASSAY_OK)
        return status;
    texts->json = json;
    bool paired = cJSON_IsArray(json->child);
    texts->at = calloc((size_t)cJSON_GetArraySize(json) + 1, sizeof *texts->at);
    texts->pairs = paired ? calloc((size_t)cJSON_GetArraySize(json), sizeof *texts->pairs) : NULL;
    if (!texts->at || (paired && !texts->pairs))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for its texts", file);
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        const cJSON *text = paired && cJSON_IsArray(item) ? item->child : item,
                    *pair = paired && text ? text->next : NULL;
        bool holds = cJSON_IsString(text) && (!paired || (text != item && cJSON_IsString(pair) && !pair->next));
        if (!holds)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: element %zu is no %s, wanted an array of %s", file,
                                 texts->count, paired ? "pair of strings" : "text",
                                 paired ? "pairs, as the first one is" : "strings, or of pairs of strings");
        if (paired)
            texts->pairs[texts->count] = (struct assay_text){pair->valuestring, strlen(pair->valuestring)};
        texts->at[texts->count++] = (struct assay_text){text->valuestring, strlen(text->valuestring)};
    }
    return ASSAY_OK;
}

static enum assay_status from_lines(const char *file, size_t len, struct assay_texts *texts, struct assay_err *err)
{
    const char *end = texts->bytes + len;
    size_t lines = 1;
    for (const char *at = texts->bytes; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    texts->at = calloc(lines, sizeof *texts->at);
    if (!texts->at)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for %zu lines", file, lines);
    for (const char *at = texts->bytes; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > at && stop[-1] == '\r')
            stop--;
        texts->at[texts->count++] = (struct assay_text){at, (size_t)(stop - at)};
        at = next;
    }
    return ASSAY_OK;
}

enum assay_status assay_texts_read(const char *file, struct assay_texts *ret, struct assay_err *err)
{
    struct assay_texts texts = {0};
    size_t len = 0;
    enum assay_status status =
        assay_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, ASSAY_CORPUS_BYTES_MAX, &texts.bytes, &len, err);
    if (status == ASSAY_OK)
        status = texts.bytes[strspn(texts.bytes, " \t\r\n")] == '[' ? from_json(file, len, &texts, err)
                                                                    : from_lines(file, len, &texts, err);
    if (status == ASSAY_OK && texts.count == 0)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s has no texts", file);
    if (status != ASSAY_OK) {
        assay_texts_release(&texts);
        return status;
    }
    *ret = texts;
    return ASSAY_OK;
}
