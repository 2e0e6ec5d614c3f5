#ifndef DELTAPATH_SRC_REPORT_REPORT_PARTS_H
#define DELTAPATH_SRC_REPORT_REPORT_PARTS_H

#include "deltapath/base/status.h"
#include "deltapath/report/report.h"
#include "deltapath/results/results.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Parts of the report that its sources share. Private to the report layer. */

enum { DPT_REPORT_LABEL_MAX = 48 };

/* A palette of gnuplot: red hurts, blue helps. */
#define DPT_REPORT_HURTS                                                                           \
    "set palette defined (-1 '#2166ac', -0.5 '#92c5de', 0 '#f7f7f7', 0.5 '#f4a582', 1 "            \
    "'#b2182b')\n"

/* The units of one data set, in the order of the results. */
typedef struct dpt_report_group {
    const dpt_results *results;
    const char *data; /* "": edits alone */
    int64_t count;
    const dpt_result **units; /* (count), owned */
} dpt_report_group;

/* Where figures are made. */
typedef struct dpt_report_plots {
    const char *gnuplot;
    char *directory; /* of the CSV files, kept or not */
    char *scratch;   /* of scripts and SVG files, removed in the end */
    bool overwrite;  /* tables that are there may be replaced */
    bool missing;    /* gnuplot could not be run: do not try again */
} dpt_report_plots;

/* HTML. Text is escaped; numbers have four digits, "-" when not known. */
void dpt_report_text(FILE *html, const char *text);
void dpt_report_number(FILE *html, double x, const char *format);
void dpt_report_head(FILE *html, const char *title);
void dpt_report_provenance(FILE *html, const dpt_results *results);
void dpt_report_verdicts(FILE *html, const dpt_report_group *group);
void dpt_report_seeds(FILE *html,
                      const dpt_report_group *group); /* nothing without several seeds */
void dpt_report_minima(FILE *html, const dpt_report_group *group); /* nothing without alpha: auto */
void dpt_report_correlations(FILE *html,
                             const dpt_report_group *group); /* nothing without correlation: path */
void dpt_report_edits(FILE *html, const dpt_report_group *group);

/* Label for a plot: bytes that a plot language may give a meaning to become '?', a long one is cut. */
void dpt_report_label(const char *text, char label[DPT_REPORT_LABEL_MAX]);

/* 0xrrggbb of a verdict. */
unsigned dpt_report_colour(const char *verdict);

/* An axis of changes that may span decades: linear, or asinh(x / s) when the largest is far above
 * what is typical. */
typedef struct dpt_report_axis {
    double maximum; /* largest absolute value, above 0 */
    double linear;  /* s, the end of the linear part; 0: the axis is linear */
} dpt_report_axis;

dpt_report_axis dpt_report_axis_make(double maximum, double typical);
double dpt_report_axis_place(const dpt_report_axis *axis, double x);

/* `set xtics (...)`, the same for any of "x", "y", "cb"; and gnuplot's function `f(x)`. */
void dpt_report_axis_tics(FILE *script, const dpt_report_axis *axis, const char *which);
void dpt_report_axis_function(FILE *script, const dpt_report_axis *axis);

/* A square plot with the same axis on both sides and the key in its lower right corner. */
typedef struct dpt_report_square {
    dpt_report_axis axis;
    double low; /* ends in places */
    double high;
    double pixels;    /* of a side */
    double key_width; /* pixels */
    double key_height;
} dpt_report_square;

/* Lines of a script that number the points (change, estimate) of the units, apart from points,
 * key and each other: a number far from its point has a line to it. `left`: how many points stay
 * without a number for want of room; all of more than DPT_REPORT_NUMBERS_MAX. */
enum { DPT_REPORT_NUMBERS_MAX = 300 };
dpt_status dpt_report_numbers(FILE *script, const dpt_report_square *plot,
                              const dpt_report_group *group, int64_t *left);

/* A CSV of a figure, opened with its header line; NULL after dpt_error. */
FILE *dpt_report_csv(const dpt_report_plots *plots, const char *kind, const char *data,
                     const char *header, char path[1024]);
dpt_status dpt_report_csv_close(FILE *csv, const char *path);
const char *dpt_report_csv_name(const char *path); /* as gnuplot finds it: plain characters */

/* Run gnuplot on the lines of `script` (freed) and put the SVG or a notice into the page. */
FILE *dpt_report_script(char **text, size_t *size, int width, int height);
dpt_status dpt_report_figure(dpt_report_plots *plots, FILE *html, FILE *script, char **text,
                             const char *caption);

/* The figures of one data set, and the spectra of all units. */
dpt_status dpt_report_changes(dpt_report_plots *plots, FILE *html, const dpt_report_group *group);
dpt_status dpt_report_proof(dpt_report_plots *plots, FILE *html,
                            const dpt_report_group *group); /* nothing without predictions */
dpt_status dpt_report_left_out(dpt_report_plots *plots, FILE *html,
                               const dpt_report_group *group); /* nothing without groups left out */
dpt_status dpt_report_curvature(dpt_report_plots *plots, FILE *html,
                                const dpt_report_group *group); /* nothing without a law */
dpt_status dpt_report_terms(dpt_report_plots *plots, FILE *html, const dpt_report_group *group);
dpt_status dpt_report_slopes(dpt_report_plots *plots, FILE *html, const dpt_report_group *group);
dpt_status
dpt_report_hessian(dpt_report_plots *plots, FILE *html,
                   const dpt_report_group *group); /* nothing without second derivatives */
dpt_status dpt_report_plane(dpt_report_plots *plots, FILE *html, const dpt_result_plane *plane);
dpt_status dpt_report_spectra(dpt_report_plots *plots, FILE *html, const dpt_results *results);

#endif
