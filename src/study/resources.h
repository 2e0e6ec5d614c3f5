#ifndef DELTAPATH_SRC_STUDY_RESOURCES_H
#define DELTAPATH_SRC_STUDY_RESOURCES_H

#include "deltapath/edit/edit.h"
#include "deltapath/model/cost.h"
#include "deltapath/model/model.h"
#include "deltapath/study/machine.h"
#include "inputs.h"
#include "lines.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/** Kinds of passes, which differ in their products. */
typedef enum dpt_pass_kind {
    DPT_PASS_BASE,   /**< losses of the pre- or post-trained model */
    DPT_PASS_LOSSES, /**< of others */
    DPT_PASS_SLOPES,
    DPT_PASS_START, /**< slopes, or a gradient, at t = 0 */
    DPT_PASS_FP32,  /**< slopes in fp32 of a study in bf16 */
    DPT_PASS_KINDS
} dpt_pass_kind;

/** Products of one token and one weight that a pass takes. */
typedef struct dpt_pass_products {
    double forward;
    double again;  /**< on the way back, of layers */
    double input;  /**< for the gradient of the input */
    double terms;  /**< or the gradient of the weights */
    double formed; /**< share of the weights of which W(t) and E are formed */
} dpt_pass_products;

/** Where the time of a study goes: X(constant, name). */
#define DPT_PLAN_PHASE_LIST(X)                                                                     \
    X(START, start)                                                                                \
    X(LOAD, load)                                                                                  \
    X(EDIT, edit)                                                                                  \
    X(BIND, bind)                                                                                  \
    X(FORWARD, forward)                                                                            \
    X(BACKWARD, backward)                                                                          \
    X(TERMS, terms)                                                                                \
    X(REDUCTIONS, reductions) X(GATHER, gather) X(STATISTICS, statistics) X(WRITE, write)
#define DPT_PLAN_PHASE_CONSTANT(CONSTANT, NAME) DPT_PLAN_##CONSTANT,
#define DPT_PLAN_PHASE_NAME(CONSTANT, NAME)     #NAME,
enum { DPT_PLAN_PHASE_LIST(DPT_PLAN_PHASE_CONSTANT) DPT_PLAN_PHASES };

