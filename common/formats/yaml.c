#include "common/formats/yaml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/base/fs.h"

struct row {
    const cJSON *value;
    size_t line;
};

struct assay_yaml {
    cJSON *json;
    struct row *rows;
    size_t rows_count, rows_capacity;
};

struct reading {
    yaml_parser_t parser;
    struct assay_yaml *yaml;
    const char *what;
    struct assay_err *err;
};

static enum assay_status read_node(struct reading *reading, const yaml_event_t *event, size_t depth, cJSON **ret);

static size_t line_of(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

static enum assay_status bad(struct reading *reading, size_t line, const char *reason)
{
    return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%.300s:%zu: %s", reading->what, line, reason);
}

static enum assay_status out_of_memory(struct reading *reading)
{
    return assay_err_set(reading->err, ASSAY_RESOURCE_EXHAUSTED, "%.300s: out of memory", reading->what);
}

/* The next event, to be deleted when OK. */
static enum assay_status next_event(struct reading *reading, yaml_event_t *ret)
{
    const yaml_parser_t *parser = &reading->parser;
    if (yaml_parser_parse(&reading->parser, ret))
        return ASSAY_OK;
    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory(reading);
    if (parser->error == YAML_READER_ERROR)
        return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%.300s: byte %zu: not YAML: %s", reading->what,
                             parser->problem_offset, parser->problem);
    return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%.300s:%zu: not YAML: %s%s%s", reading->what,
                         parser->problem_mark.line + 1, parser->context ? parser->context : "",
                         parser->context ? ": " : "", parser->problem);
}

/* Remembers the line of a value. */
static enum assay_status note(struct reading *reading, const cJSON *value, size_t line)
{
    struct assay_yaml *yaml = reading->yaml;
    if (yaml->rows_count == ASSAY_YAML_VALUES_MAX)
        return bad(reading, line, "more values than such a file may have");
    if (yaml->rows_count == yaml->rows_capacity) {
        size_t capacity = yaml->rows_capacity ? yaml->rows_capacity * 2 : 64;
        struct row *rows = realloc(yaml->rows, capacity * sizeof *rows);
        if (!rows)
            return out_of_memory(reading);
        yaml->rows = rows;
        yaml->rows_capacity = capacity;
    }
    yaml->rows[yaml->rows_count++] = (struct row){value, line};
    return ASSAY_OK;
}

/* What the grammar of JSON calls a number. */
static bool is_number(const char *text)
{
    const char *at = text + (*text == '-');
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 || (*at == '0' && digits > 1))
        return false;
    at += digits;
    if (*at == '.') {
        digits = strspn(++at, "0123456789");
        at += digits;
        if (digits == 0)
            return false;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '+' || *at == '-';
        digits = strspn(at, "0123456789");
        at += digits;
        if (digits == 0)
            return false;
    }
    return *at == '\0';
}

static bool is_one_of(const char *text, const char *const words[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

static enum assay_status read_scalar(struct reading *reading, const yaml_event_t *event, cJSON **ret)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    static const char *const trues[] = {"true", "True", "TRUE"};
    static const char *const falses[] = {"false", "False", "FALSE"};
    const char *text = (const char *)event->data.scalar.value;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (event->data.scalar.anchor || event->data.scalar.tag)
        return bad(reading, line_of(event), "anchors and tags are not supported");
    if (strlen(text) != event->data.scalar.length)
        return bad(reading, line_of(event), "a text must not have a NUL character");
    cJSON *json;
    if (plain && is_one_of(text, nulls, ASSAY_COUNT(nulls)))
        json = cJSON_CreateNull();
    else if (plain && is_one_of(text, trues, ASSAY_COUNT(trues)))
        json = cJSON_CreateTrue();
    else if (plain && is_one_of(text, falses, ASSAY_COUNT(falses)))
        json = cJSON_CreateFalse();
    else if (plain && is_number(text) && isfinite(strtod(text, NULL)))
        json = cJSON_CreateNumber(strtod(text, NULL));
    else
        json = cJSON_CreateString(text);
    if (!json)
        return out_of_memory(reading);
    *ret = json;
    return ASSAY_OK;
}

static enum assay_status read_sequence(struct reading *reading, size_t depth, cJSON *list)
{
    for (;;) {
        yaml_event_t event;
        cJSON *item = NULL;
        enum assay_status status = next_event(reading, &event);
        if (status != ASSAY_OK)
            return status;
        bool ends = event.type == YAML_SEQUENCE_END_EVENT;
        if (!ends)
            status = read_node(reading, &event, depth + 1, &item);
        yaml_event_delete(&event);
        if (ends || status != ASSAY_OK)
            return status;
        cJSON_AddItemToArray(list, item);
    }
}

/* Checks a key and adds its value, of which the event is the key's. */
static enum assay_status read_member(struct reading *reading, const yaml_event_t *key, size_t depth, cJSON *object)
{
    size_t line = line_of(key);
    if (key->type != YAML_SCALAR_EVENT)
        return bad(reading, line, "a key must be a word");
    const char *name = (const char *)key->data.scalar.value;
    if (key->data.scalar.anchor || key->data.scalar.tag)
        return bad(reading, line, "anchors and tags are not supported");
    if (strlen(name) != key->data.scalar.length)
        return bad(reading, line, "a key must not have a NUL character");
    if (cJSON_GetObjectItemCaseSensitive(object, name))
        return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%.300s:%zu: the key '%.100s' stands twice",
                             reading->what, line, name);
    yaml_event_t event;
    enum assay_status status = next_event(reading, &event);
    if (status != ASSAY_OK)
        return status;
    cJSON *value = NULL;
    status = read_node(reading, &event, depth + 1, &value);
    yaml_event_delete(&event);
    if (status == ASSAY_OK && !cJSON_AddItemToObject(object, name, value)) {
        cJSON_Delete(value);
        return out_of_memory(reading);
    }
    return status;
}

