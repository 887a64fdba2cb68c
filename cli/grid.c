#include "cli/grid.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"

void assay_grid_head(struct assay_grid *grid, const char *headings)
{
    grid->columns = 1;
    for (const char *at = headings; *at; at++)
        grid->columns += *at == '|';
    if (grid->columns > ASSAY_GRID_COLUMNS_MAX)
        ASSAY_BUG("too many columns");
    for (size_t column = 0; column < grid->columns; column++) {
        grid->left[column] = *headings == '<';
        headings += *headings == '<';
        size_t len = strcspn(headings, "|");
        assay_grid_cell(grid, "%.*s", (int)len, headings);
        headings += len + (headings[len] == '|');
    }
}

void assay_grid_cell(struct assay_grid *grid, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assay_text_clean(text);
    if (grid->at == grid->capacity) {
        size_t capacity = grid->capacity ? 2 * grid->capacity : 64;
        char **cells = realloc(grid->cells, capacity * sizeof *cells);
        if (!cells) {
            grid->failed = true;
            return;
        }
        grid->cells = cells;
        grid->capacity = capacity;
    }
    char *copy = assay_arena_strdup(&grid->arena, text);
    if (!copy) {
        grid->failed = true;
        return;
    }
    grid->cells[grid->at++] = copy;
    grid->rows = (grid->at + grid->columns - 1) / grid->columns;
}

void assay_grid_release(struct assay_grid *grid)
{
    assay_arena_release(&grid->arena);
    free(grid->cells);
    *grid = (struct assay_grid){0};
}

static const char *cell_at(const struct assay_grid *grid, size_t row, size_t column)
{
    size_t index = row * grid->columns + column;
    return index < grid->at ? grid->cells[index] : "";
}

static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static void append_markdown(struct assay_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            assay_buf_str(out, "\\");
        assay_buf_append(out, text, 1);
    }
}

static void finish(const struct assay_grid *grid, struct assay_buf *out)
{
    if (grid->failed)
        out->failed = true;
}

void assay_grid_text(const struct assay_grid *grid, struct assay_buf *out)
{
    size_t widths[ASSAY_GRID_COLUMNS_MAX] = {0};
    for (size_t row = 0; row < grid->rows; row++)
        for (size_t column = 0; column < grid->columns; column++)
            widths[column] = ASSAY_MAX(widths[column], width_of(cell_at(grid, row, column)));
    for (size_t row = 0; row < grid->rows; row++) {
        for (size_t column = 0; column < grid->columns; column++) {
            const char *cell = cell_at(grid, row, column);
            int pad = (int)(widths[column] - width_of(cell));
            bool left = grid->left[column], last = column + 1 == grid->columns;
            assay_buf_printf(out, "%s%*s", column == 0 ? "" : "  ", left ? 0 : pad, "");
            assay_buf_str(out, cell);
            assay_buf_printf(out, "%*s", left && !last ? pad : 0, "");
        }
        assay_buf_str(out, "\n");
    }
    finish(grid, out);
}

void assay_grid_markdown(const struct assay_grid *grid, struct assay_buf *out)
{
    for (size_t row = 0; row < grid->rows; row++) {
        for (size_t column = 0; column < grid->columns; column++) {
            assay_buf_str(out, "| ");
            append_markdown(out, cell_at(grid, row, column));
            assay_buf_str(out, " ");
        }
        assay_buf_str(out, "|\n");
        for (size_t column = 0; row == 0 && column < grid->columns; column++)
            assay_buf_str(out, grid->left[column] ? "|---" : "|---:");
        if (row == 0)
            assay_buf_str(out, "|\n");
    }
    finish(grid, out);
}