/** How a study uses its ranks, and what that needs. Bytes are per rank: the maximum over ranks. */
typedef struct dpt_resources {
    int ranks;
    int machines;        /**< that they are on */
    int tensor_parallel; /**< ranks that share a replica */
    int64_t budget;      /**< memory that a rank may use */
    int64_t weights;     /**< resident blocks of post and edit */
    int64_t unbound;     /**< of them, what stays when no edit is bound */
    int64_t work;        /**< activations and layer buffers */
    int64_t held;        /**< layers whose activations are kept for the way back, */
    int64_t held_bytes;  /**< and what of `work` these take */
    int64_t gradients;   /**< those that are kept, of all data sets */
    int64_t gradient;    /**< of one data set at t = 0, as dpt_model_gradient_bytes says */
    int64_t adding;      /**< what a pass that adds to a gradient needs besides */
    int64_t losses;  /**< arrays of samples and terms: of all data sets, of a pass and of an edit */
    int64_t peak;    /**< most of all of this at a time */
    int64_t draw;    /**< scratch: of drawn labels, squares, a node, or one side of a difference */
    int64_t signs;   /**< random signs of a direction */
    int64_t vectors; /**< of Lanczos's method, and a direction that is bound */
    int64_t slopes;  /**< of samples and tensors along an edit, and the edit as a direction */
    int64_t cells;   /**< one of them in cells, as edits take it */
    int64_t field;   /**< the edited model in cells */
    int64_t edit;    /**< the largest edit's own needs, or those of edits that are made together */
    dpt_store_hold_needs models; /**< of both models, what is read together */
    int together;     /**< edits of the largest group that is made together (study/sweep) */
    int64_t svd_room; /**< that is left to a decomposition, as dpt_edit_input has it */
    int64_t svd_kept; /**< bytes that decompositions which edits share may take */
    dpt_edit_decomposed
        decomposed;       /**< by low rank, `made` at most; its bytes are part of `peak` */
    double flops_svd;     /**< of these, operations in double precision */
    double bytes_shared;  /**< that edits do not read, for they share them */
    int64_t images;       /**< images of one pass as they are read */
    int64_t plane;        /**< what the plane of two edits takes besides an edit */
    int64_t logits;       /**< along random signs, of all data sets that judge */
    int64_t plane_cells;  /**< of it, as dpt_plane_bytes says */
    int64_t plane_blocks; /**< of it, of a replica */
    int64_t
        reference;   /**< the largest reference model, which is gone before the study's is there */
    int64_t longest; /**< longest sequence [tokens]; an image is one */
    int64_t largest; /**< most tokens of one sample: a pair of dpo has two sequences */
    int64_t image_tokens;     /**< of one image; 0 without images */
    int64_t batch_tokens;     /**< most tokens packed into one pass */
    int64_t packed_tokens;    /**< of them, those that the largest batch of the data has */
    int64_t packed_sequences; /**< most sequences, or images, of a batch */
    int64_t tokens;           /**< of all data sets that judge */
    int64_t choosing_tokens;  /**< of the parts that only choose */
    int64_t reference_tokens; /**< of those whose loss has a reference model */
    int64_t pixels;           /**< of the largest image; 0 without images */
    bool shared_gradient;     /**< the gradients at t = 0 fit and are kept for all edits */
    int64_t gradient_lack;    /**< memory that this lacks; 0 where it does not, or is not wanted */
    bool
        cell_gradient; /**< so is one in cells, for edits that need it or the correlation of masks */
    dpt_model_cost cost;           /**< of a pass over all data that judge */
    double scored;                 /**< tokens, or images, of these that the head is taken of */
    double passes[DPT_PASS_KINDS]; /**< over all data that judge, to be expected */
    double cold
        [DPT_PASS_KINDS]; /**< passes over whole data sets, to be expected, before which no units lie there */
    double warm
        [DPT_PASS_KINDS]; /**< those that begin where one along the same weights turned back to */
    double batches[DPT_PASS_KINDS]; /**< of a replica, in these */
    double few[DPT_PASS_KINDS];     /**< passes over a few samples, which are one batch */
    double few_tokens;              /**< of such a batch */
    double all_batches;             /**< of one pass over all data that judge */
    double adding_batches;          /**< that add to a gradient, in all passes */
    bool bf16;                      /**< products are in bf16 */
    double bf16_post,
        bf16_both; /**< shares of the weights whose values are bf16: W_post's; and W_edit's too */
    int64_t extra_edits;     /**< that are made to find values */
    int64_t extra_binds;     /**< of what is none of the edits themselves */
    double flops;            /**< of the whole study, all ranks: at most, where the rule is auto */
    double saved_flops;      /**< of these, what rule auto leaves out on average, and lines share */
    double most_passes;      /**< over data sets, as a run counts them: at most */
    double loss_evaluations; /**< of these forward alone, to be expected */
    double slope_evaluations; /**< the same with slopes */
    int64_t shared_passes;    /**< that edits on one line have in common, at most */
    double bytes_read;        /**< of the whole study, all ranks */
    double bytes_written;
    double bytes_edits;    /**< of bytes_read, those of edits */
    double bytes_digest;   /**< of these, of post for nothing but its digest */
    double bytes_made;     /**< of both models, that edits go over in memory: each by itself */
    bool lines_hold;       /**< edits on a line take their passes along the weights of one */
    double bytes_lines;    /**< of bytes_edits, those of lines */
    bool verifies;         /**< as dpt_plan_case says */
    double bytes_verified; /**< of bytes_read, those of a check before the work */
    double bytes_loaded;   /**< of bytes_read, those of models for the mesh */
    double bytes_gathered; /**< of weights that come into a machine from the others */
    dpt_machine machine;   /**< that the time is planned for */
    int threads;           /**< of a rank */
    int ranks_per_node;
    double uneven;                 /**< tokens of the replica with the most, over the mean */
    double phase[DPT_PLAN_PHASES]; /**< seconds; their sum is `seconds` */
    double seconds;                /**< of the whole study, to be expected */
    double all_seconds;            /**< of all passes, without waiting for weights */
    double pass_seconds;           /**< of one pass with slopes over all data that judge */
    double restart;                /**< what a run that goes on after a stop does again, at most */
    int64_t edit_passes;           /**< those of one edit on a data set that judges, at most */
    int64_t law;                   /**< those of the law, of one data set */
} dpt_resources;

/** What a plan is made for. */
typedef struct dpt_plan_case {
    int ranks;          /**< of the study, which need not be those that run now */
    int64_t budget;     /**< memory of a rank; 0: its share of `granted` */
    int64_t granted;    /**< memory that the ranks of a node share evenly */
    int ranks_per_node; /**< 0: one for as many cores as a rank has threads */
    int threads;        /**< of a rank */
    int machines;       /**< that the ranks are on; 0: as the ranks of a node say */
    dpt_machine machine;
    bool verifies; /**< the models are checked before the work */
    bool glanced;  /**< its rates were measured in passing: they say times, but choose nothing */
} dpt_plan_case;

/** Choose the mesh, by time, and the batch, and add up. Needs no model in memory. Local; the same on all ranks.
 * Errors: DPT_ERR_OUTPUT when no mesh fits the budget, with the least that would;
 *         DPT_ERR_USAGE when tensor_parallel of the job does not divide the ranks. */
