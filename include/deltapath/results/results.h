#ifndef DELTAPATH_RESULTS_RESULTS_H
#define DELTAPATH_RESULTS_RESULTS_H

#include "deltapath/comm/comm.h"
#include "deltapath/results/columns.h"
#include "deltapath/tensor/part.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Results of a study. A unit is one edit on one data set (or one edit alone, data = ""). Each
 * finished unit is a small file of its own, so that a study that is killed loses no finished unit:
 *
 *   <directory>/units/<edit id>@<data>.h5   whole or not at all (base/file), sealed (base/sealed)
 *   <directory>/results.h5                  all units together, when the study is done
 *   <directory>/summary.csv, results.json   the same without arrays per sample
 *   <directory>/seeds.csv                   edits that differ in their seed alone, summed up
 *   <directory>/plane.csv                   the loss on the plane of two edits
 *   <directory>/proof.csv                   terms of groups of tensors and what leaving them out changes
 *
 * Characters that a file or HDF5 link cannot have are written as %XX in its name. */

/** Counts what a file means otherwise than its columns, whose names it carries: with others than those of
 * columns.h it is of another version too. */
enum { DPT_RESULTS_VERSION = 6 };

/** What an edit did to one tensor. Doubles throughout: a table. */
typedef struct dpt_result_tensor {
#define DPT_RESULT_FIELD(field, unit, meaning) double field;
    DPT_RESULT_TENSOR_COLUMNS(DPT_RESULT_FIELD)
} dpt_result_tensor;

/** Leading singular values of the delta of one matrix, falling. */
typedef struct dpt_result_spectrum {
    int64_t tensor; /**< position in the tensor table */
    char part
        [DPT_PART_LABEL]; /**< which matrix of the tensor: "q", "3.gate"; empty when there is one */
    double residual;      /**< what they leave out over the norm of the delta */
    int64_t count;
    double *values; /**< (count), owned */
    double *error;  /**< (count) a singular value lies so close to each; owned */
} dpt_result_spectrum;

/** One parameter of an edit, as text: "p" "0.9", "rescale" "l1". Owned. */
typedef struct dpt_result_parameter {
    char *name;
    char *value;
} dpt_result_parameter;

/** The numbers of a unit. Doubles throughout: a table. */
typedef struct dpt_result_scalars {
    DPT_RESULT_SCALAR_COLUMNS(DPT_RESULT_FIELD)
#undef DPT_RESULT_FIELD
} dpt_result_scalars;

/** One finished unit. Owns all that it points to (blocks of base/mem); NULL texts count as "". */
typedef struct dpt_result {
#define DPT_RESULT_FIELD(field, unit, meaning) char *field;
    DPT_RESULT_TEXT_COLUMNS(DPT_RESULT_FIELD)
#undef DPT_RESULT_FIELD
    int64_t nparameters;
    dpt_result_parameter *parameters; /**< (nparameters) */

    int64_t tensors;   /**< of the tensor table; 0 allowed only for edits alone */
    int64_t points;    /**< of the rule; 0 without a Riemann sum */
    int64_t samples;   /**< of the data set; 0 for an edit alone */
    int64_t ngroups;   /**< of tensors, of blocks; 0 without */
    int64_t nvalues;   /**< eigenvalues; 0 without */
    int64_t nproof;    /**< groups of tensors that were left out; 0 without */
    int64_t nmatrices; /**< of tensors that have several; 0 without, and without a Riemann sum */

#define DPT_RESULT_FIELD(name, field, shape, unit, meaning) double *field;
    DPT_RESULT_ARRAY_COLUMNS(DPT_RESULT_FIELD)
#undef DPT_RESULT_FIELD
    dpt_result_tensor *stats; /**< (tensors) */
    dpt_result_scalars scalars;

    int64_t nspectra;
    dpt_result_spectrum *spectra; /**< (nspectra) */
} dpt_result;

/** Allocate the arrays and fill every number with NaN; texts NULL, no parameters, no spectra. Local.
 * Errors: DPT_ERR_OUTPUT without memory; out is then empty. */
dpt_status dpt_result_create(int64_t tensors, int64_t points, int64_t samples, dpt_result *out);
/** Room for blocks of `groups` groups, for `values` eigenvalues, for `proof` groups left out and for `matrices`, NaN
 * throughout; a new record has none. Local. Errors: DPT_ERR_OUTPUT without memory; the record is then to be destroyed. */
