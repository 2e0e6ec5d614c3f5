#ifndef DELTAPATH_REPORT_REPORT_H
#define DELTAPATH_REPORT_REPORT_H

#include "deltapath/base/status.h"

#include <stdbool.h>

typedef struct dpt_report_options {
    const char *title;   /**< NULL: the name of the study */
    const char *csv_dir; /**< directory that receives the CSV files behind the plots, made when it
                            is missing; NULL: they are not kept */
    bool overwrite;      /**< replace tables of the same kind in csv_dir */
    const char *gnuplot; /**< program; NULL: "gnuplot" on PATH */
} dpt_report_options;

/** Write a self-contained HTML report of a results.h5: no external resource, no script.
 *
 * Local: call it on one rank. Its children are spawned, not forked, so that MPI may be running.
 * Tables and inline SVG plots made by gnuplot on CSV files that this writes. Without gnuplot, or
 * when it fails on a plot, the report has a visible notice in the plot's place, a warning is logged,
 * and the status is DPT_OK. Written next to its name and renamed.
 * @param[in] options NULL: defaults.
 * Errors: DPT_ERR_INPUT when results.h5 cannot be read; DPT_ERR_OUTPUT when the report or a CSV
 * cannot be written.
 */
dpt_status dpt_report_write(const char *results_path, const char *html_path,
                            const dpt_report_options *options);

#endif
