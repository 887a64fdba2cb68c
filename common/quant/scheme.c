#include "common/quant/scheme.h"

#include <stdio.h>
#include <string.h>

struct scheme_row {
    const char *name;
    struct assay_spec defaults;
};

static const struct scheme_row schemes[] = {
    [ASSAY_SCHEME_FP32] = {"fp32", {ASSAY_SCHEME_FP32, ASSAY_COMPUTE_F32, 0, false, ASSAY_ENGINE_ANY}},
    [ASSAY_SCHEME_FP16] = {"fp16", {ASSAY_SCHEME_FP16, ASSAY_COMPUTE_F32, 0, false, ASSAY_ENGINE_ANY}},
    [ASSAY_SCHEME_BF16] = {"bf16", {ASSAY_SCHEME_BF16, ASSAY_COMPUTE_BF16, 0, false, ASSAY_ENGINE_ANY}},
    [ASSAY_SCHEME_INT8] = {"int8", {ASSAY_SCHEME_INT8, ASSAY_COMPUTE_F32, 0, false, ASSAY_ENGINE_ANY}},
    [ASSAY_SCHEME_NF4] = {"nf4", {ASSAY_SCHEME_NF4, ASSAY_COMPUTE_F32, 0, true, ASSAY_ENGINE_ANY}},
    [ASSAY_SCHEME_INT4] = {"int4", {ASSAY_SCHEME_INT4, ASSAY_COMPUTE_F32, 0, false, ASSAY_ENGINE_ANY}},
};

#define SCHEME_BIT(scheme) (1u << (scheme))
#define SCHEMES_ALL (SCHEME_BIT(ASSAY_COUNT(schemes)) - 1)

/* A value of a parameter, in text and in the spec. */
struct value_row {
    const char *text;
    uint32_t value;
};

static const struct value_row computes[] = {{"f32", ASSAY_COMPUTE_F32}, {"bf16", ASSAY_COMPUTE_BF16}};
static const struct value_row engines[] = {
    {"any", ASSAY_ENGINE_ANY}, {"assay", ASSAY_ENGINE_ASSAY}, {"transformers", ASSAY_ENGINE_TRANSFORMERS}};
static const struct value_row booleans[] = {{"true", true}, {"false", false}};
static const struct value_row group_sizes[] = {
    {"32", 32}, {"64", 64}, {"128", 128}, {"256", 256}, {"channel", ASSAY_GROUP_CHANNEL},
};

static uint32_t compute_get(const struct assay_spec *spec)
{
    return spec->compute;
}

static void compute_set(struct assay_spec *spec, uint32_t value)
{
    spec->compute = (enum assay_compute)value;
}

static uint32_t double_quant_get(const struct assay_spec *spec)
{
    return spec->double_quant;
}

static void double_quant_set(struct assay_spec *spec, uint32_t value)
{
    spec->double_quant = value != 0;
}

static uint32_t engine_get(const struct assay_spec *spec)
{
    return spec->engine;
}

static void engine_set(struct assay_spec *spec, uint32_t value)
{
    spec->engine = (enum assay_engine)value;
}

static uint32_t group_size_get(const struct assay_spec *spec)
{
    return spec->group_size;
}

static void group_size_set(struct assay_spec *spec, uint32_t value)
{
    spec->group_size = value;
}

/* One row a parameter; rows are sorted by key, so that the canonical text is. */
static const struct parameter_row {
    const char *key;
    unsigned schemes; /* bit set of those that have it */
    const struct value_row *values;
    size_t values_count;
    uint32_t (*get)(const struct assay_spec *spec);
    void (*set)(struct assay_spec *spec, uint32_t value);
} parameters[] = {
    {"compute", SCHEMES_ALL, computes, ASSAY_COUNT(computes), compute_get, compute_set},
    {"double_quant", SCHEME_BIT(ASSAY_SCHEME_NF4), booleans, ASSAY_COUNT(booleans), double_quant_get, double_quant_set},
    {"engine", SCHEMES_ALL, engines, ASSAY_COUNT(engines), engine_get, engine_set},
    {"group_size", SCHEME_BIT(ASSAY_SCHEME_INT4), group_sizes, ASSAY_COUNT(group_sizes), group_size_get,
     group_size_set},
};

static bool has_parameter(enum assay_scheme scheme, const struct parameter_row *parameter)
{
    return parameter->schemes & SCHEME_BIT(scheme);
}

static void append(char *text, size_t bytes, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", more);
}

