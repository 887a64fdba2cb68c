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
static float llama3_inverse(const struct assay_model_config *config, float inverse)
{
    float factor = (float)config->rope.factor, low = (float)config->rope.low_freq_factor;
    float high = (float)config->rope.high_freq_factor, original = (float)config->rope.original_positions;
    float wavelength = (float)(2 * PI) / inverse;
    if (wavelength < original / high)
        return inverse;
    if (wavelength > original / low)
        return inverse / factor;
    float smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * inverse / factor + smooth * inverse;
}

void assay_rope_inverse(const struct assay_model_config *config, size_t tokens, float *inverse)
{
    double dim = (double)config->head_dim, theta = config->rope.theta;
    if (config->rope.kind == ASSAY_ROPE_DYNAMIC) {
        double original = (double)config->rope.original_positions, length = fmax((double)tokens, original);
        theta *= pow(config->rope.factor * length / original - (config->rope.factor - 1), dim / (dim - 2));
    }
    for (size_t i = 0; i < config->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)dim;
        inverse[i] = 1.0f / (float)pow((double)(float)theta, (double)exponent);
        if (config->rope.kind == ASSAY_ROPE_LINEAR)
            inverse[i] /= (float)config->rope.factor;
        else if (config->rope.kind == ASSAY_ROPE_LLAMA3)
            inverse[i] = llama3_inverse(config, inverse[i]);
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
