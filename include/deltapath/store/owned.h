#ifndef DELTAPATH_STORE_OWNED_H
#define DELTAPATH_STORE_OWNED_H

#include "deltapath/base/status.h"
#include "deltapath/store/store.h"

#include <stdbool.h>
#include <stdio.h>

/* Which files this program may replace or remove: those that it wrote, known by their content, never by
 * their name alone. All functions are Local. */

/** Kinds of files of a study. */
typedef enum dpt_owned_kind {
    DPT_OWNED_UNIT,
    DPT_OWNED_RESULTS,
    DPT_OWNED_CACHE,
    DPT_OWNED_SUMMARY,
    DPT_OWNED_SEEDS,
    DPT_OWNED_PLANE,
    DPT_OWNED_PROOF,
    DPT_OWNED_JSON,
    DPT_OWNED_REPORT,
    DPT_OWNED_MANIFEST,
    DPT_OWNED_PROGRESS,
    DPT_OWNED_PREDICTIONS
} dpt_owned_kind;

/** With what summary.csv begins: its columns before the scalars. */
#define DPT_OWNED_SUMMARY_START "edit,data,method,parameters,loss,rule,points,samples"

/** Predictions that a study makes before it measures, and with what the file begins. */
#define DPT_PREDICTIONS             "predictions.csv"
#define DPT_OWNED_PREDICTIONS_START "time,edit,data,first"

/** The header line of proof.csv. */
#define DPT_OWNED_PROOF_START "edit,data,group,term,change,low,high,alone"

/** The header line of plane.csv. */
#define DPT_OWNED_PLANE_START "data,a,b,x,y,loss,accuracy"

/** With what a report begins, so that it is known again. */
#define DPT_OWNED_REPORT_START                                                                     \
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta name=\"generator\" content=\"deltapath\">"

/** What follows the seal of base/sealed at the end of a report, where both are a comment. */
#define DPT_OWNED_REPORT_END "-->\n"

/** Check that a file may be made at `path`, or what is there be replaced or removed: a regular file that
 * this program wrote as this kind, and no input (base/guard). A text that the manifest of its folder lists
 * must be unchanged.
 * @param[in] study  name of the study to which it must belong where the file says one; NULL: to any.
 * Errors: DPT_ERR_OUTPUT naming the file and why not. */
dpt_status dpt_owned_check(const char *path, dpt_owned_kind kind, const char *study);

/** The same for a table that carries no checksum: nobody can tell whether somebody changed it since, so that
 * one that is there is replaced only when the user asks for it, and only when it begins with `start`; `what` names such a file in the message. */
dpt_status dpt_owned_check_table(const char *path, const char *start, const char *what,
                                 bool overwrite);

/** Writes the text of a table. */
typedef void dpt_owned_print_fn(const void *ctx, FILE *out);

/** Write such a table whole or not at all, where dpt_owned_check_table and dpt_owned_check_place allow it. Local.
 * Errors: theirs; DPT_ERR_OUTPUT naming the file. */
dpt_status dpt_owned_write_table(const char *path, const char *start, const char *what,
                                 bool overwrite, dpt_owned_print_fn *print, const void *ctx);

/** The same for a model: an HDF5 checkpoint or a folder of safetensors with its provenance, unchanged but for
 * the values of tensors (dpt_owned_check_weights), and nothing in the folder but what its manifest lists.
 * @param[in] edit  id of the edit that must have made it; NULL: `convert` must have.
 * @param[in] study  name of the study to which it must belong where its provenance says one; NULL: to any. */
dpt_status dpt_owned_check_model(const char *path, const char *edit, const char *study);

/** Check that the weights of a model have the hashes that it states, before it is replaced or removed:
 * reads all of it, once in a process as long as nobody touches it. Absence and an empty folder are no error.
 * Errors: DPT_ERR_OUTPUT naming the model when somebody changed it. */
dpt_status dpt_owned_check_weights(const char *path);

/** Whether a folder holds a study, be it what a run that was killed left: a manifest, results, a unit, a part
 * of a pass or a model that an edit made, known by their content. */
bool dpt_owned_is_study(const char *folder);

/** Check that an output would be put neither below the folder of a model, whoever wrote it, nor below the
 * units, models, references or progress of a study: at any depth, links followed, also where folders on the
 * way are still to be made. Errors: DPT_ERR_OUTPUT naming `path` and that folder. */
dpt_status dpt_owned_check_outside(const char *path);

/** The same, for an output that is no model: `path` itself must not be the folder of one either. */
dpt_status dpt_owned_check_place(const char *path);

/** Of the folders of a study itself, which may be links to those of others: that they do not lead into the
 * folder of a model. Errors: as above. */
dpt_status dpt_owned_check_part(const char *path);

/** As dpt_owned_check for a temporary file or folder that a run which was killed left behind. */
dpt_status dpt_owned_check_temporary(const char *path);

/** Check that a file, or a model with the files in its folder, could be renamed and removed, without a change.
 * Absence is no error. Errors: DPT_ERR_OUTPUT naming it and why not. */
dpt_status dpt_owned_check_removable(const char *path);
dpt_status dpt_owned_refuse_removal(const char *path, const char *why); /**< that error */

/** Text of an attribute of the root group of an HDF5 file, read in a child process, allocated
 * (dpt_mem_free); NULL when the file cannot be read or has none. The file is not registered as an input. */
char *dpt_owned_read_attribute(const char *path, const char *attribute);

/** Remove a model, a folder with the files that this program writes there and no others.
 * Absence is no error. Errors: DPT_ERR_OUTPUT naming the first file that stays. */
dpt_status dpt_owned_remove_model(const char *path);

#endif
