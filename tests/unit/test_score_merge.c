/* A job over several stores: whoever finds the figures of a position, and in which order, the job's are the same bits.
 */
#include "tests/cmocka_all.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "services/evaluator/score_merge.h"

enum { CHUNKS = 9, TOKENS = 6, ROWS = 3, VARIANTS = 2, SHARES_MAX = 3 };

/* Chunk 4 stands twice: as 1, too. */
static const unsigned char names[CHUNKS] = {10, 11, 12, 13, 11, 15, 16, 17, 18};

struct job {
    struct assay_chunk_key keys[CHUNKS];
    uint32_t tokens[CHUNKS], begin[CHUNKS], end[CHUNKS];
    int32_t ids[CHUNKS * TOKENS];
    struct assay_score_side variants[VARIANTS];
    struct assay_score_spec spec;
};

static void make_job(struct job *job, enum assay_record_dtype dtype)
{
    memset(job, 0, sizeof *job);
    for (size_t i = 0; i < CHUNKS; i++) {
        memset(job->keys[i].digest.bytes, names[i], ASSAY_DIGEST_BYTES);
        job->tokens[i] = TOKENS;
        job->begin[i] = 2;
        job->end[i] = 2 + ROWS;
        for (size_t k = 0; k < TOKENS; k++)
            job->ids[i * TOKENS + k] = (int32_t)(names[i] * 7 + k);
    }
    for (size_t i = 0; i < VARIANTS; i++) {
        job->variants[i] = (struct assay_score_side){.artifact_dir = "/nowhere", .label = i ? "int4" : "int8"};
        job->variants[i].variant.digest.bytes[0] = (uint8_t)(i + 1);
    }
    job->spec = (struct assay_score_spec){.reference = {.artifact_dir = "/nowhere", .label = "fp32"},
                                          .variants = job->variants,
                                          .variants_count = VARIANTS,
                                          .chunks_count = CHUNKS,
                                          .keys = job->keys,
                                          .tokens = job->tokens,
                                          .begin = job->begin,
                                          .end = job->end,
                                          .ids = job->ids,
                                          .ids_count = CHUNKS * TOKENS,
                                          .dtype = dtype};
}

/* What scoring finds at a position; numbers whose sums depend on their order. */
static struct assay_position position_of(unsigned char name, size_t pair, size_t row, bool from_f32)
{
    double x = sin(1.0 + name * 0.731 + (double)row * 0.213), ref = 2.1 + x;
    double kl = (0.01 + 0.003 * (double)pair) * (1.5 + x) + (from_f32 ? 1e-6 * (double)name : 0);
    return (struct assay_position){.nll_ref = ref,
                                   .nll_var = ref + 0.1 * x * (double)(pair + 1),
                                   .kl = kl,
                                   .top_ref = 5,
                                   .top_var = (name + row + pair) % 3 ? 5 : 6};
}

/* One store that scores its share as it is told to. */
struct fake {
    bool backwards, pair_by_pair, measures;
    const char *numerics;
    size_t skips;              /* so many of its last chunks it forgets */
    bool tells_strange_chunk;  /* one that is not in the job */
    bool tells_strange_pair;   /* one beyond the variants */
    enum assay_status failure; /* instead of all this */
    bool waits_for_the_end;    /* until the job is cancelled */
    atomic_bool was_cancelled;
    size_t chunks;  /* that it was asked for */
    uint64_t asked; /* a bit for each name - 10 */
};

static enum assay_status tell_chunk(const struct fake *fake, const struct assay_score_sink *sink, unsigned char name,
                                    size_t first_pair, size_t pairs, bool from_f32, struct assay_err *err)
{
    struct assay_position positions[VARIANTS * ROWS];
    struct assay_score_samples samples = {.rows = ROWS,
                                          .first_pair = first_pair + (fake->tells_strange_pair ? VARIANTS : 0),
                                          .pairs = pairs,
                                          .positions = positions,
                                          .cached = name % 2 == 0,
                                          .from_f32 = from_f32};
    memset(samples.chunk.digest.bytes, fake->tells_strange_chunk ? 99 : name, ASSAY_DIGEST_BYTES);
    for (size_t i = 0; i < pairs; i++)
        for (size_t row = 0; row < ROWS; row++)
            positions[i * ROWS + row] = position_of(name, first_pair + i, row, from_f32);
    return sink->samples(sink->arg, &samples, err);
}

