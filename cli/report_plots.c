#include "cli/report_plots.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/report_svg.h"

#define PLOT_HEIGHT 280.0
#define ROW_HEIGHT 42.0
/* Points of a line; more chunks are averaged in equal runs. */
#define POINTS_MAX 600

static void begin_figure(struct assay_buf *out, const char *title)
{
    assay_buf_str(out, "<figure>\n<figcaption>");
    assay_html_text(out, title);
    assay_buf_str(out, "</figcaption>\n");
}

static void end_figure(struct assay_buf *out)
{
    assay_buf_str(out, "</figure>\n");
}

static void no_plot(struct assay_buf *out, const char *reason)
{
    assay_buf_str(out, "<p class=\"missing\">Not drawn: ");
    assay_html_text(out, reason);
    assay_buf_str(out, "</p>\n");
}

static void begin_legend(struct assay_buf *out)
{
    assay_buf_str(out, "<p class=\"legend\">");
}

static void add_legend(struct assay_buf *out, const char *colour, const char *text)
{
    assay_buf_printf(out, "<span><i style=\"background:%s\"></i>", colour);
    assay_html_text(out, text);
    assay_buf_str(out, "</span> ");
}

static void add_variants_legend(const struct assay_report *report, struct assay_buf *out)
{
    begin_legend(out);
    for (size_t i = 1; i < report->job->n_results; i++)
        add_legend(out, assay_plot_colour(i - 1), assay_result_label(report->job->results[i]));
    assay_buf_str(out, "</p>\n");
}

/* A line through points that can be drawn, in pixels; a gap where one cannot. */
struct trace {
    struct assay_plot *plot;
    const char *colour;
    bool open;
};

