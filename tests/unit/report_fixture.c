#include "tests/unit/report_fixture.h"

#include <string.h>

static Assay__V1__Estimate estimate(double value, double error, double low, double high, uint64_t n)
{
    Assay__V1__Estimate ret = ASSAY__V1__ESTIMATE__INIT;
    ret.has_value = ret.has_standard_error = ret.has_interval_low = ret.has_interval_high = ret.has_n = true;
    ret.value = value;
    ret.standard_error = error;
    ret.interval_low = low;
    ret.interval_high = high;
    ret.n = n;
    return ret;
}

static void fill_variant(struct sample *s, size_t index, char *label)
{
    assay__v1__variant_spec__init(&s->specs[index]);
    assay__v1__variant__init(&s->variants[index]);
    assay__v1__variant_result__init(&s->results[index]);
    assay__v1__variant_score__init(&s->scores[index]);
    assay__v1__artifact_summary__init(&s->artifacts[index]);
    s->specs[index].scheme = label;
    s->variants[index].spec = &s->specs[index];
    s->variants[index].label = label;
    s->results[index].variant = &s->variants[index];
    s->results[index].score = &s->scores[index];
    s->results[index].artifact = &s->artifacts[index];
    s->scores[index].perplexity = &s->perplexity[index];
    s->scores[index].numerics_id = "cpu-test/1";
    s->result_list[index] = &s->results[index];
    s->artifacts[index].has_fp16_bytes = s->artifacts[index].has_artifact_bytes = true;
    s->artifacts[index].fp16_bytes = 2000000;
    s->artifacts[index].artifact_bytes = index == 0 ? 4000000 : 1000000;
}

static void fill_errors(struct sample *s)
{
    static const double cosines[] = {0.999, 0.99, 0.80};
    for (size_t i = 0; i < 3; i++) {
        assay__v1__layer_error__init(&s->errors[i]);
        s->errors[i].tensor = i == 2 ? "model.layers.1.mlp.up_proj.weight" : "model.layers.0.some.weight";
        s->errors[i].layer = i == 2;
        s->errors[i].has_cosine = true;
        s->errors[i].cosine = cosines[i];
        s->error_list[i] = &s->errors[i];
    }
    s->artifacts[1].n_layer_errors = 3;
    s->artifacts[1].layer_errors = s->error_list;
}

static void fill_variant_figures(struct sample *s)
{
    s->increase = estimate(1.25, 0.1, 0.9, 1.6, 16320);
    s->top1 = estimate(97.5, 0.2, 97.0, 98.0, 16320);
    assay__v1__distribution__init(&s->kl);
    s->kl.has_mean = s->kl.has_standard_error = s->kl.has_max = s->kl.has_n = true;
    s->kl.mean = 0.1 / 3;
    s->kl.standard_error = 0.0005;
    s->kl.max = 1.5;
    s->kl.n = 16320;
    s->chunk_kl[0] = 0.03;
    s->chunk_kl[1] = 0.04;
    s->scores[1].perplexity_increase_percent = &s->increase;
    s->scores[1].same_top1_percent = &s->top1;
    s->scores[1].kl_nats = &s->kl;
    s->scores[1].n_chunk_kl_nats = 2;
    s->scores[1].chunk_kl_nats = s->chunk_kl;
    for (size_t i = 0; i < 2; i++) {
        assay__v1__criterion_result__init(&s->criteria[i]);
        s->criterion_list[i] = &s->criteria[i];
        s->criteria[i].name = i == 0 ? "perplexity_increase_percent" : "kl_mean_nats";
        s->criteria[i].has_threshold = s->criteria[i].has_value = s->criteria[i].has_point_pass = true;
        s->criteria[i].threshold = i == 0 ? 8 : 0.1;
        s->criteria[i].value = i == 0 ? 1.25 : 0.1 / 3;
        s->criteria[i].point_pass = true;
        s->criteria[i].verdict = ASSAY__V1__VERDICT__VERDICT_PASS;
    }
    s->results[1].n_criteria = 2;
    s->results[1].criteria = s->criterion_list;
    s->results[1].verdict = ASSAY__V1__VERDICT__VERDICT_PASS;
    s->results[1].chunks_run = 64;
    s->results[1].tokens_run = 32768;
    s->results[1].compute_us = 4000000;
}

void assay_test_fill(struct sample *s, char *label)
{
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < sizeof s->digest; i++)
        s->digest[i] = (uint8_t)(0xa0 + i);
    assay__v1__job__init(&s->job);
    assay__v1__submit_job_request__init(&s->request);
    s->perplexity[0] = estimate(20, 0.3, 19, 21, 16320);
    s->perplexity[1] = estimate(20.25, 0.3, 19, 21, 16320);
    fill_variant(s, 0, "fp32");
    fill_variant(s, 1, label);
    fill_errors(s);
    fill_variant_figures(s);
    s->results[0].chunks_cached = 64;
    s->request.model_dir = "/models/tiny";
    s->request.protocol = "llamacpp-512";
    s->request.reference = &s->specs[0];
    s->spec_list[0] = &s->specs[1];
    s->request.n_variants = 1;
    s->request.variants = s->spec_list;
    s->job.has_job_id = s->job.has_tokenizer_digest = s->job.has_verdict = true;
    s->job.job_id = (ProtobufCBinaryData){sizeof s->id, s->id};
    s->job.tokenizer_digest = (ProtobufCBinaryData){sizeof s->digest, s->digest};
    s->job.state = ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED;
    s->job.verdict = ASSAY__V1__VERDICT__VERDICT_PASS;
    s->job.request = &s->request;
    s->job.n_results = 2;
    s->job.results = s->result_list;
    s->job.saved_us = 12300000;
    s->environment = (struct assay_environment){.host = "h", .system = "s", .cpu = "c", .cpus = 2};
    s->report = (struct assay_report){
        .job = &s->job, .environment = &s->environment, .command = "assay eval x", .coordinator = "ipc:///x"};
}
