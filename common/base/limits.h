/* Ceilings. Everything that can grow has one here, with its reason. */
#pragma once

/* A safetensors header of 100 MB is the format's own ceiling (safetensors README). */
#define ASSAY_SAFETENSORS_HEADER_BYTES_MAX (100u * 1000 * 1000)
/* Nesting of any JSON we read. A checkpoint's files need 4; cJSON recurses, so depth is stack. */
#define ASSAY_JSON_DEPTH_MAX 64
/* Values in one JSON text: a header of ASSAY_MODEL_TENSORS_MAX tensors has about 12 million; each costs 64 bytes and
 * its text. */
#define ASSAY_JSON_VALUES_MAX (1u << 24)
/* config.json, manifests, index files: the largest known (a 1,000-shard index) is below 1 MB. */
#define ASSAY_JSON_FILE_BYTES_MAX (64u * 1024 * 1024)
/* tokenizer.json of 256k-entry vocabularies is 35 MB. */
#define ASSAY_TOKENIZER_FILE_BYTES_MAX (256u * 1024 * 1024)
/* Chat templates are below 100 kB; a model has one or a few by name. */
#define ASSAY_CHAT_TEMPLATE_BYTES_MAX (4u * 1024 * 1024)
#define ASSAY_CHAT_TEMPLATES_MAX 64
/* Messages, tools and variables of one conversation. */
#define ASSAY_CHAT_MESSAGES_BYTES_MAX (16u * 1024 * 1024)
/* GGUF metadata: keys (files in use have below 100), bytes of one text (chat templates are below 100 kB), elements of
 * one array (merges of the largest vocabularies are below a million). */
#define ASSAY_GGUF_KEYS_MAX (1u << 16)
#define ASSAY_GGUF_TEXT_BYTES_MAX (16u * 1024 * 1024)
#define ASSAY_GGUF_ARRAY_MAX (1u << 24)
/* A corpus travels as one attachment. */
#define ASSAY_CORPUS_BYTES_MAX (256u * 1024 * 1024)
/* One message part on the bus. A piece of records stays far below. */
#define ASSAY_WIRE_PART_BYTES_MAX (256u * 1024 * 1024)
/* Parts of one message: header, payload, attachments. */
#define ASSAY_WIRE_PARTS_MAX 64
/* Calls in flight on one server before it answers RESOURCE_EXHAUSTED. */
#define ASSAY_WIRE_INFLIGHT_MAX 4096
/* Messages queued on one ZeroMQ pipe. */
#define ASSAY_WIRE_HWM 4096
/* Model dimensions: beyond these a config.json is a mistake or an attack. */
#define ASSAY_MODEL_DIM_MAX (1u << 20)
#define ASSAY_MODEL_LAYERS_MAX 1024
/* Experts of a layer: DeepSeek-V3 has 256. Choosing among them takes nine times as many bytes of stack. */
#define ASSAY_MODEL_EXPERTS_MAX 512
#define ASSAY_MODEL_VOCAB_MAX (1u << 24)
/* Tensors in a checkpoint: DeepSeek-V3 has about 91,000. */
#define ASSAY_MODEL_TENSORS_MAX (1u << 20)
/* Shards of a checkpoint. */
#define ASSAY_MODEL_SHARDS_MAX 4096
/* Threads in one pool. */
#define ASSAY_POOL_THREADS_MAX 256
/* Variants in one job, the reference not counted. */
#define ASSAY_JOB_VARIANTS_MAX 64
/* Priorities of jobs are -MAX..MAX; each step doubles a share. */
#define ASSAY_PRIORITY_MAX 10
/* Chunks in one job: 10 million of 512 tokens are 5 billion tokens. */
#define ASSAY_JOB_CHUNKS_MAX 10000000u
/* sockaddr_un.sun_path less its terminator. */
#define ASSAY_IPC_PATH_MAX 107
