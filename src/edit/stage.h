#ifndef DELTAPATH_SRC_EDIT_STAGE_H
#define DELTAPATH_SRC_EDIT_STAGE_H

/* The inside of the edit layer: what a method gives to the engine, and what the engine gives to the
 * methods. Private to src/edit. */

#include "deltapath/base/rng.h"
#include "deltapath/comm/agree.h"
#include "deltapath/edit/edit.h"
#include "deltapath/linalg/quantile.h"

enum {
    DPT_EDIT_PIECE = 4096,   /* elements worked on at a time, so that all of it stays in L1 */
    DPT_EDIT_SCRATCH = 3,    /* pieces of scratch for each thread: deltas, and two of conversion */
    DPT_EDIT_PURPOSES = 256, /* purpose word of a random stream: kind + stage * this */
    DPT_EDIT_CHUNK = 1 << 24 /* elements of one step of a collective exchange */
};

typedef struct dpt_edit_work dpt_edit_work;
typedef struct dpt_edit_stage dpt_edit_stage;

/** What a method does to each delta d by itself. */
typedef enum dpt_edit_rule {
    DPT_EDIT_RULE_SCALE, /**< d kept */
    DPT_EDIT_RULE_MASK,  /**< d dropped where the event of the mask happens, d kept elsewhere */
    DPT_EDIT_RULE_SPLIT, /**< d dropped where d < 0, d kept elsewhere */
    DPT_EDIT_RULE_SIGN,  /**< kept with the sign of d, 0 for 0 */
    DPT_EDIT_RULE_CUT    /**< d where its magnitude is above the cut, or equal and not after
                              last_equal; 0 elsewhere */
} dpt_edit_rule;

/** A method as such a rule for a tensor. */
typedef struct dpt_edit_fused {
    dpt_edit_rule rule;
    float kept, dropped;
    dpt_rng rng;        /**< stream of the mask */
    uint64_t threshold; /**< of the event, below 2^32 */
    uint32_t cut;       /**< fp32 bits */
    int64_t last_equal; /**< index in the tensor; -1: none */
} dpt_edit_fused;

/** Where the deltas of a cell come from and go to, piece by piece; as dpt_edit_rows_flow. */
typedef struct dpt_edit_flow {
    bool (*load)(void *ctx, dpt_range run, bool own, float *delta);
    bool (*store)(void *ctx, dpt_range piece, float *delta);
    void *ctx;
} dpt_edit_flow;

/** A tensor whose packed size is asked for. */
typedef struct dpt_edit_packed {
    const dpt_tensor_info *info; /**< in the type of the output */
    const dpt_part *parts;       /**< (count) its matrices */
    int count;
    double
        value; /**< in place of the parameter that tensor_values are of; NaN: that of the stage */
} dpt_edit_packed;

