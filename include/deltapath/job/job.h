#ifndef DELTAPATH_JOB_JOB_H
#define DELTAPATH_JOB_JOB_H

#include "deltapath/base/hash.h"
#include "deltapath/base/status.h"
#include "deltapath/edit/edit.h"
#include "deltapath/path/quadrature.h"
#include "deltapath/store/store.h"
#include "deltapath/tensor/pair.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Kinds of loss: X(constant, name in a job file). */
#define DPT_LOSS_LIST(X) X(LM, lm) X(DPO, dpo) X(CLASS, class)

#define DPT_LOSS_CONSTANT(constant, name) DPT_LOSS_##constant,
typedef enum dpt_job_loss { DPT_LOSS_LIST(DPT_LOSS_CONSTANT) DPT_LOSS_COUNT } dpt_job_loss;

/** Their names, with | between them. */
#define DPT_LOSS_CHOICE(constant, name) "|" #name
#define DPT_LOSS_NAMES                  (&(DPT_LOSS_LIST(DPT_LOSS_CHOICE))[1])

typedef struct dpt_job_data {
    const char *name;
    const char *file;
    dpt_job_loss loss;
    int64_t samples;      /**< the first ones of the file; 0: all */
    double choose;        /**< share of these that only choose; 0: none */
    uint64_t choose_seed; /**< of which ones */
    bool chooses;         /**< it is that part of another entry, not one of the file's list */
    char *own_name;       /**< name of such a part, owned; else NULL */
    int other; /**< of an entry with `choose`: place of its choosing part, and of that part: of its entry; else -1 */
    double beta;           /**< of dpo */
    const char *reference; /**< model of a loss that has one; NULL: the post-trained one */
} dpt_job_data;

/** One edit of a sweep, with every list replaced by one of its values. */
typedef struct dpt_job_edit {
    char *id;         /**< name and swept parameters in job order: "dare-p0.9-seed1" */
    const char *name; /**< name in the job file */
    int entry;        /**< place of its entry in the list of edits, from 0 */
    char *method;     /**< "dare", or "prune+bitdelta" for a sequence */
    char *params;     /**< "p=0.9 k=0 seed=1" as written in the job file */
    dpt_edit_spec spec;
    int gradient_data; /**< data set whose gradient at W_post the edit takes, to edit or to measure the
                          correlation of its mask; -1: none */
    int auto_data;     /**< data set whose minimum `alpha: auto` seeks; -1: nothing is sought */
    int judge_data;    /**< the one that judges it; -1: all that judge */
} dpt_job_edit;

/** Where the correlation of mask and product is measured, in the order of the choices of the key. */
enum { DPT_CORRELATION_START, DPT_CORRELATION_PATH };

/** Which intervals judge a change, in the order of the choices of the key. */
enum { DPT_INTERVAL_AUTO, DPT_INTERVAL_T, DPT_INTERVAL_BOOTSTRAP };

/** How changes of the loss are judged. */
typedef struct dpt_job_statistics {
    int interval; /**< DPT_INTERVAL_... */
    int resamples;
    uint64_t seed; /**< of the resamples */
} dpt_job_statistics;

/** Labels of the law, in the order of the choices of the key; most classes that are taken in turn. */
enum { DPT_LABELS_DRAWN, DPT_LABELS_ALL, DPT_LABELS_MOST = 32 };

/** How the curvature along the delta is measured. */
typedef struct dpt_job_law {
    int labels;    /**< DPT_LABELS_... */
    int repeats;   /**< draws of labels; 0: it is not measured, but with all labels */
    int probes;    /**< random signs for the logits; 0: they are not measured */
    uint64_t seed; /**< of the labels and signs */
} dpt_job_law;

/** Groups of tensors, in the order of the choices of the keys. */
enum { DPT_GROUPS_NONE, DPT_GROUPS_LAYERS, DPT_GROUPS_MODULES };

/** Which second derivatives at W_post are taken. */
typedef struct dpt_job_hessian {
    bool edits;    /**< E^T H E of each edit */
    int blocks;    /**< DPT_GROUPS_...: and what its groups of tensors have with each other */
    int probes;    /**< random signs along the delta; 0: none */
    int lanczos;   /**< eigenvalues of H and of D H D; 0: none */
    int steps;     /**< of Lanczos's method */
    uint64_t seed; /**< of the signs, and of the start of Lanczos's method */
} dpt_job_hessian;

