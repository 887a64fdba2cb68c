/* What `assay generate` was asked. */
#pragma once

#include "cli/respond_remote.h"
#include "common/base/dtype.h"
#include "common/base/settings.h"
#include "common/nn/sampler.h"

struct assay_generate_options {
    const char *model, *prompt, *prompts, *messages, *stop, *kv, *cpus, *side_by_side, *date;
    bool chat, ignore_eos, json;
    int64_t tokens_max, batch, threads, top_k, seed;
    double temperature, top_p, min_p, repetition_penalty;
    struct assay_respond_where where;
};

/* Parses and checks. False: *ret_exit is what to end with. */
bool assay_generate_parse(int argc, char **argv, struct assay_generate_options *ret, int *ret_exit);
/* --kv. INVALID_ARGUMENT names what is wanted. */
enum assay_status assay_generate_read_kv(const char *name, enum assay_dtype *ret, struct assay_err *err) ASSAY_MUST_USE;
struct assay_sampling assay_generate_sampling(const struct assay_generate_options *options);