/** One method: its parameters, and what it does. */
typedef struct dpt_edit_method {
    const char *name;
    const char *help;
    bool random;
    bool by_row;   /**< holds numbers for every row of the model */
    bool whole;    /**< prepare makes the result itself and leaves it in the work's base cells */
    bool found;    /**< stands for another method, whose values a study finds before it runs */
    bool multiple; /**< the result is a multiple of what it gets: calibration would only undo it */
    int nparams;
    dpt_edit_param params[DPT_EDIT_PARAM_MAX];

    /** Check parameters against each other. Local; NULL: nothing to check. */
    dpt_status (*check)(const dpt_edit_stage_spec *spec);

    /** Whether the parameters make a random method depend on the seed. NULL: they do. Local. */
    bool (*draws)(const dpt_edit_stage_spec *spec);

    /** Write a stage as that of another method that gives the same bytes, where there is one. NULL: there is
     * none. Local. */
    void (*rewrite)(dpt_edit_stage_spec *spec);

    /** Write a stage as the one of which its E is a multiple, and say by which factor; before any rounding. NULL, or
     * false: by its parameters it is of none. Local. */
    bool (*unit)(dpt_edit_stage_spec *spec, double *factor);

    /** Whether the method works on a tensor; others keep their delta. NULL: every tensor. Local. */
    bool (*covers)(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info);

    /** Whether the parameters suit a tensor that the method covers. NULL: they suit any. Local.
     * Errors: DPT_ERR_USAGE naming method, parameter and tensor. */
    dpt_status (*fits)(const dpt_edit_stage_spec *spec, const dpt_edit_input *input, int tensor);

    /** What the stage must know of all tensors, for all of them at once. NULL: nothing.
     * Collective over the work's communicator; an agreed status. */
    dpt_status (*prepare)(dpt_edit_work *work, dpt_edit_stage *stage);

    /** Edit a run of deltas in place. Local, thread-safe. NULL for a whole method.
     * @param[in,out] delta (range.n) fp32; range.n <= DPT_EDIT_PIECE. */
    void (*apply)(const dpt_edit_stage *stage, dpt_range range, float *delta);

    /** What apply does to all of a cell as one rule, to be fused with the two ends of the edit. false, or NULL: it
     * is none. Local. */
    bool (*fused)(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule);

    /** Edit the deltas of a whole own cell in place, for methods that must see its rows; apply is then
     * NULL. Local, not thread-safe: shares its pieces out over threads itself.
     * @param[in,out] delta (cell.n) fp32. */
    void (*apply_cell)(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                       float *delta);

    /** The same to deltas that are not kept: each piece is loaded, edited and stored. NULL: apply_cell alone. Local, not
     * thread-safe: shares the pieces out itself. @return false when a call of the flow did. */
    bool (*pass_cell)(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                      const dpt_edit_flow *flow);

    /** Whether the parameters call for the gradient. NULL: never. Local. */
    bool (*gradient)(const dpt_edit_stage_spec *spec);

    /** Cuts by magnitude that `prepare` selects in each tensor, or in all of them where its scope is the model.
     * NULL: none. Local. */
    int (*cuts)(const dpt_edit_stage_spec *spec);

    /** How often `prepare` goes over the deltas that the stage covers. NULL: never, or over few of them. Local. */
    double (*reads)(const dpt_edit_stage_spec *spec);

    /** Which entries of an own cell are dropped. NULL: the method draws no mask. Local, not
     * thread-safe. @param[in] delta (cell.n) as the stages before left them. @param[out] dropped (cell.n)
     * 0 or 1. */
    void (*mask)(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                 const float *delta, uint8_t *dropped);

    /** Bytes of F(Delta) of a tensor that the method covers, as dpt_edit_size says. NULL: every entry is
     * kept. Local. */
    double (*bytes)(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of);

    /** The number that sums up what was done to a tensor. NULL: none. Local. */
    double (*scale)(const dpt_edit_stage *stage, int tensor);

    /** How many entries of what the stage gets are 0. NULL: it does not count them. Local. */
    double (*zeros)(const dpt_edit_stage *stage, int tensor);

    /** Release stage->state. NULL: dpt_mem_free(stage->state). Local. */
    void (*destroy)(dpt_edit_stage *stage);
} dpt_edit_method;

/** Whether a stage changes a tensor of post: it is comparable and selected and has elements, and the method
 * covers it. Local. */
bool dpt_edit_covers(const dpt_edit_stage_spec *spec, const dpt_edit_input *input, int tensor);

/** One stage of one run. */
struct dpt_edit_stage {
    const dpt_edit_method *method;
    const dpt_edit_stage_spec *spec;
    const dpt_edit_input *input;
    const dpt_catalog *catalog; /**< of the post-trained model */
    uint64_t seed;
    int index;    /**< place in the sequence */
    bool *covers; /**< (tensors) touched by the edit and covered by the method */
    void *state;  /**< the method's own */
};

/** Room that edits which are made together share: a cell is theirs one after the other. */
typedef struct dpt_edit_room {
    void *pre, *post, *out;        /**< one cell each, when there is no view */
    bool keeps;                    /**< values of a cell that lie there are not read again */
    dpt_range pre_held, post_held; /**< whose these are; n = 0: none */
    int threads;
    float *scratch; /**< (threads, DPT_EDIT_SCRATCH, DPT_EDIT_PIECE) */
} dpt_edit_room;