static enum assay_status run_share(void *arg, const struct assay_score_spec *spec, const struct assay_score_sink *sink,
                                   struct assay_err *err)
{
    struct fake *fake = arg;
    enum assay_status status = ASSAY_OK;
    fake->chunks = spec->chunks_count;
    for (size_t i = 0; i < spec->chunks_count; i++)
        fake->asked |= (uint64_t)1 << (spec->keys[i].digest.bytes[0] - names[0]);
    while (fake->waits_for_the_end && !sink->cancelled(sink->arg))
        usleep(1000);
    if (fake->waits_for_the_end) {
        atomic_store(&fake->was_cancelled, true);
        return assay_err_set(err, ASSAY_CANCELLED, "cancelled");
    }
    if (fake->failure != ASSAY_OK)
        return assay_err_set(err, fake->failure, "the store burnt down");
    for (size_t i = fake->skips; i < spec->chunks_count && status == ASSAY_OK; i++) {
        size_t at = fake->backwards ? spec->chunks_count - 1 - i : i - fake->skips;
        unsigned char name = spec->keys[at].digest.bytes[0];
        size_t step = fake->pair_by_pair ? 1 : VARIANTS;
        for (size_t pair = 0; pair < VARIANTS && status == ASSAY_OK; pair += step)
            status = tell_chunk(fake, sink, name, pair, step, false, err);
        for (size_t pair = 0; pair < VARIANTS && status == ASSAY_OK && fake->measures; pair++)
            status = tell_chunk(fake, sink, name, pair, 1, true, err);
    }
    struct assay_score_result results[VARIANTS + 1] = {{.numerics = fake->numerics, .is_share = true},
                                                       {.numerics = fake->numerics, .is_share = true},
                                                       {.numerics = fake->numerics, .is_share = true}};
    const struct assay_score_progress progress = {
        .compute_us = 1000, .results = results, .results_count = VARIANTS + 1};
    return status == ASSAY_OK ? sink->send(sink->arg, &progress, err) : status;
}

/* What the caller of the merge hears. */
struct heard {
    atomic_bool cancel;
    size_t ends;
    struct assay_score_progress last;
    struct assay_score_result results[VARIANTS + 1];
    double chunk_kl[VARIANTS][CHUNKS];
    char numerics[64];
};

static bool is_cancelled(void *arg)
{
    return atomic_load(&((struct heard *)arg)->cancel);
}

static enum assay_status hear(void *arg, const struct assay_score_progress *progress, struct assay_err *err)
{
    struct heard *heard = arg;
    (void)err;
    heard->last = *progress;
    if (progress->results_count == 0)
        return ASSAY_OK;
    heard->ends++;
    assert_int_equal(progress->results_count, VARIANTS + 1);
    snprintf(heard->numerics, sizeof heard->numerics, "%s", progress->results[0].numerics);
    for (size_t i = 0; i <= VARIANTS; i++) {
        heard->results[i] = progress->results[i];
        if (i > 0)
            memcpy(heard->chunk_kl[i - 1], progress->results[i].chunk_kl, sizeof heard->chunk_kl[0]);
    }
    return ASSAY_OK;
}

static size_t owner(void *arg, const struct assay_chunk_key *chunk)
{
    return chunk->digest.bytes[0] % *(const size_t *)arg;
}

static enum assay_status merge(const struct job *job, struct fake *fakes, size_t count, struct heard *heard,
                               struct assay_err *err)
{
    struct assay_score_share shares[SHARES_MAX];
    const struct assay_score_sink sink = {heard, is_cancelled, hear, NULL};
    for (size_t i = 0; i < count; i++)
        shares[i] = (struct assay_score_share){run_share, &fakes[i]};
    return assay_score_merge(&job->spec, shares, count, owner, &count, &sink, err);
}

static void assert_same(double one, double other)
{
    assert_memory_equal(&one, &other, sizeof one);
}

