/* Kernels: the numbers of the engine. Each family has a portable path and faster ones; all give the same bits, because
 * every element is computed by the same sequence of correctly rounded operations (docs/NUMERICS.md). Arrays are f32,
 * row-major, aligned to 4 bytes; nothing outside the stated elements is read or written; inputs and outputs do not
 * overlap unless said. Nothing here can fail unless it returns a status. Any thread. */
#pragma once

#include "common/base/dtype.h"
#include "common/base/pool.h"

/* Rows of W in one panel. */
#define ASSAY_PANEL 32
/* Most rows that one tile has on any path. */
#define ASSAY_TILE_ROWS_MAX 16
/* Most rows that one call of decode takes on any path. */
#define ASSAY_DECODE_ROWS_MAX 4

/* exp: largest relative error where the result is a normal float. */
#define ASSAY_EXP_REL 1.2e-7

enum assay_weights {
    ASSAY_WEIGHTS_F32,
    ASSAY_WEIGHTS_BF16,
    ASSAY_WEIGHTS_F16,
    ASSAY_WEIGHTS_I8,     /* code * scale of the row */
    ASSAY_WEIGHTS_TABLE4, /* table[code] * scale of the group */
    ASSAY_WEIGHTS_INT4    /* (code - zero of the group) * scale of the group */
};

/* A few rows of A times some panels of W side by side, from W as it is stored: c[r][j] goes on from what it holds,
 * as in `tile`. */
struct assay_decode {
    enum assay_weights type;
    size_t rows, panels; /* rows 1 to decode_rows; panels 1 or 2 */
    size_t k, lda, ldc;
    const float *a;
    const void *data;               /* the first panel's first value of these k */
    size_t step_bytes, panel_bytes; /* from one k (4 bits: from four of them) and one panel to the next */
    const float *scales;            /* [32] of the first panel; of 4 bits [k / group, 32] */
    const uint8_t *zeros;           /* INT4: as scales */
    size_t scales_panel, group;     /* from one panel's scales to the next one's; 4 bits: values of k, of fours */
    const float *table;             /* TABLE4: [16] */
    float *c;                       /* [rows, panels * 32] */
};

struct assay_gemm_ops {
    size_t tile_rows; /* at most ASSAY_TILE_ROWS_MAX */
    /* c[r][j] = start + sum over kk of a[kk * tile_rows + r] * b[kk * 32 + j], one chain of fused multiply-adds in
     * order of kk, for r < rows <= tile_rows and j < 32; start is c[r][j] when `go_on`, else 0. Row r of c begins at c
     * + r * ldc. */
    void (*tile)(size_t rows, size_t k, const float *a, const float *b, float *c, size_t ldc, bool go_on);
    /* k x 32 elements to f32. Exact; i8 becomes (float)q * scales[j], rounded once. */
    void (*unpack_bf16)(size_t k, const uint16_t *src, float *dst);
    void (*unpack_f16)(size_t k, const uint16_t *src, float *dst);
    void (*unpack_i8)(size_t k, const int8_t *src, const float *scales, float *dst);
    /* k x 32 codes of 4 bits, in blocks of 64 bytes (struct assay_panels) that begin `stride` bytes apart. The value is
     * table[code] * scales[j], or ((float)code - zeros[j]) * scales[j]; rounded once. Up to 3 bytes behind the last
     * block are read. */
    void (*unpack_table4)(size_t k, const uint8_t *src, size_t stride, const float table[16], const float *scales,
                          float *dst);
    void (*unpack_int4)(size_t k, const uint8_t *src, size_t stride, const float *zeros, const float *scales,
                        float *dst);

    /* Rounds k x width elements to bf16, to nearest even, where subnormal ones are zeros of their sign, and writes them
     * in the form that tile_bf16 reads: bf16_bytes for each, for an even number of k, zeros behind the last. */
    size_t bf16_bytes;
    void (*to_bf16)(size_t k, size_t width, const float *src, void *dst);
    /* As `tile`, with operands that to_bf16 wrote; each step's result that is subnormal becomes a zero of its sign. */
    void (*tile_bf16)(size_t rows, size_t k, const void *a, const void *b, float *c, size_t ldc, bool go_on);

