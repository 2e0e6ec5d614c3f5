#ifndef DELTAPATH_EDIT_EDIT_H
#define DELTAPATH_EDIT_EDIT_H

#include "deltapath/comm/comm.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"
#include "deltapath/tensor/pair.h"
#include "deltapath/tensor/part.h"
#include "deltapath/tensor/shard.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* An edit F(Delta) is a sequence of stages; each stage is one method of the table with its
 * parameters. A stage works in two phases: `prepare` (collective, once for all tensors: means,
 * thresholds, factors) and `apply` (local, on any run of elements given its global index). */

typedef enum dpt_edit_param_kind {
    DPT_PARAM_REAL,
    DPT_PARAM_INTEGER,
    DPT_PARAM_CHOICE
} dpt_edit_param_kind;

enum { DPT_EDIT_PARAM_MAX = 8, DPT_EDIT_STAGE_MAX = 8 };

/** One parameter that a method knows; the job parser and the help text read this table. */
typedef struct dpt_edit_param {
    const char *name;
    dpt_edit_param_kind kind;
    const char *choices; /**< "tensor|row" for DPT_PARAM_CHOICE; the value is the choice's index */
    bool required;
    bool optional;               /**< without it nothing holds in its place */
    double default_value;        /**< value when it is left out */
    double lower, upper;         /**< allowed range */
    bool lower_open, upper_open; /**< whether the bound itself is forbidden, as p = 1 for dare */
    bool automatic;              /**< "auto" is allowed: the value is NaN until a study finds it */
    bool measured;               /**< left out, it is measured: no value says the same */
    const char *help;            /**< one line, also the remedy in the error message */
} dpt_edit_param;

/** One stage with its values, in the order of the method's parameter table. */
typedef struct dpt_edit_stage_spec {
    int method; /**< index into the table */
    double values[DPT_EDIT_PARAM_MAX];
    bool given[DPT_EDIT_PARAM_MAX];
    const double
        *tensor_values; /**< (tensors of post) values in place of one of its parameters: alpha of
                           expo, p of dare, keep of prune, bits of multibit, rank of lowrank; NaN: the
                           tensor keeps its delta. NULL: the same value everywhere. Borrowed. */
    bool cut; /**< lowrank in a sweep: it keeps leading triplets of a decomposition that is made */
    double cut_from; /**< with this in place of its rank, sparsity or energy */
} dpt_edit_stage_spec;

/** What the edited deltas are scaled for, tensor by tensor, after the last stage. */
typedef enum dpt_edit_calibrate {
    DPT_CALIBRATE_NONE,
    DPT_CALIBRATE_TERM,       /**< <gradient, s F - Delta> = 0: no approximation term at W_post */
    DPT_CALIBRATE_SIGNIFICANT /**< the same, only where samples tell <gradient, F> from 0 */
} dpt_edit_calibrate;

/** A whole edit as a job describes it. */
typedef struct dpt_edit_spec {
    int nstages;
    dpt_edit_stage_spec stages[DPT_EDIT_STAGE_MAX];
    uint64_t seed;
    dpt_edit_calibrate calibrate;
} dpt_edit_spec;

/** The table of methods. Local. */
int dpt_edit_method_count(void);
const char *dpt_edit_method_name(int method);
int dpt_edit_method_find(const char *name); /**< -1 when unknown */
int dpt_edit_method_params(int method, const dpt_edit_param **params);

/** Print methods and parameters as a table of Markdown. Local. */
void dpt_edit_print_methods(FILE *file);

/** A stage of a method with every parameter at its default. Local. */
void dpt_edit_stage_init(dpt_edit_stage_spec *stage, int method);
/** Set one parameter of a stage from text or number, checked against the table. Local.
 * Errors: DPT_ERR_USAGE naming method, parameter, value and the allowed range. */
dpt_status dpt_edit_stage_set(dpt_edit_stage_spec *stage, const char *param, const char *value);
/** Whether a value of the stage is to be found before it runs: a parameter that is "auto", all of `allocate`.
 * Local. */