static void assert_same_estimate(const struct assay_estimate *one, const struct assay_estimate *other)
{
    assert_same(one->value, other->value);
    assert_same(one->low, other->low);
    assert_same(one->high, other->high);
    assert_int_equal(one->n, other->n);
}

static void assert_same_bits(const struct heard *one, const struct heard *other)
{
    assert_memory_equal(one->chunk_kl, other->chunk_kl, sizeof one->chunk_kl);
    for (size_t i = 0; i <= VARIANTS; i++) {
        const struct assay_pair_summary *a = &one->results[i].pair, *b = &other->results[i].pair;
        assert_same_estimate(&a->perplexity, &b->perplexity);
        assert_same_estimate(&a->mean_nll, &b->mean_nll);
        if (i == 0)
            continue;
        assert_same_estimate(&a->perplexity_increase_percent, &b->perplexity_increase_percent);
        assert_same_estimate(&a->same_top1_percent, &b->same_top1_percent);
        assert_same(a->kl.mean, b->kl.mean);
        assert_same(a->kl.high, b->kl.high);
        assert_same(a->kl.median, b->kl.median);
        assert_same(a->kl.p99, b->kl.p99);
        assert_same(one->results[i].f16_error.mean_nats, other->results[i].f16_error.mean_nats);
        assert_true(one->results[i].f16_error.n == other->results[i].f16_error.n);
    }
}

static void the_figures_are_those_of_one_store_bit_for_bit(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        struct job job;
        struct assay_err err = ASSAY_ERR_INIT;
        make_job(&job, dtype ? ASSAY_RECORD_F16 : ASSAY_RECORD_F32);
        bool measures = dtype;
        struct fake alone[] = {{.numerics = "n1", .measures = measures}};
        struct fake three[] = {{.numerics = "n1", .measures = measures, .backwards = true},
                               {.numerics = "n1", .measures = measures, .pair_by_pair = true},
                               {.numerics = "n1", .measures = measures, .backwards = true, .pair_by_pair = true}};
        struct heard one = {0}, other = {0};
        assert_int_equal(merge(&job, alone, 1, &one, &err), ASSAY_OK);
        assert_int_equal(merge(&job, three, 3, &other, &err), ASSAY_OK);
        assert_same_bits(&one, &other);
        assert_string_equal(other.numerics, "n1");
        assert_int_equal(other.ends, 1);
        assert_int_equal(other.last.chunks_done, CHUNKS);
        assert_int_equal(other.last.chunks_total, CHUNKS);
        assert_int_equal(other.last.tokens_scored, CHUNKS * ROWS);
        assert_int_equal(other.last.compute_us, 3000);
        assert_int_equal(other.last.chunks_cached, one.last.chunks_cached);
        assert_true(other.last.chunks_cached > 0 && other.last.chunks_cached < CHUNKS);
        /* Each share was asked for its chunks, each once. */
        assert_int_equal(three[0].chunks + three[1].chunks + three[2].chunks, CHUNKS - 1);
        assert_true((three[0].asked & three[1].asked) == 0 && (three[0].asked & three[2].asked) == 0);
    }
}

/* Against sums made here, in the order of the job, the repeated chunk counted twice. */
static void sums_go_over_all_positions_of_the_job(void **state)
{
    (void)state;
    struct job job;
    struct assay_err err = ASSAY_ERR_INIT;
    struct fake fakes[] = {{.numerics = "n1", .backwards = true}, {.numerics = "n1"}};
    struct heard heard = {0};
    make_job(&job, ASSAY_RECORD_F32);
    assert_int_equal(merge(&job, fakes, 2, &heard, &err), ASSAY_OK);
    for (size_t pair = 0; pair < VARIANTS; pair++) {
        double sum = 0;
        for (size_t i = 0; i < CHUNKS; i++) {
            double chunk = 0;
            for (size_t row = 0; row < ROWS; row++)
                chunk += position_of(names[i], pair, row, false).kl;
            assert_true(fabs(heard.chunk_kl[pair][i] - chunk / ROWS) <= 1e-15);
            sum += chunk;
        }
        double mean = sum / (CHUNKS * ROWS);
        assert_true(fabs(heard.results[pair + 1].pair.kl.mean - mean) <= 1e-15);
    }
}

