/* What the checks of the kernels share: arrays that end at a page nobody may touch, noise, comparison of bits. */
#pragma once

#include "common/kernels/kernels.h"
#include "tests/cmocka_all.h"

/* n floats that end where a page without access begins. The bytes before them are poison, which guarded_free checks. */
struct guarded {
    float *x;
    size_t n;
    unsigned char *base;
    size_t bytes; /* of the mapping */
};

struct guarded guarded_new(size_t n);   /* poisoned: every float is a NaN of a pattern of its own */
struct guarded guarded_noise(size_t n); /* in [-1, 1) */
void guarded_free(struct guarded *array);

float noise(void);
void noise_seed(uint32_t seed);

/* Fails with the first place where bits differ. Poison that was left in place on both sides differs from nothing. */
void want_same_bits(const float *got, const float *want, size_t n, const char *path, const char *what, size_t size);

/* Pools of 1, 2 and 3 threads, made once. */
struct assay_pool *pool_of(size_t threads);

struct weights {
    struct assay_panels panels;
    float *values; /* [n, k], what the panels mean */
};

/* Random weights of F32, BF16, F16 or I8. */
struct weights weights_new(enum assay_dtype dtype, size_t n, size_t k);
void weights_free(struct weights *w);
/* The definition of a product: one chain from 0 for each element, the bias last. */
void chain(size_t m, const float *a, const struct weights *w, const float *bias, float *c);

/* check_codes.c */
void weights_of_4_bits_multiply_as_their_decoded_values(void **state);
void products_of_bf16_are_one_chain_that_flushes_subnormals(void **state);
void products_of_bf16_flush_at_the_border_as_the_hardware_does(void **state);

/* check_products.c */
void products_are_one_chain_of_fused_multiply_adds_on_every_path(void **state);
void products_lie_within_the_bound_of_float64(void **state);
void rows_do_not_depend_on_their_company_or_the_threads(void **state);
void several_products_of_the_same_rows_are_as_each_alone(void **state);
void panels_unpack_to_the_exact_values(void **state);
void products_write_between_the_rows_of_c_nothing(void **state);
void weights_of_other_dtypes_are_refused(void **state);
void attention_gives_the_same_bits_on_every_path(void **state);
void attention_lies_near_float64(void **state);
void attention_of_a_row_depends_on_the_rows_before_it_alone(void **state);
void attention_without_a_limit_is_that_within_one_that_nothing_reaches(void **state);
void keys_outside_of_the_window_leave_no_trace(void **state);