static enum assay_status parse_scheme(const char *name, struct assay_spec *spec, struct assay_err *err)
{
    char known[ASSAY_SPEC_TEXT_MAX] = "";
    for (size_t i = 0; i < ASSAY_COUNT(schemes); i++) {
        if (strcmp(name, schemes[i].name) == 0) {
            *spec = schemes[i].defaults;
            return ASSAY_OK;
        }
        append(known, sizeof known, schemes[i].name);
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "unknown scheme '%.60s', known: %s", name, known);
}

static enum assay_status parse_value(const struct parameter_row *parameter, const char *text, struct assay_spec *spec,
                                     struct assay_err *err)
{
    char known[ASSAY_SPEC_TEXT_MAX] = "";
    for (size_t i = 0; i < parameter->values_count; i++) {
        if (strcmp(text, parameter->values[i].text) == 0) {
            parameter->set(spec, parameter->values[i].value);
            return ASSAY_OK;
        }
        append(known, sizeof known, parameter->values[i].text);
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' cannot be '%.60s', known: %s",
                         schemes[spec->scheme].name, parameter->key, text, known);
}

/* `field` is "key=value"; its '=' is overwritten. *seen has one bit a parameter. */
static enum assay_status parse_parameter(char *field, struct assay_spec *spec, unsigned *seen, struct assay_err *err)
{
    const char *scheme = schemes[spec->scheme].name;
    char known[ASSAY_SPEC_TEXT_MAX] = "";
    char *equals = strchr(field, '=');
    if (!equals)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: expected key=value, found '%.60s'", scheme, field);
    *equals = '\0';
    for (size_t i = 0; i < ASSAY_COUNT(parameters); i++) {
        if (!has_parameter(spec->scheme, &parameters[i]))
            continue;
        append(known, sizeof known, parameters[i].key);
        if (strcmp(field, parameters[i].key) != 0)
            continue;
        if (*seen & 1u << i)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is given twice", scheme, field);
        *seen |= 1u << i;
        return parse_value(&parameters[i], equals + 1, spec, err);
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: unknown parameter '%.60s', known: %s", scheme, field, known);
}

enum assay_status assay_spec_parse(const char *text, struct assay_spec *ret, struct assay_err *err)
{
    char copy[ASSAY_SPEC_TEXT_MAX];
    size_t len = strlen(text);
    if (len >= sizeof copy)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a variant is written in at most %zu characters, found %zu",
                             sizeof copy - 1, len);
    memcpy(copy, text, len + 1);
    char *rest = copy;
    struct assay_spec spec;
    unsigned seen = 0;
    enum assay_status status = parse_scheme(strsep(&rest, ":"), &spec, err);
    while (status == ASSAY_OK && rest)
        status = parse_parameter(strsep(&rest, ":"), &spec, &seen, err);
    if (status == ASSAY_OK)
        *ret = spec;
    return status;
}

static const char *value_text(const struct parameter_row *parameter, uint32_t value)
{
    for (size_t i = 0; i < parameter->values_count; i++)
        if (parameter->values[i].value == value)
            return parameter->values[i].text;
    ASSAY_BUG("a spec with a value that no text gives");
}

char *assay_spec_format(const struct assay_spec *spec, char text[ASSAY_SPEC_TEXT_MAX])
{
    int used = snprintf(text, ASSAY_SPEC_TEXT_MAX, "%s", schemes[spec->scheme].name);
    for (size_t i = 0; i < ASSAY_COUNT(parameters); i++) {
        const struct parameter_row *parameter = &parameters[i];
        uint32_t value = parameter->get(spec);
        if (has_parameter(spec->scheme, parameter) && value != parameter->get(&schemes[spec->scheme].defaults))
            used += snprintf(text + used, ASSAY_SPEC_TEXT_MAX - (size_t)used, ":%s=%s", parameter->key,
                             value_text(parameter, value));
    }
    return text;
}

const char *assay_scheme_name(enum assay_scheme scheme)
{
    return schemes[scheme].name;
}

const char *assay_compute_name(enum assay_compute compute)
{
    return value_text(&parameters[0], compute);
}

const char *assay_engine_name(enum assay_engine engine)
{
    return engines[engine].text;
}

struct assay_variant_id assay_variant_id_of(const struct assay_model_id *model, const struct assay_spec *spec)
{
    char text[ASSAY_SPEC_TEXT_MAX];
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.variant.v1");
    assay_hash_digest(&hash, &model->digest);
    assay_hash_str(&hash, assay_spec_format(spec, text));
    return (struct assay_variant_id){assay_hash_final(&hash)};
}
