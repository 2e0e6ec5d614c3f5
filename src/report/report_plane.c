#include "report_parts.h"

#include <inttypes.h>
#include <math.h>

enum { PLANE_SIDE = 520, PLANE_LEFT = 100, PLANE_RIGHT = 150, PLANE_TOP = 20, PLANE_BOTTOM = 70 };

/* More places than this have no room for their losses. */
enum { NUMBERED_PLACES = 9 };

static dpt_status plane_csv(dpt_report_plots *plots, const dpt_result_plane *plane,
                            char path[1024]) {
    FILE *csv = dpt_report_csv(plots, "plane", plane->data, "x,y,loss,accuracy", path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < plane->points * plane->points; i++) {
        fprintf(csv, "%.17g,%.17g,", dpt_result_plane_place(plane, i % plane->points),
                dpt_result_plane_place(plane, i / plane->points));
        if (isfinite(plane->loss[i]))
            fprintf(csv, "%.17g", plane->loss[i]);
        fprintf(csv, ",%.17g\n", plane->accuracy[i]);
    }
    return dpt_report_csv_close(csv, path);
}

/* The three models that the plane goes through. */
static void plane_ends(FILE *script, const dpt_result_plane *plane) {
    char label[DPT_REPORT_LABEL_MAX];
    const struct {
        const char *name;
        int x, y;
    } ends[] = {{"post-trained", 0, 0}, {plane->a, 1, 0}, {plane->b, 0, 1}};
    for (int i = 0; i < 3; i++) {
        dpt_report_label(ends[i].name, label);
        if (ends[i].x < plane->low || ends[i].x > plane->high || ends[i].y < plane->low ||
            ends[i].y > plane->high)
            continue;
        fprintf(script,
                "set label %d '%.30s' at %d,%d point pt 6 ps 1.6 lw 2 lc rgb '#1d2430' offset %s "
                "front tc rgb '#1d2430' boxed\n",
                i + 1, label, ends[i].x, ends[i].y,
                ends[i].x == 1 ? "-1,-1.2 right" : "1,-1.2 left");
    }
}

static void plane_axes(FILE *script, const dpt_result_plane *plane, const dpt_report_axis *axis) {
    const double width = PLANE_LEFT + PLANE_SIDE + PLANE_RIGHT;
    const double height = PLANE_TOP + PLANE_SIDE + PLANE_BOTTOM;
    double half = 0.5 * (plane->high - plane->low) / (double)(plane->points - 1);
    char label[DPT_REPORT_LABEL_MAX];
    dpt_report_axis_function(script, axis);
    dpt_report_axis_tics(script, axis, "cb");
    fprintf(script,
            "unset grid\nset border 0\nset tics scale 0\n"
            "set style textbox opaque fillcolor rgb '#ffffff' noborder margins 0.4,0.4\n"
            "set lmargin at screen %.17g\nset rmargin at screen %.17g\n"
            "set bmargin at screen %.17g\nset tmargin at screen %.17g\n"
            "set xrange [%.17g:%.17g]\nset yrange [%.17g:%.17g]\n"
            "set palette defined (0 '#f7fbff', 0.3 '#c6dbef', 0.6 '#6baed6', 1 '#08306b')\n"
            "set cblabel 'loss [nats]' tc rgb '#333a45'\n",
            PLANE_LEFT / width, (PLANE_LEFT + PLANE_SIDE) / width, PLANE_BOTTOM / height,
            (PLANE_BOTTOM + PLANE_SIDE) / height, plane->low - half, plane->high + half,
            plane->low - half, plane->high + half);
    dpt_report_label(plane->a, label);
    fprintf(script, "set xlabel 'x: %s' tc rgb '#333a45'\n", label);
    dpt_report_label(plane->b, label);
    fprintf(script, "set ylabel 'y: %s' tc rgb '#333a45'\n", label);
}

dpt_status dpt_report_plane(dpt_report_plots *plots, FILE *html, const dpt_result_plane *plane) {
    char path[1024], *text = NULL;
    size_t size = 0;
    double least = INFINITY, most = -INFINITY;
    double half = 0.5 * (plane->high - plane->low) / (double)(plane->points - 1);
    for (int64_t i = 0; i < plane->points * plane->points; i++) {
        least = isfinite(plane->loss[i]) ? fmin(least, plane->loss[i]) : least;
        most = isfinite(plane->loss[i]) ? fmax(most, plane->loss[i]) : most;
    }
    dpt_status st = plane_csv(plots, plane, path);
    if (st != DPT_OK)
        return st;
    fprintf(html, "<h3>The plane of two edits</h3>\n");
    dpt_report_axis axis = dpt_report_axis_make(most, fmax(least, 1e-4 * most));
    FILE *script = dpt_report_script(&text, &size, PLANE_LEFT + PLANE_SIDE + PLANE_RIGHT,
                                     PLANE_TOP + PLANE_SIDE + PLANE_BOTTOM);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    plane_axes(script, plane, &axis);
    plane_ends(script, plane);
    const char *name = dpt_report_csv_name(path);
    fprintf(script,
            "plot '%s' skip 1 using 1:2:($1-%.17g):($1+%.17g):($2-%.17g):($2+%.17g):(f($3)) with "
            "boxxyerror fs solid noborder fc palette notitle",
            name, half, half, half, half);
    if (plane->points <= NUMBERED_PLACES)
        fprintf(script,
                ", '' skip 1 using 1:2:(sprintf('%%.3g', $3)):(f($3) > %.17g ? 0xffffff : "
                "0x333a45) with labels font ',9' tc rgb variable notitle",
                0.7 * dpt_report_axis_place(&axis, most));
    fputc('\n', script);
    return dpt_report_figure(plots, html, script, &text,
                             axis.linear > 0.0 ? "Loss of post-trained + x E_a + y E_b; the "
                                                 "colours are logarithmic above small losses."
                                               : "Loss of post-trained + x E_a + y E_b.");
}
