#ifndef DELTAPATH_SRC_STUDY_PASSES_H
#define DELTAPATH_SRC_STUDY_PASSES_H

#include "deltapath/comm/mesh.h"
#include "deltapath/loss/loss.h"
#include "deltapath/model/model.h"

/** Passes over data sets that a run has finished, and those that it needed not to take. */
typedef struct dpt_pass_counts {
    int64_t forward;  /**< losses alone */
    int64_t backward; /**< forward and backward */
    int64_t earlier;  /**< taken from an earlier run */
    int64_t reused;   /**< slopes at t = 0 of the gradient that all edits share */
    int64_t along;    /**< taken by this run for another edit on the same line */
} dpt_pass_counts;

/** Passes over data sets that are kept in <directory>/progress/ until the study is finished, so that a
 * run that goes on takes them from there: finished ones from one file that rank 0 writes, gradients from
 * one file for each tensor-parallel rank, a pass in hand from a file of each rank. All of it only saves
 * work: what cannot be written, is damaged or belongs to other ranks is computed again. */
typedef struct dpt_passes {
    char *folder;
    bool resumes;  /**< an earlier run may have left passes */
    dpt_mesh mesh; /**< borrowed handles */
    dpt_loss_keeper keeper;
    uint64_t key;     /**< of the pass in hand */
    const char *what; /**< it is called so in messages; borrowed */
    double t;
    int64_t samples;
    double seconds;          /**< least time between two saves of a pass in hand */
    double gradient_seconds; /**< the same where it accumulates a gradient */
    double share;            /**< most share of the time that saves may take */
    double saved;            /**< dpt_log_seconds() of the last save */
    double cost;             /**< seconds that it took */
    int turn;                /**< of the two files of a rank that shares its replica */
    bool wrote;              /* this rank has written how far it is */
    bool warned_write, warned_damage, warned_room;
    dpt_pass_counts counts;
    bool in_edit;   /**< finished passes are those of an edit from now on */
    uint64_t *keys; /**< (nkeys) of finished passes of the edit in hand */
    int nkeys;
    int room;
    uint64_t *lasting; /**< (nlasting) of finished passes that other edits may take */
    int nlasting;
    int lasting_room;
} dpt_passes;

/** One pass: what dpt_loss_evaluate takes and gives. */
typedef struct dpt_pass {
    uint64_t key;     /**< hash of all that its numbers depend on, besides mesh, mode and t */
    const char *what; /**< name of the data set */
    dpt_loss *loss;
    dpt_model *model;
    double t;
    dpt_model_backward mode;
    double *losses;
    uint8_t *correct; /**< or NULL */
    double *terms;
    double *sample_terms;
    dpt_model_gradient *gradient; /**< zero; GRADIENT only */
    /** With it the gradient is that of labels drawn from this stream, and what is kept of it is sum E_i^2 G_i^2
     * of each tensor, in `terms`; the gradient is scratch then. */
    const dpt_rng *labels;
    /** With it the gradient is scratch as well: what is kept of it are the numbers that this makes of it. Collective over
     * the mesh, agreed. @param[out] kept (nkept) the same on all ranks. */
    dpt_status (*reduce)(void *ctx, dpt_model_gradient *gradient, double *kept);
    void *reduce_ctx;
    double *kept;
    int64_t nkept;
    double *logits; /**< (samples, classes) as of dpt_loss_evaluate_logits, or NULL; mode NONE */
    double *
        tensor_terms; /**< (samples, tensors) as of dpt_loss_evaluate_tensors, or NULL; mode TERMS */
    double *
        matrix_terms; /**< (columns - tensors) as of dpt_loss_evaluate_matrices, or NULL; mode TERMS */
    bool lasting;     /**< other edits take it too: kept as long as the study */
    bool squares;     /**< as dpt_loss_evaluate_label; mode TERMS */
    int32_t label;
    /** Makes the model ready when the pass is not an earlier run's, or NULL. Collective over the mesh,
     * agreed. */
    dpt_status (*prepare)(void *ctx);
    void *ctx;
} dpt_pass;

/** Begin. Not to be moved afterwards. Local. @param[in] mesh outlives it.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_passes_open(const char *directory, bool resumes, const dpt_mesh *mesh,
                           dpt_passes *out);
void dpt_passes_close(
    dpt_passes *passes); /**< Local; says the counts. One that was not opened is allowed. */

/** Take a pass from an earlier run, or evaluate it, from where that run has come to. Collective over the
 * mesh, agreed. Errors: as dpt_loss_evaluate. Determinism: the same bits as
 * without a break on the same mesh. */
dpt_status dpt_passes_run(dpt_passes *passes, const dpt_pass *pass);

/** Seconds between two saves of the sums of a pass, and of a gradient that it adds to. */
#define DPT_PASSES_SECONDS          1.0
#define DPT_PASSES_GRADIENT_SECONDS 300.0

/** Whether the gradient of a finished pass is kept, so many bytes a rank: where it took longer than to write it, and always
 * under DELTAPATH_SAVE_SECONDS. Local. */
bool dpt_passes_keeps_gradient(double seconds, double bytes);

/** Have `loss` keep the state of an evaluation that dpt_passes_run does not know. Local.
 * @param[in] key, what as in dpt_pass. */
void dpt_passes_watch(dpt_passes *passes, uint64_t key, const char *what, dpt_loss *loss);

/** Such an evaluation is over and its numbers are safe elsewhere. Local. */
void dpt_passes_forget(dpt_passes *passes);

/** From now on finished passes are those of an edit; and all of it is saved, so that they can go. Local;
 * rank 0 acts. */
void dpt_passes_begin_edit(dpt_passes *passes);
void dpt_passes_end_edit(dpt_passes *passes);

/** Remove all that is kept below a directory: its study is finished. For rank 0. Local. */
void dpt_passes_remove(const char *directory);

#endif