/** Everything of one edit of a dpt_edit_run. */
struct dpt_edit_work {
    const char *name; /**< for messages, or NULL */
    const dpt_edit_spec *spec;
    const dpt_edit_input *input;
    const dpt_catalog *catalog; /**< of the post-trained model */
    dpt_sink sink;
    int nstages;
    dpt_edit_stage stages[DPT_EDIT_STAGE_MAX + 1]; /**< the last may be the calibration */
    bool *touched; /**< (tensors) at least one stage covers the tensor */
    bool *written; /**< (tensors) already in the sink */
    int *
        base_stage; /**< (tensors) stages [0, base_stage) are folded into the base cells; 0: none */
    int64_t first;  /**< own cells are [first, last) */
    int64_t last;   /**< */
    float **base;   /**< (own cells) materialised deltas, or NULL */
    dpt_catalog wide; /**< the catalog with every type f32, for exchanges of base cells */
    dpt_shard wide_shard;
    dpt_edit_room *room;
    float *held; /**< (DPT_CELL) deltas of cell held_cell with stages [0, held_stages) applied;
                          NULL when no stage works on whole cells */
    int64_t held_cell; /**< -1: none */
    int held_stages;
    int threads;
    double *cell_sums;            /**< (own cells, DPT_EDIT_SUMS) */
    dpt_edit_tensor_stats *stats; /**< (tensors) */
    bool reports;                 /**< the caller wants the statistics */
    double *singular;             /**< records of decomposed matrices of this rank */
    int64_t nsingular, singular_room;
};

enum { /* a record: then the singular values, then their errors */
       DPT_EDIT_RECORD_PART,
       DPT_EDIT_RECORD_RANK,
       DPT_EDIT_RECORD_RESIDUAL, /* over the norm */
       DPT_EDIT_RECORD_NORM,
       DPT_EDIT_RECORD_VALUES
};

/** Numbers of a record of so many triplets. Local. */
static inline int64_t dpt_edit_record_length(double rank) {
    return DPT_EDIT_RECORD_VALUES + 2 * (int64_t)rank;
}

enum { /* what is summed over a cell for the statistics */
       DPT_EDIT_SUM_DELTA,
       DPT_EDIT_SUM_EDIT,
       DPT_EDIT_SUM_CHANGED,
       DPT_EDIT_SUM_LOST, /* values that the type of the output rounds to 0 */
       DPT_EDIT_SUM_SIZE, /* abs(E) in fp32, before it is rounded to the type of the output */
       DPT_EDIT_SUM_KEPT, /* E as written with the sign of that */
       DPT_EDIT_SUMS
};

/** All methods, in the order of their table: dpt_edit_method_<name> is in methods/<name>.c. */
#define DPT_EDIT_METHODS(X)                                                                        \
    X(dare) X(drop) X(bias) X(della) X(prune) X(bitdelta) X(multibit) X(lowrank) X(expo) X(allocate)

#define DPT_EDIT_METHOD_DECLARE(NAME) extern const dpt_edit_method dpt_edit_method_##NAME;
DPT_EDIT_METHODS(DPT_EDIT_METHOD_DECLARE)

/** Scales the result of all stages of an edit; not in the table. */
extern const dpt_edit_method dpt_edit_calibration;

/** Entry of the table. Local. */
const dpt_edit_method *dpt_edit_method_get(int method);

/** Value of a parameter of a stage, the same for all tensors. Local. */
double dpt_edit_value(const dpt_edit_stage_spec *spec, int param);

/** Value for a tensor of the parameter in whose place a method takes tensor_values. Local. */
double dpt_edit_value_of(const dpt_edit_stage_spec *spec, int param, int tensor);

/** Make a stage that of a method with one parameter set. Local. @param[in] method, param  of the table. */
void dpt_edit_stage_become(dpt_edit_stage_spec *spec, const char *method, const char *param,
                           double value);

/** Bytes of a tensor with all of its entries, and with the places of `kept` of them. Local.
 * @param[in] info  in the type of the output. */
double dpt_edit_dense_bytes(const dpt_tensor_info *info);
double dpt_edit_sparse_bytes(const dpt_tensor_info *info, double kept);

