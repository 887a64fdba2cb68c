#include "common/corpus/chat.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/formats/json.h"

#define CONFIG_FILE "tokenizer_config.json"
#define SPECIAL_FILE "special_tokens_map.json"
#define TEMPLATE_FILE "chat_template.jinja"
#define TEMPLATE_DIR "additional_chat_templates"
#define SUFFIX ".jinja"

struct named_template {
    char *name;
    struct assay_template *template;
};

struct assay_chat {
    char *dir;
    struct named_template *templates;
    size_t count;
    char *specials; /* JSON members: "bos_token": "<s>", ... */
};

static const char *const special_names[] = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
};

void assay_chat_close(struct assay_chat *chat)
{
    if (!chat)
        return;
    for (size_t i = 0; i < chat->count; i++) {
        free(chat->templates[i].name);
        assay_template_free(chat->templates[i].template);
    }
    free(chat->templates);
    free(chat->specials);
    free(chat->dir);
    free(chat);
}

static void close_chat(struct assay_chat **chat)
{
    assay_chat_close(*chat);
}

static struct assay_template *find(const struct assay_chat *chat, const char *name)
{
    for (size_t i = 0; i < chat->count; i++)
        if (strcmp(chat->templates[i].name, name) == 0)
            return chat->templates[i].template;
    return NULL;
}

