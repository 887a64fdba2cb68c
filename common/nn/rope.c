#include "common/nn/rope.h"

#include <math.h>

#define PI 0x1.921fb54442d18p+1
/* pi / 2 in three parts: the first two have 29 and 30 bits, so that their products with integers below 2^23 are exact.
 */
#define HALF_PI_1 0x1.921fb54p+0
#define HALF_PI_2 0x1.10b4611p-30
#define HALF_PI_3 0x1.4c4c6628b80dcp-59

/* Sine and cosine by plain double arithmetic: a library's differ by version and CPU in the last bit, and that bit may
 * reach f32. |r| <= pi / 4 after the reduction; the series then leave less than 1e-16. */
static void sine_cosine(double x, double *sine, double *cosine)
{
    double n = floor(x * (2 / PI) + 0.5);
    double r = ((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3, z = r * r;
    double s = 1, c = 1;
    for (int i = 8; i >= 1; i--) {
        s = 1 - s * z / (2 * i * (2 * i + 1));
        c = 1 - c * z / (2 * i * (2 * i - 1));
    }
    s *= r;
    switch ((unsigned)(uint64_t)n & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
    }
}

/* Long wavelengths are stretched by the factor, short ones kept, those between blended. */
static float llama3_inverse(const struct assay_rope *rope, float inverse)
{
    float factor = (float)rope->factor, low = (float)rope->low_freq_factor;
    float high = (float)rope->high_freq_factor, original = (float)rope->original_positions;
    float wavelength = (float)(2 * PI) / inverse;
    if (wavelength < original / high)
        return inverse;
    if (wavelength > original / low)
        return inverse / factor;
    float smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * inverse / factor + smooth * inverse;
}

/* The pair that turns `rotations` times over the original length. */
static double yarn_pair(const struct assay_rope *rope, double dim, double rotations)
{
    return dim * log((double)rope->original_positions / (rotations * 2 * PI)) / (2 * log(rope->theta));
}

/* The first and last pair of the ramp. */
static void yarn_range(const struct assay_rope *rope, double dim, double *low, double *high)
{
    *low = yarn_pair(rope, dim, rope->beta_fast);
    *high = yarn_pair(rope, dim, rope->beta_slow);
    if (rope->truncate) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = fmax(*low, 0);
    *high = fmin(*high, dim - 1);
    if (*low == *high)
        *high += 0.001;
}

/* Pairs that turn often are kept, those that hardly turn are stretched, a linear ramp between. */
static float yarn_inverse(const struct assay_rope *rope, double low, double high, size_t pair, float power)
{
    float ramp = ((float)pair - (float)low) / (float)(high - low);
    float kept = 1 - fminf(fmaxf(ramp, 0), 1);
    return 1.0f / ((float)rope->factor * power) * (1 - kept) + 1.0f / power * kept;
}

void assay_rope_inverse(const struct assay_rope *rope, size_t dim, size_t tokens, float *inverse)
{
    double width = (double)dim, theta = rope->theta, low = 0, high = 0;
    const float *factors = tokens > rope->original_positions ? rope->long_factors : rope->short_factors;
    if (rope->kind == ASSAY_ROPE_DYNAMIC) {
        double original = (double)rope->original_positions, length = fmax((double)tokens, original);
        theta *= pow(rope->factor * length / original - (rope->factor - 1), width / (width - 2));
    } else if (rope->kind == ASSAY_ROPE_YARN) {
        yarn_range(rope, width, &low, &high);
    }
    for (size_t i = 0; i < dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)width;
        float power = (float)pow((double)(float)theta, (double)exponent);
        inverse[i] = 1.0f / power;
        if (rope->kind == ASSAY_ROPE_LINEAR)
            inverse[i] /= (float)rope->factor;
        else if (rope->kind == ASSAY_ROPE_LLAMA3)
            inverse[i] = llama3_inverse(rope, inverse[i]);
        else if (rope->kind == ASSAY_ROPE_YARN)
            inverse[i] = yarn_inverse(rope, low, high, i, power);
        else if (rope->kind == ASSAY_ROPE_LONGROPE)
            inverse[i] = 1.0f / (factors[i] * power);
    }
}

void assay_rope_row(size_t position, size_t half, const float *inverse, float *cosine, float *sine)
{
    for (size_t i = 0; i < half; i++) {
        float angle = (float)position * inverse[i];
        double s, c;
        sine_cosine((double)angle, &s, &c);
        sine[i] = (float)s;
        cosine[i] = (float)c;
    }
}