static void what_f16_costs_is_measured_over_the_shares(void **state)
{
    (void)state;
    struct job job;
    struct assay_err err = ASSAY_ERR_INIT;
    struct fake fakes[] = {{.numerics = "n1", .measures = true}, {.numerics = "n1", .measures = true}};
    struct heard heard = {0};
    make_job(&job, ASSAY_RECORD_F16);
    assert_int_equal(merge(&job, fakes, 2, &heard, &err), ASSAY_OK);
    for (size_t i = 1; i <= VARIANTS; i++) {
        const struct assay_dtype_error *error = &heard.results[i].f16_error;
        assert_int_equal(error->n, (CHUNKS - 1) * ROWS); /* a chunk that repeats tells nothing new */
        assert_true(fabs(error->max_nats - 18e-6) < 1e-12);
        assert_true(error->mean_nats > 10e-6 && error->mean_nats < 18e-6);
    }
}

static void assert_fails(struct fake *fakes, enum assay_status status, const char *words)
{
    struct job job;
    struct assay_err err = ASSAY_ERR_INIT;
    struct heard heard = {0};
    make_job(&job, ASSAY_RECORD_F32);
    assert_int_equal(merge(&job, fakes, 2, &heard, &err), status);
    if (!strstr(err.text, words))
        fail_msg("'%s' has no '%s'", err.text, words);
    assert_int_equal(heard.ends, 0);
}

static void records_of_two_numerics_are_not_mixed(void **state)
{
    (void)state;
    struct fake fakes[] = {{.numerics = "n1"}, {.numerics = "n2"}};
    assert_fails(fakes, ASSAY_FAILED_PRECONDITION, "numerics ids");
}

static void a_share_that_fails_ends_the_others(void **state)
{
    (void)state;
    struct fake fakes[] = {{.failure = ASSAY_UNAVAILABLE}, {.waits_for_the_end = true}};
    assert_fails(fakes, ASSAY_UNAVAILABLE, "burnt down");
    assert_true(atomic_load(&fakes[1].was_cancelled));
}

static void a_share_that_forgets_a_chunk_makes_no_figures(void **state)
{
    (void)state;
    struct fake fakes[] = {{.numerics = "n1"}, {.numerics = "n1", .skips = 1}};
    char words[32];
    snprintf(words, sizeof words, "of %d chunks", CHUNKS);
    assert_fails(fakes, ASSAY_INTERNAL, words);
}

static void figures_that_nobody_asked_for_are_refused(void **state)
{
    (void)state;
    struct fake chunk[] = {{.numerics = "n1", .tells_strange_chunk = true}, {.numerics = "n1"}};
    struct fake pair[] = {{.numerics = "n1", .tells_strange_pair = true}, {.numerics = "n1"}};
    assert_fails(chunk, ASSAY_INTERNAL, "nobody asked");
    assert_fails(pair, ASSAY_INTERNAL, "nobody asked");
}

static void a_cancelled_job_ends_its_shares(void **state)
{
    (void)state;
    struct job job;
    struct assay_err err = ASSAY_ERR_INIT;
    struct fake fakes[] = {{.waits_for_the_end = true}, {.waits_for_the_end = true}};
    struct heard heard = {.cancel = true};
    make_job(&job, ASSAY_RECORD_F32);
    assert_int_equal(merge(&job, fakes, 2, &heard, &err), ASSAY_CANCELLED);
    assert_true(atomic_load(&fakes[0].was_cancelled) && atomic_load(&fakes[1].was_cancelled));
    assert_int_equal(heard.ends, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_figures_are_those_of_one_store_bit_for_bit),
        cmocka_unit_test(sums_go_over_all_positions_of_the_job),
        cmocka_unit_test(what_f16_costs_is_measured_over_the_shares),
        cmocka_unit_test(records_of_two_numerics_are_not_mixed),
        cmocka_unit_test(a_share_that_fails_ends_the_others),
        cmocka_unit_test(a_share_that_forgets_a_chunk_makes_no_figures),
        cmocka_unit_test(figures_that_nobody_asked_for_are_refused),
        cmocka_unit_test(a_cancelled_job_ends_its_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
