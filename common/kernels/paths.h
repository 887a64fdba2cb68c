/* The tables that dispatch.c chooses from: one of each family for each path. */
#pragma once

#include "common/kernels/kernels.h"

enum assay_cpu_level { ASSAY_CPU_SCALAR, ASSAY_CPU_AVX2, ASSAY_CPU_AVX512, ASSAY_CPU_AVX512BF16 };

/* What the CPU has and the operating system saves (CPUID and XCR0). Built without instruction set flags. */
enum assay_cpu_level assay_cpu_level_detect(void);

extern const struct assay_gemm_ops assay_gemm_ops__scalar;
extern const struct assay_vector_ops assay_vector_ops__scalar;
#ifdef ASSAY_KERNELS_X86
extern const struct assay_gemm_ops assay_gemm_ops__avx2, assay_gemm_ops__avx512, assay_gemm_ops__avx512bf16;
extern const struct assay_vector_ops assay_vector_ops__avx2, assay_vector_ops__avx512;
#endif
