/* A quantized checkpoint as plain F32 weights. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output_dir.h"
#include "cli/say.h"
#include "common/artifact/dequantize.h"

#define NAME "dequantize"

static bool is_interrupted(void *arg)
{
    (void)arg;
    return assay_interrupt_wait(0);
}

static enum assay_status run(const char *dir, const char *output, struct assay_err *err)
{
    struct assay_output_dir made;
    uint64_t bytes = 0;
    enum assay_status status = assay_output_dir_of(output, &made, err);
    const struct assay_dequantize_job job = {
        .source_dir = dir, .parent_dir = made.parent, .output_dir = made.path, .cancelled = is_interrupted};
    if (status == ASSAY_OK)
        status = assay_dequantize(&job, &bytes, err);
    if (status == ASSAY_OK)
        printf("checkpoint %s\nbytes      %llu\n", made.path, (unsigned long long)bytes);
    return status;
}

int assay_command_dequantize(int argc, char **argv)
{
    const char *dir = NULL, *output = NULL;
    const struct assay_setting settings[] = {
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &output,
         .argument = "OUT",
         .help = "directory to make",
         .required = true},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " DIR -o OUT",
        .summary = "Writes the weights of DIR, a quantized checkpoint of ours or of bitsandbytes or "
                   "compressed-tensors, as F32.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &dir,
        .positional_min = 1,
        .positional_max = 1,
    };
    int exit_code;
    if (!assay_say_parse(NAME, &command, argc, argv, &exit_code))
        return exit_code;
    assay_interrupt_prepare();
    struct assay_err err = ASSAY_ERR_INIT;
    return run(dir, output, &err) == ASSAY_OK ? 0 : assay_say_failure(NAME, &err);
}
