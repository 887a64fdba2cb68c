#include "common/kernels/paths.h"
#include "common/kernels/score/ops.h"

static const struct assay_score_ops *const paths[] = {
    [ASSAY_CPU_SCALAR] = &assay_score_ops__scalar,
#ifdef ASSAY_KERNELS_X86
    [ASSAY_CPU_AVX2] = &assay_score_ops__avx2,
    [ASSAY_CPU_AVX512] = &assay_score_ops__avx512,
    [ASSAY_CPU_AVX512BF16] = &assay_score_ops__avx512,
#endif
};

const struct assay_score_ops *assay_score_ops(const struct assay_kernels *kernels)
{
    for (size_t i = 0; i < ASSAY_COUNT(paths); i++)
        if (assay_kernels_at(i) == kernels)
            return paths[i];
    return paths[ASSAY_CPU_SCALAR];
}
