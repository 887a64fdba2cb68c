/* Greedy responses against transformers (golden/models, golden.json): alone, all at once, with each cache that must not
 * change them, and up to EOS. */
#include <stdio.h>

#include "common/formats/json.h"
#include "common/nn/generator.h"
#include "tests/numerics/golden_engine.h"
#include "tests/shared.h"

#define NEW_MAX 64
#define ROWS_MAX 8

static const char *const models[] = {
    "llama2_mha",    "llama31_gqa_sharded", "llama31_rope_strong", "smollm_tied",
    "mistral_swa16", "qwen2_tied_bias",     "r1_distill_qwen",     "phi3_fused_swa",
    "phi3_longrope", "gptneox_parallel",    "gpt2_small",
};

struct answer {
    int32_t prompt[128], wanted[NEW_MAX], found[NEW_MAX], eos[4];
    size_t prompt_tokens, wanted_count, found_count, eos_count;
    bool ended;
    enum assay_finish finish;
};

static bool on_token(void *arg, const struct assay_choice *choice)
{
    struct answer *answer = arg;
    assert_true(answer->found_count < NEW_MAX);
    assert_true(choice->logprob <= 0);
    answer->found[answer->found_count++] = choice->id;
    return true;
}

static void on_end(void *arg, enum assay_finish finish, const struct assay_err *err)
{
    struct answer *answer = arg;
    if (err)
        fail_msg("%s", err->text);
    assert_false(answer->ended);
    answer->ended = true;
    answer->finish = finish;
}

static size_t read_ids(const cJSON *list, int32_t *to, size_t max)
{
    size_t count = 0;
    const cJSON *id;
    assert_true(cJSON_IsArray(list) && (size_t)cJSON_GetArraySize(list) <= max);
    cJSON_ArrayForEach(id, list) to[count++] = id->valueint;
    return count;
}

/* Two answers of each row: without EOS, and with. */
static size_t read_answers(const char *dir, struct answer *answers)
{
    char path[ASSAY_PATH_MAX];
    cJSON *golden;
    want_ok(assay_path_join(path, dir, "golden.json", &golden_err));
    want_ok(assay_json_load(path, &golden, &golden_err));
    size_t count = 0;
    const cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItemCaseSensitive(golden, "greedy"))
    {
        const cJSON *stopped = cJSON_GetObjectItemCaseSensitive(row, "with_eos");
        assert_true(count + 2 <= ROWS_MAX);
        for (size_t i = 0; i < 2; i++) {
            struct answer *answer = &answers[count++];
            *answer = (struct answer){0};
            answer->prompt_tokens = read_ids(cJSON_GetObjectItemCaseSensitive(row, "prompt_ids"), answer->prompt, 128);
            answer->wanted_count =
                read_ids(cJSON_GetObjectItemCaseSensitive(i ? stopped : row, "new_ids"), answer->wanted, NEW_MAX);
            if (i)
                answer->eos_count = read_ids(cJSON_GetObjectItemCaseSensitive(stopped, "eos_token_id"), answer->eos, 4);
        }
    }
    cJSON_Delete(golden);
    assert_true(count > 0);
    return count;
}

static void answer_all(const struct engine *e, struct answer *answers, size_t count, size_t at_once,
                       enum assay_dtype kv)
{
    struct assay_generator *generator;
    want_ok(assay_generator_new(e->model, e->head, e->pool, at_once, kv, &generator, &golden_err));
    for (size_t i = 0; i < count; i++) {
        answers[i].found_count = 0;
        answers[i].ended = false;
        const struct assay_generation generation = {
            .prompt = answers[i].prompt,
            .prompt_tokens = answers[i].prompt_tokens,
            .tokens_max = i % 2 ? NEW_MAX : answers[i].wanted_count,
            .sampling = ASSAY_SAMPLING_GREEDY,
            .eos = answers[i].eos,
            .eos_count = answers[i].eos_count,
            .on_token = on_token,
            .on_end = on_end,
            .arg = &answers[i],
        };
        want_ok(assay_generator_add(generator, &generation, &golden_err));
    }
    while (assay_generator_step(generator))
        ;
    assay_generator_free(generator);
}

static void want_answers(const char *model, const struct answer *answers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(answers[i].ended);
        assert_int_equal(answers[i].finish, i % 2 ? ASSAY_FINISH_EOS : ASSAY_FINISH_LENGTH);
        assert_int_equal(answers[i].found_count, answers[i].wanted_count);
        for (size_t t = 0; t < answers[i].wanted_count; t++)
            if (answers[i].found[t] != answers[i].wanted[t])
                fail_msg("%s, answer %zu: token %zu is %d, wanted %d", model, i, t, (int)answers[i].found[t],
                         (int)answers[i].wanted[t]);
    }
}

static void greedy_responses_equal_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        char dir[ASSAY_PATH_MAX];
        struct answer answers[ROWS_MAX];
        snprintf(dir, sizeof dir, ASSAY_SHARED_DIR "/golden/models/%s", models[i]);
        size_t count = read_answers(dir, answers);
        struct engine e = engine_open(dir, 2, NULL);
        answer_all(&e, answers, count, 1, ASSAY_F32);
        want_answers(models[i], answers, count);
        answer_all(&e, answers, count, 3, ASSAY_F32);
        want_answers(models[i], answers, count);
        engine_close(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_responses_equal_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
