#ifndef DELTAPATH_SRC_MODEL_SHARES_H
#define DELTAPATH_SRC_MODEL_SHARES_H

#include "params.h"

#include "deltapath/comm/shared.h"

/* Where the values of a model's blocks lie. The ranks that have the same blocks, one in each replica, share them: each
 * loads a run of the rows of every block, and the ranks of one machine hold theirs in memory that all of them see. On
 * one machine that is all of them, and nothing is ever moved. Of several machines each holds its part, and what one step
 * of a pass needs, a layer or what comes before or after all layers, is gathered into one of two rooms of the machine
 * while the step before computes. Fully sharded data parallelism: Zhao et al. 2023, arXiv:2304.11277. */

enum {
    DPT_SHARE_ALIGN = 64,                     /* bytes: a cache line */
    DPT_SHARE_KINDS = 2,                      /* sections of a unit */
    DPT_SHARE_SECTIONS = 2 * DPT_SHARE_KINDS, /* that a unit reads at most */
    DPT_SHARE_GRADIENT =
        DPT_VALUES, /* a layout as of values: a gradient of the blocks that count, fp32 */
    DPT_SHARE_LAYOUTS
};

/** Matrices that the ranks of a tensor-parallel group have columns of, or all others, of one unit: the rows of the
 * former are cut alike by all ranks of the group. */
typedef struct dpt_share_section {
    int first, count;                 /**< of its blocks, in dpt_shares.order */
    int64_t weight;                   /**< of all its blocks, for the cuts */
    int64_t bytes[DPT_SHARE_LAYOUTS]; /**< of all its blocks */
    int64_t
        *cuts[DPT_SHARE_LAYOUTS]; /**< (machines + 1) bytes where the part of each machine begins */
    int64_t at[DPT_SHARE_LAYOUTS]; /**< where the part of this machine lies in what it holds */
} dpt_share_section;

typedef struct dpt_shares {
    dpt_comm replicas; /**< borrowed handle: ranks with the same blocks */
    dpt_comm machine;  /**< those of them on this machine */
    dpt_comm line; /**< one of each machine, which send each other parts; size 0: not this rank */
    int lines;     /**< of a machine: as many as the smallest has ranks */
    int machines, here; /**< number of this one */
    int place;          /**< of this rank among all, machine by machine */
    uint64_t layout;    /**< hash of the machines that the replicas are on */
    int *places;        /**< (machines + 1) first place of each machine */

    int units;
    bool last_needs_first; /**< the last unit also reads the blocks of the first: a tied head */
    int *order;            /**< (count) blocks by section, 2 a unit */
    int64_t *before;       /**< (count) weight of the blocks before it in its section */
    int64_t *offset[DPT_SHARE_LAYOUTS]; /**< (count) bytes before it in its section */
    int64_t *cuts[DPT_SHARE_LAYOUTS];   /**< of all sections */
    int64_t gradient_bytes;             /**< that this machine holds of a gradient */
    dpt_share_section *sections;

    dpt_shared held[DPT_VALUES];
    dpt_shared room[2];
    int in_room[2]; /**< unit that lies or arrives there; -1: none */
    bool room_has_edit[2];
    int requests, capacity; /**< messages under way, of one room */
    MPI_Request *request;   /**< (capacity) */
} dpt_shares;

/** Which rows of which block each rank loads. Collective over replicas (same: units).
 * @param[in] replicas ranks with the same blocks; size 1: alone
 * @param[in] unit     (params) step of a pass that reads the block
 * Errors: DPT_ERR_OUTPUT without memory; agreed. */
dpt_status dpt_shares_create(const dpt_comm *replicas, dpt_params *params, const int *unit,
                             int units, bool last_needs_first);
void dpt_shares_destroy(
    dpt_params *params); /**< Collective over the replicas; there may be none. */

/** Memory for the post-trained or the edited values in the blocks' types, and where this rank's own rows go. What was
 * there is lost. Collective over the replicas. Errors, agreed: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_shares_reserve(dpt_params *params, dpt_values values);

/** All have loaded: agree which blocks differ, and let all see the values. Collective over the replicas. */
dpt_status dpt_shares_finish(dpt_params *params, dpt_values values);

/** As create, without communicators: the first rank of so many. Local. */
dpt_status dpt_shares_plan(dpt_params *params, const int *unit, int units, bool last_needs_first,
                           int replicas, int machines);

/** Bytes of this rank for what lies on it and what is gathered, with edited values, in their types, on request. Local. */
int64_t dpt_shares_bytes(const dpt_params *params, bool edited);

/** Of these, what lies here of edited values. Local. */
int64_t dpt_shares_edit_bytes(const dpt_params *params);

/** Free the edited values that lie here, once nothing is bound; what gathers them stays. Local, on all replicas. */
void dpt_shares_release_edit(dpt_params *params);

/** Have the blocks of a unit here, and begin to gather the next; -1: none. On one machine they always are.
 * Collective over the replicas where these are on several machines (same: unit, next, edit).
 * @param[in] edit whether the edited values are needed, too. */
void dpt_shares_take(dpt_params *params, int unit, int next, bool edit);

/** Let what is under way go on. Local. */
void dpt_shares_progress(const dpt_params *params);

/** Whether passes of all replicas go through the units together. Local, the same on all ranks of `replicas`. */
static inline bool dpt_shares_gather(const dpt_params *params) {
    return params->shares != NULL && params->shares->machines > 1;
}

/* shares.c and shares_gather.c: */

/** Sections that a unit reads: its own, and those of the first where the last needs these. @return their number. */
int dpt_shares_sections(const dpt_shares *shares, int unit, int out[DPT_SHARE_SECTIONS]);

/** Bytes of a unit in a room, all of its sections in a layout. Local. */
int64_t dpt_shares_unit_bytes(const dpt_shares *shares, int unit, int layout);

/** Elements of a block in a layout. */
static inline int64_t dpt_share_numel(const dpt_param *param, int layout) {
    return layout == DPT_SHARE_GRADIENT && !param->counted ? 0 : dpt_param_numel(param);
}

/** Room for the requests of a gather. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_shares_reserve_messages(dpt_shares *shares);

static inline int64_t dpt_share_up(int64_t bytes) {
    return (bytes + DPT_SHARE_ALIGN - 1) / DPT_SHARE_ALIGN * DPT_SHARE_ALIGN;
}

/** Block number `at` of the sections. */
static inline dpt_param *dpt_share_param(const dpt_params *params, int at) {
    return &params->items[params->shares->order[at]];
}

/** Blocks [*begin, *end) of a unit, of both its sections. */
static inline void dpt_shares_blocks(const dpt_shares *shares, int unit, int *begin, int *end) {
    const dpt_share_section *section = &shares->sections[unit * DPT_SHARE_KINDS];
    *begin = section[0].first;
    *end = section[1].first + section[1].count;
}

/** Say where the values of a block lie; NULL: not here. */
static inline void dpt_share_point(dpt_param *param, dpt_values values, const char *at) {
    if (values == DPT_VALUES_POST)
        param->post = at;
    else
        param->edit = at;
}

#endif
