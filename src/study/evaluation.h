#ifndef DELTAPATH_SRC_STUDY_EVALUATION_H
#define DELTAPATH_SRC_STUDY_EVALUATION_H

#include "deltapath/base/log.h"
#include "deltapath/comm/mesh.h"
#include "deltapath/linalg/lanczos.h"
#include "deltapath/loss/loss.h"
#include "deltapath/model/model.h"
#include "deltapath/path/central.h"
#include "deltapath/path/riemann.h"
#include "groups.h"
#include "inputs.h"
#include "lines.h"
#include "logits.h"
#include "precision.h"
#include "prediction.h"
#include "passes.h"
#include "resources.h"
#include "signs.h"

/** Eigenvalues of greatest size of the Hessian at W_post and of D H D, D = diag(Delta). */
typedef struct dpt_spectrum {
    dpt_lanczos
        top[2]; /**< of H in the tensors that edits touch, of D H D; empty when not asked for */
} dpt_spectrum;

/** Losses of one data set that no edit changes, and the gradient that all edits share. */
typedef struct dpt_baseline {
    dpt_loss *loss;
    int64_t samples;
    const char *name;                    /**< borrowed */
    uint64_t key;                        /**< of what its losses depend on besides the model */
    double *loss_pre;                    /**< (samples) */
    double *loss_post;                   /**< (samples) */
    uint8_t *correct_pre, *correct_post; /**< (samples) 1 where that model is right */
    double guess;                        /**< loss of one that knows nothing [nats] */
    double
        accuracy_pre; /**< share of samples that the model has right, by weight; of a part that only
                            chooses W_pre is not asked */
    double accuracy_post;
    dpt_model_gradient *gradient; /**< at W_post; NULL when not kept */
    dpt_law law;                  /**< curvature along the delta; empty when it is not asked for */
    dpt_signs signs;              /**< the same of the Hessian itself, and the spread over masks */
    dpt_logits logits;            /**< along random signs of the delta; empty likewise */
    dpt_spectrum spectrum;
} dpt_baseline;

/** A model on its mesh, ready to walk paths. */
typedef struct dpt_evaluation {
    dpt_mesh mesh;
    const dpt_inputs *inputs; /**< borrowed */
    dpt_model *model;
    int ndata;
    bool shares;        /**< paths take their term at t = 0 from the gradients that are kept */
    dpt_baseline *data; /**< (ndata) */
    dpt_passes passes;  /**< those of an earlier run, and for a later one */
    uint64_t bound;     /**< key of the edited model that is bound, or waits to be */
    uint64_t loaded;    /**< of the one that is */
    dpt_status (*late)(void *ctx); /**< binds it with the next pass that runs, or NULL */
    void *late_ctx;
    dpt_line line;  /**< of the edit whose path is to be walked */
    dpt_source pre; /**< W_pre */
    bool pre_waits; /**< W_pre stands for the edit and is bound with the next pass that runs */
    const char *pre_path;                 /**< its place, for errors; borrowed */
    const dpt_model_direction *direction; /**< of the passes to come, or NULL; borrowed */
    uint64_t direction_key;
    bool directed;         /**< the model has it */
    dpt_progress progress; /**< in samples */
    int64_t pass_samples;  /**< of the pass under way */
    int64_t pass_counted;  /**< those of them that the progress has already */
} dpt_evaluation;

/** Correlation of a random mask and gradient(t) * Delta at the nodes t of a rule. */
typedef struct dpt_path_correlation {
    double *all; /**< (points) over the entries of all tensors with a mask; NULL: not measured */
    double *law; /**< (points) what the law of random edits says of it; NaN where it says nothing */
    double *tensors; /**< (points, tensors) of each */
    double n;        /**< entries; their masks make the standard error 1 / sqrt(n - 1) */
} dpt_path_correlation;

/** Blocks of the Hessian along an edit: what each tensor has with each group of tensors. */
typedef struct dpt_blocks {
    dpt_groups groups;
    double *values; /**< (tensors, groups) 1/2 E_l^T (H E_m)_l */
} dpt_blocks;

/** What the groups of tensors of an edit do to the loss on one data set; of a group that the edit does not touch NaN. */
typedef struct dpt_leave_out {
    dpt_groups groups;
    bool *touched;   /**< (groups) the edit changes one of its tensors */
    double *without; /**< (groups, samples) loss of the edit with the group left at W_post */
    double *alone;   /**< (groups) change of the mean loss by the group's part of the edit alone */
} dpt_leave_out;

/** Path of one edit on one data set. */
typedef struct dpt_evaluation_path {
    dpt_riemann riemann;
    double accuracy_edit;
    dpt_prediction prediction; /**< made before it was walked */
    double choose_change; /**< of the mean loss on the samples that only choose; NaN without such */
    double choose_accuracy;
    dpt_path_correlation correlation; /**< empty when it is not measured */
    uint8_t *correct_edit;            /**< (samples) 1 where the edited model is right */
    dpt_central hessian;              /**< E^T H E at W_post; empty when it is not asked for */
    dpt_blocks blocks;                /**< and its blocks; empty when they are not */
    dpt_precision_error precision;    /**< NaN in fp32 */
    dpt_leave_out leave_out;          /**< empty when the job leaves no groups out of the edit */
} dpt_evaluation_path;

