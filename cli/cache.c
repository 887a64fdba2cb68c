#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cache_evaluators.h"
#include "cli/cache_sum.h"
#include "cli/commands.h"
#include "cli/grid.h"
#include "cli/say.h"
#include "cli/words.h"
#include "common/base/exit_code.h"
#include "common/base/text.h"
#include "proto/record.pb-c.h"

/* Methods of the service, in the order of proto/record.proto. */
enum { CACHE_STAT, CACHE_LIST, CACHE_VERIFY, CACHE_PRUNE };

struct options {
    const char *data, *coordinator, *variant;
    double older_than_days, to_gb; /* negative: not given */
    bool json, records, all, dry_run;
};

struct session {
    const struct options *options;
    struct assay_remote remote;
    struct assay_cache_evaluators evaluators;
    int exit_code; /* of a command that went well */
};

typedef enum assay_status (*cache_fn)(struct session *session, struct assay_err *err);

/* --- the evaluators --- */

/* What all of them have; assay_cache_sum_release ends it, whatever the outcome. */
static enum assay_status ask_stat(struct session *session, struct assay_cache_sum *sum, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    *sum = (struct assay_cache_sum){.count = 0};
    for (size_t i = 0; i < session->evaluators.count && status == ASSAY_OK; i++) {
        Assay__V1__CacheStatRequest request = ASSAY__V1__CACHE_STAT_REQUEST__INIT;
        struct assay_reply *reply = NULL;
        status = assay_cache_call(&session->evaluators.at[i], CACHE_STAT, &request.base, &reply, err);
        if (status == ASSAY_OK)
            status = assay_cache_sum_add(sum, session->evaluators.at[i].endpoint, reply, err);
    }
    return status == ASSAY_OK ? assay_cache_sum_end(sum, err) : status;
}

/* --- output --- */

/* Takes the value over. */
static enum assay_status print_json(cJSON *json, struct assay_err *err)
{
    char *text = cJSON_Print(json);
    enum assay_status status = ASSAY_OK;
    if (text)
        puts(text);
    else
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the answer");
    cJSON_free(text);
    cJSON_Delete(json);
    return status;
}

static enum assay_status print_grid(struct assay_grid *grid, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_grid_text(grid, &text);
    assay_grid_release(grid);
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK)
        fputs(assay_buf_cstr(&text), stdout);
    return status;
}

static const char *word_dtype(bool has, Assay__V1__Dtype dtype)
{
    return !has ? "-" : dtype == ASSAY__V1__DTYPE__DTYPE_F16 ? "f16" : "f32";
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text && text[0])
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_digest(cJSON *object, const char *key, bool has, ProtobufCBinaryData bytes)
{
    char hex[ASSAY_DIGEST_HEX];
    add_text(object, key, has ? assay_word_hex(bytes, ASSAY_DIGEST_BYTES, hex) : NULL);
}

static void add_time(cJSON *object, uint64_t wall_ms)
{
    char time[24];
    add_text(object, "last_used", assay_word_time(wall_ms, time));
}

/* --- stat and ls --- */

static cJSON *variant_json(const Assay__V1__CacheVariant *variant)
{
    cJSON *object = cJSON_CreateObject();
    add_text(object, "label", variant->label);
    add_digest(object, "variant_id", variant->has_variant_id, variant->variant_id);
    add_digest(object, "model_id", variant->has_model_id, variant->model_id);
    add_text(object, "numerics_id", variant->numerics_id);
    add_text(object, "dtype", word_dtype(variant->has_dtype, variant->dtype));
    cJSON_AddNumberToObject(object, "chunks", (double)variant->chunks);
    cJSON_AddNumberToObject(object, "bytes", (double)variant->bytes);
    cJSON_AddNumberToObject(object, "pinned", (double)variant->pinned);
    add_time(object, variant->last_used_wall_ms);
    return object;
}

static cJSON *variants_json(const Assay__V1__CacheStatReply *stat)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < stat->n_variants; i++)
        cJSON_AddItemToArray(list, variant_json(stat->variants[i]));
    return list;
}

