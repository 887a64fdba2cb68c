/* Products and attention in GF/s on one thread (or as many as the argument says), beside the peak: a loop of
 * independent fused multiply-adds on the widest registers of the path, in registers only. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/kernels/kernels.h"

static uint32_t state = 1;
static long threads = 1;

/* Microseconds. One thread is timed by its own CPU time, which other programs on the machine disturb less. */
static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static float *noise_new(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    if (!x)
        exit(1);
    for (size_t i = 0; i < n; i++)
        x[i] = noise();
    return x;
}

static double gemm_gflops(const struct assay_kernels *kernels, struct assay_pool *pool, enum assay_dtype dtype,
                          bool bf16, size_t m, size_t n, size_t k)
{
    struct assay_err err = ASSAY_ERR_INIT;
    float *a = noise_new(m * k), *c = noise_new(m * n), *scales = noise_new(n);
    size_t bytes = n * k * assay_dtype_bytes(dtype);
    unsigned char *raw = calloc(1, bytes);
    for (size_t i = 0; raw && i < bytes; i++)
        raw[i] = (unsigned char)(i * 7 % 61);
    struct assay_panels w;
    if (!raw || assay_panels_pack(pool, dtype, raw, scales, n, k, &w, &err) != ASSAY_OK)
        exit(1);
    double best = 0;
    int64_t until = now_us() + 400 * 1000;
    while (now_us() < until || best <= 0) {
        int64_t begin = now_us();
        (bf16 ? assay_gemm_bf16 : assay_gemm)(kernels, pool, m, a, k, &w, NULL, c, n);
        double gflops = 2.0 * (double)m * (double)n * (double)k / 1e3 / (double)(now_us() - begin);
        best = ASSAY_MAX(best, gflops);
    }
    assay_panels_release(&w);
    free(raw);
    free(a);
    free(c);
    free(scales);
    return best;
}

static double attention_gflops(const struct assay_kernels *kernels, struct assay_pool *pool, size_t tokens)
{
    struct assay_attention_shape shape = {.heads = 14, .kv_heads = 2, .head_dim = 64, .scale = 0.125f};
    struct assay_attention_span span = {0, tokens};
    float *q = noise_new(tokens * 896), *k = noise_new(tokens * 128), *v = noise_new(tokens * 128);
    float *out = noise_new(tokens * 896);
    float *workspace = noise_new(assay_attention_workspace(&shape, &span, 1, assay_pool_threads(pool)));
    double best = 0;
    for (int i = 0; i < 5; i++) {
        int64_t begin = now_us();
        assay_attention(kernels, pool, &shape, &span, 1, q, k, v, out, workspace);
        /* Half of the square, two products. */
        double gflops = 2.0 * 896 * (double)tokens * (double)tokens / 1e3 / (double)(now_us() - begin);
        best = ASSAY_MAX(best, gflops);
    }
    free(q);
    free(k);
    free(v);
    free(out);
    free(workspace);
    return best;
}

int main(int argc, char **argv)
{
    static const size_t shapes[][3] = {{512, 4864, 896}, {512, 896, 4864},  {512, 896, 896},  {512, 128, 896},
                                       {512, 64, 64},    {512, 172, 96},    {120, 512, 192},  {16, 4864, 896},
                                       {1, 4864, 896},   {2048, 896, 4864}, {256, 32000, 896}};
    static const enum assay_dtype dtypes[] = {ASSAY_F32, ASSAY_BF16, ASSAY_F16, ASSAY_I8};
    threads = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct assay_pool *pool;
    struct assay_err err = ASSAY_ERR_INIT;
    if (threads < 1 || assay_pool_new((size_t)threads, NULL, &pool, &err) != ASSAY_OK)
        return 1;
    const struct assay_kernels *kernels;
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        double peak = assay_kernels_peak(kernels, false) * 1e-9 * (double)threads;
        printf("%s: peak %.1f GF/s on %ld threads\n", kernels->name, peak, threads);
        for (size_t s = 0; s < ASSAY_COUNT(shapes) && (path > 0 || s < 1); s++) {
            printf("  %4zu x %5zu x %4zu", shapes[s][0], shapes[s][1], shapes[s][2]);
            for (size_t d = 0; d < ASSAY_COUNT(dtypes); d++) {
                double gflops = gemm_gflops(kernels, pool, dtypes[d], false, shapes[s][0], shapes[s][1], shapes[s][2]);
                printf("  %s %6.1f (%3.0f %%)", assay_dtype_name(dtypes[d]), gflops, 100 * gflops / peak);
            }
            double gflops = gemm_gflops(kernels, pool, ASSAY_I8, true, shapes[s][0], shapes[s][1], shapes[s][2]);
            printf("  I8 in bf16 %6.1f (%3.0f %%)\n", gflops, 100 * gflops / peak);
        }
        for (size_t tokens = 128; tokens <= 2048 && path > 0; tokens *= 4) {
            double gflops = attention_gflops(kernels, pool, tokens);
            printf("  attention, 14 heads of 64, %4zu tokens  %6.1f (%3.0f %%)\n", tokens, gflops, 100 * gflops / peak);
        }
    }
    assay_pool_free(pool);
    return 0;
}
