/* Cells that the terminal's tables and the Markdown tables share. */
#pragma once

#include "cli/grid.h"
#include "cli/report.h"

/* Adds a cell with the figure, or "-" when it is missing. `decimals` after the point. */
void assay_cell_figure(struct assay_grid *grid, struct assay_figure figure, int decimals);
/* "12.3456 ± 0.0123", "-" when missing. */
void assay_cell_estimate(struct assay_grid *grid, const Assay__V1__Estimate *estimate, int decimals);
/* "+1.23 [+0.98, +1.48]", "-" when missing. */
void assay_cell_change(struct assay_grid *grid, const Assay__V1__Estimate *estimate, int decimals);
/* Small numbers in few digits: "0.00312", "1.2e-07", "0". */
void assay_cell_small(struct assay_grid *grid, bool has, double value);
/* The results, one row each, the reference first: what the variants answer, and what they weigh and take. */
enum assay_cells_part { ASSAY_CELLS_QUALITY = 1, ASSAY_CELLS_COST = 2 };
void assay_cells_results(struct assay_grid *grid, const struct assay_report *report, unsigned parts);
