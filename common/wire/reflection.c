/* assay.v1.Reflection of every server, and the services by name. */
#include "common/wire/reflection.h"

#include <string.h>

#include "common/wire/server_internal.h"
#include "proto/control.pb-c.h"
#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/reflection.pb-c.h"
#include "proto/respond.pb-c.h"
#include "proto/rpc.pb-c.h"
#include "proto/status.pb-c.h"
#include "proto/trace.pb-c.h"
#include "proto/variant.pb-c.h"
#include "proto/work.pb-c.h"

extern const unsigned char assay_descriptor_set[];
extern const unsigned long assay_descriptor_set_bytes;

static const ProtobufCServiceDescriptor *const services[] = {
    &assay__v1__artifacts__descriptor, &assay__v1__cache__descriptor,      &assay__v1__coordinator__descriptor,
    &assay__v1__evaluator__descriptor, &assay__v1__health__descriptor,     &assay__v1__quantizer__descriptor,
    &assay__v1__records__descriptor,   &assay__v1__reflection__descriptor, &assay__v1__respond__descriptor,
    &assay__v1__shards__descriptor,    &assay__v1__status__descriptor,     &assay__v1__trace__descriptor,
    &assay__v1__work__descriptor,
};

const ProtobufCServiceDescriptor *const *assay_services_known(size_t *ret_count)
{
    *ret_count = ASSAY_COUNT(services);
    return services;
}

const ProtobufCServiceDescriptor *assay_service_find(const char *name)
{
    for (size_t i = 0; i < ASSAY_COUNT(services); i++)
        if (strcmp(services[i]->name, name) == 0)
            return services[i];
    return NULL;
}

/* Our messages are not recursive, so depth is bounded by the schema. */
static const ProtobufCMessageDescriptor *find_in(const ProtobufCMessageDescriptor *message, const char *name)
{
    if (strcmp(message->name, name) == 0)
        return message;
    for (unsigned i = 0; i < message->n_fields; i++) {
        const ProtobufCMessageDescriptor *found = NULL;
        if (message->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            found = find_in(message->fields[i].descriptor, name);
        if (found)
            return found;
    }
    return NULL;
}

const ProtobufCMessageDescriptor *assay_message_find(const char *name)
{
    for (size_t i = 0; i < ASSAY_COUNT(services); i++) {
        for (unsigned method = 0; method < services[i]->n_methods; method++) {
            const ProtobufCMessageDescriptor *found = find_in(services[i]->methods[method].input, name);
            if (!found)
                found = find_in(services[i]->methods[method].output, name);
            if (found)
                return found;
        }
    }
    return NULL;
}

static void list_services(struct assay_call *call, void *service)
{
    const struct assay_server *server = service;
    Assay__V1__ReflectServicesReply reply = ASSAY__V1__REFLECT_SERVICES_REPLY__INIT;
    char *names[ASSAY_WIRE_SERVICES_MAX];
    for (size_t i = 0; i < server->services_count; i++)
        names[reply.n_names++] = (char *)(uintptr_t)server->services[i].descriptor->name;
    reply.names = names;
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void file_descriptor_set(struct assay_call *call, void *service)
{
    (void)service;
    Assay__V1__ReflectDescriptorsReply reply = ASSAY__V1__REFLECT_DESCRIPTORS_REPLY__INIT;
    reply.has_file_descriptor_set = true;
    reply.file_descriptor_set.data = (uint8_t *)(uintptr_t)assay_descriptor_set;
    reply.file_descriptor_set.len = assay_descriptor_set_bytes;
    assay_call_reply(call, &reply.base, NULL, 0);
}

/* In the order of the service's methods in reflection.proto. */
static const assay_method_fn handlers[] = {list_services, file_descriptor_set};

void assay_reflection_add(struct assay_server *server)
{
    assay_server_add(server, &assay__v1__reflection__descriptor, handlers, server);
}