    size_t decode_rows;                          /* at most ASSAY_DECODE_ROWS_MAX */
    size_t decode_panels[ASSAY_DECODE_ROWS_MAX]; /* 1 or 2, the better for one row, for two, and so on */
    void (*decode)(const struct assay_decode *d);
    /* With a and W rounded as by to_bf16 and steps as those of tile_bf16; an odd k counts as the last one. NULL where
     * the path has none. */
    void (*decode_bf16)(const struct assay_decode *d);
};

/* One row each, n >= 1. Sums run over 16 lanes (element i in lane i % 16), then lane i + lane i + 8, + 4, + 2, + 1. */
struct assay_vector_ops {
    void (*exp)(size_t n, const float *x, float *y);
    /* y = x / sqrt(mean(x^2) + eps) * weight. y may be x. */
    void (*rmsnorm)(size_t n, const float *x, const float *weight, float eps, float *y);
    /* Rotates the pairs (x[i], x[i + half]) by the angle whose cosine and sine are given; in place. */
    void (*rope)(size_t half, const float *cosine, const float *sine, float *x);
    /* gate = gate / (1 + e^-gate) * up. */
    void (*silu_gate)(size_t n, float *gate, const float *up);
    void (*add)(size_t n, const float *x, float *y);                      /* y += x */
    void (*multiply)(size_t n, const float *x, float *y);                 /* y *= x */
    void (*scale)(size_t n, float factor, float *x);                      /* x *= factor */
    void (*add_scaled)(size_t n, float factor, const float *x, float *y); /* y += x * factor, rounded twice */
    /* y = (x - mean) / sqrt(variance + eps) * weight + bias; the variance is that of n, not n - 1. y may be x. */
    void (*layernorm)(size_t n, const float *x, const float *weight, const float *bias, float eps, float *y);
    /* In place: x / (1 + e^-x); x Phi(x), within 3e-7 * max(1, |x|) of it; the latter with the tanh in place of the
     * error function; max(x, 0). */
    void (*silu)(size_t n, float *x);
    void (*gelu)(size_t n, float *x);
    void (*gelu_tanh)(size_t n, float *x);
    void (*relu)(size_t n, float *x);
    /* x = cap * tanh(x * scale / cap), within 4 ulp of the value for the rounded quotient. */
    void (*soft_cap)(size_t n, float scale, float cap, float *x);
    /* x[0..valid) = softmax(x * scale), x[valid..n) = 0; 1 <= valid <= n. */
    void (*softmax)(size_t valid, size_t n, float scale, float *x);
};

struct assay_kernels {
    const char *name; /* "scalar", "avx2", "avx512", "avx512bf16" */
    const struct assay_gemm_ops *gemm;
    const struct assay_vector_ops *vector;
};

/* All paths of this build, slowest first; NULL behind the last one that this CPU and operating system can run. */
const struct assay_kernels *assay_kernels_at(size_t index);

/* The fastest path, or the one that the environment variable ASSAY_CPU_MASK (scalar, avx2, avx512, avx512bf16) caps it
 * to. INVALID_ARGUMENT for another value. */
enum assay_status assay_kernels_select(const struct assay_kernels **ret, struct assay_err *err) ASSAY_MUST_USE;

/* Operations a second (an addition and a product are two) that one core does in registers alone, with the widest
 * multiply-adds of the path: of f32, or where bf16 and the path has it, of pairs of bf16. Takes some milliseconds; the
 * scalar path some hundred. */
double assay_kernels_peak(const struct assay_kernels *kernels, bool bf16);

/* --- products --- */

/* W[n, k] in panels of 32 rows: panel p holds element (32 p + j, kk) at (p * k + kk) * 32 + j. Rows beyond n are zeros.
 * 4-bit codes of a panel lie in blocks of 64 bytes for four values of k: byte 4 j + i, j < 16, has rows j (low half)
 * and j + 16 at the i-th k. Panels 2 q and 2 q + 1 alternate block by block; the last one lies alone where their number
 * is odd. So the codes of one k are read from any of the 16 words of a block without being moved, and one stream of
 * reads serves two panels. */
