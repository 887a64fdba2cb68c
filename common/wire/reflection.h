/* What is served: the conversations that this build knows, and the service Reflection, which every server answers. Any
 * thread, unless said otherwise. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/wire/server.h"

/* All services of proto/, *ret_count of them. */
const ProtobufCServiceDescriptor *const *assay_services_known(size_t *ret_count);
/* By full name, "assay.v1.Coordinator"; NULL when there is none. */
const ProtobufCServiceDescriptor *assay_service_find(const char *name);
/* A message that some method takes or returns, or that stands in one, by full name; NULL when there is none. */
const ProtobufCMessageDescriptor *assay_message_find(const char *name);

/* Before the loop runs: assay.v1.Reflection of this server. */
void assay_reflection_add(struct assay_server *server);
