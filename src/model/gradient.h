#ifndef DELTAPATH_SRC_MODEL_GRADIENT_H
#define DELTAPATH_SRC_MODEL_GRADIENT_H

#include "shares.h"

#include "deltapath/model/model.h"

/* A gradient lies where the values of its blocks do: each rank has the rows that it loads, and those of one machine are in
 * memory that all of its ranks see. There the ranks of a machine add to whole blocks one after the other, some rows at a
 * time, so that one adds to the first rows of a matrix while the one before it adds to the next, and each sum is taken in
 * one order. On one machine that is all. Of several each adds a unit up in a room of its own, and when all of it is there
 * each machine gets its part of it from the others.
 *
 * All ranks go through the same batches of the same steps; one without tokens has nothing to add and lets others pass. */

enum { DPT_GRADIENT_MESSAGE = 1 << 22 }; /**< bytes that machines send each other at a time */

struct dpt_model_gradient {
    const dpt_params *params; /**< borrowed */
    int count;
    float **own;    /**< (count) this rank's rows of each block; NULL: none that count */
    int64_t *numel; /**< (count) and their elements */
    float **to;     /**< (count) blocks, whole, to which a pass adds; NULL: not in this unit */
    dpt_shared held;
    dpt_shared room;  /**< a unit of all machines, where there are several, during a pass */
    char *message;    /**< (DPT_GRADIENT_MESSAGE) along with it */
    dpt_shared turns; /**< (ranks of the machine, slots) how far each rank is, during a pass */
    int64_t step;     /**< batches since the pass began */
};

/** Bytes of one gradient on this rank, and of what a pass needs besides. Local. */
int64_t dpt_gradient_bytes(const dpt_params *params);
int64_t dpt_gradient_pass_bytes(const dpt_params *params);

/** Begin or end a pass in which all replicas add to a gradient. Collective over the replicas.
 * Errors of begin, agreed over them: DPT_ERR_OUTPUT without memory; end is still due. */
dpt_status dpt_gradient_begin(dpt_model_gradient *gradient);
void dpt_gradient_end(dpt_model_gradient *gradient);

/** From here on blocks of a unit are added to, and here that ends; every rank of the replicas calls both for each unit, and
 * next after the last. Collective over the replicas where they are on several machines, else Local. */
void dpt_gradient_enter(dpt_model_gradient *gradient, int unit);
void dpt_gradient_leave(dpt_model_gradient *gradient, int unit);
void dpt_gradient_next(dpt_model_gradient *gradient);

/** Who adds to the table of a tied head. */
typedef enum dpt_gradient_table {
    DPT_GRADIENT_PLAIN, /**< it is another block */
    DPT_GRADIENT_HEAD,
    DPT_GRADIENT_EMBEDDING
} dpt_gradient_table;

/** What a rank adds to a block at a time: a visit. */
typedef struct dpt_gradient_visit {
    dpt_model_gradient *gradient;
    int slot;
    int64_t number; /**< of those in this step */
    int64_t rows;   /**< added to in one go: chunk i are rows [i rows, (i + 1) rows) */
    bool after_head;
} dpt_gradient_visit;

/** Begin to add to a block. Local. */
dpt_gradient_visit dpt_gradient_visit_block(dpt_model_gradient *gradient, int index,
                                            dpt_gradient_table table);
/** Wait until it is this rank's turn to add to a chunk, or to all of a block of one chunk. Local but for the wait. */
void dpt_gradient_wait(const dpt_gradient_visit *visit, int64_t chunk);
/** It has added to the chunk; and to all of them. Local. */
void dpt_gradient_pass(const dpt_gradient_visit *visit, int64_t chunk);
void dpt_gradient_visited(const dpt_gradient_visit *visit);
/** This rank adds nothing more to a block in this step. Local. */
void dpt_gradient_finish(dpt_model_gradient *gradient, int index);

/** The rows of a block that are this rank's as a block, with their values. Local. */
dpt_param dpt_gradient_part(const dpt_param *param);

/** Elements that all ranks have of each tensor together; more than it has where several hold partial sums. Collective over
 * group and replicas. @param[in,out] held (tensors) zeros before. */
dpt_status dpt_gradient_count_held(const dpt_model *model, const dpt_model_gradient *gradient,
                                   int64_t *held);

/* gradient_turns.c: of the marks of one rank. */
int64_t dpt_gradient_turn_bytes(const dpt_params *params);

/* gradient_exchange.c: the sum of the rooms of all machines into what this one holds; the room is zero again. Collective
 * over the replicas. */
void dpt_gradient_exchange(dpt_model_gradient *gradient, int unit);

/** Where a block of a section begins in what the machine holds of a gradient, as far as it does. */
static inline char *dpt_gradient_held(const dpt_model_gradient *gradient,
                                      const dpt_share_section *section) {
    return (char *)gradient->held.base + section->at[DPT_SHARE_GRADIENT] -
           section->cuts[DPT_SHARE_GRADIENT][gradient->params->shares->here];
}

#endif
