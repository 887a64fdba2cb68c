/* The plots of the HTML report, each as inline SVG with a caption; or a paragraph that says why there is none. */
#pragma once

#include "cli/report_assess.h"

void assay_plot_kl_percentiles(const struct assay_report *report, struct assay_buf *out);
void assay_plot_increase(const struct assay_report *report, struct assay_buf *out);
void assay_plot_trade_off(const struct assay_assessment *assessment, struct assay_buf *out);
void assay_plot_weights(const struct assay_report *report, struct assay_buf *out);
void assay_plot_chunks(const struct assay_report *report, struct assay_buf *out);
