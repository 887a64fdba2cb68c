#include "cli/report_svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RIGHT 24.0
#define BOTTOM 52.0
#define TICKS_WANTED 6
/* A linear axis has at most that many ticks, whatever is asked of it. */
#define TICKS_MAX 40

/* --- text --- */

/* Length of the valid UTF-8 sequence at text; 0 when there is none. */
static size_t sequence_length(const unsigned char *text)
{
    size_t len = text[0] < 0x80                      ? 1
                 : text[0] >= 0xC2 && text[0] < 0xE0 ? 2
                 : text[0] >= 0xE0 && text[0] < 0xF0 ? 3
                 : text[0] >= 0xF0 && text[0] < 0xF5 ? 4
                                                     : 0;
    for (size_t i = 1; i < len; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    bool too_long = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
    bool beyond = (text[0] == 0xED && text[1] > 0x9F) || (text[0] == 0xF4 && text[1] > 0x8F);
    bool no_character = text[0] == 0xEF && text[1] == 0xBF && text[2] >= 0xBE;
    bool control = text[0] == 0xC2 && text[1] < 0xA0;
    return too_long || beyond || no_character || control ? 0 : len;
}

void assay_html_text(struct assay_buf *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        const char *entity = NULL;
        size_t len = sequence_length(at);
        switch (*at) {
        case '&':
            entity = "&amp;";
            break;
        case '<':
            entity = "&lt;";
            break;
        case '>':
            entity = "&gt;";
            break;
        case '"':
            entity = "&quot;";
            break;
        case '\'':
            entity = "&#39;";
            break;
        default:
            if (len == 0 || *at == 0x7F || (*at < 0x20 && *at != '\n' && *at != '\t'))
                entity = "?";
        }
        if (entity)
            assay_buf_str(out, entity);
        else
            assay_buf_append(out, at, len);
        at += len > 0 ? len : 1;
    }
}

/* --- axes --- */

void assay_axis_add(struct assay_axis *axis, double value)
{
    if (!isfinite(value) || (axis->logarithmic && !(value > 0)))
        return;
    bool empty = assay_axis_is_empty(axis);
    if (empty || value < axis->low)
        axis->low = value;
    if (empty || value > axis->high)
        axis->high = value;
}

bool assay_axis_is_empty(const struct assay_axis *axis)
{
    return !(axis->low <= axis->high);
}

void assay_axis_widen(struct assay_axis *axis)
{
    if (assay_axis_is_empty(axis)) {
        axis->low = axis->logarithmic ? 0.1 : 0;
        axis->high = 1;
        return;
    }
    if (axis->logarithmic) {
        double factor = pow(axis->high / axis->low, 0.06);
        factor = fmax(factor, 1.25);
        axis->low /= factor;
        axis->high *= factor;
        return;
    }
    double room = 0.06 * (axis->high - axis->low);
    double least = 1e-6 * fmax(fabs(axis->low), fabs(axis->high));
    room = fmax(room, least > 0 ? least : 0.5);
    axis->low -= room;
    axis->high += room;
}

static double place(const struct assay_axis *axis, double value)
{
    if (axis->logarithmic)
        return log(value / axis->low) / log(axis->high / axis->low);
    return (value - axis->low) / (axis->high - axis->low);
}

double assay_plot_x(const struct assay_plot *plot, double value)
{
    return ASSAY_PLOT_LEFT + place(&plot->x, value) * ASSAY_PLOT_WIDTH;
}

double assay_plot_y(const struct assay_plot *plot, double value)
{
    return ASSAY_PLOT_TOP + (1 - place(&plot->y, value)) * plot->height;
}

static bool can(const struct assay_axis *axis, double value)
{
    return isfinite(value) && (!axis->logarithmic || value > 0);
}

bool assay_plot_can_x(const struct assay_plot *plot, double value)
{
    return can(&plot->x, value);
}

bool assay_plot_can_y(const struct assay_plot *plot, double value)
{
    return can(&plot->y, value);
}

const char *assay_plot_colour(size_t index)
{
    static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b3f95"};
    return colours[index % ASSAY_COUNT(colours)];
}

/* --- marks --- */

void assay_plot_line(struct assay_plot *plot, double x1, double y1, double x2, double y2, const char *colour,
                     bool dashed)
{
    assay_buf_printf(plot->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"%s/>\n", x1, y1, x2,
                     y2, colour, dashed ? " stroke-dasharray=\"4 3\"" : "");
}

