/* A table of text cells, printed aligned or as Markdown. Not thread-safe. */
#pragma once

#include "common/base/arena.h"
#include "common/base/buf.h"

#define ASSAY_GRID_COLUMNS_MAX 24

struct assay_grid {
    size_t columns, rows; /* rows includes the heading */
    bool left[ASSAY_GRID_COLUMNS_MAX];
    char **cells;    /* rows x columns; NULL reads as "" */
    size_t capacity; /* of cells */
    size_t at;       /* the next cell to fill */
    struct assay_arena arena;
    bool failed; /* out of memory; later cells are dropped */
};

#define ASSAY_GRID_INIT                                                                                                \
    {                                                                                                                  \
        0                                                                                                              \
    }

/* Starts with the heading: "<variant|PPL|<verdict". Columns with '<' stand to the left, others to the right. */
void assay_grid_head(struct assay_grid *grid, const char *headings);
/* Fills the next cell, row by row. */
void assay_grid_cell(struct assay_grid *grid, const char *format, ...) ASSAY_PRINTF(2, 3);
void assay_grid_release(struct assay_grid *grid);

/* Columns as wide as their widest cell (in code points); the first to the left, numbers to the right. Control
 * characters are replaced. Failures show in `out`. */
void assay_grid_text(const struct assay_grid *grid, struct assay_buf *out);
/* A Markdown table; '|' within cells is escaped, control characters are replaced. */
void assay_grid_markdown(const struct assay_grid *grid, struct assay_buf *out);
