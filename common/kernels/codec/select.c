#include "common/kernels/codec/ops.h"
#include "common/kernels/paths.h"

static const struct assay_codec_ops *const paths[] = {
    [ASSAY_CPU_SCALAR] = &assay_codec_ops__scalar,
#ifdef ASSAY_KERNELS_X86
    [ASSAY_CPU_AVX2] = &assay_codec_ops__avx2,
    [ASSAY_CPU_AVX512] = &assay_codec_ops__avx512,
    [ASSAY_CPU_AVX512BF16] = &assay_codec_ops__avx512,
#endif
};

const struct assay_codec_ops *assay_codec_ops(const struct assay_kernels *kernels)
{
    for (size_t i = 0; i < ASSAY_COUNT(paths); i++)
        if (assay_kernels_at(i) == kernels)
            return paths[i];
    return paths[ASSAY_CPU_SCALAR];
}
