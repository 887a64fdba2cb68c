/* Rope of a GGUF file: keys, and tensors with a factor for each frequency. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_model.h"
#include "common/formats/gguf_text.h"

/* What a file of Llama 3.1 to 3.3 keeps of its rope scaling is the factor of each frequency alone. The parameters that
 * gave them: these, and a factor of 8 (3.1) or 32 (3.2). */
#define LLAMA3_LOW 1.0
#define LLAMA3_HIGH 4.0
#define LLAMA3_POSITIONS 8192.0
/* Frequencies are rounded to f32 on the way: a few units in the last place. */
#define LLAMA3_TOLERANCE 1e-4

#define FREQS "rope_freqs.weight"
#define LONG "rope_factors_long.weight"
#define SHORT "rope_factors_short.weight"

bool assay_gguf_rope_has(const struct assay_gguf_tensor *tensor)
{
    return strcmp(tensor->name, FREQS) == 0 || strcmp(tensor->name, LONG) == 0 || strcmp(tensor->name, SHORT) == 0;
}

static double llama3_divisor(double theta, double head_dim, size_t i, double factor)
{
    double wavelength = 2 * M_PI * pow(theta, 2 * (double)i / head_dim);
    if (wavelength < LLAMA3_POSITIONS / LLAMA3_HIGH)
        return 1;
    if (wavelength > LLAMA3_POSITIONS / LLAMA3_LOW)
        return factor;
    double smooth = (LLAMA3_POSITIONS / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
    return 1 / ((1 - smooth) / factor + smooth);
}

/* NULL when it is not there. */
static const struct assay_gguf_tensor *find_factors(struct assay_gguf_reader *r, const struct assay_gguf_model *m,
                                                    const char *name)
{
    const struct assay_gguf_tensor *tensor = assay_gguf_find(r->file, name);
    uint64_t count = m->rotated / 2;
    if (!tensor || r->status != ASSAY_OK)
        return NULL;
    if (tensor->rank != 1 || tensor->type != ASSAY_GGML_F32 || tensor->elements != count) {
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is not F32 [%" PRIu64 "]",
                                  assay_gguf_what(r->file), name, count);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        float factor;
        assay_gguf_to_f32(tensor, i, 1, &factor);
        if (!(factor > 0 && factor <= 1e6f)) {
            r->status =
                assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: factor %zu of %s is %g, wanted a number above 0",
                              assay_gguf_what(r->file), i, name, (double)factor);
            return NULL;
        }
    }
    return tensor;
}

/* The factor is the last frequency's, as its wavelength is beyond any context; all others have to follow from it. */
static bool is_llama3(const struct assay_gguf_tensor *tensor, const struct assay_gguf_model *m, double *ret_factor)
{
    float last, given;
    assay_gguf_to_f32(tensor, tensor->elements - 1, 1, &last);
    for (size_t i = 0; i < tensor->elements; i++) {
        assay_gguf_to_f32(tensor, i, 1, &given);
        double wanted = llama3_divisor(m->rope.theta, (double)m->rotated, i, (double)last);
        if (!(last >= 1 && fabs((double)given - wanted) <= LLAMA3_TOLERANCE * wanted))
            return false;
    }
    *ret_factor = (double)last;
    return true;
}

/* Factors that do not depend on the length of a sequence: Llama 3's own, else as they are. */
static void read_frequencies(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    struct assay_gguf_rope *rope = &m->rope;
    const struct assay_gguf_tensor *tensor = find_factors(r, m, FREQS);
    double factor = 1;
    if (!tensor)
        return;
    if (rope->kind != ASSAY_GGUF_ROPE_PLAIN) {
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED, "%s: two scalings of rope at once are not implemented",
                                  assay_gguf_what(r->file));
        return;
    }
    if (is_llama3(tensor, m, &factor)) {
        rope->kind = factor == 1 ? ASSAY_GGUF_ROPE_PLAIN : ASSAY_GGUF_ROPE_LLAMA3;
        rope->factor = factor;
        return;
    }
    rope->kind = ASSAY_GGUF_ROPE_FACTORS;
    rope->short_factors = rope->long_factors = tensor;
    rope->original_positions = m->positions;
    rope->attention_factor = 1;
}