/** What happens inside a run of an edit. Collective over the work's communicator; an agreed status. */
typedef dpt_status (*dpt_edit_examine_fn)(dpt_edit_work *work, dpt_edit_stage *stage, void *ctx);

/** Set an edit up, call `fn` with its first stage, which is not prepared, and take it down again: nothing is
 * written. Collective over input->comm (same: spec). */
dpt_status dpt_edit_examine(const dpt_edit_spec *spec, const dpt_edit_input *input,
                            dpt_edit_examine_fn fn, void *ctx);

/** Name of a tensor. Local. */
const char *dpt_edit_tensor_name(const dpt_edit_stage *stage, int tensor);

/** Whether a stage can be applied to own cells only. Local. */
bool dpt_edit_own_only(const dpt_edit_stage_spec *spec);

/** Gradient of a run of an own cell. Local. */
const float *dpt_edit_gradient(const dpt_edit_input *input, dpt_range range);

/** The correlation of the mask of a prepared stage and the products of gradient and delta. Collective.
 * @param[out] all  over all tensors, or NULL. @param[out] tensors (tensors) set where the stage covers one. */
dpt_status dpt_edit_correlate(dpt_edit_work *work, const dpt_edit_stage *stage,
                              dpt_edit_correlation *all, double *tensors);

/** Deltas of a run of an own cell before any stage. Local, not thread-safe. */
dpt_status dpt_edit_original(dpt_edit_work *work, dpt_range range, float *delta);

/** Mean over the elements of a tensor of a number that its parts have, by part. Local. */
double dpt_edit_part_mean(const dpt_parts *parts, int tensor, const double *of);

/** Random stream of a stage for one tensor. Local. */
dpt_rng dpt_edit_stream(const dpt_edit_stage *stage, int tensor, uint32_t kind);

/** Deltas of a run of an own cell as the stages before `upto` left them. Local, not thread-safe: it
 * shares its pieces out over threads itself. @param[out] delta (range.n), range.n <= DPT_CELL. */
dpt_status dpt_edit_delta(dpt_edit_work *work, int upto, dpt_range range, float *delta);

/** Elements of a tensor that an edit may touch, and those of rows without a partner, which it leaves out. Local. */
int64_t dpt_edit_numel(const dpt_edit_input *input, int tensor);
int64_t dpt_edit_left_out(const dpt_edit_input *input, int tensor);
/** Put -0, which leaves every value as it is, where a run is left out. Local, thread-safe. */
void dpt_edit_leave_out(const dpt_edit_input *input, dpt_range range, float *delta);

/** Apply the stages [from, upto) to a run of any length; what is left out stays 0. Local, thread-safe. */
void dpt_edit_apply(const dpt_edit_work *work, int from, int upto, dpt_range range, float *delta);

/** post - pre of stored runs of a tensor; @return false when a value is NaN or infinite. Local. */
bool dpt_edit_subtract(const dpt_edit_work *work, int tensor, int64_t n, const void *pre,
                       const void *post, float *delta, float *spare);

/** Pieces of a cell. Local. */
int dpt_edit_pieces(dpt_range cell);
dpt_range dpt_edit_piece(dpt_range cell, int piece);

/** A scratch piece of the calling thread. Local. */
float *dpt_edit_scratch(const dpt_edit_work *work, int part);

/** Stored elements of a run of an own cell, in place or in the room, where they are read once. Local. */
dpt_status dpt_edit_load_post(dpt_edit_work *work, dpt_range range, const void **post);
dpt_status dpt_edit_load_both(dpt_edit_work *work, dpt_range range, const void **pre,
                              const void **post);

/** Stored type of the pre-trained partner of a tensor. Local. */
dpt_dtype dpt_edit_pre_type(const dpt_edit_work *work, int tensor);

/** Where the deltas of a run of an own cell start from. */
typedef struct dpt_edit_start {
    const float *base; /**< materialised deltas of the run; NULL: from the stored values */
    int stages;        /**< that are in them */
} dpt_edit_start;