dpt_status dpt_result_resize(dpt_result *result, int64_t groups, int64_t values, int64_t proof,
                             int64_t matrices);
void dpt_result_destroy(dpt_result *result); /**< Local; an empty (zeroed) one is allowed. */

/** Replace a text by a printf copy: `dpt_result_set_string(&r.edit, "%s", id)`. Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_result_set_string(char **text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Name of a group in the list of `groups` or `proof_groups`; empty past its end. Local. */
enum { DPT_RESULT_GROUP_NAME = 48 };
void dpt_result_group_name(const char *groups, int64_t place, char name[DPT_RESULT_GROUP_NAME]);

/** Whether rounding changes an edit so much that it is said: `rounding` beyond 10 % either way. Local. */
bool dpt_result_is_rounded(double rounding);

/** Whether there is an interval of the change, of samples that in effect are fewer than `change_enough`. Local. */
bool dpt_result_is_few(const dpt_result_scalars *scalars);

/** Append a parameter; append a spectrum (values are copied). Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_result_add_parameter(dpt_result *result, const char *name, const char *value);
dpt_status dpt_result_add_spectrum(dpt_result *result, const dpt_result_spectrum *spectrum);

/** A number over seeds: mean, standard deviation, and interval of the mean. */
typedef struct dpt_result_spread {
    double mean, sd, low, high;
} dpt_result_spread;

/** Edits that differ in their seed alone, on one data set. */
typedef struct dpt_result_seeds {
    char *edit;    /**< their id without the seed; owned */
    char *data;    /**< owned */
    int64_t count; /**< of seeds */
#define DPT_RESULT_FIELD(name, scalar, meaning) dpt_result_spread name;
    DPT_RESULT_SEEDS_COLUMNS(DPT_RESULT_FIELD)
#undef DPT_RESULT_FIELD
#define DPT_RESULT_FIELD(field, unit, meaning) double field;
    DPT_RESULT_CROSSED_COLUMNS(DPT_RESULT_FIELD)
#undef DPT_RESULT_FIELD
} dpt_result_seeds;

void dpt_result_seeds_destroy(dpt_result_seeds *seeds); /**< Local; an empty one is allowed. */

/** The loss of a data set on the plane W_post + x E_a + y E_b. Owns what it points to. */
typedef struct dpt_result_plane {
    char *data;
    char *a, *b;    /**< ids of the edits */
    int64_t points; /**< at least 2: places of x, and of y, evenly from low to high */
    double low, high;
    double *loss;     /**< (points, points) mean [nats], a row for each y */
    double *accuracy; /**< (points, points) share that is right; in the block of loss, after it */
} dpt_result_plane;

void dpt_result_plane_destroy(dpt_result_plane *plane); /**< Local; an empty one is allowed. */

/** Place i of x or y. Local. */
double dpt_result_plane_place(const dpt_result_plane *plane, int64_t i);

/** The matrices of tensors that have several, as fused q, k and v or the experts of a layer. Owned. */
typedef struct dpt_results_matrices {
    int64_t count;
    char **names;        /**< (count) "<tensor>[q]", "<tensor>[3.gate]" */
    int64_t *tensor;     /**< (count) position in the tensor table */
    dpt_role_kind *kind; /**< (count) */
} dpt_results_matrices;

/** Those of a catalog. Local. Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_results_matrices_create(const dpt_catalog *catalog, const dpt_parts *parts,
                                       dpt_results_matrices *out);
void dpt_results_matrices_destroy(dpt_results_matrices *matrices); /**< Local. */
/** Which tensors have several matrices: (tensors), allocated; NULL without memory. Local. */
bool *dpt_results_matrices_split(const dpt_results_matrices *matrices, int64_t tensors);

/** What all units of a study share. Borrowed. */
typedef struct dpt_results_study {
    const char *name;
    const char *directory;           /**< exists */
    int64_t tensors;                 /**< of the post-trained model */
    const char *const *tensor_names; /**< (tensors) in catalog order */
    const int64_t *tensor_numel;     /**< (tensors) elements */
    dpt_results_matrices matrices;
    const char *provenance;        /**< JSON object: job, seeds, versions, ranks, input hashes */
    const char *job;               /**< text of the job file */
    const dpt_result_seeds *seeds; /**< (nseeds) read by dpt_results_write on rank 0 */
    int64_t nseeds;
    const dpt_result_plane *planes; /**< (nplanes) read by dpt_results_write on rank 0 */
    int64_t nplanes;
    uint64_t key; /**< hash of all that a unit depends on; a unit of another key is not finished */
    uint64_t recipe; /**< hash of all that the edited model of a unit depends on */
    uint64_t model; /**< digest of that model's tensor hashes; 0: none is kept, none is asked for */
    uint64_t
        inputs[2]; /**< digests of the pre- and the post-trained model, read whole; 0: not known */
} dpt_results_study;

