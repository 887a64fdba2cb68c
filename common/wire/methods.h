/* Which methods are streams: protobuf-c's descriptors do not say, the embedded descriptor set does. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/* True for a server-streaming method; false for a unary one and for one that is not in the set. Any thread. */
bool assay_method_is_stream(const ProtobufCServiceDescriptor *service, unsigned method);