/** The loss on the plane W_post + x E_a + y E_b: x and y each at `points` places from low to high. */
typedef struct dpt_job_plane {
    const char *a, *b; /**< ids of edits; NULL: none is asked for */
    int points;
    double low, high;
} dpt_job_plane;

/** Which groups of tensors are left out of which edits, to compare their terms with what they change. */
typedef struct dpt_job_proof {
    int groups; /**< DPT_GROUPS_... */
    bool alone; /**< and each group is edited alone */
    int nedits;
    const char **edits; /**< (nedits) fnmatch patterns of ids; none means every edit */
} dpt_job_proof;

/** A job file, checked as far as it can be without its models. Strings are owned by the job. */
typedef struct dpt_job {
    const char *name;
    const char *pre;
    const char *post;
    int nrenames;
    dpt_rename *renames; /**< (nrenames) of names of the post-trained model */
    dpt_mismatch_policy on_mismatch;
    bool allow_zero_delta;      /**< a pair whose selected tensors are all equal is no error */
    bool allow_other_tokenizer; /**< nor are data of another tokenizer than the model's */
    int ndata;
    int njudged;        /**< those that judge come first: the entries of the file */
    dpt_job_data *data; /**< (ndata) and after them the parts that only choose */
    int nedits;
    dpt_job_edit *edits;
    bool only; /**< the edits are some of those of the file (dpt_job_keep_edits) */
    int ninclude;
    const char **include; /**< fnmatch patterns; none means every tensor */
    int nexclude;
    const char **exclude;
    bool riemann; /**< false with `riemann: off` */
    dpt_rule rule;
    int points;
    double tolerance; /**< of rule auto, as a share of the change */
    bool
        per_sample; /**< terms of each sample at t = 0 by the gradient there, which is then taken for
                               each edit */
    int correlation; /**< where that of mask and product is measured: DPT_CORRELATION_... */
    const char *directory;
    dpt_store_format checkpoint; /**< DPT_STORE_NONE: no edited models are kept */
    dpt_store_content content;   /**< of these */
    dpt_store_io io;
    dpt_store_reading reading; /**< of both models */
    int chunk_mib, deflate;    /**< dpt_store_layout */
    int nhints;
    dpt_store_hint *hints; /**< (nhints) */
    const char *dtype_name;
    bool same_dtype;  /**< keep each tensor's type */
    dpt_dtype dtype;  /**< else write editable tensors as this type */
    bool requantises; /**< edited models take the quantised form of the post-trained one */
    bool overwrite;   /**< replace an existing study of this directory */
    bool report;      /**< write report.html at the end */
    double
        margin_share; /**< equivalence margin as a share of the loss that post-training removed */
    double margin;    /**< absolute margin [nats/token]; 0: use the share */
    double accuracy_margin; /**< points by which the accuracy may fall; 0: it is left out */
    dpt_job_statistics statistics;
    dpt_job_law law;
    dpt_job_hessian hessian;
    dpt_job_plane plane;
    dpt_job_proof proof;
    int precision;        /**< of products with weights: position among fp32|bf16 */
    int tensor_parallel;  /**< ranks that share a replica; 0: chosen */
    int svd_group;        /**< ranks that share a matrix in low rank; 0: chosen */
    int64_t batch_tokens; /**< most tokens packed into one pass; 0: chosen */
    char *text;           /**< canonical YAML after every --set, for provenance */
    char *recipe; /**< the same whatever output.directory is: what an edited model depends on */
    struct dpt_yaml *yaml;
} dpt_job;

/** Parse and check the text of a job file.
 * Local; deterministic, so that all ranks with the same text agree.
 * @param[in] text  contents; @param[in] path  its name for messages.
 * @param[in] nsets, sets  overrides "key=value" with dotted keys: "riemann.points=9", "edits.0.p=0.5";
 *            borrowed while the job lives.
 * Errors: DPT_ERR_USAGE as "file:line:column: what: remedy", or "--set key=value: what: remedy"; *out empty. */
dpt_status dpt_job_parse(const char *text, const char *path, int nsets, const char *const *sets,
                         dpt_job *out);

