#include <immintrin.h>
#include <stddef.h>

/* In place of the loop over 15 thresholds: the four steps of a search among them, 16 values at a time. */
#define NF4_OWN_CODES
static void nf4_codes_of(const float thresholds[15], const float *restrict v, size_t n, int *restrict codes)
{
    const __m512 middles = _mm512_maskz_loadu_ps(0x7fff, thresholds);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        const __m512 x = _mm512_maskz_loadu_ps(there, v + i);
        __m512i code = _mm512_setzero_si512();
        for (int step = 8; step > 0; step /= 2) {
            __m512 middle = _mm512_permutexvar_ps(_mm512_add_epi32(code, _mm512_set1_epi32(step - 1)), middles);
            __mmask16 above = _mm512_cmp_ps_mask(x, middle, _CMP_GT_OQ);
            code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(step));
        }
        _mm512_mask_storeu_epi32(codes + i, there, code);
    }
}

#define OPS assay_codec_ops__avx512
#include "common/kernels/codec/body.h"
