/* The tables of a report, for Markdown and HTML alike. Each fills an empty grid that the caller prints and releases. */
#pragma once

#include "cli/grid.h"
#include "cli/report_assess.h"

void assay_grid_environment(const struct assay_report *report, struct assay_grid *grid);
void assay_grid_processes(const struct assay_report *report, struct assay_grid *grid); /* services are known */
void assay_grid_thresholds(const struct assay_report *report, struct assay_grid *grid);
/* False, and an empty grid: the variant has no quantized tensor in a layer. */
bool assay_grid_layers(const Assay__V1__VariantResult *result, struct assay_grid *grid);
void assay_grid_sizes(const struct assay_report *report, struct assay_grid *grid);
void assay_grid_phases(const Assay__V1__Event *event, struct assay_grid *grid);
void assay_grid_unmeasured(struct assay_grid *grid);
/* What the bits of each variant depend on: weights, inputs of products, accumulation, numerics id. */
void assay_grid_numerics(const struct assay_report *report, struct assay_grid *grid);
void assay_grid_trade_off(const struct assay_assessment *assessment, struct assay_grid *grid);