/** Read the file on rank 0, share its text, parse it everywhere. Collective over comm (same: path, sets).
 * Errors: as dpt_job_parse; DPT_ERR_USAGE when the file cannot be read; agreed. */
dpt_status dpt_job_read(const dpt_comm *comm, const char *path, int nsets, const char *const *sets,
                        dpt_job *out);
void dpt_job_destroy(dpt_job *job); /**< Local; an empty one is allowed. */

/** Leave only some edits of a job, in its order; its texts stay those of the whole job. Local.
 * @param[in] n, patterns  an edit stays when one of them names it: "I/N", every N-th edit from number I
 *            on, counted from 0; else an fnmatch pattern of edit ids. n = 0 changes nothing.
 * Errors: DPT_ERR_USAGE naming a pattern that is broken or names no edit. */
dpt_status dpt_job_keep_edits(dpt_job *job, int n, const char *const *patterns);

/** Place of an edit among those of a job, -1 without one of that id. Local. */
int dpt_job_find_edit(const dpt_job *job, const char *id);

/** Whether groups of tensors are left out of an edit. Local. */
bool dpt_job_leaves_out(const dpt_job *job, const dpt_job_edit *edit);

/** How it has the files of edited models written; borrows its hints. Local. */
dpt_store_layout dpt_job_layout(const dpt_job *job);

/** What the edits of a job share: its canonical text without its edits and without where and how output is
 * kept. Allocated (dpt_mem_free); NULL after dpt_error. Local. */
char *dpt_job_frame(const dpt_job *job);

/** Mark the tensors that include and exclude patterns choose. Local.
 * Errors: DPT_ERR_USAGE when a pattern matches no tensor, naming it, or when nothing is left.
 * @param[out] selected (count). */
dpt_status dpt_job_select(const dpt_job *job, const dpt_catalog *catalog, bool *selected);

/** Put the place of `select` in the job file before the error that was just recorded. Local.
 * @return status. */
dpt_status dpt_job_locate_select(const dpt_job *job, dpt_status status);

/** Put the place of an edit in the job file and its id before the error that was just recorded. Local.
 * @return status. */
dpt_status dpt_job_locate_edit(const dpt_job *job, const dpt_job_edit *edit, dpt_status status);

/** Feed a hash the values of the keys on which the units, or the edited models, of a study depend; what keys
 * lead to (models, samples, selected tensors, edits) is the caller's. Local. */
void dpt_job_hash_for_units(const dpt_job *job, dpt_hash *hash);
void dpt_job_hash_for_models(const dpt_job *job, dpt_hash *hash);
void dpt_job_hash_data(const dpt_job_data *data, dpt_hash *hash);

/** The same for an edit: its id, methods and values, and what it is cut from where that is another edit's. Local. */
void dpt_job_hash_edit(const dpt_job_edit *edit, dpt_hash *hash);

/** Whether the losses of two data sets are of the same kind, with the same values of the keys that are of that
 * kind alone; what keys lead to (models) is the caller's. Local. */
bool dpt_job_same_loss(const dpt_job_data *a, const dpt_job_data *b);

/** Print every key of a job file as a table of Markdown: type, range, default, help. Local. */
void dpt_job_print_keys(FILE *file);

/** Data set from which something of an edit is chosen: its gradient splits or scales the delta, or alpha is sought on
 * it. -1: none. Local. */
int dpt_job_chosen_on(const dpt_job_edit *edit);

/** Whether an edit takes the gradient at W_post of data set d to edit with. Local. */
bool dpt_job_takes_gradient(const dpt_job *job, int d);

/** Whether an edit is `allocate`, whose values follow from the law on what it is chosen on. Local. */
bool dpt_job_is_allocated(const dpt_job_edit *edit);

/** Draws of labels on data set d: those of the law where it judges or values are allocated on it, else 0. Local. */
int dpt_job_law_draws(const dpt_job *job, int d);

/** Whether data set d judges an edit. Local. @param[in] d -1 for an edit alone. */
bool dpt_job_judges(const dpt_job_edit *edit, int d);

/** Name of a kind of loss in a job file. Local. */
const char *dpt_job_loss_name(dpt_job_loss loss);

#endif