static void trace_break(struct trace *trace)
{
    if (trace->open)
        assay_buf_printf(trace->plot->out, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", trace->colour);
    trace->open = false;
}

static void trace_to(struct trace *trace, double x, double y)
{
    if (!assay_plot_can_x(trace->plot, x) || !assay_plot_can_y(trace->plot, y)) {
        trace_break(trace);
        return;
    }
    if (!trace->open)
        assay_buf_str(trace->plot->out, "<polyline points=\"");
    assay_buf_printf(trace->plot->out, "%s%.1f,%.1f", trace->open ? " " : "", assay_plot_x(trace->plot, x),
                     assay_plot_y(trace->plot, y));
    trace->open = true;
}

/* --- KL percentiles --- */

enum { PERCENTILES = 5 };
static const char *const percentile_names[PERCENTILES] = {"median", "90 %", "95 %", "99 %", "largest"};

static void percentiles_of(const Assay__V1__VariantResult *result, double values[PERCENTILES])
{
    const Assay__V1__Distribution *kl = result->score ? result->score->kl_nats : NULL;
    values[0] = kl && kl->has_median ? kl->median : NAN;
    values[1] = kl && kl->has_p90 ? kl->p90 : NAN;
    values[2] = kl && kl->has_p95 ? kl->p95 : NAN;
    values[3] = kl && kl->has_p99 ? kl->p99 : NAN;
    values[4] = kl && kl->has_max ? kl->max : NAN;
}

void assay_plot_kl_percentiles(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_plot plot = {.out = out,
                              .x = {.title = "of all scored positions", .low = -0.5, .high = PERCENTILES - 0.5},
                              .y = ASSAY_AXIS_EMPTY("KL, nats (log scale)", true),
                              .x_is_names = true,
                              .height = PLOT_HEIGHT};
    double values[PERCENTILES];
    for (size_t i = 1; i < report->job->n_results; i++) {
        percentiles_of(report->job->results[i], values);
        for (size_t k = 0; k < PERCENTILES; k++)
            assay_axis_add(&plot.y, values[k]);
    }
    begin_figure(out, "KL(reference || variant) by percentile of the positions; zeros have no place on a log scale");
    if (assay_axis_is_empty(&plot.y)) {
        no_plot(out, "no variant has a percentile of KL above 0");
        end_figure(out);
        return;
    }
    assay_axis_widen(&plot.y);
    assay_plot_begin(&plot, "KL percentiles by variant");
    for (size_t k = 0; k < PERCENTILES; k++)
        assay_plot_label(&plot, assay_plot_x(&plot, (double)k), ASSAY_PLOT_TOP + plot.height + 16, "middle", "#444",
                         percentile_names[k]);
    for (size_t i = 1; i < report->job->n_results; i++) {
        struct trace trace = {.plot = &plot, .colour = assay_plot_colour(i - 1)};
        percentiles_of(report->job->results[i], values);
        for (size_t k = 0; k < PERCENTILES; k++)
            trace_to(&trace, (double)k, values[k]);
        trace_break(&trace);
        for (size_t k = 0; k < PERCENTILES; k++) {
            char title[200];
            if (!assay_plot_can_y(&plot, values[k]))
                continue;
            snprintf(title, sizeof title, "%.100s, %s: %.3g nats", assay_result_label(report->job->results[i]),
                     percentile_names[k], values[k]);
            assay_plot_dot(&plot, assay_plot_x(&plot, (double)k), assay_plot_y(&plot, values[k]), trace.colour, title);
        }
    }
    assay_plot_end(&plot);
    add_variants_legend(report, out);
    end_figure(out);
}

/* --- change of perplexity --- */

static const Assay__V1__Estimate *increase_of(const Assay__V1__VariantResult *result)
{
    const Assay__V1__Estimate *estimate = result->score ? result->score->perplexity_increase_percent : NULL;
    return assay_estimate_figure(estimate).present ? estimate : NULL;
}

static bool has_interval(const Assay__V1__Estimate *estimate)
{
    return estimate->has_interval_low && estimate->has_interval_high && isfinite(estimate->interval_low) &&
           isfinite(estimate->interval_high);
}

static void draw_increase(struct assay_plot *plot, const Assay__V1__VariantResult *result, double y, size_t index)
{
    const Assay__V1__Estimate *estimate = increase_of(result);
    const char *colour = assay_plot_colour(index);
    char title[200];
    assay_plot_label(plot, ASSAY_PLOT_LEFT + 8, y - 8, "start", "#222", assay_result_label(result));
    y += 7;
    if (!estimate) {
        assay_plot_label(plot, ASSAY_PLOT_LEFT + 8, y + 4, "start", "#8a5300", "not measured");
        return;
    }
    if (has_interval(estimate)) {
        double low = assay_plot_x(plot, estimate->interval_low), high = assay_plot_x(plot, estimate->interval_high);
        assay_plot_line(plot, low, y, high, y, colour, false);
        assay_plot_line(plot, low, y - 6, low, y + 6, colour, false);
        assay_plot_line(plot, high, y - 6, high, y + 6, colour, false);
        snprintf(title, sizeof title, "%+.3f %% [%+.3f, %+.3f]", estimate->value, estimate->interval_low,
                 estimate->interval_high);
    } else {
        snprintf(title, sizeof title, "%+.3f %%, no interval", estimate->value);
    }
    assay_plot_dot(plot, assay_plot_x(plot, estimate->value), y, colour, title);
}

void assay_plot_increase(const struct assay_report *report, struct assay_buf *out)
{
    size_t count = report->job->n_results > 0 ? report->job->n_results - 1 : 0;
    struct assay_plot plot = {.out = out,
                              .x = ASSAY_AXIS_EMPTY("change of perplexity, %", false),
                              .y = {.title = "", .low = 0, .high = 1},
                              .height = ROW_HEIGHT * (double)count};
    for (size_t i = 1; i <= count; i++) {
        const Assay__V1__Estimate *estimate = increase_of(report->job->results[i]);
        if (!estimate)
            continue;
        assay_axis_add(&plot.x, estimate->value);
        if (has_interval(estimate)) {
            assay_axis_add(&plot.x, estimate->interval_low);
            assay_axis_add(&plot.x, estimate->interval_high);
        }
    }
    begin_figure(out, "Change of perplexity against the reference, with 95 % intervals by chunk");
    if (assay_axis_is_empty(&plot.x)) {
        no_plot(out, "no variant has a measured change of perplexity");
        end_figure(out);
        return;
    }
    assay_axis_add(&plot.x, 0);
    assay_axis_widen(&plot.x);
    plot.y_is_names = true;
    assay_plot_begin(&plot, "change of perplexity by variant with 95 % intervals");
    double zero = assay_plot_x(&plot, 0);
    assay_plot_line(&plot, zero, ASSAY_PLOT_TOP, zero, ASSAY_PLOT_TOP + plot.height, "#444", true);
    for (size_t i = 1; i <= count; i++)
        draw_increase(&plot, report->job->results[i], ASSAY_PLOT_TOP + ROW_HEIGHT * ((double)i - 0.5), i - 1);
    assay_plot_end(&plot);
    end_figure(out);
}

/* --- quality against bytes --- */

static bool trade_point(const struct assay_variant_assessment *variant, double *mb, double *kl)
{
    struct assay_figure figure = assay_kl_figure(variant->result);
    if (!variant->saved_gb.present || !figure.present || !(figure.value > 0))
        return false;
    *mb = (double)variant->result->artifact->artifact_bytes / 1e6;
    *kl = figure.value;
    return true;
}

static void draw_trade_point(struct assay_plot *plot, const struct assay_variant_assessment *variant, size_t index)
{
    const Assay__V1__Distribution *score = variant->result->score ? variant->result->score->kl_nats : NULL;
    bool grey = variant->dominated_by != ASSAY_NOT_DOMINATED;
    const char *colour = grey ? ASSAY_PLOT_GREY : assay_plot_colour(index),
               *label = assay_result_label(variant->result);
    double mb, kl;
    char title[200];
    if (!trade_point(variant, &mb, &kl))
        return;
    double x = assay_plot_x(plot, mb), y = assay_plot_y(plot, kl);
    if (score->has_interval_low && score->has_interval_high && assay_plot_can_y(plot, score->interval_low) &&
        assay_plot_can_y(plot, score->interval_high)) {
        double low = assay_plot_y(plot, score->interval_low), high = assay_plot_y(plot, score->interval_high);
        assay_plot_line(plot, x, low, x, high, colour, false);
        assay_plot_line(plot, x - 5, low, x + 5, low, colour, false);
        assay_plot_line(plot, x - 5, high, x + 5, high, colour, false);
    }
    snprintf(title, sizeof title, "%.100s: %.2f MB, mean KL %.3g nats%s", label, mb, kl, grey ? ", dominated" : "");
    assay_plot_dot(plot, x, y, colour, title);
    bool at_right = x > ASSAY_PLOT_LEFT + 0.8 * ASSAY_PLOT_WIDTH;
    assay_plot_label(plot, at_right ? x - 9 : x + 9, index % 2 ? y + 16 : y - 6, at_right ? "end" : "start",
                     grey ? "#777" : "#222", label);
}

static int by_x(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

static void draw_frontier(struct assay_plot *plot, const struct assay_assessment *assessment)
{
    double points[64][2];
    size_t count = 0;
    for (size_t i = 0; i < assessment->count && count < ASSAY_COUNT(points); i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        if (variant->dominated_by == ASSAY_NOT_DOMINATED && trade_point(variant, &points[count][0], &points[count][1]))
            count++;
    }
    qsort(points, count, sizeof points[0], by_x);
    for (size_t i = 1; i < count; i++)
        assay_plot_line(plot, assay_plot_x(plot, points[i - 1][0]), assay_plot_y(plot, points[i - 1][1]),
                        assay_plot_x(plot, points[i][0]), assay_plot_y(plot, points[i][1]), "#999", true);
}

void assay_plot_trade_off(const struct assay_assessment *assessment, struct assay_buf *out)
{
    struct assay_plot plot = {.out = out,
                              .x = ASSAY_AXIS_EMPTY("artifact, MB (1,000,000 bytes)", false),
                              .y = ASSAY_AXIS_EMPTY("mean KL, nats (log scale)", true),
                              .height = PLOT_HEIGHT};
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        double mb, kl;
        if (!trade_point(variant, &mb, &kl))
            continue;
        const Assay__V1__Distribution *score = variant->result->score->kl_nats;
        assay_axis_add(&plot.x, mb);
        assay_axis_add(&plot.y, kl);
        if (score->has_interval_low && score->has_interval_high) {
            assay_axis_add(&plot.y, score->interval_low);
            assay_axis_add(&plot.y, score->interval_high);
        }
    }
    begin_figure(out,
                 "Quality against size: lower left is better; 95 % intervals by chunk; dominated variants in grey");
    if (assay_axis_is_empty(&plot.y)) {
        no_plot(out, "no variant has both a size and a mean KL above 0");
        end_figure(out);
        return;
    }
    assay_axis_widen(&plot.x);
    assay_axis_widen(&plot.y);
    assay_plot_begin(&plot, "mean KL against size by variant");
    draw_frontier(&plot, assessment);
    for (size_t i = 0; i < assessment->count; i++)
        draw_trade_point(&plot, &assessment->variants[i], i);
    assay_plot_end(&plot);
    end_figure(out);
}

/* --- weights by layer --- */

void assay_plot_weights(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_plot plot = {.out = out,
                              .x = ASSAY_AXIS_EMPTY("layer", false),
                              .y = ASSAY_AXIS_EMPTY("mean weight cosine", false),
                              .height = PLOT_HEIGHT};
    int32_t first, last;
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        for (int32_t layer = 0; assay_weight_layers(result, &first, &last) && layer <= last; layer++) {
            struct assay_cosines cosines = assay_weight_cosines(result, layer);
            if (cosines.tensors == 0)
                continue;
            assay_axis_add(&plot.x, layer);
            assay_axis_add(&plot.y, cosines.mean);
        }
    }
    begin_figure(out, "Cosine of quantized and original weights, mean by layer");
    if (assay_axis_is_empty(&plot.y)) {
        no_plot(out, "no variant has quantized tensors in layers");
        end_figure(out);
        return;
    }
    assay_axis_widen(&plot.x);
    assay_axis_widen(&plot.y);
    assay_plot_begin(&plot, "mean weight cosine by layer and variant");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        struct trace trace = {.plot = &plot, .colour = assay_plot_colour(i - 1)};
        bool lies = assay_weight_layers(result, &first, &last);
        for (int32_t layer = first; lies && layer <= last; layer++) {
            struct assay_cosines cosines = assay_weight_cosines(result, layer);
            trace_to(&trace, layer, cosines.tensors > 0 ? cosines.mean : NAN);
        }
        trace_break(&trace);
        for (int32_t layer = first; lies && layer <= last; layer++) {
            char title[200];
            struct assay_cosines cosines = assay_weight_cosines(result, layer);
            if (cosines.tensors == 0)
                continue;
            snprintf(title, sizeof title, "%.100s, layer %" PRId32 ": %.6f", assay_result_label(result), layer,
                     cosines.mean);
            assay_plot_dot(&plot, assay_plot_x(&plot, layer), assay_plot_y(&plot, cosines.mean), trace.colour, title);
        }
    }
    assay_plot_end(&plot);
    add_variants_legend(report, out);
    end_figure(out);
}