static void fill_variants(const Assay__V1__CacheStatReply *stat, struct assay_grid *grid)
{
    assay_grid_head(grid, "<variant|<id|<model|<dtype|chunks|MB|pinned|<last used|<numerics");
    for (size_t i = 0; i < stat->n_variants; i++) {
        const Assay__V1__CacheVariant *variant = stat->variants[i];
        char hex[ASSAY_DIGEST_HEX], time[24];
        assay_grid_cell(grid, "%s", assay_word_or(variant->label, "?"));
        assay_grid_cell(grid, "%s", variant->has_variant_id ? assay_word_hex(variant->variant_id, 6, hex) : "-");
        assay_grid_cell(grid, "%s", variant->has_model_id ? assay_word_hex(variant->model_id, 6, hex) : "-");
        assay_grid_cell(grid, "%s", word_dtype(variant->has_dtype, variant->dtype));
        assay_grid_cell(grid, "%" PRIu64, variant->chunks);
        assay_grid_cell(grid, "%.2f", (double)variant->bytes / 1e6);
        assay_grid_cell(grid, "%" PRIu64, variant->pinned);
        assay_grid_cell(grid, "%s", assay_word_time(variant->last_used_wall_ms, time));
        assay_grid_cell(grid, "%s", assay_word_or(variant->numerics_id, "-"));
    }
}

static cJSON *evaluators_json(const struct assay_cache_sum *sum)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < sum->count; i++) {
        const Assay__V1__CacheStatReply *stat = assay_reply_message(sum->replies[i]);
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "endpoint", sum->endpoints[i]);
        cJSON_AddNumberToObject(object, "records", (double)stat->records);
        cJSON_AddNumberToObject(object, "record_bytes", (double)stat->record_bytes);
        cJSON_AddNumberToObject(object, "samples", (double)stat->samples);
        cJSON_AddItemToArray(list, object);
    }
    return list;
}

static cJSON *stat_json(const struct assay_cache_sum *sum)
{
    const Assay__V1__CacheStatReply *stat = &sum->total;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "records", (double)stat->records);
    cJSON_AddNumberToObject(object, "record_bytes", (double)stat->record_bytes);
    cJSON_AddNumberToObject(object, "samples", (double)stat->samples);
    cJSON_AddNumberToObject(object, "sample_bytes", (double)stat->sample_bytes);
    cJSON_AddNumberToObject(object, "quota_bytes", (double)stat->quota_bytes);
    cJSON_AddNumberToObject(object, "store_bytes", (double)stat->store_bytes);
    cJSON_AddNumberToObject(object, "pinned", (double)stat->pinned);
    cJSON_AddNumberToObject(object, "pinned_bytes", (double)stat->pinned_bytes);
    cJSON_AddItemToObject(object, "variants", variants_json(stat));
    cJSON_AddItemToObject(object, "evaluators", evaluators_json(sum));
    return object;
}

static void print_stat(const struct assay_cache_sum *sum)
{
    const Assay__V1__CacheStatReply *stat = &sum->total;
    uint64_t bytes = stat->record_bytes + stat->sample_bytes;
    printf("records  %" PRIu64 ", %.2f MB\n", stat->records, (double)stat->record_bytes / 1e6);
    printf("samples  %" PRIu64 ", %.2f MB\n", stat->samples, (double)stat->sample_bytes / 1e6);
    printf("pinned   %" PRIu64 " records of running jobs, %.2f MB\n", stat->pinned, (double)stat->pinned_bytes / 1e6);
    printf("quota    %.2f MB, %.1f %% of it in use\n", (double)stat->quota_bytes / 1e6,
           stat->quota_bytes > 0 ? 100.0 * (double)bytes / (double)stat->quota_bytes : 0.0);
    printf("store    %.2f MB of pages in use\n", (double)stat->store_bytes / 1e6);
    for (size_t i = 0; sum->count > 1 && i < sum->count; i++) {
        const Assay__V1__CacheStatReply *one = assay_reply_message(sum->replies[i]);
        assay_auto(assay_buf_release) struct assay_buf line = ASSAY_BUF_INIT;
        assay_buf_printf(&line, "%s  %" PRIu64 " records, %.2f MB: %s", i == 0 ? "shares " : "       ", one->records,
                         (double)one->record_bytes / 1e6, sum->endpoints[i]);
        assay_buf_clean(&line, 0);
        puts(assay_buf_cstr(&line));
    }
    if (stat->n_variants > 0)
        putchar('\n');
}

