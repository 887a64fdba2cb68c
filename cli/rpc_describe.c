#include "cli/rpc_describe.h"

#include <string.h>

#include "common/wire/methods.h"
#include "common/wire/reflection.h"

static const char *type_name(const ProtobufCFieldDescriptor *field)
{
    static const char *const names[] = {
        [PROTOBUF_C_TYPE_INT32] = "int32",       [PROTOBUF_C_TYPE_SINT32] = "sint32",
        [PROTOBUF_C_TYPE_SFIXED32] = "sfixed32", [PROTOBUF_C_TYPE_INT64] = "int64",
        [PROTOBUF_C_TYPE_SINT64] = "sint64",     [PROTOBUF_C_TYPE_SFIXED64] = "sfixed64",
        [PROTOBUF_C_TYPE_UINT32] = "uint32",     [PROTOBUF_C_TYPE_FIXED32] = "fixed32",
        [PROTOBUF_C_TYPE_UINT64] = "uint64",     [PROTOBUF_C_TYPE_FIXED64] = "fixed64",
        [PROTOBUF_C_TYPE_FLOAT] = "float",       [PROTOBUF_C_TYPE_DOUBLE] = "double",
        [PROTOBUF_C_TYPE_BOOL] = "bool",         [PROTOBUF_C_TYPE_STRING] = "string",
        [PROTOBUF_C_TYPE_BYTES] = "bytes",
    };
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return ((const ProtobufCMessageDescriptor *)field->descriptor)->name;
    if (field->type == PROTOBUF_C_TYPE_ENUM)
        return ((const ProtobufCEnumDescriptor *)field->descriptor)->name;
    return names[field->type];
}

static void describe_method(const ProtobufCServiceDescriptor *service, unsigned method, struct assay_buf *out)
{
    const ProtobufCMethodDescriptor *row = &service->methods[method];
    assay_buf_printf(out, "  rpc %s(%s) returns (%s%s);\n", row->name, row->input->name,
                     assay_method_is_stream(service, method) ? "stream " : "", row->output->name);
}

static void describe_service(const ProtobufCServiceDescriptor *service, struct assay_buf *out)
{
    assay_buf_printf(out, "service %s {\n", service->name);
    for (unsigned i = 0; i < service->n_methods; i++)
        describe_method(service, i, out);
    assay_buf_str(out, "}\n");
}

/* A message, and each enum that it names, behind it. */
static void describe_message(const ProtobufCMessageDescriptor *message, struct assay_buf *out)
{
    assay_buf_printf(out, "message %s {\n", message->name);
    for (unsigned i = 0; i < message->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->fields[i];
        assay_buf_printf(out, "  %s %s %s = %u;\n", field->label == PROTOBUF_C_LABEL_REPEATED ? "repeated" : "optional",
                         type_name(field), field->name, field->id);
    }
    assay_buf_str(out, "}\n");
    for (unsigned i = 0; i < message->n_fields; i++) {
        if (message->fields[i].type != PROTOBUF_C_TYPE_ENUM)
            continue;
        const ProtobufCEnumDescriptor *values = message->fields[i].descriptor;
        assay_buf_printf(out, "enum %s {\n", values->name);
        for (unsigned k = 0; k < values->n_values; k++)
            assay_buf_printf(out, "  %s = %d;\n", values->values[k].name, values->values[k].value);
        assay_buf_str(out, "}\n");
    }
}

static bool describe_named_method(const char *name, struct assay_buf *out)
{
    const char *slash = strchr(name, '/');
    char service_name[128];
    if (!slash || (size_t)(slash - name) >= sizeof service_name)
        return false;
    memcpy(service_name, name, (size_t)(slash - name));
    service_name[slash - name] = '\0';
    const ProtobufCServiceDescriptor *service = assay_service_find(service_name);
    const ProtobufCMethodDescriptor *method =
        service ? protobuf_c_service_descriptor_get_method_by_name(service, slash + 1) : NULL;
    if (!method)
        return false;
    describe_method(service, (unsigned)(method - service->methods), out);
    describe_message(method->input, out);
    if (method->output != method->input)
        describe_message(method->output, out);
    return true;
}

enum assay_status assay_rpc_describe(const char *name, struct assay_buf *out, struct assay_err *err)
{
    const ProtobufCServiceDescriptor *service = assay_service_find(name);
    const ProtobufCMessageDescriptor *message = service ? NULL : assay_message_find(name);
    if (service)
        describe_service(service, out);
    else if (message)
        describe_message(message, out);
    else if (!describe_named_method(name, out))
        return assay_err_set(err, ASSAY_NOT_FOUND, "no service, method or message is named '%.120s'", name);
    return assay_buf_check(out, err);
}