struct assay_panels {
    enum assay_weights type;
    size_t n, k;
    void *data;
    float *scales;  /* I8: one a row, padded to whole panels; 4 bits: one a group; else NULL */
    uint8_t *zeros; /* INT4: one a group, in the order of the scales */
    float table[16];
    size_t group, row_span; /* 4 bits: as in struct assay_codes */
    size_t step;            /* 4 bits: no row changes its group but at multiples of this */
    size_t groups;          /* 4 bits: of a row, if scales are [panels, groups, 32]; 0: they are as in assay_codes */
    size_t bytes;           /* of data, scales and zeros */
};

/* `src` is row-major [n, k] of `dtype`, of any alignment; `scales` [n] belong to I8 only. Same-sized copy, no second
 * one. UNIMPLEMENTED for another dtype than F32, BF16, F16 and I8; RESOURCE_EXHAUSTED. */
enum assay_status assay_panels_pack(struct assay_pool *pool, enum assay_dtype dtype, const void *src,
                                    const float *scales, size_t n, size_t k, struct assay_panels *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* A matrix [n, k] of 4-bit codes, two a byte, as files have it. */
struct assay_codes {
    const uint8_t *codes;
    bool high_first;  /* the first of two codes is in the high half */
    size_t row_codes; /* element (r, kk) is code r * row_codes + kk */
    size_t group;     /* element (r, kk) is in group (r * row_span + kk) / group */
    size_t row_span;
    size_t groups; /* in all */
    const float *scales;
    const uint8_t *zeros; /* [groups], each below 16; NULL with a table */
    const float *table;   /* [16] or NULL */
};

/* What assay_panels_pack_codes makes of codes of this shape takes: bytes of the panels. `codes`, `scales`, `table` are
 * not read; zeros are counted where there is no table. SIZE_MAX: no memory can hold them. */
size_t assay_panels_codes_bytes(const struct assay_codes *src, size_t n, size_t k);

/* RESOURCE_EXHAUSTED. n, k, group >= 1; every element has a code and a group. */
enum assay_status assay_panels_pack_codes(struct assay_pool *pool, const struct assay_codes *src, size_t n, size_t k,
                                          struct assay_panels *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_panels_release(struct assay_panels *panels); /* leaves it empty; empty is fine */

/* c[m, n] = a[m, k] . W^T (+ bias[n], added last; may be NULL). lda and ldc are the distances of rows, in elements.
 * A row of c depends on that row of a and on W alone: neither m nor the threads nor the path change its bits. */
void assay_gemm(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                const struct assay_panels *w, const float *bias, float *c, size_t ldc);

/* Columns [column, column + columns) of that, to c[m, columns], by the calling thread alone. column is a multiple of
 * ASSAY_PANEL; columns too, unless they end with the last of n. */
void assay_gemm_columns(const struct assay_kernels *kernels, size_t m, const float *a, size_t lda,
                        const struct assay_panels *w, const float *bias, size_t column, size_t columns, float *c,
                        size_t ldc);

/* assay_gemm with a and W rounded to bf16 (`to_bf16`); sums and bias are f32. */
void assay_gemm_bf16(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_panels *w, const float *bias, float *c, size_t ldc);

struct assay_product {
    const struct assay_panels *w;
    const float *bias; /* [n] or NULL */
    float *c;          /* [m, n] */
    size_t ldc;
};

/* assay_gemm, or assay_gemm_bf16, of the same rows with several W: for few rows the threads meet once for all of them.
 */
void assay_gemm_several(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a,
                        size_t lda, const struct assay_product *products, size_t count, bool bf16);

/* a[rows, k] as the tiles that `tile` reads: tile t at dst + t * tile_rows * k, rows beyond the last are zeros. */
void assay_tiles_pack(size_t tile_rows, size_t rows, size_t k, const float *a, size_t lda, float *dst);

/* --- attention --- */

struct assay_attention_shape {
    size_t heads, kv_heads, head_dim; /* heads % kv_heads == 0 */
    float scale;                      /* of q . k */
    size_t window;                    /* a row sees this many keys, itself the last of them; 0: all before it */
    float soft_cap;                   /* scores become cap * tanh(score * scale / cap); 0: none */
    size_t value_dim;                 /* of v and out; 0: head_dim */
    bool bidirectional;               /* every row sees its whole sequence; without a window */
    /* Added to q . k * scale by assay_attention where it is bidirectional; NULL: nothing is. [heads, 2 * bias_reach -
     * 1]: of row i and key j element bias_reach - 1 + j - i of the head; no sequence has more tokens than bias_reach.
     */
    const float *bias;
    size_t bias_reach;
};

/* Rows [first, first + tokens) of q, k, v and out are one sequence. */
struct assay_attention_span {
    size_t first, tokens;
};

/* Floats of workspace for these spans; grows with the number of tokens, not with its square. 0 when the size overflows.
 */
size_t assay_attention_workspace(const struct assay_attention_shape *shape, const struct assay_attention_span *spans,
                                 size_t count, size_t threads);

/* Attention of each sequence over itself, causal unless the shape says otherwise: q [rows, heads * head_dim], k [rows,
 * kv_heads * head_dim], v [rows, kv_heads * value_dim], out [rows, heads * value_dim]. With finite values a row of out
 * depends on the rows of its sequence that it sees alone. workspace is 64-byte aligned. */
void assay_attention(const struct assay_kernels *kernels, struct assay_pool *pool,
                     const struct assay_attention_shape *shape, const struct assay_attention_span *spans, size_t count,
                     const float *q, const float *k, const float *v, float *out, float *workspace);

/* Keys and values of one sequence that grows, in the form that attention reads. F32 keeps them as they are, F16 and
 * BF16 round to nearest even, I8 keeps codes with one scale for each token and key-value head (largest magnitude / 127,
 * codes rounded to nearest even). Of other dtypes than F32 the value used is the exact one of what is kept. */
struct assay_kv {
    enum assay_dtype dtype;
    size_t capacity; /* tokens, in whole panels */
    void *keys;      /* a head's panels of 32 tokens: element (i, j) of head_dim x 32 at i * 32 + j % 32 */
    void *values;    /* a head's panels of 32 dimensions: element (token, i) of capacity x 32 at token * 32 + i % 32 */
    float *scales;   /* I8: keys' of all heads [kv_heads, capacity], then values' */
};

/* Room for at least `tokens`; all zero. UNIMPLEMENTED for another dtype; RESOURCE_EXHAUSTED. */
enum assay_status assay_kv_new(const struct assay_attention_shape *shape, enum assay_dtype dtype, size_t tokens,
                               struct assay_kv *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_kv_release(struct assay_kv *kv); /* leaves it empty; empty is fine */
size_t assay_kv_bytes(const struct assay_attention_shape *shape, const struct assay_kv *kv);
/* Puts k [tokens, kv_heads * head_dim] and v [tokens, kv_heads * value_dim] at tokens [past, past + tokens). */
void assay_kv_put(const struct assay_attention_shape *shape, struct assay_kv *kv, size_t past, size_t tokens,
                  const float *k, const float *v);

/* Rows [first, first + tokens) of q and out go on a sequence of `past` tokens; their keys and values are in kv, too. */
struct assay_attention_growth {
    size_t first, tokens, past;
    const struct assay_kv *kv;
};

/* As assay_attention_workspace. */
size_t assay_attention_growth_workspace(const struct assay_attention_shape *shape,
                                        const struct assay_attention_growth *growths, size_t count, size_t threads);
/* Causal attention over what kv holds. With F32 a row of out has the bits that assay_attention gives it over the whole
 * sequence at once. */
void assay_attention_grow(const struct assay_kernels *kernels, struct assay_pool *pool,
                          const struct assay_attention_shape *shape, const struct assay_attention_growth *growths,
                          size_t count, const float *q, float *out, float *workspace);
