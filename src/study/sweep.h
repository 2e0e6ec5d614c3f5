#ifndef DELTAPATH_SRC_STUDY_SWEEP_H
#define DELTAPATH_SRC_STUDY_SWEEP_H

#include "deltapath/edit/edit.h"
#include "outputs.h"

/* Edits of which no path is walked. Those that follow each other in the job are made together, a group at a time
 * (dpt_edit_run_many): the pair is read once for each group. */

enum { DPT_SWEEP_MOST = 16 }; /**< edits of a group */

/** Edits of a job that are made together. */
typedef struct dpt_sweep_group {
    int count;
    int edits[DPT_SWEEP_MOST]; /**< their numbers in the job, rising */
} dpt_sweep_group;

/** Most edits of a group, as far as memory goes: fewer where their models are large, for what a stop loses is the group in
 * hand. Local. */
int dpt_sweep_most(const dpt_inputs *inputs);

/** The group that begins at an edit: it, and those after it that are made together with it. Local.
 * @param[in] limit  edits of a group at most. @param[in] finished (edits) those that are left out; NULL: none is.
 * @param[in] first  an edit that is not finished. @return the edit after it that comes next. */
int dpt_sweep_group_at(const dpt_job *job, int limit, const bool *finished, int first,
                       dpt_sweep_group *group);

/** An edit of a group, made, and its model in its place. */
typedef struct dpt_sweep_made {
    int edit; /**< its number in the job */
    dpt_edit_report report;
    uint64_t model; /**< digest of the edited model, or 0 */
    double seconds; /**< its part of the time of the group */
} dpt_sweep_made;

/** What a group needs of its study. */
typedef struct dpt_sweep {
    const dpt_comm *comm;
    const dpt_inputs *inputs;
    const dpt_edit_input *input;
    dpt_outputs *outputs;
    void *ctx;
    /** Check the inputs once the edits are made. Collective, agreed. @param[in] agreed  how they ended. */
    dpt_status (*check)(void *ctx, dpt_status agreed);
    /** Keep the results of one. Collective, agreed. */
    dpt_status (*save)(void *ctx, const dpt_sweep_made *made);
} dpt_sweep;

/** Make a group, and keep its edits in their order.
 *
 * Collective over comm (same: group). Errors: those of dpt_edit_run, dpt_outputs_create_model, dpt_store_finish, check and
 * save; of the models that are not complete then nothing is left.
 * Determinism: that of dpt_edit_run; the group changes no bit. */
dpt_status dpt_sweep_run(const dpt_sweep *sweep, const dpt_sweep_group *group);

#endif
