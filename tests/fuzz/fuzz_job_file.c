/* Any bytes as a job file: refused with a sentence that begins with the file, or a tree within the ceilings, each value
 * with its line, and that as a message. */
#include <stdlib.h>
#include <string.h>

#include "common/formats/yaml.h"
#include "common/wire/json.h"
#include "proto/jobfile.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char what[] = "job.yaml";

static void check_refusal(const struct assay_err *err)
{
    if (err->status == ASSAY_OK || strncmp(err->text, what, sizeof what - 1) != 0)
        abort();
}

static void check_lines(const struct assay_yaml *yaml, const cJSON *value, size_t depth)
{
    if (depth > ASSAY_YAML_DEPTH_MAX || assay_yaml_line(yaml, value) == 0)
        abort();
    for (const cJSON *child = value->child; child; child = child->next)
        check_lines(yaml, child, depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct assay_yaml *yaml = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_yaml_parse((const char *)data, size, what, &yaml, &err) != ASSAY_OK) {
        check_refusal(&err);
        return 0;
    }
    check_lines(yaml, assay_yaml_json(yaml), 0);
    ProtobufCMessage *message = NULL;
    const cJSON *fault = NULL;
    enum assay_status status =
        assay_message_from_json(&assay__v1__job_file__descriptor, assay_yaml_json(yaml), &message, &fault, &err);
    if (status != ASSAY_OK && (message || !fault || assay_yaml_line(yaml, fault) == 0 || !err.text[0]))
        abort();
    assay_message_release(&message);
    assay_yaml_free(yaml);
    return 0;
}
