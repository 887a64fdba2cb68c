#include "services/evaluator/samples.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_MAGIC 0x31535341u /* "ASS1" */

struct sample_head {
    uint32_t magic, version;
    uint64_t rows;
};
static_assert(sizeof(struct sample_head) == 16, "as on disk");

/* One position. float64 as it was computed: a resumed job gives the same digits as one that ran through. */
struct sample_row {
    double nll_ref, nll_var, kl;
    uint32_t top_ref, top_var;
};
static_assert(sizeof(struct sample_row) == 32, "as on disk");

struct assay_record_key assay_sample_key_of(const struct assay_record_key *reference, const char *reference_numerics,
                                            const struct assay_record_key *variant, const char *variant_numerics)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.sample.v1");
    assay_hash_digest(&hash, &reference->digest);
    assay_hash_str(&hash, reference_numerics);
    assay_hash_digest(&hash, &variant->digest);
    assay_hash_str(&hash, variant_numerics);
    assay_hash_u64(&hash, ASSAY_SAMPLE_VERSION);
    return (struct assay_record_key){assay_hash_final(&hash)};
}

enum assay_status assay_sample_encode(const struct assay_position *positions, size_t rows, void **ret, size_t *ret_len,
                                      struct assay_err *err)
{
    struct sample_head head = {SAMPLE_MAGIC, ASSAY_SAMPLE_VERSION, rows};
    size_t len = sizeof head + rows * sizeof(struct sample_row);
    char *bytes = malloc(len);
    if (!bytes)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a sample of %zu positions", rows);
    memcpy(bytes, &head, sizeof head);
    for (size_t i = 0; i < rows; i++) {
        struct sample_row row = {positions[i].nll_ref, positions[i].nll_var, positions[i].kl, positions[i].top_ref,
                                 positions[i].top_var};
        memcpy(bytes + sizeof head + i * sizeof row, &row, sizeof row);
    }
    *ret = bytes;
    *ret_len = len;
    return ASSAY_OK;
}

bool assay_sample_rows(size_t len, size_t *ret)
{
    if (len < sizeof(struct sample_head) || (len - sizeof(struct sample_head)) % sizeof(struct sample_row) != 0)
        return false;
    *ret = (len - sizeof(struct sample_head)) / sizeof(struct sample_row);
    return true;
}

bool assay_sample_decode(const void *bytes, size_t len, struct assay_position *positions, size_t rows)
{
    struct sample_head head;
    if (len != sizeof head + rows * sizeof(struct sample_row))
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.magic != SAMPLE_MAGIC || head.version != ASSAY_SAMPLE_VERSION || head.rows != rows)
        return false;
    for (size_t i = 0; i < rows; i++) {
        struct sample_row row;
        memcpy(&row, (const char *)bytes + sizeof head + i * sizeof row, sizeof row);
        positions[i] = (struct assay_position){row.nll_ref, row.nll_var, row.kl, row.top_ref, row.top_var};
    }
    return true;
}
