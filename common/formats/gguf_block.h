/* Blocks of GGUF's tensor types. Internal to formats. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ASSAY_GGML_BLOCK 32  /* elements of a plain block */
#define ASSAY_GGML_SUPER 256 /* elements of a block of the K kinds */

/* Decodes one block at `src`, which is not aligned, to its elements in order. Every operation is rounded to f32, in the
 * order that the definition has (ggml-org/ggml, src/ggml-quants.c); so the result is the definition's, bit for bit. */
typedef void (*assay_ggml_decode_fn)(const unsigned char *src, float *dst);

#define ASSAY_GGML_Q2_K_BYTES 84
#define ASSAY_GGML_Q3_K_BYTES 110
#define ASSAY_GGML_Q4_K_BYTES 144
#define ASSAY_GGML_Q5_K_BYTES 176
#define ASSAY_GGML_Q6_K_BYTES 210
#define ASSAY_GGML_IQ4_XS_BYTES 136

void assay_ggml_decode_q2_k(const unsigned char *src, float *dst);
void assay_ggml_decode_q3_k(const unsigned char *src, float *dst);
void assay_ggml_decode_q4_k(const unsigned char *src, float *dst);
void assay_ggml_decode_q5_k(const unsigned char *src, float *dst);
void assay_ggml_decode_q6_k(const unsigned char *src, float *dst);
void assay_ggml_decode_iq4_xs(const unsigned char *src, float *dst);

/* What the 4-bit codes of IQ4_NL and IQ4_XS stand for. */
extern const int8_t assay_ggml_iq4_values[16];
