#include <stdlib.h>
#include <string.h>

#include "common/kernels/paths.h"

static const struct assay_kernels paths[] = {
    [ASSAY_CPU_SCALAR] = {"scalar", &assay_gemm_ops__scalar, &assay_vector_ops__scalar},
#ifdef ASSAY_KERNELS_X86
    [ASSAY_CPU_AVX2] = {"avx2", &assay_gemm_ops__avx2, &assay_vector_ops__avx2},
    [ASSAY_CPU_AVX512] = {"avx512", &assay_gemm_ops__avx512, &assay_vector_ops__avx512},
    [ASSAY_CPU_AVX512BF16] = {"avx512bf16", &assay_gemm_ops__avx512bf16, &assay_vector_ops__avx512},
#endif
};

static const char *const masks[] = {"scalar", "avx2", "avx512", "avx512bf16"};

const struct assay_kernels *assay_kernels_at(size_t index)
{
    return index <= (size_t)assay_cpu_level_detect() ? &paths[index] : NULL;
}

enum assay_status assay_kernels_select(const struct assay_kernels **ret, struct assay_err *err)
{
    const char *mask = getenv("ASSAY_CPU_MASK");
    size_t level = (size_t)assay_cpu_level_detect();
    if (mask && *mask) {
        size_t cap = 0;
        while (cap < ASSAY_COUNT(masks) && strcmp(mask, masks[cap]) != 0)
            cap++;
        if (cap == ASSAY_COUNT(masks))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "ASSAY_CPU_MASK is scalar, avx2, avx512 or avx512bf16, found '%s'", mask);
        level = ASSAY_MIN(level, cap);
    }
    *ret = &paths[level];
    return ASSAY_OK;
}
