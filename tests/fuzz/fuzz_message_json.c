/* The first byte chooses a message, the rest is JSON: refused with a sentence, or a message whose JSON reads as the
 * same message. */
#include <stdlib.h>
#include <string.h>

#include "common/formats/json.h"
#include "common/wire/json.h"
#include "proto/control.pb-c.h"
#include "proto/jobfile.pb-c.h"
#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/rpc.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &assay__v1__job_file__descriptor,      &assay__v1__submit_job_request__descriptor,
    &assay__v1__job__descriptor,           &assay__v1__score_reply__descriptor,
    &assay__v1__record__descriptor,        &assay__v1__header__descriptor,
    &assay__v1__score_request__descriptor,
};

static ProtobufCMessage *read_text(const ProtobufCMessageDescriptor *descriptor, const char *text, size_t len)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    ProtobufCMessage *message = NULL;
    if (assay_json_parse(text, len, "fuzz", &json, &err) != ASSAY_OK)
        return NULL;
    enum assay_status status = assay_message_from_json(descriptor, json, &message, NULL, &err);
    if (status != ASSAY_OK ? message || !err.text[0] : !message)
        abort();
    return message;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *descriptor = descriptors[data[0] % ASSAY_COUNT(descriptors)];
    ProtobufCMessage *message = read_text(descriptor, (const char *)data + 1, size - 1);
    if (!message)
        return 0;
    cJSON *json = NULL;
    if (assay_message_to_json(message, &json, NULL) != ASSAY_OK)
        abort();
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (!text)
        abort();
    ProtobufCMessage *again = read_text(descriptor, text, strlen(text));
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (!again || protobuf_c_message_get_packed_size(again) != bytes)
        abort();
    uint8_t *before = malloc(bytes + 1), *after = malloc(bytes + 1);
    if (!before || !after)
        abort();
    protobuf_c_message_pack(message, before);
    protobuf_c_message_pack(again, after);
    if (memcmp(before, after, bytes) != 0)
        abort();
    free(before);
    free(after);
    free(text);
    assay_message_release(&message);
    assay_message_release(&again);
    return 0;
}
