#include "services/inference/narrow.h"

#include <string.h>

#include "common/base/dtype.h"

bool assay_f16_is_measured(const struct assay_chunk_key *key, const struct assay_chunk_key *first_of_job)
{
    return key->digest.bytes[0] % ASSAY_F16_MEASURED_ONE_IN == 0 ||
           assay_digest_equal(&key->digest, &first_of_job->digest);
}

enum assay_status assay_f16_narrow(const struct assay_chunk_key *key, const void *from, size_t rows, size_t width,
                                   void *to, struct assay_err *err)
{
    const unsigned char *source = from;
    unsigned char *target = to;
    for (size_t i = 0; i < rows * width; i++) {
        float value;
        char hex[ASSAY_DIGEST_HEX];
        memcpy(&value, source + i * sizeof value, sizeof value);
        uint16_t half = assay_f32_to_f16(value);
        if ((half & 0x7C00u) == 0x7C00u)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "chunk %s has a hidden value of %g in row %zu, which f16 cannot hold; use records of "
                                 "f32",
                                 assay_digest_hex(&key->digest, hex), (double)value, i / width);
        memcpy(target + i * sizeof half, &half, sizeof half);
    }
    return ASSAY_OK;
}
