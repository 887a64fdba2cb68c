#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/dtype.h"
#include "common/nn/scoring.h"
#include "services/evaluator/score_job.h"

#define MODEL_DIR ASSAY_SHARED_DIR "/golden/models/smollm_tied"

enum { CHUNKS = 5, TOKENS = 24, BEGIN = 10, END = 23, ROWS = END - BEGIN, VARIANTS = 2, SOURCES = VARIANTS + 1 };

/* A job over random hidden states, and what is expected of it. */
struct bench {
    char dir[64];
    struct assay_records *records;
    struct assay_pool *pool;
    struct assay_heads *heads;
    const struct assay_head *head;
    size_t vocab, hidden;
    struct assay_score_side sides[SOURCES];
    struct assay_chunk_key keys[CHUNKS];
    uint32_t tokens[CHUNKS], begin[CHUNKS], end[CHUNKS];
    int32_t ids[CHUNKS * TOKENS];
    float *states[CHUNKS][SOURCES];
};

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static float random_float(void)
{
    return (float)((double)(next_random() >> 11) / (double)(1ull << 52) - 1);
}

static void name_digest(struct assay_digest *digest, const char *domain, uint64_t n)
{
    struct assay_hash hash;
    assay_hash_init(&hash, domain);
    assay_hash_u64(&hash, n);
    *digest = assay_hash_final(&hash);
}

