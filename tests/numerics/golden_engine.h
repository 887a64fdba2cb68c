/* A model, its head, and what tests compare: with the outputs of transformers, and with itself. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "common/nn/model.h"
#include "tests/cmocka_all.h"

#define GOLDEN_TOKENS 70

extern struct assay_err golden_err;

/* A model with its head, loaded for one path and number of threads. */
struct engine {
    struct assay_pool *pool;
    struct assay_model *model;
    struct assay_head *head;
};

void want_ok(enum assay_status status);
struct engine engine_open(const char *dir, size_t threads, const char *path);
void engine_close(struct engine *e);

/* Pseudo-random ids. */
void fill_ids(int32_t *ids, size_t n, size_t vocab);
/* Hidden states of one sequence, to be freed. */
float *hidden_of(const struct engine *e, const int32_t *ids, size_t tokens);
/* Those of GOLDEN_TOKENS ids, or as many as the model takes, from a model that is loaded for them. */
float *hidden_by(const char *dir, size_t threads, const char *path, size_t *ret_bytes);

/* DIR/golden.safetensors: logits and hidden states, those before each layer too. */
void golden_check_outputs(const char *dir, bool layers_wanted);
/* Threads and instruction sets do not change a bit. */
void golden_check_bits(const char *dir);
/* Nor does the company in a batch. */
void golden_check_company(const char *dir);
/* Nor does going on in steps what a cache keeps as f32. */
void golden_check_growth(const char *dir);
/* assay_model_check_rows */
void golden_check_rows(const char *dir);
