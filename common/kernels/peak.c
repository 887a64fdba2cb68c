/* The processor's own peak: independent multiply-adds in registers only. */
#include <math.h>
#include <string.h>
#include <time.h>
#ifdef ASSAY_KERNELS_X86
#include <immintrin.h>
#endif

#include "common/kernels/kernels.h"

/* Turns of 12 independent multiply-adds, which hide the latency of each. */
#define TURNS 500000
#define CHAINS 12
#define ROUNDS 20

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float chains_scalar(float x)
{
    float sums[CHAINS] = {0};
    for (size_t i = 0; i < TURNS; i++)
        for (size_t j = 0; j < CHAINS; j++)
            sums[j] = fmaf(x, x, sums[j]);
    return sums[0] + sums[CHAINS - 1];
}

#ifdef ASSAY_KERNELS_X86
#define CHAINS_OF(name, features, vector, set, step, add, first)                                                       \
    __attribute__((target(features))) static float name(float x)                                                       \
    {                                                                                                                  \
        vector sums[CHAINS];                                                                                           \
        for (size_t j = 0; j < CHAINS; j++)                                                                            \
            sums[j] = set((float)j);                                                                                   \
        for (size_t i = 0; i < TURNS; i++)                                                                             \
            _Pragma("GCC unroll 12") for (size_t j = 0; j < CHAINS; j++) sums[j] = step;                               \
        for (size_t j = 1; j < CHAINS; j++)                                                                            \
            sums[0] = add(sums[0], sums[j]);                                                                           \
        return first(sums[0]);                                                                                         \
    }

CHAINS_OF(chains_avx2, "avx2,fma", __m256, _mm256_set1_ps,
          _mm256_fmadd_ps(_mm256_set1_ps(x), _mm256_set1_ps(x), sums[j]), _mm256_add_ps, _mm256_cvtss_f32)
CHAINS_OF(chains_avx512, "avx512f", __m512, _mm512_set1_ps,
          _mm512_fmadd_ps(_mm512_set1_ps(x), _mm512_set1_ps(x), sums[j]), _mm512_add_ps, _mm512_cvtss_f32)
CHAINS_OF(chains_bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps,
          _mm512_dpbf16_ps(sums[j], (__m512bh)_mm512_set1_ps(x), (__m512bh)_mm512_set1_ps(x)), _mm512_add_ps,
          _mm512_cvtss_f32)
#endif

double assay_kernels_peak(const struct assay_kernels *kernels, bool bf16)
{
    float (*chains)(float) = chains_scalar;
    double lanes = 1;
#ifdef ASSAY_KERNELS_X86
    if (strcmp(kernels->name, "avx2") == 0) {
        chains = chains_avx2;
        lanes = 8;
    } else if (strncmp(kernels->name, "avx512", 6) == 0) {
        bool pairs = bf16 && strcmp(kernels->name, "avx512bf16") == 0;
        chains = pairs ? chains_bf16 : chains_avx512;
        lanes = pairs ? 32 : 16;
    }
#else
    (void)kernels;
    (void)bf16;
#endif
    volatile float kept = 1e-3f;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double begin = cpu_seconds();
        kept = chains(kept * 1e-3f);
        best = ASSAY_MAX(best, 2.0 * lanes * CHAINS * TURNS / (cpu_seconds() - begin));
    }
    return best;
}
