#include "common/quant/scheme.h"

#include <stdio.h>
#include <string.h>

struct scheme_row {
    const char *name;
    enum assay_compute compute; /* the default */
    unsigned computes;          /* bit set of those it has */
};

#define COMPUTE_BIT(compute) (1u << (compute))

static const struct scheme_row schemes[] = {
    [ASSAY_SCHEME_FP32] = {"fp32", ASSAY_COMPUTE_F32, COMPUTE_BIT(ASSAY_COMPUTE_F32)},
    [ASSAY_SCHEME_INT8] = {"int8", ASSAY_COMPUTE_F32, COMPUTE_BIT(ASSAY_COMPUTE_F32)},
};

static const char *const computes[] = {
    [ASSAY_COMPUTE_F32] = "f32",
};

/* One row a parameter; rows are sorted by key, so that the canonical text is. */
struct parameter_row {
    const char *key;
    /* False when the scheme does not have the value. */
    bool (*parse)(const char *value, struct assay_spec *spec);
    /* Value for the canonical text, NULL for the default. */
    const char *(*format)(const struct assay_spec *spec);
    /* Appends the values that the scheme has, for messages. */
    void (*describe)(enum assay_scheme scheme, char *text, size_t bytes);
};

static void append(char *text, size_t bytes, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", more);
}

static bool compute_parse(const char *value, struct assay_spec *spec)
{
    for (size_t i = 0; i < ASSAY_COUNT(computes); i++) {
        if (strcmp(value, computes[i]) == 0 && schemes[spec->scheme].computes & COMPUTE_BIT(i)) {
            spec->compute = (enum assay_compute)i;
            return true;
        }
    }
    return false;
}

static const char *compute_format(const struct assay_spec *spec)
{
    return spec->compute == schemes[spec->scheme].compute ? NULL : computes[spec->compute];
}

static void compute_describe(enum assay_scheme scheme, char *text, size_t bytes)
{
    for (size_t i = 0; i < ASSAY_COUNT(computes); i++) {
        if (schemes[scheme].computes & COMPUTE_BIT(i))
            append(text, bytes, computes[i]);
    }
}

static const struct parameter_row parameters[] = {
    {"compute", compute_parse, compute_format, compute_describe},
};

static enum assay_status parse_scheme(const char *name, struct assay_spec *spec, struct assay_err *err)
{
    char known[ASSAY_SPEC_TEXT_MAX] = "";
    for (size_t i = 0; i < ASSAY_COUNT(schemes); i++) {
        if (strcmp(name, schemes[i].name) == 0) {
            *spec = (struct assay_spec){(enum assay_scheme)i, schemes[i].compute};
            return ASSAY_OK;
        }
        append(known, sizeof known, schemes[i].name);
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "unknown scheme '%.60s', known: %s", name, known);
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
        append(known, sizeof known, parameters[i].key);
        if (strcmp(field, parameters[i].key) != 0)
            continue;
        if (*seen & 1u << i)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is given twice", scheme, field);
        *seen |= 1u << i;
        if (parameters[i].parse(equals + 1, spec))
            return ASSAY_OK;
        known[0] = '\0';
        parameters[i].describe(spec->scheme, known, sizeof known);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' cannot be '%.60s', known: %s", scheme, field,
                             equals + 1, known);
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

char *assay_spec_format(const struct assay_spec *spec, char text[ASSAY_SPEC_TEXT_MAX])
{
    int used = snprintf(text, ASSAY_SPEC_TEXT_MAX, "%s", schemes[spec->scheme].name);
    for (size_t i = 0; i < ASSAY_COUNT(parameters); i++) {
        const char *value = parameters[i].format(spec);
        if (value)
            used += snprintf(text + used, ASSAY_SPEC_TEXT_MAX - (size_t)used, ":%s=%s", parameters[i].key, value);
    }
    return text;
}

const char *assay_scheme_name(enum assay_scheme scheme)
{
    return schemes[scheme].name;
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