bool dpt_edit_stage_is_auto(const dpt_edit_stage_spec *stage);
/** Value of a parameter by its name; NaN when the method has none of it. Local. */
double dpt_edit_stage_get(const dpt_edit_stage_spec *stage, const char *param);
/** Whether a job gave a parameter, by its name. Local. */
bool dpt_edit_stage_given(const dpt_edit_stage_spec *stage, const char *param);
/** Check a whole edit: each stage (required parameters, exclusive ones) and what scales it. Local.
 * Errors: DPT_ERR_USAGE naming method and parameter. */
dpt_status dpt_edit_spec_check(const dpt_edit_spec *spec);

/** Order of edits by what they do: methods, values after defaults are filled in, calibration, and the seed
 * where they draw from it. dare without k and rescaling is drop, multibit of 0 bits per tensor bitdelta. 0: the
 * same edit; edits that merely come to the same, as two that change nothing, differ. Local. */
int dpt_edit_spec_compare(const dpt_edit_spec *a, const dpt_edit_spec *b);

/** Write an edit as one for all of which it is a multiple: E is `factor` times that of `unit`, but for rounding; edits
 * whose units are the same (dpt_edit_spec_compare) lie on one line through W_post. Local.
 * @return false where its parameters make it no multiple of another edit, or E is zero. */
bool dpt_edit_unit(const dpt_edit_spec *spec, dpt_edit_spec *unit, double *factor);

/** Whether the edit cannot run without dpt_edit_input.gradient. Local. */
bool dpt_edit_needs_gradient(const dpt_edit_spec *spec);

/** Whether another seed is meant to give another edit: a mask or magnitudes are drawn. The random start of a
 * low-rank approximation is none. Local. */
bool dpt_edit_is_random(const dpt_edit_spec *spec);

/** Whether it draws a mask, so that with a gradient its correlation can be measured. Local. */
bool dpt_edit_draws_mask(const dpt_edit_spec *spec);

/** Let the low rank of all edits of a sweep, which differ in its rank, sparsity or energy alone or in seeds and the like,
 * come from decompositions with the value that keeps the most: those of the same matrices are then one. Edits that it does not
 * concern stay as they are. Local. @param[in,out] specs (count), of the same methods in the same order. */
void dpt_edit_share_decompositions(int count, dpt_edit_spec *const *specs);

/** The value that an edit's low rank is decomposed with where that is not its own; NaN: it is. Local. */
double dpt_edit_cut_from(const dpt_edit_spec *spec);

/* Random streams: stage number s of the sequence (from 0) draws for a tensor from
 * dpt_rng_make(seed, name of the tensor in post, kind + 256 s), kind being DPT_RNG_MASK for masks;
 * element ig is dropped where dpt_rng_mask of dpt_rng_threshold(p) has its bit set; magnitudes are
 * drawn from dpt_rng_words or dpt_rng_normal. */

/** The slope of the mean loss at W_post along the edited delta F of a tensor, before it is scaled, as samples know
 * it. */
typedef struct dpt_edit_slope {
    double mean;      /**< <gradient, F> */
    double se;        /**< its standard error over samples, or clusters; NaN: not known */
    bool significant; /**< it is told from 0 */
} dpt_edit_slope;

/** Decompositions that edits share (dpt_edit_stage_spec.cut), kept from edit to edit by the ranks that made them: what is
 * kept changes no bit, and what finds no room is decomposed again. */
typedef struct dpt_edit_factors dpt_edit_factors;

/** What an edit works on. All borrowed. In memory, the cells of pre must lie on the ranks that own the
 * cells of post. */
