#include "plan_plot.h"

#include "deltapath/store/owned.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Three lines over the number of ranks, each of a scale of its own whose ends are powers of ten. */

#define PLOT_START                                                                                 \
    "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"deltapath-plan\" width=\"760\" "            \
    "height=\"420\" "
enum { LEFT = 70, RIGHT = 560, TOP = 40, BOTTOM = 360, LEGEND = 580 };

typedef struct plot_line {
    const char *name, *colour;
    size_t offset; /* of the value in a point */
} plot_line;

static const plot_line plot_lines[] = {
    {"hours", "#1f5fa8", offsetof(dpt_plan_point, hours)},
    {"node hours", "#b3541e", offsetof(dpt_plan_point, node_hours)},
    {"GiB of a rank", "#3a7d44", offsetof(dpt_plan_point, gib)}};
enum { LINES = sizeof plot_lines / sizeof plot_lines[0] };

static double plot_value(const dpt_plan_point *point, const plot_line *line) {
    double value;
    memcpy(&value, (const char *)point + line->offset, sizeof value);
    return fmax(value, 1e-9);
}

/* Powers of ten around all values. */
static void plot_range(const dpt_plan_points *points, double *low, double *high) {
    *low = 1e300;
    *high = -1e300;
    for (int i = 0; i < points->count; i++)
        for (int k = 0; k < LINES; k++) {
            double value = log10(plot_value(&points->at[i], &plot_lines[k]));
            *low = fmin(*low, floor(value));
            *high = fmax(*high, ceil(value));
        }
    *high = fmax(*high, *low + 1.0);
}

static double plot_x(const dpt_plan_points *points, int i) {
    double first = log2(points->at[0].ranks), last = log2(points->at[points->count - 1].ranks);
    double at = last > first ? (log2(points->at[i].ranks) - first) / (last - first) : 0.5;
    return LEFT + at * (RIGHT - LEFT);
}

static double plot_y(double value, double low, double high) {
    return BOTTOM - (log10(value) - low) / (high - low) * (BOTTOM - TOP);
}

static void plot_text(FILE *out, double x, double y, const char *anchor, const char *text) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (const char *c = text; *c != '\0'; c++)
        if (*c == '<' || *c == '>' || *c == '&' || *c == '"')
            fprintf(out, "&#%d;", *c);
        else
            fputc(*c, out);
    fprintf(out, "</text>\n");
}

static void plot_axes(FILE *out, const dpt_plan_points *points, double low, double high) {
    char text[32];
    for (double power = low; power <= high + 0.5; power += 1.0) {
        double y = plot_y(pow(10.0, power), low, high);
        fprintf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", LEFT, y, RIGHT);
        snprintf(text, sizeof text, "%g", pow(10.0, power));
        plot_text(out, LEFT - 8, y + 4, "end", text);
    }
    for (int i = 0; i < points->count; i++) {
        snprintf(text, sizeof text, "%d", points->at[i].ranks);
        plot_text(out, plot_x(points, i), BOTTOM + 18, "middle", text);
    }
    plot_text(out, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "middle", "ranks");
}

typedef struct plot_page {
    const char *title;
    const dpt_plan_points *points;
} plot_page;

static void plot_draw(const void *ctx, FILE *out) {
    const plot_page *page = ctx;
    const dpt_plan_points *points = page->points;
    double low, high;
    plot_range(points, &low, &high);
    fprintf(out, PLOT_START "font-family=\"sans-serif\" font-size=\"11\">\n"
                            "<rect width=\"760\" height=\"420\" fill=\"#fff\"/>\n");
    plot_text(out, LEFT, 22, "start", page->title);
    plot_axes(out, points, low, high);
    for (int k = 0; k < LINES; k++) {
        const plot_line *line = &plot_lines[k];
        fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", line->colour);
        for (int i = 0; i < points->count; i++)
            fprintf(out, "%s%.1f %.1f", i == 0 ? "M" : "L", plot_x(points, i),
                    plot_y(plot_value(&points->at[i], line), low, high));
        fprintf(out, "\"/>\n");
        for (int i = 0; i < points->count; i++)
            fprintf(out,
                    "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"><title>%d: "
                    "%.4g</title></circle>\n",
                    plot_x(points, i), plot_y(plot_value(&points->at[i], line), low, high),
                    line->colour, points->at[i].ranks, plot_value(&points->at[i], line));
        fprintf(out, "<path d=\"M%d %dh24\" stroke=\"%s\" stroke-width=\"2\"/>\n", LEGEND,
                TOP + 20 * k, line->colour);
        plot_text(out, LEGEND + 32, TOP + 20 * k + 4, "start", line->name);
    }
    fprintf(out, "</svg>\n");
}

dpt_status dpt_plan_plot(const char *path, const char *title, const dpt_plan_points *points) {
    const plot_page page = {.title = title, .points = points};
    return dpt_owned_write_table(path, PLOT_START, "a plot of `plan`", true, plot_draw, &page);
}
