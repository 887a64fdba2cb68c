/* Milliseconds a position and core that scoring takes beside the products of the heads, at two sizes of vocabulary:
 * the best of many runs over one pair of rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/nn/scoring.h"
#include "common/nn/scoring_row.h"

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Roughly normal logits as a model gives them, from a fixed sequence. */
static double noise(uint64_t *state)
{
    double sum = 0.0;
    for (int i = 0; i < 6; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 11) * 0x1p-53 - 0.5;
    }
    return sum * 1.4142135623730951;
}

static void bench_plain(const float *ref, const float *var, size_t vocab, double *ret_kl)
{
    double begin = cpu_ms();
    *ret_kl = assay_score_row_f64(ref, var, vocab, 0).kl;
    printf("%8zu  %-7s  %34s %8.4f ms  kl %.10g\n", vocab, "float64", "", cpu_ms() - begin, *ret_kl);
}

static void bench_path(const struct assay_kernels *kernels, const float *ref, const float *var, size_t vocab,
                       double want)
{
    const struct assay_score_ops *ops = assay_score_ops(kernels);
    static float weights[ASSAY_SCORE_PART];
    double reference = INFINITY, pair = INFINITY, kl = 0.0, until = cpu_ms() + 300.0;
    while (cpu_ms() < until) {
        struct assay_score_part part;
        double begin = cpu_ms();
        for (size_t at = 0; at < vocab; at += ASSAY_SCORE_PART)
            ops->reduce(ref + at, ASSAY_MIN(vocab - at, (size_t)ASSAY_SCORE_PART), weights, &part);
        double middle = cpu_ms();
        kl = assay_score_row(kernels, ref, var, vocab, 0).kl;
        reference = fmin(reference, middle - begin);
        pair = fmin(pair, cpu_ms() - middle);
    }
    printf("%8zu  %-10s  reference %6.4f  pair %6.4f ms  kl off by %.1e\n", vocab, kernels->name, reference, pair,
           fabs(kl / want - 1.0));
}

int main(void)
{
    static const size_t vocabs[] = {32000, 151936};
    static const double gaps[] = {0.02, 0.5};
    for (size_t v = 0; v < ASSAY_COUNT(vocabs); v++)
        for (size_t g = 0; g < ASSAY_COUNT(gaps); g++) {
            size_t vocab = vocabs[v];
            uint64_t state = 1;
            float *logits = malloc(2 * vocab * sizeof *logits);
            if (!logits)
                return 1;
            for (size_t i = 0; i < vocab; i++) {
                double x = 3.0 * noise(&state);
                logits[i] = (float)x;
                logits[vocab + i] = (float)(x + gaps[g] * noise(&state));
            }
            double want;
            printf("logits that differ by %g\n", gaps[g]);
            bench_plain(logits, logits + vocab, vocab, &want);
            for (size_t i = 0; assay_kernels_at(i); i++)
                bench_path(assay_kernels_at(i), logits, logits + vocab, vocab, want);
            free(logits);
        }
    return 0;
}