static void read_long_and_short(struct assay_gguf_reader *r, struct assay_gguf_model *m, bool said)
{
    struct assay_gguf_rope *rope = &m->rope;
    rope->long_factors = find_factors(r, m, LONG);
    rope->short_factors = find_factors(r, m, SHORT);
    if (r->status != ASSAY_OK || (!rope->long_factors && !rope->short_factors && !said))
        return;
    if (!(m->arch->options & ASSAY_GGUF_FACTORS)) {
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: the rope scaling 'longrope' is not implemented "
                                  "for %s",
                                  assay_gguf_what(r->file), r->arch);
        return;
    }
    if (!rope->long_factors || !rope->short_factors) {
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: longrope without both " LONG " and " SHORT,
                                  assay_gguf_what(r->file));
        return;
    }
    rope->kind = ASSAY_GGUF_ROPE_FACTORS;
    rope->original_positions =
        assay_gguf_read_size(r, "rope.scaling.original_context_length", true, 0, 2, ASSAY_MODEL_VOCAB_MAX);
    rope->attention_factor = assay_gguf_read_double(r, "rope.scaling.attn_factor", false, 1);
}

static void read_yarn(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    struct assay_gguf_rope *rope = &m->rope;
    rope->kind = ASSAY_GGUF_ROPE_YARN;
    rope->original_positions =
        assay_gguf_read_size(r, "rope.scaling.original_context_length", false, m->positions, 1, ASSAY_MODEL_VOCAB_MAX);
    rope->attention_factor = assay_gguf_read_double(r, "rope.scaling.yarn_attn_factor", false, 0);
    rope->beta_fast = assay_gguf_read_double(r, "rope.scaling.yarn_beta_fast", false, 0);
    rope->beta_slow = assay_gguf_read_double(r, "rope.scaling.yarn_beta_slow", false, 0);
    /* Files of DeepSeek have a tenth of it. */
    double multiplier = assay_gguf_read_double(r, "rope.scaling.yarn_log_multiplier", false, 0);
    double extension = assay_gguf_read_double(r, "rope.scaling.yarn_ext_factor", false, 1);
    if (m->arch->options & ASSAY_GGUF_LATENT_ATTENTION)
        rope->mscale_all = multiplier * 10;
    if (r->status == ASSAY_OK && (extension != 1 || (multiplier != 0 && rope->mscale_all == 0)))
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: yarn_ext_factor %g and yarn_log_multiplier %g are not implemented for %s",
                                  assay_gguf_what(r->file), extension, multiplier, r->arch);
}

/* rope.scaling.type; files of before that had a factor alone. */
static void read_scaling(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    char key[128], room[104];
    struct assay_gguf_rope *rope = &m->rope;
    struct assay_gguf_text type = {"none", 4};
    double legacy = assay_gguf_read_double(r, "rope.scale_linear", false, 1);
    rope->factor = assay_gguf_read_double(r, "rope.scaling.factor", false, legacy);
    if (legacy != 1)
        type = (struct assay_gguf_text){"linear", 6};
    snprintf(key, sizeof key, "%s.rope.scaling.type", r->arch);
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_text(r->file, key, false, &type, r->err);
    if (r->status != ASSAY_OK)
        return;
    if (assay_gguf_text_is(type, "linear"))
        rope->kind = rope->factor == 1 ? ASSAY_GGUF_ROPE_PLAIN : ASSAY_GGUF_ROPE_LINEAR;
    else if (assay_gguf_text_is(type, "yarn"))
        read_yarn(r, m);
    else if (!assay_gguf_text_is(type, "none") && !assay_gguf_text_is(type, "longrope"))
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: the rope scaling '%s' is not implemented; linear, yarn and longrope are",
                                  assay_gguf_what(r->file), assay_gguf_cut(type, room));
    if (rope->kind == ASSAY_GGUF_ROPE_PLAIN)
        read_long_and_short(r, m, assay_gguf_text_is(type, "longrope"));
    if (rope->kind == ASSAY_GGUF_ROPE_FACTORS || r->status != ASSAY_OK)
        return;
    double attention = assay_gguf_read_double(r, "rope.scaling.attn_factor", false, 1);
    if (r->status == ASSAY_OK && attention != 1)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: rope.scaling.attn_factor %g without longrope is not implemented",
                                  assay_gguf_what(r->file), attention);
}

void assay_gguf_read_rope(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    struct assay_gguf_rope *rope = &m->rope;
    *rope = (struct assay_gguf_rope){.factor = 1};
    if (m->arch->options & ASSAY_GGUF_NO_ROPE || r->status != ASSAY_OK)
        return;
    rope->theta = assay_gguf_read_double(r, "rope.freq_base", false, 10000);
    if (m->arch->options & ASSAY_GGUF_LOCAL_ROPE)
        rope->local_theta = assay_gguf_read_double(r, "rope.freq_base_swa", false, 10000);
    read_scaling(r, m);
    read_frequencies(r, m);
}
