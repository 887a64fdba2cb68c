#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/limits.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"

struct assay_safetensors_writer {
    char *path;
    int fd;
    uint64_t declared_bytes, written_bytes;
};

static enum assay_status write_all(struct assay_safetensors_writer *writer, const char *bytes, size_t len,
                                   struct assay_err *err)
{
    while (len) {
        ssize_t put = write(writer->fd, bytes, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return assay_err_errno(err, errno, "cannot write %s", writer->path);
        bytes += put;
        len -= (size_t)put;
    }
    return ASSAY_OK;
}

static void append_quoted(struct assay_buf *header, const char *text)
{
    assay_buf_str(header, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20)
            assay_buf_printf(header, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            assay_buf_printf(header, "\\%c", c);
        else
            assay_buf_append(header, text, 1);
    }
    assay_buf_str(header, "\"");
}

static enum assay_status append_tensor(struct assay_buf *header, const struct assay_tensor *tensor, uint64_t *end,
                                       struct assay_err *err)
{
    if (tensor->rank > ASSAY_TENSOR_RANK_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor '%.100s': more than %d dimensions", tensor->name,
                             ASSAY_TENSOR_RANK_MAX);
    uint64_t begin = *end, bytes = assay_dtype_bytes(tensor->dtype);
    bool overflow = false;
    assay_buf_str(header, ",");
    append_quoted(header, tensor->name);
    assay_buf_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", assay_dtype_name(tensor->dtype));
    for (size_t i = 0; i < tensor->rank; i++) {
        overflow |= __builtin_mul_overflow(bytes, tensor->shape[i], &bytes);
        assay_buf_printf(header, "%s%" PRIu64, i ? "," : "", tensor->shape[i]);
    }
    if (overflow || __builtin_add_overflow(begin, bytes, end) || *end > UINT64_C(1) << 53)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor '%.100s': too many bytes for one file", tensor->name);
    assay_buf_printf(header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, *end);
    return ASSAY_OK;
}

/* Length, header and padding into *header. transformers refuses files without the metadata "format": "pt". */
static enum assay_status build_header(const char *path, const struct assay_tensor *tensors, size_t count,
                                      struct assay_buf *header, uint64_t *ret_data_bytes, struct assay_err *err)
{
    uint64_t data_bytes = 0;
    assay_buf_append(header, "\0\0\0\0\0\0\0\0", 8);
    assay_buf_str(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        enum assay_status status = append_tensor(header, &tensors[i], &data_bytes, err);
        if (status != ASSAY_OK) {
            assay_err_prefix(err, "%s", path);
            return status;
        }
    }
    assay_buf_str(header, "}");
    while (header->len % 8 && !header->failed)
        assay_buf_str(header, " ");
    enum assay_status status = assay_buf_check(header, err);
    if (status != ASSAY_OK)
        return status;
    uint64_t header_bytes = header->len - 8;
    if (header_bytes > ASSAY_SAFETENSORS_HEADER_BYTES_MAX || count >= ASSAY_MODEL_TENSORS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: too many tensors for one file: %zu", path, count);
    for (int i = 0; i < 8; i++)
        header->data[i] = (char)(header_bytes >> (8 * i));
    /* A name that is not UTF-8 or stands twice is found by the parser that will have to read it. */
    cJSON *parsed;
    status = assay_json_parse(header->data + 8, (size_t)header_bytes, path, &parsed, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "names of tensors");
        return status;
    }
    cJSON_Delete(parsed);
    *ret_data_bytes = data_bytes;
    return ASSAY_OK;
}

enum assay_status assay_safetensors_create(const char *path, const struct assay_tensor *tensors, size_t count,
                                           struct assay_safetensors_writer **ret, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf header = ASSAY_BUF_INIT;
    uint64_t data_bytes = 0;
    enum assay_status status = build_header(path, tensors, count, &header, &data_bytes, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_safetensors_writer *writer = calloc(1, sizeof *writer);
    char *copy = strdup(path);
    if (!writer || !copy) {
        free(writer);
        free(copy);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    }
    writer->path = copy;
    writer->declared_bytes = data_bytes;
    writer->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0)
        status = assay_err_errno(err, errno, "cannot write %s", path);
    else
        status = write_all(writer, header.data, header.len, err);
    if (status == ASSAY_OK)
        *ret = writer;
    else
        assay_safetensors_abandon(writer);
    return status;
}

enum assay_status assay_safetensors_append(struct assay_safetensors_writer *writer, const void *bytes, size_t len,
                                           struct assay_err *err)
{
    if (len > writer->declared_bytes - writer->written_bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: more bytes than the %" PRIu64 " of the declared tensors",
                             writer->path, writer->declared_bytes);
    enum assay_status status = write_all(writer, bytes, len, err);
    if (status == ASSAY_OK)
        writer->written_bytes += len;
    return status;
}

enum assay_status assay_safetensors_finish(struct assay_safetensors_writer *writer, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    if (writer->written_bytes != writer->declared_bytes)
        status = assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                               "%s: %" PRIu64 " bytes of tensors were declared, %" PRIu64 " were written", writer->path,
                               writer->declared_bytes, writer->written_bytes);
    else if (fsync(writer->fd) != 0)
        status = assay_err_errno(err, errno, "cannot sync %s", writer->path);
    assay_safetensors_abandon(writer);
    return status;
}

void assay_safetensors_abandon(struct assay_safetensors_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->path);
    free(writer);
}