dpt_status dpt_resources_plan(const dpt_inputs *inputs, const dpt_plan_case *of,
                              dpt_resources *out);

/** What a model is spread over in the mesh that is chosen. Local. */
dpt_model_ranks dpt_resources_ranks(const dpt_inputs *inputs, const dpt_resources *resources);

/** Most bytes that a rank holds at a time, with the gradients at t = 0 kept or not, and one in cells. Local. */
int64_t dpt_resources_peak(const dpt_inputs *inputs, const dpt_resources *resources, bool gradients,
                           bool cells);

/** Keep the activations of as many layers as what is left of the memory holds, but for a tenth of the budget. Local.
 * @param[in,out] resources whose mesh, batch and gradients are chosen. Errors: as dpt_model_bytes. */
dpt_status dpt_resources_hold_layers(const dpt_inputs *inputs, dpt_resources *resources);

/** Count passes and arithmetic, once mesh and batch are chosen. Local. */
void dpt_resources_count(const dpt_inputs *inputs, dpt_resources *resources);

/** Whether a pass goes back too. Local. */
static inline bool dpt_pass_has_slopes(dpt_pass_kind kind) {
    return kind != DPT_PASS_BASE && kind != DPT_PASS_LOSSES;
}

/** Batches of the replica with the most in a pass over data set d. Local. */
double dpt_resources_batches(const dpt_inputs *inputs, const dpt_resources *resources, int d);

/** Passes with slopes, or without. Local. */
double dpt_resources_passes(const dpt_resources *resources, bool slopes);

/** Take away the passes that edits on one line share where they are written in fp32; of coarser types lines hold
 * nothing as a rule. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_resources_share_lines(const dpt_inputs *inputs, dpt_resources *resources);

/** Share of the layers that are computed again on the way back. Local. */
double dpt_resources_again(const dpt_resources *resources);

/** Elements of their matrices that a token is multiplied by once more on the way back, of all layers. Local. */
double dpt_resources_again_products(const dpt_resources *resources);

/** What product.c and product_bf16.c of `model` take. Local. */
dpt_pass_products dpt_resources_products(const dpt_resources *resources, dpt_pass_kind kind);

/** Bytes that are read and written, once these are counted. Local. */
void dpt_resources_move(const dpt_inputs *inputs, dpt_resources *resources);

/** Bytes that edits on lines read besides, once it is known whether these hold. Local. */
void dpt_resources_move_lines(const dpt_inputs *inputs, dpt_resources *resources,
                              const dpt_lines *lines);

/** Bytes that the decompositions of an edit read. Local. */
double dpt_resources_decomposed_bytes(const dpt_inputs *inputs, const dpt_edit_spec *spec);

/** Edits whose masks are correlated along their paths. Local. */
int dpt_resources_count_correlated(const dpt_inputs *inputs);

/** Whether edits are made in memory, in cells, and so one at a time; else straight from file to file. Local. */
bool dpt_resources_in_cells(const dpt_inputs *inputs);

/** What the plan of an edit takes: catalogs, shapes and selection, without data. Borrows of `inputs`. Local.
 * @param[in] shard  or NULL where nothing is dealt out. @param[in] svd_room  as dpt_edit_input has it. */
dpt_edit_input dpt_resources_edit_input(const dpt_inputs *inputs, const dpt_shard *shard,
                                        int64_t svd_room);

/** What the edits of a study need, and how many are made together: as many as fit the budget. Local.
 * @param[in,out] resources  whose budget is known. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_resources_measure_edits(const dpt_inputs *inputs, const dpt_shard *shard,
                                       dpt_resources *resources);

/** Memory that making an edit in cells takes. Local. */
int64_t dpt_resources_edit_bytes(const dpt_resources *resources);

/** Whether the gradients at t = 0 are kept, be it for terms or for edits. Local. */
bool dpt_resources_keeps_gradient(const dpt_resources *resources);

/** Whether that of data set d is: of a part that only chooses where an edit takes it. Local. */
bool dpt_resources_keeps_gradient_of(const dpt_inputs *inputs, const dpt_resources *resources,
                                     int d);

/** Print as a table on stdout. Local. */
void dpt_resources_print(const dpt_inputs *inputs, const dpt_resources *resources);

/** The same as JSON, to be released; NULL without memory. Local. */
json_t *dpt_resources_json(const dpt_inputs *inputs, const dpt_resources *resources);

/** Print such JSON on stdout, and release it. Local. Errors: DPT_ERR_OUTPUT without memory, also of what is NULL. */
dpt_status dpt_resources_print_json(json_t *all);

#endif
