#ifndef DELTAPATH_SRC_STUDY_RESOURCES_H
#define DELTAPATH_SRC_STUDY_RESOURCES_H

#include "inputs.h"

#include <stdbool.h>
#include <stdint.h>

/** How a study uses its ranks, and what that needs. Bytes are per rank: the maximum over ranks. */
typedef struct dpt_resources {
    int ranks;
    int machines;        /**< that they are on */
    int tensor_parallel; /**< ranks that share a replica */
    int64_t budget;      /**< memory that a rank may use */
    int64_t weights;     /**< resident blocks of post and edit */
    int64_t work;        /**< activations and layer buffers */
    int64_t gradient;    /**< of one data set at t = 0, as dpt_model_gradient_bytes says */
    int64_t draw;    /**< scratch: of drawn labels, squares, a node, or one side of a difference */
    int64_t signs;   /**< random signs of a direction */
    int64_t vectors; /**< of Lanczos's method, and a direction that is bound */
    int64_t slopes;  /**< of samples and tensors along an edit, and the edit as a direction */
    int64_t cells;   /**< one of them in cells, as edits take it */
    int64_t field;   /**< the edited model in cells */
    int64_t edit;    /**< the largest edit's own needs */
    int64_t images;  /**< images of one pass as they are read */
    int64_t plane;   /**< what the plane of two edits takes besides an edit */
    int64_t logits;  /**< along random signs, of all data sets that judge */
    int64_t plane_cells;  /**< of it, as dpt_plane_bytes says */
    int64_t plane_blocks; /**< of it, of a replica */
    int64_t
        reference;   /**< the largest reference model, which is gone before the study's is there */
    int64_t longest; /**< longest sequence [tokens]; an image is one */
    int64_t largest; /**< most tokens of one sample: a pair of dpo has two sequences */
    int64_t batch_tokens;     /**< most tokens packed into one pass */
    int64_t tokens;           /**< of all data sets that judge */
    int64_t choosing_tokens;  /**< of the parts that only choose */
    int64_t reference_tokens; /**< of those whose loss has a reference model */
    int64_t pixels;           /**< of the largest image; 0 without images */
    bool shared_gradient;     /**< the gradients at t = 0 fit and are kept for all edits */
    int64_t gradient_lack;    /**< memory that this lacks; 0 where it does not, or is not wanted */
    bool
        cell_gradient; /**< so is one in cells, for edits that need it or the correlation of masks */
    double flops;      /**< of the whole study, all ranks: at most, where the rule is auto */
    double saved_flops;       /**< of these, what rule auto leaves out on average */
    double saved_evaluations; /**< passes that it leaves out on average */
    int64_t
        shared_passes; /**< of evaluations, those that edits on one line have in common, at most */
    double bytes_read; /**< of the whole study, all ranks */
    double bytes_written;
    int64_t evaluations; /**< passes over a data set, but for those of second derivatives */
    int64_t edit_passes; /**< those of one edit on a data set that judges */
    int64_t law;         /**< those of the law, of one data set */
    int64_t hessian;     /**< those of second derivatives, at least */
} dpt_resources;

/** Choose the mesh and the batch, and add up. Needs no model in memory.
 * Local; the same on all ranks. @param[in] ranks, machines of the study, which need not be those that run now.
 * Errors: DPT_ERR_OUTPUT when no mesh fits the budget, with the least that would;
 *         DPT_ERR_USAGE when tensor_parallel of the job does not divide the ranks. */
dpt_status dpt_resources_plan(const dpt_inputs *inputs, int ranks, int machines, int64_t budget,
                              dpt_resources *out);

/** Whether the gradients at t = 0 are kept, be it for terms or for edits. Local. */
bool dpt_resources_keeps_gradient(const dpt_resources *resources);

/** Whether that of data set d is: of a part that only chooses where an edit takes it. Local. */
bool dpt_resources_keeps_gradient_of(const dpt_inputs *inputs, const dpt_resources *resources,
                                     int d);

/** Print as a table on stdout. Local. */
void dpt_resources_print(const dpt_inputs *inputs, const dpt_resources *resources);

#endif