/* --- KL by chunk --- */

/* Mean of run `index` of `run` chunks each; NAN when one of them has no figure. */
static double run_mean(const Assay__V1__VariantScore *score, size_t index, size_t run)
{
    size_t end = ASSAY_MIN((index + 1) * run, score->n_chunk_kl_nats);
    double sum = 0;
    for (size_t i = index * run; i < end; i++)
        sum += score->chunk_kl_nats[i];
    return sum / (double)(end - index * run);
}

void assay_plot_chunks(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_plot plot = {.out = out,
                              .x = ASSAY_AXIS_EMPTY("chunk", false),
                              .y = ASSAY_AXIS_EMPTY("mean KL of the chunk, nats (log scale)", true),
                              .height = PLOT_HEIGHT};
    size_t chunks = 0;
    for (size_t i = 1; i < report->job->n_results; i++)
        if (report->job->results[i]->score)
            chunks = ASSAY_MAX(chunks, report->job->results[i]->score->n_chunk_kl_nats);
    size_t run = chunks / POINTS_MAX + 1;
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantScore *score = report->job->results[i]->score;
        for (size_t k = 0; score && k * run < score->n_chunk_kl_nats; k++) {
            assay_axis_add(&plot.x, (double)(k * run));
            assay_axis_add(&plot.y, run_mean(score, k, run));
        }
    }
    char title[160];
    if (run > 1)
        snprintf(title, sizeof title, "KL by chunk, in the order of the text; mean of each %zu chunks", run);
    else
        snprintf(title, sizeof title, "KL by chunk, in the order of the text");
    begin_figure(out, title);
    if (assay_axis_is_empty(&plot.y)) {
        no_plot(out, "no variant has a chunk with a KL above 0");
        end_figure(out);
        return;
    }
    assay_axis_widen(&plot.x);
    assay_axis_widen(&plot.y);
    assay_plot_begin(&plot, "mean KL by chunk and variant");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantScore *score = report->job->results[i]->score;
        struct trace trace = {.plot = &plot, .colour = assay_plot_colour(i - 1)};
        for (size_t k = 0; score && k * run < score->n_chunk_kl_nats; k++)
            trace_to(&trace, (double)(k * run), run_mean(score, k, run));
        trace_break(&trace);
    }
    assay_plot_end(&plot);
    add_variants_legend(report, out);
    end_figure(out);
}
