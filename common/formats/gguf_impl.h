/* What the parts of the GGUF reader share. Internal to formats. */
#pragma once

#include "common/formats/gguf.h"

/* One key of the metadata. */
struct assay_gguf_entry {
    struct assay_gguf_text key;
    enum assay_gguf_type type;    /* of the value, or of the elements of an array */
    bool is_array;                /* `type` is never ASSAY_GGUF_ARRAY */
    uint64_t count;               /* 1 unless an array */
    const unsigned char *payload; /* of the first element; checked up to the last one */
};

struct assay_gguf {
    struct assay_mapping mapping; /* empty when the caller holds the bytes */
    char *what;
    struct assay_gguf_entry *entries; /* by key */
    size_t entries_count;
    struct assay_gguf_tensor *tensors; /* by name */
    size_t tensors_count;
};

/* Bytes of a value of a fixed width; 0 for texts and arrays. */
size_t assay_gguf_type_bytes(enum assay_gguf_type type);

/* Elements and bytes of a block of a tensor type that is read; false for another. */
bool assay_ggml_block(uint32_t type, size_t *ret_elements, size_t *ret_bytes);
/* "Q6_K", for sentences; "type 99" has no name: NULL. */
const char *assay_ggml_name(uint32_t type);
/* Those that are read, for sentences. */
const char *assay_ggml_names(void);

/* Order of texts by their bytes. */
int assay_gguf_text_compare(struct assay_gguf_text a, struct assay_gguf_text b);
/* True for UTF-8 (RFC 3629) without NUL. */
bool assay_gguf_text_valid(struct assay_gguf_text text);
