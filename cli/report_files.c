#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/report_assess.h"
#include "common/base/pool.h"
#include "common/base/text.h"

/* --- names --- */

/* Users of these two schemes know them under longer names; group sizes are written as everybody writes them. */
static const struct {
    const char *text, *in_file_name;
} known_schemes[] = {{"awq4", "awq_4bit"}, {"gptq4", "gptq_4bit"}},
  known_keys[] = {{"group_size=", "g"}, {"compute=", ""}};

static void append_safe(char stem[ASSAY_STEM_MAX], const char *text, size_t len)
{
    size_t used = strlen(stem);
    for (size_t i = 0; i < len && used + 1 < ASSAY_STEM_MAX; i++) {
        unsigned char c = (unsigned char)text[i];
        stem[used++] = isalnum(c) || c == '.' || c == '-' ? (char)c : '_';
    }
    stem[used] = '\0';
}

static void append_parameter(char stem[ASSAY_STEM_MAX], const char *text, size_t len)
{
    append_safe(stem, "_", 1);
    for (size_t i = 0; i < ASSAY_COUNT(known_keys); i++) {
        size_t key_len = strlen(known_keys[i].text);
        if (len > key_len && strncmp(text, known_keys[i].text, key_len) == 0) {
            append_safe(stem, known_keys[i].in_file_name, strlen(known_keys[i].in_file_name));
            text += key_len;
            len -= key_len;
            break;
        }
    }
    append_safe(stem, text, len);
}

char *assay_report_stem(const char *label, char stem[ASSAY_STEM_MAX])
{
    size_t len = strcspn(label, ":");
    const char *scheme = label;
    size_t scheme_len = len;
    stem[0] = '\0';
    for (size_t i = 0; i < ASSAY_COUNT(known_schemes); i++)
        if (strlen(known_schemes[i].text) == len && strncmp(label, known_schemes[i].text, len) == 0) {
            scheme = known_schemes[i].in_file_name;
            scheme_len = strlen(scheme);
        }
    append_safe(stem, scheme, scheme_len);
    while (label[len] == ':') {
        const char *parameter = label + len + 1;
        size_t parameter_len = strcspn(parameter, ":");
        append_parameter(stem, parameter, parameter_len);
        len += 1 + parameter_len;
    }
    if (stem[0] == '\0' || stem[0] == '.')
        stem[0] = '_';
    return stem;
}

char *assay_report_file_name(const struct assay_report *report, size_t index, char name[ASSAY_REPORT_NAME_MAX])
{
    char stem[ASSAY_STEM_MAX], other[ASSAY_STEM_MAX];
    assay_report_stem(assay_result_label(report->job->results[index]), stem);
    if (index == 0) {
        snprintf(name, ASSAY_REPORT_NAME_MAX, "baseline_%s_results.json", stem);
        return name;
    }
    size_t same = 0;
    for (size_t i = 1; i < index; i++)
        same += strcmp(stem, assay_report_stem(assay_result_label(report->job->results[i]), other)) == 0;
    if (same > 0)
        snprintf(name, ASSAY_REPORT_NAME_MAX, "%s-%zu_quantized_results.json", stem, same + 1);
    else
        snprintf(name, ASSAY_REPORT_NAME_MAX, "%s_quantized_results.json", stem);
    return name;
}

/* --- environment --- */

static void read_cpu_model(char *ret, size_t ret_bytes)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(ret, ret_bytes, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon && colon[1] == ' ') {
            snprintf(ret, ret_bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

void assay_environment_read(struct assay_environment *ret)
{
    struct utsname name;
    struct sysinfo info;
    *ret = (struct assay_environment){.cpus = assay_cpu_count()};
    if (gethostname(ret->host, sizeof ret->host - 1) != 0)
        snprintf(ret->host, sizeof ret->host, "unknown");
    if (uname(&name) == 0)
        snprintf(ret->system, sizeof ret->system, "%.60s %.60s %.60s", name.sysname, name.release, name.machine);
    else
        snprintf(ret->system, sizeof ret->system, "unknown");
    if (sysinfo(&info) == 0)
        ret->memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    read_cpu_model(ret->cpu, sizeof ret->cpu);
}

/* --- writing --- */

static enum assay_status write_text(const char *dir, const char *name, const char *text, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, name, err);
    return status == ASSAY_OK ? assay_file_write(path, text, strlen(text), err) : status;
}

/* Takes the value over. */
static enum assay_status write_json(const char *dir, const char *name, cJSON *json, struct assay_err *err)
{
    char *text = json ? cJSON_Print(json) : NULL;
    enum assay_status status = text ? write_text(dir, name, text, err)
                                    : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", name);
    cJSON_free(text);
    cJSON_Delete(json);
    return status;
}

static enum assay_status write_whole(const struct assay_report *report, const struct assay_assessment *assessment,
                                     const char *out_dir, struct assay_err *err)
{
    cJSON *json = assay_report_json(report);
    if (json)
        cJSON_AddItemToObject(json, "assessment", assay_report_assessment_json(assessment));
    return write_json(out_dir, ASSAY_REPORT_JSON_NAME, json, err);
}

typedef void (*document_fn)(const struct assay_report *report, const struct assay_assessment *assessment,
                            struct assay_buf *out);

static enum assay_status write_document(const struct assay_report *report, const struct assay_assessment *assessment,
                                        document_fn document, const char *out_dir, const char *name,
                                        struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    document(report, assessment, &text);
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK && text.data)
        assay_text_clean_lines(text.data); /* they are looked at in terminals, too */
    return status == ASSAY_OK ? write_text(out_dir, name, assay_buf_cstr(&text), err) : status;
}

enum assay_status assay_report_write(const struct assay_report *report, const char *out_dir, struct assay_err *err)
{
    assay_auto(assay_assessment_release) struct assay_assessment assessment = {0};
    char name[ASSAY_REPORT_NAME_MAX];
    enum assay_status status = assay_mkdirs(out_dir, 0777, err);
    if (status == ASSAY_OK)
        status = assay_assess(report, &assessment, err);
    for (size_t i = 0; i < report->job->n_results && status == ASSAY_OK; i++)
        status =
            write_json(out_dir, assay_report_file_name(report, i, name), assay_report_variant_json(report, i), err);
    if (status == ASSAY_OK)
        status = write_whole(report, &assessment, out_dir, err);
    if (status == ASSAY_OK)
        status = write_document(report, &assessment, assay_report_markdown, out_dir, ASSAY_REPORT_MARKDOWN_NAME, err);
    if (status == ASSAY_OK)
        status = write_document(report, &assessment, assay_report_html, out_dir, ASSAY_REPORT_HTML_NAME, err);
    return status;
}