void assay_plot_dot(struct assay_plot *plot, double x, double y, const char *colour, const char *title)
{
    assay_buf_printf(plot->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>", x, y, colour);
    assay_html_text(plot->out, title);
    assay_buf_str(plot->out, "</title></circle>\n");
}

void assay_plot_label(struct assay_plot *plot, double x, double y, const char *anchor, const char *colour,
                      const char *text)
{
    assay_buf_printf(plot->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">", x, y, anchor, colour);
    assay_html_text(plot->out, text);
    assay_buf_str(plot->out, "</text>\n");
}

/* --- ticks --- */

/* Draws one tick; the value is within the axis. */
typedef void (*tick_fn)(struct assay_plot *plot, double value, const char *text);

static void tick_x(struct assay_plot *plot, double value, const char *text)
{
    double x = assay_plot_x(plot, value), bottom = ASSAY_PLOT_TOP + plot->height;
    assay_plot_line(plot, x, ASSAY_PLOT_TOP, x, bottom, "#e6e6e6", false);
    assay_plot_label(plot, x, bottom + 16, "middle", "#444", text);
}

static void tick_y(struct assay_plot *plot, double value, const char *text)
{
    double y = assay_plot_y(plot, value);
    assay_plot_line(plot, ASSAY_PLOT_LEFT, y, ASSAY_PLOT_LEFT + ASSAY_PLOT_WIDTH, y, "#e6e6e6", false);
    assay_plot_label(plot, ASSAY_PLOT_LEFT - 7, y + 4, "end", "#444", text);
}

/* 1, 2 or 5 times a power of ten: about TICKS_WANTED of them in the span. */
static double nice_step(double span)
{
    double raw = span / TICKS_WANTED, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static void draw_linear_ticks(struct assay_plot *plot, const struct assay_axis *axis, tick_fn tick)
{
    double step = nice_step(axis->high - axis->low);
    int decimals = (int)fmax(0, ceil(-log10(step) - 1e-9));
    double first = ceil(axis->low / step - 1e-9);
    for (int i = 0; i < TICKS_MAX && (first + i) * step <= axis->high + 1e-9 * step; i++) {
        char text[32];
        double value = (first + i) * step;
        if (fabs(value) < step * 1e-6)
            value = 0;
        if (fabs(value) >= 1e6)
            snprintf(text, sizeof text, "%.3g", value);
        else
            snprintf(text, sizeof text, "%.*f", decimals > 9 ? 9 : decimals, value);
        tick(plot, value, text);
    }
}

/* 1, 2 and 5 in each decade when there are few, else powers of ten alone. */
static void draw_log_ticks(struct assay_plot *plot, const struct assay_axis *axis, tick_fn tick)
{
    static const double parts[] = {1, 2, 5};
    double decades = log10(axis->high / axis->low);
    size_t parts_count = decades < 2.5 ? ASSAY_COUNT(parts) : 1;
    int stride = (int)fmax(1, ceil(decades / 10)), first = (int)floor(log10(axis->low));
    for (int power = first; power <= first + (int)decades + 2; power += stride)
        for (size_t i = 0; i < parts_count; i++) {
            char text[32];
            double value = parts[i] * pow(10, power);
            if (value < axis->low || value > axis->high)
                continue;
            snprintf(text, sizeof text, "%.3g", value);
            tick(plot, value, text);
        }
}

static void draw_ticks(struct assay_plot *plot, const struct assay_axis *axis, tick_fn tick)
{
    if (axis->logarithmic)
        draw_log_ticks(plot, axis, tick);
    else
        draw_linear_ticks(plot, axis, tick);
}

void assay_plot_begin(struct assay_plot *plot, const char *description)
{
    double width = ASSAY_PLOT_LEFT + ASSAY_PLOT_WIDTH + RIGHT, height = ASSAY_PLOT_TOP + plot->height + BOTTOM;
    double middle = ASSAY_PLOT_TOP + plot->height / 2;
    assay_buf_printf(plot->out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
                     "height=\"%.0f\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n<title>",
                     width, height, width, height);
    assay_html_text(plot->out, description);
    assay_buf_str(plot->out, "</title>\n");
    if (!plot->x_is_names)
        draw_ticks(plot, &plot->x, tick_x);
    if (!plot->y_is_names)
        draw_ticks(plot, &plot->y, tick_y);
    assay_buf_printf(plot->out,
                     "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#888\"/>\n",
                     ASSAY_PLOT_LEFT, ASSAY_PLOT_TOP, ASSAY_PLOT_WIDTH, plot->height);
    assay_plot_label(plot, ASSAY_PLOT_LEFT + ASSAY_PLOT_WIDTH / 2, ASSAY_PLOT_TOP + plot->height + 38, "middle", "#222",
                     plot->x.title);
    assay_buf_printf(
        plot->out, "<text x=\"16\" y=\"%.1f\" text-anchor=\"middle\" fill=\"#222\" transform=\"rotate(-90 16 %.1f)\">",
        middle, middle);
    assay_html_text(plot->out, plot->y.title);
    assay_buf_str(plot->out, "</text>\n");
}

void assay_plot_end(struct assay_plot *plot)
{
    assay_buf_str(plot->out, "</svg>\n");
}