static enum assay_status show_stat(struct session *session, bool whole, struct assay_err *err)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    struct assay_cache_sum sum;
    enum assay_status status = ask_stat(session, &sum, err);
    if (status == ASSAY_OK && session->options->json) {
        status = print_json(whole ? stat_json(&sum) : variants_json(&sum.total), err);
    } else if (status == ASSAY_OK) {
        if (whole)
            print_stat(&sum);
        if (!whole || sum.total.n_variants > 0) {
            fill_variants(&sum.total, &grid);
            status = print_grid(&grid, err);
        }
    }
    assay_cache_sum_release(&sum);
    return status;
}

static enum assay_status run_stat(struct session *session, struct assay_err *err)
{
    return show_stat(session, true, err);
}

/* --- ls --records: a line each, as they come --- */

static void print_records(void *arg, const void *message)
{
    const struct session *session = arg;
    const Assay__V1__CacheListReply *page = message;
    for (size_t i = 0; i < page->n_records; i++) {
        const Assay__V1__CacheRecord *record = page->records[i];
        char chunk[ASSAY_DIGEST_HEX] = "-", variant[ASSAY_DIGEST_HEX] = "-", time[24];
        if (session->options->json) {
            cJSON *object = cJSON_CreateObject();
            add_digest(object, "chunk_key", record->has_chunk_key, record->chunk_key);
            add_digest(object, "variant_id", record->has_variant_id, record->variant_id);
            add_text(object, "numerics_id", record->numerics_id);
            add_text(object, "dtype", word_dtype(record->has_dtype, record->dtype));
            cJSON_AddNumberToObject(object, "bytes", (double)record->bytes);
            cJSON_AddBoolToObject(object, "pinned", record->pinned);
            add_time(object, record->last_used_wall_ms);
            char *text = cJSON_PrintUnformatted(object);
            puts(text ? text : "{}");
            cJSON_free(text);
            cJSON_Delete(object);
            continue;
        }
        if (record->has_chunk_key)
            assay_word_hex(record->chunk_key, 16, chunk);
        if (record->has_variant_id)
            assay_word_hex(record->variant_id, 6, variant);
        printf("%-32s  %-12s  %-3s  %10" PRIu64 "  %s  %s\n", chunk, variant,
               word_dtype(record->has_dtype, record->dtype), record->bytes,
               assay_word_time(record->last_used_wall_ms, time), record->pinned ? "pinned" : "-");
    }
}

static enum assay_status run_ls(struct session *session, struct assay_err *err)
{
    Assay__V1__CacheListRequest request = ASSAY__V1__CACHE_LIST_REQUEST__INIT;
    if (!session->options->records)
        return show_stat(session, false, err);
    return assay_cache_read(&session->evaluators, CACHE_LIST, &request.base, print_records, NULL, session, err);
}

/* --- verify --- */

struct verification {
    uint64_t checked, total, bytes, damaged; /* of the evaluator at hand */
    uint64_t checked_before, bytes_before, damaged_before;
    cJSON *damages; /* with --json */
};

static void take_verify(void *arg, const void *message)
{
    struct verification *verification = arg;
    const Assay__V1__CacheVerifyReply *reply = message;
    verification->checked = reply->checked;
    verification->total = reply->total;
    verification->bytes = reply->bytes;
    verification->damaged = reply->damaged;
    for (size_t i = 0; i < reply->n_damages; i++) {
        struct assay_err damage = ASSAY_ERR_INIT;
        assay_err_set(&damage, ASSAY_DATA_LOSS, "dropped: %s", reply->damages[i]);
        if (verification->damages)
            cJSON_AddItemToArray(verification->damages, cJSON_CreateString(reply->damages[i]));
        else
            assay_say_failure("cache verify", &damage);
    }
    if (!verification->damages && reply->checked < reply->total)
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " values checked, %.2f MB\n", reply->checked, reply->total,
                (double)reply->bytes / 1e6);
}

static void end_verify(void *arg)
{
    struct verification *verification = arg;
    verification->checked_before += verification->checked;
    verification->bytes_before += verification->bytes;
    verification->damaged_before += verification->damaged;
    verification->checked = verification->bytes = verification->damaged = 0;
}

