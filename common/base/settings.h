/* One row a setting gives its flag, environment variable, help line and --dump-config line.
 * Order of precedence: flag, environment, default. A bad value is answered with key, value and range. */
#pragma once

#include "common/base/status.h"

enum assay_setting_type { ASSAY_SETTING_STRING, ASSAY_SETTING_INT, ASSAY_SETTING_DOUBLE, ASSAY_SETTING_FLAG };

struct assay_setting {
    const char *name; /* flag --name; environment ASSAY_NAME with '-' as '_', upper case */
    enum assay_setting_type type;
    void *target;         /* const char **, int64_t *, double * or bool *; holds the default before parsing */
    double min, max;      /* range of INT and DOUBLE, inclusive */
    const char *argument; /* name of the value in the help, NULL for FLAG */
    const char *help;
    bool required;
    bool is_secret; /* --dump-config and the help say that it is set, not to what */
};

enum assay_settings_outcome {
    ASSAY_SETTINGS_RUN,  /* go on */
    ASSAY_SETTINGS_DONE, /* --help, --version or --dump-config was printed on stdout: exit with 0 */
};

struct assay_command {
    const char *usage;   /* "assay logits MODEL --ids FILE -o FILE" */
    const char *summary; /* one line for the help */
    const struct assay_setting *settings;
    size_t settings_count;
    const char **positional; /* filled in order; NULL where fewer were given */
    size_t positional_min, positional_max;
};

/* Parses argv[1..]: flags "--name value" or "--name=value", "-o" for --output, positionals anywhere, "--" ends flags.
 * Strings point into argv or the environment. INVALID_ARGUMENT with the sentence. */
enum assay_status assay_settings_parse(const struct assay_command *command, int argc, char **argv,
                                       enum assay_settings_outcome *ret, struct assay_err *err) ASSAY_MUST_USE;
