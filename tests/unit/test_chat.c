/* Which of a model's files a chat template comes from, and what is said of broken ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/corpus/chat.h"
#include "tests/cmocka_all.h"

static int make_dir(void **state)
{
    static char dir[] = "/tmp/assay-chat-XXXXXX";
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    *state = mkdtemp(dir);
    return *state ? 0 : -1;
}

static int remove_dir(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    return assay_remove_tree(*state, &err) == ASSAY_OK ? 0 : -1;
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_path_join(path, dir, name, &err), ASSAY_OK);
    assert_int_equal(assay_file_write(path, text, strlen(text), &err), ASSAY_OK);
}

static void renders(const char *dir, const struct assay_chat_request *request, const char *wanted)
{
    struct assay_chat *chat = NULL;
    char *text = NULL;
    size_t len = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_chat_open(dir, &chat, &err) != ASSAY_OK ||
        assay_chat_render(chat, request, &text, &len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_string_equal(text, wanted);
    assert_int_equal(len, strlen(wanted));
    free(text);
    assay_chat_close(chat);
}

static void refuses(const char *dir, const struct assay_chat_request *request, enum assay_status wanted,
                    const char *words)
{
    struct assay_chat *chat = NULL;
    char *text = NULL;
    size_t len = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = assay_chat_open(dir, &chat, &err);
    if (status == ASSAY_OK)
        status = assay_chat_render(chat, request, &text, &len, &err);
    assert_int_equal(status, wanted);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assay_chat_close(chat);
}

static const struct assay_chat_request hello = {
    .messages = "[{\"role\": \"user\", \"content\": \"hi\"}]",
    .add_generation_prompt = true,
};

static void special_tokens_come_from_the_configuration_before_the_map(void **state)
{
    put(*state, "tokenizer_config.json",
        "{\"bos_token\": {\"content\": \"<s>\"}, \"chat_template\": "
        "\"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token is defined }}\"}");
    put(*state, "special_tokens_map.json", "{\"bos_token\": \"<other>\", \"eos_token\": \"</s>\"}");
    renders(*state, &hello, "<s>hi</s>False");
}

static void a_template_file_wins_and_tools_choose_theirs(void **state)
{
    put(*state, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"configured\"},"
        " {\"name\": \"tool_use\", \"template\": \"{{ tools|length }} tools\"}]}");
    renders(*state, &hello, "configured");
    put(*state, "chat_template.jinja", "from the file");
    renders(*state, &hello, "from the file");
    struct assay_chat_request with_tools = hello;
    with_tools.tools = "[{}, {}]";
    renders(*state, &with_tools, "2 tools");
}

static void variables_win_and_large_numbers_keep_their_digits(void **state)
{
    put(*state, "chat_template.jinja", "{{ x }} {{ add_generation_prompt }} {{ messages[0].n }}");
    struct assay_chat_request request = {
        .messages = "[{\"n\": 9007199254740993}]",
        .variables = " { \"x\": 1, \"add_generation_prompt\": \"mine\" }",
    };
    renders(*state, &request, "1 mine 9007199254740993");
    request.variables = "{ }";
    renders(*state, &request, " False 9007199254740993");
}

static void what_is_broken_is_named(void **state)
{
    refuses(*state, &hello, ASSAY_NOT_FOUND, "has no chat template");
    put(*state, "chat_template.jinja", "{% for %}");
    refuses(*state, &hello, ASSAY_INVALID_ARGUMENT, "chat_template.jinja is not a chat template");
    put(*state, "chat_template.jinja", "fine");
    put(*state, "tokenizer_config.json", "{\"chat_template\": 5}");
    refuses(*state, &hello, ASSAY_INVALID_ARGUMENT, "tokenizer_config.json: chat_template is neither");
    put(*state, "tokenizer_config.json", "{}");
    const struct assay_chat_request no_array = {.messages = "{}"}, no_json = {.messages = "[], \"x\": 1"};
    refuses(*state, &no_array, ASSAY_INVALID_ARGUMENT, "the messages are not a JSON array");
    refuses(*state, &no_json, ASSAY_INVALID_ARGUMENT, "the messages");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(special_tokens_come_from_the_configuration_before_the_map, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_template_file_wins_and_tools_choose_theirs, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(variables_win_and_large_numbers_keep_their_digits, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_is_broken_is_named, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
