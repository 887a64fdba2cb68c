#include "common/kernels/paths.h"

#ifdef ASSAY_KERNELS_X86

#include <cpuid.h>
#include <stdatomic.h>

#define CPUID1_ECX_FMA (1u << 12)
#define CPUID1_ECX_OSXSAVE (1u << 27)
#define CPUID1_ECX_AVX (1u << 28)
#define CPUID1_ECX_F16C (1u << 29)
#define CPUID7_EBX_AVX2 (1u << 5)
#define CPUID7_EBX_AVX512F (1u << 16)
#define CPUID7_EBX_AVX512BW (1u << 30)
#define CPUID7_1_EAX_AVX512_BF16 (1u << 5)
#define XCR0_YMM 0x06u /* SSE and AVX state */
#define XCR0_ZMM 0xe6u /* and opmask, upper halves, upper registers */

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static enum assay_cpu_level ask_cpu(void)
{
    uint32_t eax, ebx, ecx, edx;
    uint32_t wanted = CPUID1_ECX_FMA | CPUID1_ECX_OSXSAVE | CPUID1_ECX_AVX | CPUID1_ECX_F16C;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & wanted) != wanted)
        return ASSAY_CPU_SCALAR;
    uint32_t saved = xcr0();
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & CPUID7_EBX_AVX2) || (saved & XCR0_YMM) != XCR0_YMM)
        return ASSAY_CPU_SCALAR;
    if (!(ebx & CPUID7_EBX_AVX512F) || (saved & XCR0_ZMM) != XCR0_ZMM)
        return ASSAY_CPU_AVX2;
    if (eax < 1 || !(ebx & CPUID7_EBX_AVX512BW) || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) ||
        !(eax & CPUID7_1_EAX_AVX512_BF16))
        return ASSAY_CPU_AVX512;
    return ASSAY_CPU_AVX512BF16;
}

/* Asked once: in a virtual machine every question takes tens of microseconds. */
enum assay_cpu_level assay_cpu_level_detect(void)
{
    static atomic_int known = -1;
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level < 0) {
        level = (int)ask_cpu();
        atomic_store_explicit(&known, level, memory_order_relaxed);
    }
    return (enum assay_cpu_level)level;
}

#else

enum assay_cpu_level assay_cpu_level_detect(void)
{
    return ASSAY_CPU_SCALAR;
}

#endif