static enum assay_status read_mapping(struct reading *reading, size_t depth, cJSON *object)
{
    for (size_t keys = 0;; keys++) {
        yaml_event_t event;
        enum assay_status status = next_event(reading, &event);
        if (status != ASSAY_OK)
            return status;
        bool ends = event.type == YAML_MAPPING_END_EVENT;
        if (!ends && keys == ASSAY_YAML_KEYS_MAX)
            status = bad(reading, line_of(&event), "more keys than a mapping may have");
        else if (!ends)
            status = read_member(reading, &event, depth, object);
        yaml_event_delete(&event);
        if (ends || status != ASSAY_OK)
            return status;
    }
}

static enum assay_status read_collection(struct reading *reading, const yaml_event_t *event, size_t depth, cJSON **ret)
{
    bool mapping = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *anchor = mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    const yaml_char_t *tag = mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag;
    if (anchor || tag)
        return bad(reading, line_of(event), "anchors and tags are not supported");
    if (depth >= ASSAY_YAML_DEPTH_MAX)
        return bad(reading, line_of(event), "nested too deep");
    cJSON *json = mapping ? cJSON_CreateObject() : cJSON_CreateArray();
    if (!json)
        return out_of_memory(reading);
    enum assay_status status = mapping ? read_mapping(reading, depth, json) : read_sequence(reading, depth, json);
    if (status == ASSAY_OK)
        *ret = json;
    else
        cJSON_Delete(json);
    return status;
}

static enum assay_status read_node(struct reading *reading, const yaml_event_t *event, size_t depth, cJSON **ret)
{
    enum assay_status status;
    cJSON *json = NULL;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        status = read_scalar(reading, event, &json);
        break;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        status = read_collection(reading, event, depth, &json);
        break;
    case YAML_ALIAS_EVENT:
        return bad(reading, line_of(event), "aliases are not supported");
    default:
        return bad(reading, line_of(event), "found no value");
    }
    if (status == ASSAY_OK)
        status = note(reading, json, line_of(event));
    if (status == ASSAY_OK)
        *ret = json;
    else
        cJSON_Delete(json);
    return status;
}

/* Takes the next event, which must be of that type. */
static enum assay_status expect(struct reading *reading, yaml_event_type_t type, const char *otherwise)
{
    yaml_event_t event;
    enum assay_status status = next_event(reading, &event);
    if (status != ASSAY_OK)
        return status;
    if (event.type != type)
        status = bad(reading, line_of(&event), otherwise);
    yaml_event_delete(&event);
    return status;
}

static enum assay_status read_stream(struct reading *reading)
{
    yaml_event_t event;
    enum assay_status status = expect(reading, YAML_STREAM_START_EVENT, "not YAML");
    if (status == ASSAY_OK)
        status = expect(reading, YAML_DOCUMENT_START_EVENT, "holds nothing");
    if (status == ASSAY_OK)
        status = next_event(reading, &event);
    if (status != ASSAY_OK)
        return status;
    status = read_node(reading, &event, 0, &reading->yaml->json);
    yaml_event_delete(&event);
    if (status == ASSAY_OK)
        status = expect(reading, YAML_DOCUMENT_END_EVENT, "not YAML");
    if (status == ASSAY_OK)
        status = expect(reading, YAML_STREAM_END_EVENT, "holds more than one document");
    return status;
}

enum assay_status assay_yaml_parse(const char *text, size_t len, const char *what, struct assay_yaml **ret,
                                   struct assay_err *err)
{
    struct reading reading = {.what = what, .err = err};
    if (len > ASSAY_YAML_FILE_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%.300s: found %zu bytes, wanted at most %u", what, len,
                             ASSAY_YAML_FILE_BYTES_MAX);
    reading.yaml = calloc(1, sizeof *reading.yaml);
    if (!reading.yaml || !yaml_parser_initialize(&reading.parser)) {
        free(reading.yaml);
        return out_of_memory(&reading);
    }
    yaml_parser_set_encoding(&reading.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reading.parser, (const unsigned char *)text, len);
    enum assay_status status = read_stream(&reading);
    yaml_parser_delete(&reading.parser);
    if (status == ASSAY_OK)
        *ret = reading.yaml;
    else
        assay_yaml_free(reading.yaml);
    return status;
}

enum assay_status assay_yaml_load(const char *path, struct assay_yaml **ret, struct assay_err *err)
{
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t len;
    enum assay_status status = assay_file_read(path, ASSAY_YAML_FILE_BYTES_MAX, &text, &len, err);
    return status == ASSAY_OK ? assay_yaml_parse(text, len, path, ret, err) : status;
}

void assay_yaml_free(struct assay_yaml *yaml)
{
    if (!yaml)
        return;
    cJSON_Delete(yaml->json);
    free(yaml->rows);
    free(yaml);
}

const cJSON *assay_yaml_json(const struct assay_yaml *yaml)
{
    return yaml->json;
}

size_t assay_yaml_line(const struct assay_yaml *yaml, const cJSON *value)
{
    for (size_t i = 0; i < yaml->rows_count; i++)
        if (yaml->rows[i].value == value)
            return yaml->rows[i].line;
    return 0;
}