static enum assay_status run_verify(struct session *session, struct assay_err *err)
{
    Assay__V1__CacheVerifyRequest request = ASSAY__V1__CACHE_VERIFY_REQUEST__INIT;
    struct verification verification = {.damages = session->options->json ? cJSON_CreateArray() : NULL};
    enum assay_status status = assay_cache_read(&session->evaluators, CACHE_VERIFY, &request.base, take_verify,
                                                end_verify, &verification, err);
    if (status != ASSAY_OK) {
        cJSON_Delete(verification.damages);
        return status;
    }
    session->exit_code = verification.damaged_before > 0 ? ASSAY_EXIT_FAIL : ASSAY_EXIT_PASS;
    if (!session->options->json) {
        printf("%" PRIu64 " records and samples checked, %.2f MB: %" PRIu64 " damaged%s\n", verification.checked_before,
               (double)verification.bytes_before / 1e6, verification.damaged_before,
               verification.damaged_before > 0 ? ", dropped; they are computed again when they are needed" : "");
        return ASSAY_OK;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "checked", (double)verification.checked_before);
    cJSON_AddNumberToObject(object, "bytes", (double)verification.bytes_before);
    cJSON_AddNumberToObject(object, "damaged", (double)verification.damaged_before);
    cJSON_AddItemToObject(object, "damages", verification.damages);
    return print_json(object, err);
}

/* --- prune --- */

static void fill_prune(const struct options *options, Assay__V1__CachePruneRequest *request)
{
    assay__v1__cache_prune_request__init(request);
    request->variant_prefix = (char *)(uintptr_t)options->variant;
    request->has_older_than_days = options->older_than_days >= 0;
    request->older_than_days = options->older_than_days;
    request->has_all = request->has_dry_run = true;
    request->all = options->all;
    request->dry_run = options->dry_run;
}

/* Each evaluator comes down to its part of --to-gb, by what it holds now. A variant that one of them does not have is
 * no failure as long as another has it. */
static enum assay_status prune_all(struct session *session, const struct assay_cache_sum *sum,
                                   Assay__V1__CachePruneReply *total, struct assay_err *err)
{
    const struct options *options = session->options;
    double all_bytes = (double)(sum->total.record_bytes + sum->total.sample_bytes);
    size_t absent = 0;
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < session->evaluators.count && status == ASSAY_OK; i++) {
        const Assay__V1__CacheStatReply *stat = assay_reply_message(sum->replies[i]);
        double own_bytes = (double)(stat->record_bytes + stat->sample_bytes);
        Assay__V1__CachePruneRequest request;
        struct assay_reply *reply = NULL;
        fill_prune(options, &request);
        request.has_to_gb = options->to_gb >= 0;
        request.to_gb = all_bytes > 0 ? options->to_gb * (own_bytes / all_bytes) : options->to_gb;
        status = assay_cache_call(&session->evaluators.at[i], CACHE_PRUNE, &request.base, &reply, err);
        if (status == ASSAY_NOT_FOUND && ++absent < session->evaluators.count) {
            total->bytes_left += stat->record_bytes + stat->sample_bytes;
            status = ASSAY_OK;
            continue;
        }
        if (status != ASSAY_OK)
            return status;
        const Assay__V1__CachePruneReply *pruned = assay_reply_message(reply);
        total->records += pruned->records;
        total->samples += pruned->samples;
        total->bytes += pruned->bytes;
        total->pinned += pruned->pinned;
        total->bytes_left += pruned->bytes_left;
        assay_reply_free(reply);
    }
    return status;
}

static enum assay_status run_prune(struct session *session, struct assay_err *err)
{
    const struct options *options = session->options;
    Assay__V1__CachePruneReply pruned = ASSAY__V1__CACHE_PRUNE_REPLY__INIT;
    struct assay_cache_sum sum;
    enum assay_status status = ask_stat(session, &sum, err);
    if (status == ASSAY_OK)
        status = prune_all(session, &sum, &pruned, err);
    assay_cache_sum_release(&sum);
    if (status != ASSAY_OK)
        return status;
    if (options->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddBoolToObject(object, "dry_run", options->dry_run);
        cJSON_AddNumberToObject(object, "records", (double)pruned.records);
        cJSON_AddNumberToObject(object, "samples", (double)pruned.samples);
        cJSON_AddNumberToObject(object, "bytes", (double)pruned.bytes);
        cJSON_AddNumberToObject(object, "pinned", (double)pruned.pinned);
        cJSON_AddNumberToObject(object, "bytes_left", (double)pruned.bytes_left);
        return print_json(object, err);
    }
    printf("%s%" PRIu64 " records and %" PRIu64 " samples, %.2f MB; %.2f MB are left\n",
           options->dry_run ? "would prune " : "pruned ", pruned.records, pruned.samples, (double)pruned.bytes / 1e6,
           (double)pruned.bytes_left / 1e6);
    if (pruned.pinned > 0)
        printf("%" PRIu64 " more are needed by running jobs and stay\n", pruned.pinned);
    return ASSAY_OK;
}

