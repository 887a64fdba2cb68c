/* Plots as inline SVG: axes, marks, a legend. Numbers are checked: what is not finite is not drawn. Text is escaped.
 * Failures show in the buffer. */
#pragma once

#include "common/base/buf.h"

/* Text for HTML and XML: & < > " ' as entities, other control characters than \n and \t as '?', invalid UTF-8 as it is
 * replaced by '?'. */
void assay_html_text(struct assay_buf *out, const char *text);

struct assay_axis {
    const char *title;
    double low, high; /* low < high after assay_axis_widen; both > 0 when logarithmic */
    bool logarithmic;
};

/* Makes room for a value. Start with ASSAY_AXIS_EMPTY. Not finite, or not positive on a logarithmic axis: ignored. */
#define ASSAY_AXIS_EMPTY(text, is_logarithmic)                                                                         \
    {                                                                                                                  \
        .title = (text), .low = 1, .high = -1, .logarithmic = (is_logarithmic)                                         \
    }
void assay_axis_add(struct assay_axis *axis, double value);
bool assay_axis_is_empty(const struct assay_axis *axis);
/* Leaves some room at both ends, and makes a range of a point. */
void assay_axis_widen(struct assay_axis *axis);

struct assay_plot {
    struct assay_buf *out;
    struct assay_axis x, y;
    bool x_is_names, y_is_names; /* no ticks there */
    double height;               /* of the drawing area */
};

/* <svg> with frame, grid and ticks; `description` is for those who do not see it. */
void assay_plot_begin(struct assay_plot *plot, const char *description);
void assay_plot_end(struct assay_plot *plot);

/* Where a value stands, in pixels. */
double assay_plot_x(const struct assay_plot *plot, double value);
double assay_plot_y(const struct assay_plot *plot, double value);
bool assay_plot_can_x(const struct assay_plot *plot, double value); /* finite, and positive where it must be */
bool assay_plot_can_y(const struct assay_plot *plot, double value);

/* Colours that colour-blind readers can tell apart; index from 0. */
const char *assay_plot_colour(size_t index);
#define ASSAY_PLOT_GREY "#b4b4b4"

void assay_plot_line(struct assay_plot *plot, double x1, double y1, double x2, double y2, const char *colour,
                     bool dashed); /* in pixels */
void assay_plot_dot(struct assay_plot *plot, double x, double y, const char *colour, const char *title);
/* anchor: "start", "middle" or "end". */
void assay_plot_label(struct assay_plot *plot, double x, double y, const char *anchor, const char *colour,
                      const char *text);

/* The drawing area, in pixels. */
#define ASSAY_PLOT_LEFT 96.0
#define ASSAY_PLOT_TOP 14.0
#define ASSAY_PLOT_WIDTH 620.0
