#include "cli/say.h"

#include <stdio.h>
#include <string.h>

#include "common/base/exit_code.h"
#include "common/base/text.h"

#define WORD_MAX 32
#define EDITS_MAX 2

int assay_say_failure(const char *command, const struct assay_err *err)
{
    char sentence[sizeof err->text];
    strcpy(sentence, err->text[0] ? err->text : assay_status_name(err->status));
    assay_text_clean(sentence);
    fprintf(stderr, "assay %s: %s\n", command, sentence);
    return assay_exit_code(err->status);
}

int assay_say_setting_failure(const char *command, const struct assay_err *err)
{
    int code = assay_say_failure(command, err);
    return err->status == ASSAY_INVALID_ARGUMENT ? ASSAY_EXIT_USAGE : code;
}

bool assay_say_parse(const char *name, const struct assay_command *command, int argc, char **argv, int *ret_exit)
{
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_settings_outcome outcome;
    if (assay_settings_parse(command, argc, argv, &outcome, &err) != ASSAY_OK) {
        assay_say_failure(name, &err);
        *ret_exit = ASSAY_EXIT_USAGE;
        return false;
    }
    *ret_exit = ASSAY_EXIT_PASS;
    return outcome == ASSAY_SETTINGS_RUN;
}

/* Levenshtein's distance; words longer than WORD_MAX are far from everything. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1], a_len = strlen(a), b_len = strlen(b);
    if (a_len > WORD_MAX || b_len > WORD_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = ASSAY_MIN(replaced, ASSAY_MIN(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *assay_say_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = EDITS_MAX + 1, len = strlen(word);
    for (size_t i = 0; i < count; i++) {
        bool begins = len >= 2 && strncmp(names[i], word, len) == 0;
        size_t distance = begins ? 1 : edit_distance(word, names[i]);
        if (distance < best_distance && (begins || distance < len)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
