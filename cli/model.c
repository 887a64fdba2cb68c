/* assay model inspect: what a checkpoint is, what it takes, and what of assay runs it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/model_describe.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/text.h"

#define NAME "model"

/* "14.48 GB" */
static const char *size_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1000 && unit + 1 < ASSAY_COUNT(units); unit++)
        value /= 1000;
    snprintf(text, 32, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
    return text;
}

/* What files say of themselves. */
static void print_line(const char *format, ...) ASSAY_PRINTF(1, 2);

static void print_line(const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    assay_text_clean(line);
    puts(line);
}

static void print_precision(const struct model_precision *p)
{
    char text[32];
    if (p->status == ASSAY_OK)
        printf("  %-8s %11s\n", p->name, size_text(p->worker_bytes, text));
    else
        print_line("  %-8s no: %s", p->name, p->reason);
}

static void print_shape(const struct assay_model_config *c)
{
    char text[MODEL_TEXT_BYTES];
    printf("layers         %zu of %zu, MLP of %zu\n", c->layers, c->hidden, c->intermediate);
    if (c->experts.count > 0)
        printf("experts        %zu of %zu from layer %zu on, %zu a row out of %zu of %zu groups, %zu shared\n",
               c->experts.count, c->experts.intermediate, c->experts.first, c->experts.used, c->experts.groups_used,
               c->experts.groups, c->experts.shared);
    printf("attention      %zu heads of %zu, %zu of keys and values\n", c->heads, c->head_dim, c->kv_heads);
    printf("windows        %s\n", model_describe_windows(c, text));
    printf("positions      %zu, %s\n", c->positions_max, model_describe_positions(c, text));
    printf("vocabulary     %zu ids, %zu in use\n", c->vocab, c->vocab_used);
}

static void print_encoder(const struct model_description *m)
{
    const struct assay_encoder_config *c = &m->encoder;
    char text[32];
    printf("layers         %zu of %zu, MLP of %zu\n", c->layers, c->hidden, c->intermediate);
    printf("attention      %zu heads of %zu, both ways\n", c->heads, c->hidden / c->heads);
    printf("positions      %zu, an embedding each\n", c->positions);
    printf("vocabulary     %zu ids", c->vocab);
    if (c->types > 1)
        printf(", %zu types of tokens", c->types);
    putchar('\n');
    if (c->labels > 0)
        printf("labels         %zu\n", c->labels);
    printf("memory         %s of a worker\n", size_text(m->encoder_bytes, text));
}

static void print_head(const struct model_description *m)
{
    char hex[ASSAY_DIGEST_HEX];
    printf("head           %s, bias %s, logit scale %g, soft cap ",
           m->head.tied ? "the embedding" : "a matrix of its own", m->head_bias ? "yes" : "none",
           (double)m->head.logit_scale);
    if (m->head.soft_cap > 0)
        printf("%g", (double)m->head.soft_cap);
    else
        fputs("none", stdout);
    printf("\n               digest %s\n", assay_digest_hex(&m->head_digest, hex));
}

static void print_text(const struct model_description *m)
{
    char stored[32], head[32], chunk[32];
    print_line("model          %s", m->dir);
    print_line("architecture   %s", m->architecture);
    const char *by = "";
    if (m->runs && m->is_encoder)
        by = " (an encoder: embed and classify; eval is of decoders)";
    else if (m->runs && !m->has_head)
        by = " (embed; eval not: there is no head)";
    print_line("runs           %s%s%s", m->runs ? "yes" : "no: ", m->runs ? "" : m->reason, by);
    printf("parameters     %llu\n", (unsigned long long)m->parameters);
    print_line("stored         %s: %s%s%s", size_text(m->stored_bytes, stored), m->dtypes,
               m->quantization ? ", quantized by " : "", m->quantization ? m->quantization : "");
    if (m->has_config)
        print_shape(&m->config);
    if (m->is_encoder && m->runs)
        print_encoder(m);
    if (m->has_head)
        print_head(m);
    print_line("tokenizer      %s", m->tokenizer);
    if (!m->has_config)
        return;
    printf("memory of a worker's weights (the evaluator's head: %s; a chunk of %zu tokens: %s)\n",
           size_text(m->head_bytes, head), m->chunk_tokens, size_text(m->chunk_bytes, chunk));
    for (size_t i = 0; i < m->precisions_count; i++)
        print_precision(&m->precisions[i]);
}

static int inspect(const char *dir, bool json)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct model_description *description = NULL;
    if (model_describe(dir, &description, &err) != ASSAY_OK)
        return assay_say_failure(NAME " inspect", &err);
    if (json) {
        cJSON *object = model_description_json(description);
        char *text = object ? cJSON_Print(object) : NULL;
        if (text)
            puts(text);
        cJSON_free(text);
        cJSON_Delete(object);
    } else {
        print_text(description);
    }
    model_description_free(description);
    return fflush(stdout) == 0 && !ferror(stdout) ? ASSAY_EXIT_PASS : ASSAY_EXIT_INTERNAL;
}

int assay_command_model(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL};
    bool json = false;
    const struct assay_setting settings[] = {
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "one JSON object"},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " inspect DIR [--json]",
        .summary = "What the checkpoint in DIR is: family, parameters, shapes, head, tokenizer, memory by precision,\n"
                   "and whether it runs, with the reason where it does not. Of the weights only the head is read.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = words,
        .positional_min = 2,
        .positional_max = 2,
    };
    int code;
    if (!assay_say_parse(NAME, &command, argc, argv, &code))
        return code;
    if (strcmp(words[0], "inspect") != 0) {
        fprintf(stderr, "assay " NAME ": '%s' is no such action; 'inspect' is\n", words[0]);
        return ASSAY_EXIT_USAGE;
    }
    return inspect(words[1], json);
}