/* The first of a name stays. */
static enum assay_status add(struct assay_chat *chat, const char *name, const char *source, size_t len,
                             const char *what, struct assay_err *err)
{
    if (find(chat, name))
        return ASSAY_OK;
    if (chat->count == ASSAY_CHAT_TEMPLATES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: more than %d chat templates", what,
                             ASSAY_CHAT_TEMPLATES_MAX);
    struct assay_template *template;
    enum assay_status status = assay_template_parse(source, len, what, &template, err);
    if (status != ASSAY_OK)
        return status;
    struct named_template *grown = realloc(chat->templates, (chat->count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown)
        chat->templates = grown;
    if (!grown || !copy) {
        free(copy);
        assay_template_free(template);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", what);
    }
    chat->templates[chat->count++] = (struct named_template){copy, template};
    return ASSAY_OK;
}

static enum assay_status add_file(struct assay_chat *chat, const char *dir, const char *file, const char *name,
                                  struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *source = NULL;
    size_t len;
    enum assay_status status = assay_path_join(path, dir, file, err);
    if (status == ASSAY_OK)
        status = assay_file_read(path, ASSAY_CHAT_TEMPLATE_BYTES_MAX, &source, &len, err);
    return status == ASSAY_OK ? add(chat, name, source, len, path, err) : status;
}

static void close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

static enum assay_status add_directory(struct assay_chat *chat, const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, TEMPLATE_DIR, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(close_directory) DIR *directory = opendir(path);
    if (!directory)
        return errno == ENOENT ? ASSAY_OK : assay_err_errno(err, errno, "cannot list %s", path);
    const struct dirent *entry;
    while (status == ASSAY_OK && (entry = readdir(directory))) {
        size_t len = strlen(entry->d_name);
        if (len <= strlen(SUFFIX) || strcmp(entry->d_name + len - strlen(SUFFIX), SUFFIX) != 0)
            continue;
        char name[sizeof entry->d_name];
        memcpy(name, entry->d_name, len);
        name[len - strlen(SUFFIX)] = '\0';
        status = add_file(chat, path, entry->d_name, name, err);
    }
    return status;
}

static enum assay_status add_configured(struct assay_chat *chat, const cJSON *config, const char *path,
                                        struct assay_err *err)
{
    const cJSON *templates = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    if (!templates || cJSON_IsNull(templates))
        return ASSAY_OK;
    if (cJSON_IsString(templates))
        return add(chat, "default", templates->valuestring, strlen(templates->valuestring), path, err);
    if (!cJSON_IsArray(templates))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: chat_template is neither a text nor a list", path);
    const cJSON *row;
    cJSON_ArrayForEach(row, templates)
    {
        const char *name = NULL, *source = NULL;
        enum assay_status status = assay_json_get_string(row, path, "name", true, &name, err);
        if (status == ASSAY_OK)
            status = assay_json_get_string(row, path, "template", true, &source, err);
        if (status == ASSAY_OK)
            status = add(chat, name, source, strlen(source), path, err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

/* NULL when the file is not there. */
static enum assay_status load_optional(const char *dir, const char *file, char path[ASSAY_PATH_MAX], cJSON **ret,
                                       struct assay_err *err)
{
    *ret = NULL;
    enum assay_status status = assay_path_join(path, dir, file, err);
    if (status == ASSAY_OK)
        status = assay_json_load(path, ret, err);
    return status == ASSAY_NOT_FOUND ? ASSAY_OK : status;
}

/* A special token is a text, or an object with its text as "content". */
static const char *special_text(const cJSON *object, const char *name)
{
    const cJSON *token = cJSON_GetObjectItemCaseSensitive(object, name);
    if (cJSON_IsObject(token))
        token = cJSON_GetObjectItemCaseSensitive(token, "content");
    return cJSON_GetStringValue(token);
}

static enum assay_status read_specials(struct assay_chat *chat, const cJSON *config, const cJSON *map,
                                       struct assay_err *err)
{
    struct assay_buf out = ASSAY_BUF_INIT;
    bool memory = true;
    for (size_t i = 0; i < ASSAY_COUNT(special_names); i++) {
        const char *text = special_text(config, special_names[i]);
        if (!text)
            text = special_text(map, special_names[i]);
        if (!text)
            continue;
        cJSON *string = cJSON_CreateStringReference(text);
        char *json = string ? cJSON_PrintUnformatted(string) : NULL;
        cJSON_Delete(string);
        memory = memory && json;
        if (json)
            assay_buf_printf(&out, ", \"%s\": %s", special_names[i], json);
        free(json);
    }
    enum assay_status status = assay_buf_check(&out, err);
    if (status == ASSAY_OK) {
        chat->specials = strdup(assay_buf_cstr(&out));
        if (!memory || !chat->specials)
            status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", chat->dir);
    }
    assay_buf_release(&out);
    return status;
}

static enum assay_status read_all(struct assay_chat *chat, const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], map_path[ASSAY_PATH_MAX];
    assay_auto(assay_json_delete) cJSON *config = NULL;
    assay_auto(assay_json_delete) cJSON *map = NULL;
    enum assay_status status = add_file(chat, dir, TEMPLATE_FILE, "default", err);
    if (status == ASSAY_OK || status == ASSAY_NOT_FOUND)
        status = add_directory(chat, dir, err);
    if (status == ASSAY_OK)
        status = load_optional(dir, CONFIG_FILE, path, &config, err);
    if (status == ASSAY_OK)
        status = load_optional(dir, SPECIAL_FILE, map_path, &map, err);
    if (status == ASSAY_OK)
        status = add_configured(chat, config, path, err);
    return status == ASSAY_OK ? read_specials(chat, config, map, err) : status;
}

enum assay_status assay_chat_open(const char *dir, struct assay_chat **ret, struct assay_err *err)
{
    assay_auto(close_chat) struct assay_chat *chat = calloc(1, sizeof *chat);
    if (!chat || !(chat->dir = strdup(dir)))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", dir);
    struct assay_err found = ASSAY_ERR_INIT;
    enum assay_status status = read_all(chat, dir, &found);
    if (status != ASSAY_OK) {
        if (err)
            *err = found;
        return status;
    }
    if (chat->count == 0)
        return assay_err_set(err, ASSAY_NOT_FOUND,
                             "%s has no chat template: neither " TEMPLATE_FILE " nor chat_template in " CONFIG_FILE,
                             dir);
    *ret = chat;
    chat = NULL;
    return ASSAY_OK;
}

/* `text` is one JSON value of that kind. */
static enum assay_status check_json(const char *text, const char *what, bool array, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_json_parse(text, strlen(text), what, &json, err);
    if (status == ASSAY_OK && (array ? !cJSON_IsArray(json) : !cJSON_IsObject(json)))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s are not a JSON %s", what, array ? "array" : "object");
    return status;
}

static enum assay_status check_request(const struct assay_chat_request *request, struct assay_err *err)
{
    enum assay_status status = check_json(request->messages, "the messages", true, err);
    if (status == ASSAY_OK && request->tools)
        status = check_json(request->tools, "the tools", true, err);
    if (status == ASSAY_OK && request->variables)
        status = check_json(request->variables, "the variables", false, err);
    return status;
}

/* The texts are spliced as they are, so that no number changes on the way. */
static void write_variables(const struct assay_chat *chat, const struct assay_chat_request *request,
                            struct assay_buf *out)
{
    assay_buf_printf(out, "{\"messages\": %s, \"tools\": %s, \"documents\": null, \"add_generation_prompt\": %s%s",
                     request->messages, request->tools ? request->tools : "null",
                     request->add_generation_prompt ? "true" : "false", chat->specials);
    const char *open = request->variables ? strchr(request->variables, '{') : NULL;
    if (open && open[1 + strspn(open + 1, " \t\r\n")] != '}')
        assay_buf_printf(out, ", %s", open + 1);
    else
        assay_buf_str(out, "}");
}

enum assay_status assay_chat_render(const struct assay_chat *chat, const struct assay_chat_request *request, char **ret,
                                    size_t *ret_len, struct assay_err *err)
{
    const struct assay_template *template = request->tools ? find(chat, "tool_use") : NULL;
    if (!template)
        template = find(chat, "default");
    if (!template)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s has %zu named chat templates, and none of them is called default", chat->dir,
                             chat->count);
    enum assay_status status = check_request(request, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_buf variables = ASSAY_BUF_INIT;
    write_variables(chat, request, &variables);
    status = assay_buf_check(&variables, err);
    if (status == ASSAY_OK)
        status = assay_template_render(template, assay_buf_cstr(&variables), strlen(assay_buf_cstr(&variables)),
                                       request->now_s, ret, ret_len, err);
    assay_buf_release(&variables);
    return status;
}