/** Path of the file of a unit in a study's directory (dpt_mem_free). NULL without memory. Local. */
char *dpt_results_unit_path(const char *directory, const char *edit, const char *data);

/** Save one finished unit, sealed, whole or not at all. Rank 0 writes.
 *
 * Collective over comm (same: study; result is read on rank 0 only, NULL elsewhere is allowed).
 * Fault points: "results.unit" before writing, "results.rename" before the rename.
 * Errors: DPT_ERR_OUTPUT naming the file; no file under the final name.
 */
dpt_status dpt_results_save_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const dpt_result *result);

/** Load a finished unit on rank 0; other ranks learn only whether it is there.
 *
 * Collective over comm (same: study, edit, data). A file that is missing, cut off, corrupt (its
 * checksum differs), of another key, or of another shape counts as not finished: found is false,
 * the status DPT_OK, and a warning says why unless it is merely missing.
 * @param[out] found  the same on all ranks.
 * @param[out] inputs the digests that the unit has (dpt_results_study), the same on all ranks; or NULL.
 * @param[out] result filled on rank 0 when found, else empty; NULL: only ask. Destroy it.
 * Errors: DPT_ERR_OUTPUT without memory, here or in the child process that looks at the file.
 */
dpt_status dpt_results_load_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const char *edit, const char *data, bool *found,
                                 uint64_t inputs[2], dpt_result *result);

/** Read the file of a unit, whatever study it is of. Local.
 * @param[out] recipe, model  what dpt_results_study says of them.
 * Errors: DPT_ERR_INPUT naming the file; out is empty then. */
dpt_status dpt_results_read_unit(const char *path, dpt_result *out, uint64_t *recipe,
                                 uint64_t *model);

/** Name of a unit's file in units/, allocated; NULL without memory. Local. */
char *dpt_results_unit_name(const char *edit, const char *data);

/** Whether samples of a unit belong together in clusters. Local. */
bool dpt_result_is_clustered(const dpt_result *result);

/** Whether two records are the same but for the corrected p values, which a unit's file does not have. Local. */
bool dpt_results_same_unit(const dpt_result *a, const dpt_result *b);

/** Write results.h5, summary.csv and results.json from all units, each whole or not at all.
 *
 * Collective over comm (study, results and count are read on rank 0 only).
 * results.h5: root attributes format = "deltapath-results", version, name, provenance, job;
 * /tensors/{names,numel,layer,module}; per unit /edits/<edit>/<data>/ ("-" for no data) with scalar
 * and text attributes and the datasets of dpt_result; /seeds/{edits,data,table,columns} when
 * edits differ in their seed alone, and then also seeds.csv; /plane/<i> with data, a, b, places, loss and
 * accuracy, and plane.csv, when the study has planes. Numbers in text have 17 digits; NaN is null in
 * JSON and empty in CSV.
 * Errors: DPT_ERR_OUTPUT naming the file.
 */
dpt_status dpt_results_write(const dpt_comm *comm, const dpt_results_study *study,
                             const dpt_result *results, int64_t count);

/** Print the columns of the results as tables of Markdown. Local. */
void dpt_results_print_columns(FILE *file);

/** A results.h5 read back, owning everything. */
typedef struct dpt_results {
    char *name;
    char *provenance;
    char *job;
    int64_t tensors;
    char **tensor_names;   /**< (tensors) */
    int64_t *tensor_numel; /**< (tensors) elements */
    dpt_results_matrices matrices;
    int64_t count;
    dpt_result *results; /**< (count), in the order of writing */
    int64_t nseeds;
    dpt_result_seeds *seeds; /**< (nseeds) */
    int64_t nplanes;
    dpt_result_plane *planes; /**< (nplanes) */
} dpt_results;

/** Read a results.h5. Local. Errors: DPT_ERR_INPUT naming the file and what is wrong with it. */
dpt_status dpt_results_read(const char *path, dpt_results *out);
void dpt_results_destroy(dpt_results *results); /**< Local; an empty one is allowed. */

#endif