typedef struct dpt_edit_input {
    const dpt_comm *comm;
    const char *pre_name, *post_name; /**< for messages, such as paths; or NULL */
    const dpt_shard *shard;           /**< cells of post's catalog over comm's ranks */
    dpt_source post;                  /**< catalog: names, shapes, stored types */
    const dpt_parts *parts;           /**< matrices of post's catalog */
    dpt_source pre;         /**< in post's order, with the stored types of pre: dpt_pair_source */
    const bool *comparable; /**< (tensors) those of dpt_pair; others are never touched */
    const dpt_pair
        *pair; /**< whose rows without a partner no edit touches or counts; NULL: all have one */
    const bool *selected; /**< (tensors) whether the edit touches the tensor; NULL: all */
    int svd_group;        /**< ranks that share a matrix in low rank; 0: chosen, by time */
    int64_t
        svd_room; /**< bytes a rank that this leaves a decomposition, as far as it can; 0: any */
    dpt_edit_factors *factors;            /**< or NULL: every edit makes its own */
    const double *pre_bytes, *post_bytes; /**< (tensors) that they take in files, for
                                               dpt_edit_bytes_read; NULL: those of their types */

    /** Gradient of a loss at W_post, or NULL. All tensors f32, in post's order and shapes; the own
     * cells are in memory, so that `view` finds them. */
    const dpt_source *gradient;
    const dpt_edit_slope
        *slopes; /**< (tensors) for DPT_CALIBRATE_SIGNIFICANT; else NULL is allowed */
} dpt_edit_input;

/** What calibration did to one tensor. */
typedef enum dpt_edit_calibrated {
    DPT_CALIBRATED_NOT,   /**< the edit is not calibrated, or does not touch the tensor */
    DPT_CALIBRATED_ZERO,  /**< its term at W_post is zero */
    DPT_CALIBRATED_LEAST, /**< the factor is held at its lower limit */
    DPT_CALIBRATED_MOST,  /**< the factor is held at its upper limit */
    DPT_CALIBRATED_SIGN,  /**< plain scale: no positive factor makes the term zero */
    DPT_CALIBRATED_LOST,  /**< plain scale: <gradient, F> is lost in rounding */
    DPT_CALIBRATED_CHANCE /**< plain scale: <gradient, F> is not significant */
} dpt_edit_calibrated;

/** What happened to one tensor. */
typedef struct dpt_edit_tensor_stats {
    int64_t changed;   /**< elements with E != 0 */
    int64_t lost;      /**< values that another type than post's rounds to 0 */
    double delta_norm; /**< |Delta|_F; 0 for a tensor that the edit does not touch */
    double edit_norm;  /**< |E|_F, from the values as written */
    double
        size; /**< sum of |E_i| before E is rounded to the type of the output; 0 for a tensor that the edit
                    does not touch */
    double
        kept; /**< sum of E_i as written, each with the sign that it had before: less than size where rounding
                    takes back, more where it adds, and the same where it does either as often */
    double scale; /**< BitDelta mean, DARE 1/(1-p), threshold of prune ...; NaN if none. Of a
                          calibrated edit its factor s: 0.5 or 2 at its limits, 1 where it cannot
                          help */
    double
        zeros; /**< entries that are exactly 0 in Delta, where the edit counts them (as its first stage, or
                          to calibrate it); NaN otherwise */
    int64_t rank;    /**< low rank: triplets kept, of all of its matrices; 0 otherwise */
    double residual; /**< low rank: residual / |Delta|, of all together; NaN otherwise */
    double
        correlation; /**< Pearson's, of the mask (1: dropped) of the first stage that draws one and
                           gradient * Delta as that stage finds it; NaN without mask or gradient */
    dpt_edit_calibrated calibrated;
    double slope;    /**< <gradient, F> of a calibrated edit before it is scaled; NaN otherwise */
    double slope_se; /**< dpt_edit_slope.se where the edit was given it; NaN otherwise */
} dpt_edit_tensor_stats;

/** A matrix that was decomposed. */
typedef struct dpt_edit_spectrum {
    int tensor, part; /**< in the input's parts */
    int64_t rank;     /**< triplets kept */
    double residual;  /**< over its own |Delta| */
    int64_t first;    /**< of its singular values in the report */
} dpt_edit_spectrum;