/* --- the command --- */

static const struct action {
    const char *name;
    cache_fn run;
} actions[] = {{"stat", run_stat}, {"ls", run_ls}, {"verify", run_verify}, {"prune", run_prune}};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < ASSAY_COUNT(actions); i++)
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
    return NULL;
}

/* A filter that is given by accident with another action would promise what does not happen. */
static enum assay_status check_options(const struct action *action, const struct options *options,
                                       struct assay_err *err)
{
    bool filtered = options->variant || options->older_than_days >= 0 || options->to_gb >= 0;
    if (!action)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the action is one of stat, ls, verify, prune");
    if (action->run != run_prune && (filtered || options->all || options->dry_run))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--variant, --older-than, --to-gb, --all and --dry-run belong to 'assay cache prune'");
    if (action->run == run_prune && filtered == options->all)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "say what to prune: --variant, --older-than, --to-gb (together: what all of them choose), "
                             "or --all alone");
    if (action->run != run_ls && options->records)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--records belongs to 'assay cache ls'");
    return ASSAY_OK;
}

static bool parse(int argc, char **argv, struct options *options, const char **name, int *ret_exit)
{
    const struct assay_setting settings[] = {
        ASSAY_REMOTE_SETTINGS(&options->data, &options->coordinator),
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &options->json, .help = "print JSON"},
        {.name = "records",
         .type = ASSAY_SETTING_FLAG,
         .target = &options->records,
         .help = "ls: a line for each record (chunk, variant, dtype, bytes, last use)"},
        {.name = "variant",
         .type = ASSAY_SETTING_STRING,
         .target = &options->variant,
         .argument = "ID",
         .help = "prune: records of the variant whose id begins so"},
        {.name = "older-than",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &options->older_than_days,
         .min = -1,
         .max = 1000000,
         .argument = "DAYS",
         .help = "prune: what was not used for so long (-1: not asked)"},
        {.name = "to-gb",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &options->to_gb,
         .min = -1,
         .max = 1000000,
         .argument = "GB",
         .help = "prune: what was used longest ago, until so much is left (-1: not asked)"},
        {.name = "all", .type = ASSAY_SETTING_FLAG, .target = &options->all, .help = "prune: everything"},
        {.name = "dry-run",
         .type = ASSAY_SETTING_FLAG,
         .target = &options->dry_run,
         .help = "prune: say what would go, drop nothing"},
    };
    const struct assay_command command = {
        .usage = "assay cache stat|ls|verify|prune [--data DIR] [--json]",
        .summary = "Shows, checks and prunes the records that a running stack keeps. Records of running jobs stay.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = name,
        .positional_min = 1,
        .positional_max = 1,
    };
    return assay_say_parse("cache", &command, argc, argv, ret_exit);
}

int assay_command_cache(int argc, char **argv)
{
    struct options options = {.older_than_days = -1, .to_gb = -1};
    static struct session session;
    const char *name = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    int code;
    if (!parse(argc, argv, &options, &name, &code))
        return code;
    const struct action *action = find_action(name);
    session.options = &options;
    session.exit_code = ASSAY_EXIT_PASS;
    if (check_options(action, &options, &err) != ASSAY_OK)
        return assay_say_setting_failure("cache", &err);
    enum assay_status status = assay_remote_attach(&session.remote, options.coordinator, options.data, &err);
    if (status != ASSAY_OK) {
        assay_remote_close(&session.remote);
        return assay_say_setting_failure("cache", &err);
    }
    status = assay_cache_find(&session.remote, &session.evaluators, &err);
    if (status == ASSAY_OK)
        status = action->run(&session, &err);
    assay_cache_release(&session.evaluators);
    assay_remote_close(&session.remote);
    return status == ASSAY_OK ? session.exit_code : assay_say_failure("cache", &err);
}
