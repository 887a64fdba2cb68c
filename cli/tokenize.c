/* assay tokenize: token ids of a text, as the model's tokenizer gives them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/tokenizer/tokenizer.h"

#define NAME "tokenize"

static void close_tokenizer(struct assay_tokenizer **tokenizer)
{
    assay_tokenizer_close(*tokenizer);
}

static enum assay_status print_ids(const int32_t *ids, size_t count, bool json, struct assay_err *err)
{
    if (json)
        putchar('[');
    for (size_t i = 0; i < count; i++) {
        if (json)
            printf("%s%d", i ? "," : "", ids[i]);
        else
            printf("%d\n", ids[i]);
    }
    if (json)
        puts("]");
    if (fflush(stdout) != 0 || ferror(stdout))
        return assay_err_errno(err, errno, "cannot write the ids");
    return ASSAY_OK;
}

static enum assay_status tokenize(const char *model, const char *file, bool special, bool json, struct assay_err *err)
{
    assay_auto(close_tokenizer) struct assay_tokenizer *tokenizer = NULL;
    assay_auto(assay_free_ptr) char *text = NULL;
    assay_auto(assay_free_ptr) int32_t *ids = NULL;
    size_t len = 0, count = 0;
    enum assay_status status = assay_tokenizer_open(model, &tokenizer, err);
    if (status == ASSAY_OK)
        status =
            assay_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, ASSAY_CORPUS_BYTES_MAX, &text, &len, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_encode(tokenizer, text, len, special, &ids, &count, err);
    return status == ASSAY_OK ? print_ids(ids, count, json, err) : status;
}

int assay_command_tokenize(int argc, char **argv)
{
    const char *model = NULL, *file = NULL;
    bool json = false, special = false;
    const struct assay_setting settings[] = {
        {.name = "file",
         .type = ASSAY_SETTING_STRING,
         .target = &file,
         .argument = "FILE",
         .help = "the text, - for stdin",
         .required = true},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "one JSON array instead of a line an id"},
        {.name = "special",
         .type = ASSAY_SETTING_FLAG,
         .target = &special,
         .help = "with the special tokens around a text (BOS, [CLS])"},
    };
    const struct assay_command command = {
        .usage = "assay tokenize MODEL --file FILE [--json] [--special]",
        .summary = "Token ids of a text. MODEL is a directory with tokenizer.json or tokenizer.model.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &model,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    if (!assay_say_parse(NAME, &command, argc, argv, &code))
        return code;
    struct assay_err err = ASSAY_ERR_INIT;
    if (tokenize(model, file, special, json, &err) != ASSAY_OK)
        return assay_say_failure(NAME, &err);
    return ASSAY_EXIT_PASS;
}