typedef struct dpt_edit_report {
    int ntensors;
    dpt_edit_tensor_stats *stats; /**< (ntensors), the same on all ranks */
    int64_t nspectra;             /**< matrices that the last low-rank stage decomposed */
    dpt_edit_spectrum *spectra;   /**< in the order of their parts */
    double *singular;             /**< singular values of all, end to end */
    double *singular_error; /**< of each: a singular value lies so close to it (dpt_svd.s_error) */
} dpt_edit_report;

/** Check an edit against the tensors that it would change, as dpt_edit_run does, before any work.
 * Local; the same on all ranks. Uses of input: the catalogs and the masks.
 * Errors: DPT_ERR_USAGE for a rank above the limit of a tensor, naming it. */
dpt_status dpt_edit_check(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Whether any stage covers any tensor that the edit may change; takes of input what dpt_edit_check
 * does. Local. */
bool dpt_edit_covers_any(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Edit a model: W_edit = round(W_pre + F(W_post - W_pre)) for selected tensors, W_post elsewhere:
 * tensors that no stage covers keep their stored bytes (converted when the sink has another type);
 * a stage that does not cover a tensor leaves its delta as it is.
 *
 * Streams in cells; each rank edits its own. Rounded once, to nearest even, to the sink's type.
 * Collective over input->comm (same: spec).
 * @param[in]  sink    takes the stored values; its catalog has post's names and shapes and the
 *                     output types.
 * @param[out] report  or NULL; dpt_edit_report_destroy releases it.
 * Errors: DPT_ERR_INPUT for NaN or infinity in the weights, naming tensor and index;
 *         DPT_ERR_USAGE for a rank above the limit of a tensor, naming it; sink undefined on error.
 * Determinism: elementwise methods: same bits at any number of ranks; low rank: same bits
 *              at the same number of ranks in a group (svd_group), else to 1e-6 of |Delta|, as dpt_svd_compute has it.
 */
dpt_status dpt_edit_run(const dpt_edit_spec *spec, const dpt_edit_input *input, dpt_sink sink,
                        dpt_edit_report *report);
void dpt_edit_report_destroy(dpt_edit_report *report); /**< Local. */

/** Nothing kept. Local. @param[in] room  bytes that a rank may keep. @param[in] parts  of the model. @return NULL without
 * memory. */
dpt_edit_factors *dpt_edit_factors_create(int64_t room, int parts);
void dpt_edit_factors_destroy(dpt_edit_factors *factors); /**< Local; NULL is allowed. */

/** Say which edits are to be made: first the one in hand, then others. What none of them takes is released. Local; the same
 * on all ranks. @param[in] specs (count) borrowed until the next call. */
void dpt_edit_factors_expect(dpt_edit_factors *factors, int count,
                             const dpt_edit_spec *const *specs);

/** What was done by low rank. */
typedef struct dpt_edit_decomposed {
    int64_t made, taken; /**< matrices decomposed, and cut from a decomposition that was kept */
    int64_t bytes;       /**< most that a rank kept at a time */
    int least, most;     /**< ranks of a group; 0: there was none */
} dpt_edit_decomposed;

/** On this rank, which counts the matrices of the groups that it leads. Local. */
dpt_edit_decomposed dpt_edit_factors_count(const dpt_edit_factors *factors);

/** Count what a run of an edit will do, but do it not; `allocate` counts nothing. Local.
 * @param[in] input  as for dpt_edit_bytes, without its shard. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_edit_factors_foresee(dpt_edit_factors *factors, const dpt_edit_spec *spec,
                                    const dpt_edit_input *input, int ranks);

/** A sink that keeps nothing: what is edited into it gives its report alone, and tensors that no stage covers are not
 * read. Local. @param[in] catalog  with the types of the output, borrowed. */
dpt_sink dpt_edit_sink_none(const dpt_catalog *catalog);

/** One of several edits that are made together. */
typedef struct dpt_edit_task {
    const char *name; /**< of the edit, for messages; NULL: they name none */
    const dpt_edit_spec *spec;
    dpt_sink sink;           /**< as of dpt_edit_run; of the same shapes for all */
    dpt_edit_report *report; /**< or NULL */
} dpt_edit_task;

/** Make edits of one pair together: after the `prepare` of each, which passes over the deltas by itself, every own cell of
 * the pair is read once and all of them are made of it.
 *
 * Collective over input->comm (same: count, tasks but for their sinks). Errors, determinism: those of dpt_edit_run; sinks and
 * reports are undefined on error; the bytes and reports of each edit are those of a dpt_edit_run of it alone. */
dpt_status dpt_edit_run_many(int count, const dpt_edit_task *tasks, const dpt_edit_input *input);

/** What is known of the mask m (1: dropped) of the first stage that draws one and of x = gradient * Delta as that
 * stage finds it, over the entries of all tensors that it covers. */
typedef struct dpt_edit_correlation {
    double r;                   /**< Pearson's correlation; NaN where one of them does not vary */
    double n;                   /**< entries */
    double mask_sd, product_sd; /**< standard deviations over them */
} dpt_edit_correlation;

/** The correlation of mask and product for a gradient of any point; nothing is edited.
 *
 * Collective over input->comm (same: spec). Computes: as the `correlation` of dpt_edit_run, which takes the
 * gradient at W_post.
 * @param[in]  input   its gradient is that of the product.
 * @param[out] all     over all tensors. @param[out] tensors (tensors) of each; NaN where there is no mask.
 * Errors: as dpt_edit_run; DPT_ERR_INTERNAL without gradient, for an edit that draws no mask, or whose stages take
 *         a gradient of their own.
 * Determinism: same bits for any number of ranks. */
dpt_status dpt_edit_correlate_mask(const dpt_edit_spec *spec, const dpt_edit_input *input,
                                   dpt_edit_correlation *all, double *tensors);

/** Bytes per rank, the maximum over ranks, that an edit needs besides its input and its sink. */
typedef struct dpt_edit_needs {
    int64_t shared; /**< room that all edits have in common which are made together */
    int64_t held;   /**< from begin to end */
    int64_t
        step; /**< the most that one of its steps takes besides, which no two edits do at a time */
} dpt_edit_needs;

/** Those of an edit. Local.
 * @param[in] input  catalogs, shard, parts, selection, comparable and svd_group; its sources are not read.
 * @param[in] out  catalog of the sink. @param[in] gradient  whether the edit will be given one. */
dpt_edit_needs dpt_edit_bytes(const dpt_edit_spec *spec, const dpt_edit_input *input,
                              const dpt_catalog *out, bool gradient);

/** Whether an edit gains by being made together with others: it is made of a cell at a time. Local. */
bool dpt_edit_joins(const dpt_edit_spec *spec);

/** Bytes of both models that an edit reads on all ranks, when it is made alone and written. Local.
 * @param[in] input, gradient as for dpt_edit_bytes. */
double dpt_edit_bytes_read(const dpt_edit_spec *spec, const dpt_edit_input *input, bool gradient);

/** Of those, the ones that `prepare` reads, before any byte is written. Local. */
double dpt_edit_bytes_prepared(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Of those, the ones that its decompositions read, which an edit that shares them does not. Local. */
double dpt_edit_bytes_decomposed(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Bytes of both models that making edits together reads after that. Local.
 * @param[in] specs (count). @param[in] written  they are written, so that all of post is read. */
double dpt_edit_bytes_made(int count, const dpt_edit_spec *const *specs,
                           const dpt_edit_input *input, bool written);

/** Of them, those of one dpt_edit_correlate_mask. Local. */
double dpt_edit_correlation_bytes(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Whether its first pass reads each tensor from its begin to its end. Local. */
bool dpt_edit_reads_in_order(const dpt_edit_spec *spec, const dpt_edit_input *input);

/** Matrices that it decomposes, and what that takes: operations in double precision, about. Local.
 * @param[in] input as for dpt_edit_bytes, without its shard. */
double dpt_edit_decompositions(const dpt_edit_spec *spec, const dpt_edit_input *input,
                               double *flops);

#endif
