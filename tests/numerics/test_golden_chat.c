/* Chat templates against what transformers rendered (golden/tokenizers/chat.json): the same text and the same ids, and
 * the same refusals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/corpus/chat.h"
#include "common/formats/json.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define GOLDEN ASSAY_SHARED_DIR "/golden/tokenizers"
/* chat.json's note says so. */
#define VARIABLES "{\"date_string\": \"26 Jul 2024\"}"

static void link_file(const char *dir, const char *name, const char *format, const char *part)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    snprintf(from, sizeof from, format, part);
    snprintf(to, sizeof to, "%s/%s", dir, name);
    assert_int_equal(symlink(from, to), 0);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    assert_non_null(text);
    return text;
}

static void check_ids(const char *tokenizer_dir, const char *text, size_t len, const cJSON *wanted)
{
    struct assay_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_tokenizer_open(tokenizer_dir, &tokenizer, &err), ASSAY_OK);
    assert_int_equal(assay_tokenizer_encode(tokenizer, text, len, false, &ids, &count, &err), ASSAY_OK);
    assert_int_equal(count, cJSON_GetArraySize(wanted));
    size_t i = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, wanted) assert_int_equal(ids[i++], id->valueint);
    free(ids);
    assay_tokenizer_close(tokenizer);
}

/* "TemplateError: what": the template's own words are in our sentence. */
static void check_refusal(enum assay_status status, const struct assay_err *err, const char *error)
{
    const char *words = strstr(error, ": ");
    assert_non_null(words);
    assert_int_equal(status, ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err->text, words + 2));
}

static void check_case(const cJSON *row)
{
    char dir[] = "/tmp/assay-chat-XXXXXX", tokenizer_dir[ASSAY_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    link_file(dir, "chat_template.jinja", GOLDEN "/templates/%s.jinja", text_of(row, "template"));
    link_file(dir, "tokenizer_config.json", GOLDEN "/%s/tokenizer_config.json", text_of(row, "tokenizer"));
    link_file(dir, "special_tokens_map.json", GOLDEN "/%s/special_tokens_map.json", text_of(row, "tokenizer"));
    snprintf(tokenizer_dir, sizeof tokenizer_dir, GOLDEN "/%s", text_of(row, "tokenizer"));

    const cJSON *options = cJSON_GetObjectItemCaseSensitive(row, "kwargs");
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(options, "tools");
    char *messages = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(row, "messages"));
    char *tools_text = tools ? cJSON_PrintUnformatted(tools) : NULL;
    const struct assay_chat_request request = {
        .messages = messages,
        .tools = tools_text,
        .variables = VARIABLES,
        .add_generation_prompt = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(options, "add_generation_prompt")),
    };
    struct assay_chat *chat = NULL;
    char *text = NULL;
    size_t len = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_chat_open(dir, &chat, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    enum assay_status status = assay_chat_render(chat, &request, &text, &len, &err);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(row, "error");
    if (cJSON_IsString(error)) {
        check_refusal(status, &err, error->valuestring);
    } else {
        if (status != ASSAY_OK)
            fail_msg("%s, %s: %s", text_of(row, "template"), text_of(row, "case"), err.text);
        assert_string_equal(text, text_of(row, "rendered"));
        check_ids(tokenizer_dir, text, len, cJSON_GetObjectItemCaseSensitive(row, "ids"));
    }
    free(text);
    free(messages);
    free(tools_text);
    assay_chat_close(chat);
    assert_int_equal(assay_remove_tree(dir, &err), ASSAY_OK);
}

static void renderings_and_refusals_equal_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    cJSON *golden = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_json_load(GOLDEN "/chat.json", &golden, &err), ASSAY_OK);
    const cJSON *row, *rows = cJSON_GetObjectItemCaseSensitive(golden, "cases");
    assert_true(cJSON_GetArraySize(rows) > 0);
    cJSON_ArrayForEach(row, rows) check_case(row);
    cJSON_Delete(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renderings_and_refusals_equal_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
