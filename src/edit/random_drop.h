#ifndef DELTAPATH_SRC_EDIT_RANDOM_DROP_H
#define DELTAPATH_SRC_EDIT_RANDOM_DROP_H

#include "stage.h"

/* Random dropping, which dare and drop share: a delta is in the dropped set when the stage's mask stream says so
 * at probability p. The functions are members of a dpt_edit_method. */

/** State of such a stage. */
typedef struct dpt_random_drop {
    uint64_t *threshold; /* (tensors) of the mask */
    float dropped;       /* factor where the mask is set */
    float *kept;         /* (tensors) factor elsewhere */
    double *scale;       /* (tensors) the same before rounding */
} dpt_random_drop;

/** The dropped set of a piece. */
typedef struct dpt_random_drop_piece {
    uint64_t bits[DPT_EDIT_PIECE / 64];
} dpt_random_drop_piece;

/** Check that a drop probability below 1 keeps deltas at all: masks of 32 bits take what is within 2^-33 of 1 for 1.
 * Local. Errors: DPT_ERR_USAGE naming method, parameter p and remedy. */
dpt_status dpt_random_drop_check(const char *method, double p);

/** Allocate the state of a stage whose drop probability is parameter number `p`, factors zero. Local. @return
 * NULL without memory. */
dpt_random_drop *dpt_random_drop_create(dpt_edit_stage *stage, int p);
void dpt_random_drop_destroy(dpt_edit_stage *stage);

/** Draw the dropped set of a piece. Local. */
void dpt_random_drop_draw(const dpt_edit_stage *stage, dpt_range range, uint64_t threshold,
                          dpt_random_drop_piece *mask);

void dpt_random_drop_apply(const dpt_edit_stage *stage, dpt_range range, float *delta);
bool dpt_random_drop_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule);
void dpt_random_drop_mask(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                          const float *delta, uint8_t *dropped);
double dpt_random_drop_scale(const dpt_edit_stage *stage, int tensor);

#endif