static void open_records(struct bench *bench)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_path_join(path, bench->dir, "store", NULL), ASSAY_OK);
    if (assay_records_open(path, 1 << 30, NULL, &bench->records, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static int make_bench(void **state)
{
    *state = NULL;
    if (access(MODEL_DIR, F_OK) != 0)
        return 0;
    struct bench *bench = calloc(1, sizeof *bench);
    struct assay_err err = ASSAY_ERR_INIT;
    strcpy(bench->dir, "/tmp/assay-score-XXXXXX");
    if (!mkdtemp(bench->dir))
        return -1;
    open_records(bench);
    assert_int_equal(assay_pool_new(2, NULL, &bench->pool, NULL), ASSAY_OK);
    bench->heads = assay_heads_new(bench->pool);
    if (assay_heads_get(bench->heads, MODEL_DIR, &bench->head, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    bench->vocab = assay_head_vocab(bench->head);
    bench->hidden = assay_head_hidden(bench->head);
    for (size_t s = 0; s < SOURCES; s++) {
        bench->sides[s] = (struct assay_score_side){.artifact_dir = MODEL_DIR, .label = "side"};
        name_digest(&bench->sides[s].variant.digest, "side", s);
    }
    for (size_t c = 0; c < CHUNKS; c++) {
        name_digest(&bench->keys[c].digest, "chunk", c);
        bench->tokens[c] = TOKENS;
        bench->begin[c] = BEGIN;
        bench->end[c] = END;
        for (size_t t = 0; t < TOKENS; t++)
            bench->ids[c * TOKENS + t] = (int32_t)(next_random() % bench->vocab);
        for (size_t s = 0; s < SOURCES; s++) {
            float *rows = bench->states[c][s] = calloc(ROWS * bench->hidden, sizeof(float));
            for (size_t i = 0; i < ROWS * bench->hidden; i++)
                rows[i] = s == 0 ? 8 * random_float() : bench->states[c][0][i] + (float)s * 0.3f * random_float();
        }
    }
    *state = bench;
    return 0;
}

static int remove_bench(void **state)
{
    struct bench *bench = *state;
    if (!bench)
        return 0;
    for (size_t c = 0; c < CHUNKS; c++)
        for (size_t s = 0; s < SOURCES; s++)
            free(bench->states[c][s]);
    assay_heads_put(bench->heads, bench->head);
    assert_int_equal(assay_heads_count(bench->heads), 0); /* every job gave its heads back */
    assay_heads_free(bench->heads);
    assay_pool_free(bench->pool);
    assay_records_close(bench->records);
    enum assay_status status = assay_remove_tree(bench->dir, NULL);
    free(bench);
    return status == ASSAY_OK ? 0 : -1;
}

/* The golden models may be absent on a developer's machine, never in CI. */
static struct bench *need(void **state)
{
    const char *ci = getenv("CI");
    if (!*state && ci && strcmp(ci, "true") == 0)
        fail_msg("%s is missing", MODEL_DIR);
    if (!*state)
        skip();
    return *state;
}

static void put_with(struct bench *bench, size_t chunk, size_t source, const char *numerics, size_t rows)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_record record = {.chunk = bench->keys[chunk],
                                  .variant = bench->sides[source].variant,
                                  .numerics = numerics,
                                  .rows = rows,
                                  .cols = bench->hidden,
                                  .hidden = bench->states[chunk][source],
                                  .dtype = ASSAY_RECORD_F32};
    if (assay_records_put(bench->records, &record, 1, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

/* The record as f16. */
static void put_half(struct bench *bench, size_t chunk, size_t source)
{
    size_t values = ROWS * bench->hidden;
    uint16_t *halves = calloc(values, sizeof *halves);
    for (size_t i = 0; i < values; i++)
        halves[i] = assay_f32_to_f16(bench->states[chunk][source][i]);
    struct assay_record record = {.chunk = bench->keys[chunk],
                                  .variant = bench->sides[source].variant,
                                  .numerics = "n",
                                  .rows = ROWS,
                                  .cols = bench->hidden,
                                  .hidden = halves,
                                  .dtype = ASSAY_RECORD_F16};
    assert_int_equal(assay_records_put(bench->records, &record, 1, NULL), ASSAY_OK);
    free(halves);
}

static void put(struct bench *bench, size_t chunk, size_t source)
{
    put_with(bench, chunk, source, "n", ROWS);
}

static struct assay_score_spec spec_of(struct bench *bench)
{
    return (struct assay_score_spec){.reference = bench->sides[0],
                                     .variants = bench->sides + 1,
                                     .variants_count = VARIANTS,
                                     .chunks_count = CHUNKS,
                                     .keys = bench->keys,
                                     .tokens = bench->tokens,
                                     .begin = bench->begin,
                                     .end = bench->end,
                                     .ids = bench->ids,
                                     .ids_count = CHUNKS * TOKENS};
}

/* --- a job --- */

struct outcome {
    struct bench *bench;
    bool cancel;
    bool remake_lost; /* put what is reported lost again */
    const char *remake_numerics;
    int64_t silence_ms;
    size_t messages, lost;
    uint64_t done, total, cached, tokens;
    size_t results_count;
    struct assay_score_result results[SOURCES];
    double chunk_kl[VARIANTS][2 * CHUNKS];
    char numerics[SOURCES][16];
};

static bool is_cancelled(void *arg)
{
    return ((struct outcome *)arg)->cancel;
}

static void remake(struct outcome *outcome, const struct assay_score_lost *lost)
{
    for (size_t c = 0; c < CHUNKS; c++)
        for (size_t s = 0; s < SOURCES; s++)
            if (assay_digest_equal(&lost->chunk.digest, &outcome->bench->keys[c].digest) &&
                assay_digest_equal(&lost->variant.digest, &outcome->bench->sides[s].variant.digest))
                put_with(outcome->bench, c, s, outcome->remake_numerics ? outcome->remake_numerics : "n", ROWS);
}

static enum assay_status take(void *arg, const struct assay_score_progress *progress, struct assay_err *err)
{
    (void)err;
    struct outcome *outcome = arg;
    outcome->messages++;
    outcome->done = progress->chunks_done;
    outcome->total = progress->chunks_total;
    outcome->cached = progress->chunks_cached;
    outcome->tokens = progress->tokens_scored;
    outcome->lost += progress->lost_count;
    for (size_t i = 0; i < progress->lost_count && outcome->remake_lost; i++)
        remake(outcome, &progress->lost[i]);
    outcome->results_count = progress->results_count;
    for (size_t i = 0; i < progress->results_count; i++) {
        outcome->results[i] = progress->results[i];
        strcpy(outcome->numerics[i], progress->results[i].numerics);
        if (progress->results[i].chunk_kl)
            memcpy(outcome->chunk_kl[i - 1], progress->results[i].chunk_kl,
                   progress->results[i].chunks_count * sizeof(double));
    }
    return ASSAY_OK;
}

static enum assay_status run(struct bench *bench, const struct assay_score_spec *spec, struct outcome *outcome,
                             struct assay_err *err)
{
    const struct assay_score_deps deps = {bench->records, bench->heads, bench->pool, outcome->silence_ms};
    const struct assay_score_sink sink = {outcome, is_cancelled, take, NULL};
    outcome->bench = bench;
    return assay_score_run(&deps, spec, &sink, err);
}

static void run_well(struct bench *bench, const struct assay_score_spec *spec, struct outcome *outcome)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (run(bench, spec, outcome, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static void put_all(struct bench *bench)
{
    for (size_t c = 0; c < CHUNKS; c++)
        for (size_t s = 0; s < SOURCES; s++)
            put(bench, c, s);
}

static void near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("got %.17g, wanted %.17g", got, want);
}

/* Mean figures of a pair over given chunks, from float64 by row. */
static void expect_pair(struct bench *bench, const struct outcome *outcome, size_t variant, const size_t *chunks,
                        size_t count)
{
    double nll_ref = 0, nll_var = 0, kl = 0, chunk_kl = 0, same = 0, square = 0;
    float *logits = malloc(2 * bench->vocab * sizeof *logits);
    for (size_t i = 0; i < count; i++, chunk_kl = 0) {
        size_t c = chunks[i];
        for (size_t row = 0; row < ROWS; row++) {
            assay_head_logits(bench->head, bench->pool, bench->states[c][0] + row * bench->hidden, 1, logits);
            assay_head_logits(bench->head, bench->pool, bench->states[c][variant] + row * bench->hidden, 1,
                              logits + bench->vocab);
            struct assay_position want = assay_score_row_f64(logits, logits + bench->vocab, bench->vocab,
                                                             bench->ids[c * TOKENS + BEGIN + row + 1]);
            nll_ref += want.nll_ref;
            nll_var += want.nll_var;
            kl += want.kl;
            chunk_kl += want.kl;
            same += want.top_ref == want.top_var;
            square += pow(exp(-want.nll_var) - exp(-want.nll_ref), 2);
        }
        near(outcome->chunk_kl[variant - 1][i], chunk_kl / ROWS, 1e-6);
    }
    free(logits);
    double n = (double)(count * ROWS);
    const struct assay_pair_summary *got = &outcome->results[variant].pair;
    near(outcome->results[0].pair.mean_nll.value, nll_ref / n, 1e-6);
    near(outcome->results[0].pair.perplexity.value, exp(nll_ref / n), 1e-6);
    near(got->mean_nll.value, nll_var / n, 1e-6);
    near(got->perplexity.value, exp(nll_var / n), 1e-6);
    near(got->perplexity_increase_percent.value, 100 * expm1((nll_var - nll_ref) / n), 1e-4);
    near(got->kl.mean, kl / n, 1e-6);
    near(got->same_top1_percent.value, 100 * same / n, 1e-12);
    near(got->delta_p_rms_percent.value, 100 * sqrt(square / n), 1e-5);
    assert_int_equal(got->kl.n, count * ROWS);
    assert_true(got->kl.mean > 0);
}

/* --- promises --- */

static void figures_agree_with_float64_row_by_row(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {0};
    struct assay_score_spec spec = spec_of(bench);
    static const size_t chunks[] = {0, 1, 2, 3, 4};
    put_all(bench);
    run_well(bench, &spec, &outcome);
    assert_int_equal(outcome.results_count, SOURCES);
    assert_true(outcome.results[0].is_reference);
    assert_int_equal(outcome.done, CHUNKS);
    assert_int_equal(outcome.total, CHUNKS);
    assert_int_equal(outcome.cached, 0);
    assert_int_equal(outcome.tokens, CHUNKS * ROWS);
    assert_int_equal(outcome.lost, 0);
    assert_string_equal(outcome.numerics[2], "n");
    expect_pair(bench, &outcome, 1, chunks, CHUNKS);
    expect_pair(bench, &outcome, 2, chunks, CHUNKS);
}

static void the_reference_against_itself_is_exactly_zero(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {0};
    struct assay_score_spec spec = spec_of(bench);
    spec.variants = bench->sides;
    spec.variants_count = 1;
    for (size_t c = 0; c < CHUNKS; c++)
        put(bench, c, 0);
    run_well(bench, &spec, &outcome);
    const struct assay_pair_summary *got = &outcome.results[1].pair;
    assert_true(got->kl.mean == 0 && got->kl.max == 0 && got->kl.min == 0);
    assert_true(got->perplexity_increase_percent.value == 0);
    assert_true(got->same_top1_percent.value == 100);
    assert_true(got->delta_p_rms_percent.value == 0);
    assert_true(got->perplexity.value == outcome.results[0].pair.perplexity.value);
}

static void a_reference_without_variants_has_its_perplexity(void **state)
{
    struct bench *bench = need(state);
    struct outcome alone = {0}, with = {0};
    struct assay_score_spec spec = spec_of(bench);
    put_all(bench);
    run_well(bench, &spec, &with);
    spec.variants_count = 0;
    run_well(bench, &spec, &alone);
    assert_int_equal(alone.results_count, 1);
    assert_true(alone.results[0].pair.perplexity.value == with.results[0].pair.perplexity.value);
}

static void samples_are_used_again_with_the_same_digits(void **state)
{
    struct bench *bench = need(state);
    struct outcome first = {0}, second = {0}, third = {0};
    struct assay_score_spec spec = spec_of(bench);
    put_all(bench);
    spec.variants_count = 1;
    run_well(bench, &spec, &first);
    assay_records_close(bench->records);
    open_records(bench);
    run_well(bench, &spec, &second);
    assert_int_equal(second.cached, CHUNKS);
    assert_memory_equal(first.chunk_kl[0], second.chunk_kl[0], CHUNKS * sizeof(double));
    assert_memory_equal(&first.results[1].pair, &second.results[1].pair, sizeof first.results[1].pair);
    spec.variants_count = 2; /* the first variant is there, the second is new */
    run_well(bench, &spec, &third);
    assert_int_equal(third.cached, 0);
    assert_memory_equal(first.chunk_kl[0], third.chunk_kl[0], CHUNKS * sizeof(double));
    expect_pair(bench, &third, 2, (const size_t[]){0, 1, 2, 3, 4}, CHUNKS);
}

static void the_same_text_twice_counts_twice(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {0};
    struct assay_score_spec spec = spec_of(bench);
    bench->keys[3] = bench->keys[1];
    memcpy(bench->ids + 3 * TOKENS, bench->ids + 1 * TOKENS, TOKENS * sizeof *bench->ids);
    put_all(bench);
    run_well(bench, &spec, &outcome);
    assert_int_equal(outcome.done, CHUNKS);
    assert_int_equal(outcome.tokens, CHUNKS * ROWS);
    expect_pair(bench, &outcome, 1, (const size_t[]){0, 1, 2, 1, 4}, CHUNKS);
    struct assay_err err = ASSAY_ERR_INIT;
    bench->ids[3 * TOKENS + BEGIN + 1] ^= 1;
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_INVALID_ARGUMENT);
}

static void *put_slowly(void *arg)
{
    struct bench *bench = arg;
    for (size_t s = SOURCES; s-- > 0;) {
        for (size_t c = CHUNKS; c-- > 0;) {
            usleep(3000);
            put(bench, c, s);
        }
    }
    return NULL;
}

static void records_that_arrive_meanwhile_are_scored(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {0};
    struct assay_score_spec spec = spec_of(bench);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, put_slowly, bench), 0);
    run_well(bench, &spec, &outcome);
    pthread_join(thread, NULL);
    expect_pair(bench, &outcome, 2, (const size_t[]){0, 1, 2, 3, 4}, CHUNKS);
    assert_true(outcome.messages >= 1);
}

static void a_record_of_the_wrong_shape_is_asked_for_again(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {.remake_lost = true};
    struct assay_score_spec spec = spec_of(bench);
    put_with(bench, 2, 1, "n", ROWS - 1);
    put_all(bench);
    run_well(bench, &spec, &outcome);
    assert_int_equal(outcome.lost, 1);
    expect_pair(bench, &outcome, 1, (const size_t[]){0, 1, 2, 3, 4}, CHUNKS);
}

static void mixed_numerics_end_in_one_set(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {.remake_lost = true, .remake_numerics = "m"};
    struct assay_score_spec spec = spec_of(bench);
    for (size_t c = 0; c < CHUNKS; c++) {
        put(bench, c, 0);
        put(bench, c, 2);
        put_with(bench, c, 1, c < 3 ? "m" : "old", ROWS);
    }
    run_well(bench, &spec, &outcome);
    assert_int_equal(outcome.lost, 2);
    assert_string_equal(outcome.numerics[0], "n");
    assert_string_equal(outcome.numerics[1], "m");
    expect_pair(bench, &outcome, 1, (const size_t[]){0, 1, 2, 3, 4}, CHUNKS);
}

static void records_that_never_come_are_named_after_a_silence(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {.remake_lost = true, .silence_ms = 50};
    struct assay_score_spec spec = spec_of(bench);
    for (size_t c = 0; c < CHUNKS; c++)
        for (size_t s = c == 3 ? 1 : 0; s < SOURCES; s++)
            put(bench, c, s);
    run_well(bench, &spec, &outcome);
    assert_int_equal(outcome.lost, 1);
    expect_pair(bench, &outcome, 1, (const size_t[]){0, 1, 2, 3, 4}, CHUNKS);
}

static void a_cancelled_job_ends_and_gives_everything_back(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {.cancel = true};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_score_spec spec = spec_of(bench);
    put(bench, 0, 0);
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_CANCELLED);
    assert_int_equal(outcome.results_count, 0);
}

static void a_request_that_does_not_fit_together_is_refused(void **state)
{
    struct bench *bench = need(state);
    struct outcome outcome = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_score_spec spec = spec_of(bench);
    spec.ids_count--;
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_INVALID_ARGUMENT);
    spec = spec_of(bench);
    bench->end[1] = TOKENS; /* the last row predicts nothing */
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_INVALID_ARGUMENT);
    bench->end[1] = BEGIN;
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_INVALID_ARGUMENT);
    bench->end[1] = END;
    spec.chunks_count = 0;
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_INVALID_ARGUMENT);
    spec = spec_of(bench);
    bench->ids[BEGIN + 1] = (int32_t)bench->vocab;
    put_all(bench);
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_OUT_OF_RANGE);
    bench->ids[BEGIN + 1] = 0;
    bench->sides[1].artifact_dir = "/nowhere/at/all";
    assert_int_equal(run(bench, &spec, &outcome, &err), ASSAY_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

static void records_of_f16_are_scored_apart_and_their_error_is_measured(void **state)
{
    struct bench *bench = need(state);
    struct outcome half = {0}, wide = {0}, alone = {0};
    struct assay_score_spec spec = spec_of(bench);
    for (size_t c = 0; c < CHUNKS; c++)
        for (size_t s = 0; s < SOURCES; s++)
            put_half(bench, c, s);
    spec.dtype = ASSAY_RECORD_F16;
    run_well(bench, &spec, &alone);
    assert_int_equal(alone.results[1].dtype, ASSAY_RECORD_F16);
    assert_int_equal(alone.results[1].f16_error.n, 0);
    put_all(bench);
    run_well(bench, &spec, &half);
    assert_int_equal(half.cached, CHUNKS);
    spec.dtype = ASSAY_RECORD_F32;
    run_well(bench, &spec, &wide);
    assert_int_equal(wide.cached, 0);
    assert_int_equal(wide.results[1].f16_error.n, 0);
    for (size_t v = 1; v < SOURCES; v++) {
        const struct assay_dtype_error *error = &half.results[v].f16_error;
        double moved = fabs(half.results[v].pair.kl.mean - wide.results[v].pair.kl.mean);
        assert_int_equal(error->n, CHUNKS * ROWS);
        assert_true(error->mean_nats > 0 && error->mean_nats <= error->max_nats);
        assert_true(moved <= error->mean_nats * (1 + 1e-9));
        near(error->relative, error->mean_nats / wide.results[v].pair.kl.mean, 1e-9);
        assert_true(error->relative < 0.05);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_bench, remove_bench)
    const struct CMUnitTest tests[] = {
        T(figures_agree_with_float64_row_by_row),
        T(the_reference_against_itself_is_exactly_zero),
        T(a_reference_without_variants_has_its_perplexity),
        T(samples_are_used_again_with_the_same_digits),
        T(the_same_text_twice_counts_twice),
        T(records_that_arrive_meanwhile_are_scored),
        T(a_record_of_the_wrong_shape_is_asked_for_again),
        T(mixed_numerics_end_in_one_set),
        T(records_that_never_come_are_named_after_a_silence),
        T(a_cancelled_job_ends_and_gives_everything_back),
        T(a_request_that_does_not_fit_together_is_refused),
        T(records_of_f16_are_scored_apart_and_their_error_is_measured),
    };
#undef T
    return cmocka_run_group_tests_name("score_job", tests, NULL, NULL);
}