/** Find the start for a run, of which the stages before `upto` are wanted. Overwrites the buffers of
 * stored values when a stage works on whole cells. Local, then not thread-safe. */
dpt_status dpt_edit_begin(dpt_edit_work *work, int upto, dpt_range range, dpt_edit_start *start);

/** Whether a stage of [0, upto) that covers the tensor has the property. Local. */
bool dpt_edit_by_cell(const dpt_edit_work *work, int upto, int tensor);

/** Totals per tensor of sums that were taken per cell, added in cell order. Collective.
 * @param[in] cells (own cells, nsums). @param[out] totals (tensors, nsums). */
dpt_status dpt_edit_reduce_cells(const dpt_edit_work *work, int nsums, const double *cells,
                                 double *totals);

/** Error that names the first bad value of a run. Local. */
/** The same for a cell that was edited: names the element that the type of the output cannot hold.
 * @param[in] out  what was made of the cell. */
dpt_status dpt_edit_bad_result(const dpt_edit_work *work, dpt_range range, const void *pre,
                               const void *post, const void *out);
dpt_status dpt_edit_bad_value(const dpt_edit_work *work, dpt_range range, const void *pre,
                              const void *post);

/** Sees the deltas of one own cell. Local. */
typedef dpt_status (*dpt_edit_visit_fn)(void *ctx, dpt_range cell, int64_t cell_index,
                                        const float *delta);

/** Show every own cell of the tensors that a stage covers, in order. Local. */
dpt_status dpt_edit_visit(dpt_edit_work *work, const dpt_edit_stage *stage, dpt_edit_visit_fn fn,
                          void *ctx);

/** Some elements of a part of a tensor: numbers ig + i stride, at most DPT_EDIT_PIECE. */
typedef struct dpt_edit_strip {
    int tensor;
    int part; /**< in the input's parts; -1: the tensor is not taken apart */
    int64_t ig, n, stride;
} dpt_edit_strip;

/** Sums of a strip of deltas. Local, thread-safe. @param[in] delta (strip->n). @param[out] sums (nsums). */
typedef void (*dpt_edit_sums_fn)(const dpt_edit_stage *stage, const dpt_edit_strip *strip,
                                 const float *delta, double *sums);

/** Over what dpt_edit_sums adds up. */
typedef enum dpt_edit_over { DPT_EDIT_OVER_TENSORS, DPT_EDIT_OVER_PARTS } dpt_edit_over;

/** Sums over every covered tensor, or each of its parts, in a fixed order: pieces in a cell, cells in a tensor.
 * Collective. @param[out] totals (tensors or parts, nsums), the same bits on all ranks; freed by the caller.
 * Errors: agreed; *totals NULL. */
dpt_status dpt_edit_sums(dpt_edit_work *work, const dpt_edit_stage *stage, dpt_edit_over over,
                         int nsums, dpt_edit_sums_fn fn, double **totals);

/** Sum of |delta| of a strip, and how many are 0, as a dpt_edit_sums_fn. */
enum { DPT_EDIT_ABS, DPT_EDIT_ZEROS, DPT_EDIT_ABS_SUMS };
void dpt_edit_sum_abs(const dpt_edit_stage *stage, const dpt_edit_strip *strip, const float *delta,
                      double *sums);

/** Deltas of own cells as the stages before `upto` left them. */
typedef struct dpt_edit_view {
    dpt_edit_work *work;
    int upto;
} dpt_edit_view;
/** The same for dpt_quantile_select. Local. @param[in] view  lives as long as the result. */
dpt_quantile_source dpt_edit_value_source(dpt_edit_view *view);

/** Edit and write the own cells of a run of cells, which rises within a tensor, by `count` edits in one room. Local. */
dpt_status dpt_edit_write_cells(dpt_edit_work *const *works, int count, int64_t from, int64_t to);

/** Put the name of the edit before the message of a status that is none of success. Local. */
dpt_status dpt_edit_locate(const dpt_edit_work *work, dpt_status status);

/** Release the base cells of a run of cells. Local. */
void dpt_edit_base_free(dpt_edit_work *work, int64_t from, int64_t to);

#endif