/** Build the mesh and the model and evaluate both ends of post-training, and the law. Not to be moved afterwards. W_pre
 * stands for the edit then, until another is bound.
 * Collective over comm. @param[in] edits that are to come, for the progress.
 * @param[in] resumes take what an earlier run has evaluated. */
dpt_status dpt_evaluation_create(const dpt_comm *comm, dpt_inputs *inputs,
                                 const dpt_resources *resources, int edits, bool resumes,
                                 dpt_evaluation *out);
void dpt_evaluation_destroy(dpt_evaluation *evaluation); /**< Collective over the mesh. */

/** Load an edited model. Collective. @param[in] key of all that its bytes depend on. */
dpt_status dpt_evaluation_bind(dpt_evaluation *evaluation, const dpt_source *edited, uint64_t key);

/** Have `bind` load the edited model of a key with the next pass that runs, if one does; by dpt_evaluation_bind. Logically
 * collective; nothing where it is bound already. Always DPT_OK: what binding answers comes with that pass. */
dpt_status dpt_evaluation_bind_late(dpt_evaluation *evaluation, uint64_t key,
                                    dpt_status (*bind)(void *ctx), void *ctx);

/** Bind what waits to be. Collective, agreed. */
dpt_status dpt_evaluation_prepare(dpt_evaluation *evaluation);

/** A pass of the model that is bound, or of the post-trained one, on the data set of a baseline; what it gives is in
 * `pass`, whose key, loss and model are set here. Collective, agreed. Errors: those of dpt_passes_run. */
dpt_status dpt_evaluation_pass(dpt_evaluation *evaluation, const dpt_baseline *base, dpt_pass pass);

/** Share of the samples that a model has right, weighted as the loss is. Local. @param[in] correct (samples). */
double dpt_evaluation_share(const uint8_t *correct, const dpt_baseline *base);

/** Load E itself, fp32, in the place of an edit. Collective. @param[in] key of all that its values depend on. */
dpt_status dpt_evaluation_bind_direction(dpt_evaluation *evaluation, const dpt_source *direction,
                                         uint64_t key);

/** Gradient of the mean loss on data set d at t along what is bound, summed over the replicas. Collective.
 * @param[in,out] gradient zeros before. @param[out] loss mean loss there. */
dpt_status dpt_evaluation_gradient(dpt_evaluation *evaluation, int d, double t,
                                   dpt_model_gradient *gradient, double *loss);

/** Take the bound edit as a direction in the passes that follow; NULL: as it is. Logically collective.
 * @param[in] direction with moves, borrowed until the next call. */
void dpt_evaluation_direct(dpt_evaluation *evaluation, const dpt_model_direction *direction);

/** sum_i (g_i E_i)^2 of each tensor, g the gradient on data set d at W_post. Collective.
 * @param[out] squares (tensors) the same on all ranks. */
dpt_status dpt_evaluation_squares(dpt_evaluation *evaluation, int d, double *squares);

/** Losses and derivatives on data set d at t, which may lie outside [0, 1], along the bound edit.
 * Collective. @param[out] loss, sample_terms (samples), terms (tensors): as dpt_loss_evaluate. */
dpt_status dpt_evaluation_slope(dpt_evaluation *evaluation, int d, double t, double *loss,
                                double *terms, double *sample_terms);

/** Slopes of every sample and tensor on data set d at t along what is bound. Collective.
 * @param[out] slopes (samples, tensors) as of dpt_loss_evaluate_tensors. */
dpt_status dpt_evaluation_tensor_slopes(dpt_evaluation *evaluation, int d, double t,
                                        double *slopes);

/** Losses alone on data set d at t along the bound edit. Collective. @param[out] losses (samples). */
dpt_status dpt_evaluation_losses(dpt_evaluation *evaluation, int d, double t, double *losses);

/** Logits on data set d at t along what is bound, of a loss of classes. Collective.
 * @param[out] logits (samples, classes) the same on all ranks. */
dpt_status dpt_evaluation_logits(dpt_evaluation *evaluation, int d, double t, double *logits);

/** What `reduce` makes of the gradient on data set d at t along the bound edit; that of t = 0 is the one that is kept,
 * if it is, all others are scratch. Collective. @param[out] kept (nkept); see dpt_pass. */
dpt_status dpt_evaluation_reduce(dpt_evaluation *evaluation, int d, double t,
                                 dpt_status (*reduce)(void *ctx, dpt_model_gradient *gradient,
                                                      double *kept),
                                 void *ctx, double *kept, int64_t nkept);

/** Mean loss on data set d, and the share that it gets right, of a model that `bind` binds under `key` when no
 * earlier run has evaluated it. Collective, agreed. */
dpt_status dpt_evaluation_place(dpt_evaluation *evaluation, int d, uint64_t key,
                                dpt_status (*bind)(void *ctx), void *ctx, double *loss,
                                double *accuracy);

/** Riemann sum of the bound edit on data set d, after its prediction; where `line` has a lead, of the edit that is its
 * multiple, along it. Collective. @param[in,out] task of the edit. */
dpt_status dpt_evaluation_walk(dpt_evaluation *evaluation, int d, const dpt_quadrature *quadrature,
                               dpt_prediction_task *task, dpt_evaluation_path *out);
void dpt_evaluation_path_destroy(dpt_evaluation_path *path); /**< Local. */

#endif
