#ifndef DELTAPATH_SRC_RESULTS_RESULT_FIELDS_H
#define DELTAPATH_SRC_RESULTS_RESULT_FIELDS_H

#include "deltapath/results/results.h"

#include <stddef.h>
#include <stdio.h>

/* The fields of dpt_result as tables, so that writing, reading, hashing and text output walk one
 * list and cannot disagree. Private to the store layer. */

enum {
#define DPT_RESULT_ONE(...) +1
    DPT_RESULT_TEXTS = 0 DPT_RESULT_TEXT_COLUMNS(DPT_RESULT_ONE),
    DPT_RESULT_ARRAYS = 0 DPT_RESULT_ARRAY_COLUMNS(DPT_RESULT_ONE),
    DPT_RESULT_SPREADS = 0 DPT_RESULT_SEEDS_COLUMNS(DPT_RESULT_ONE),
    DPT_RESULT_CROSSED = 0 DPT_RESULT_CROSSED_COLUMNS(DPT_RESULT_ONE),
#undef DPT_RESULT_ONE
    DPT_RESULT_SCALARS = sizeof(dpt_result_scalars) / sizeof(double),
    DPT_RESULT_STATS = sizeof(dpt_result_tensor) / sizeof(double)
};

typedef struct dpt_result_text_field {
    dpt_result_column column;
    size_t offset; /* of a char * */
} dpt_result_text_field;

typedef enum dpt_result_shape {
    DPT_SHAPE_POINTS,
    DPT_SHAPE_TENSORS_POINTS,
    DPT_SHAPE_TENSORS_GROUPS,
    DPT_SHAPE_VALUES,
    DPT_SHAPE_PROOF_GROUPS,
    DPT_SHAPE_TENSORS,
    DPT_SHAPE_MATRICES,
    DPT_SHAPE_MATRICES_POINTS,
    DPT_SHAPE_SAMPLES
} dpt_result_shape;

typedef struct dpt_result_array_field {
    dpt_result_column column;
    size_t offset; /* of a double * */
    dpt_result_shape shape;
} dpt_result_array_field;

/* Where checks are on: the study is the same on all ranks. Collective over comm. */
void dpt_results_check_study(const dpt_comm *comm, const dpt_results_study *study);

extern const dpt_result_text_field dpt_result_text_fields[DPT_RESULT_TEXTS];
extern const dpt_result_array_field dpt_result_array_fields[DPT_RESULT_ARRAYS];
extern const dpt_result_column dpt_result_scalar_columns[DPT_RESULT_SCALARS];
extern const dpt_result_column dpt_result_tensor_columns[DPT_RESULT_STATS];

/* Text of a field, never NULL; place of a field; values and sides of an array field. */
const char *dpt_result_string(const dpt_result *result, int field);
char **dpt_result_text_at(dpt_result *result, int field);
double *dpt_result_array(const dpt_result *result, int field);
int dpt_result_array_sides(const dpt_result *result, int field, int64_t sides[2]);

/* XXH3-64 over everything that the record holds. */
uint64_t dpt_result_hash(const dpt_result *result);

/* Name as a file or link name: letters, digits and ._+=,- stay, the rest becomes %XX; "" becomes
 * "-"; a very long one is cut and ends in its hash. Allocated; NULL without memory. */
char *dpt_result_encode(const char *name);

/* Text of summary.csv and of results.json. The caller looks at ferror; json also fails without memory. */
void dpt_results_csv(FILE *file, const dpt_result *results, int64_t count);
dpt_status dpt_results_json(FILE *file, const dpt_results_study *study, const dpt_result *results,
                            int64_t count);

/* One record in an open HDF5 group: true when all was written or read and its checksum holds. Only
 * what the file can hold is allocated. `file_bytes` bounds it. */
bool dpt_result_put(int64_t group, const dpt_result *result);
bool dpt_result_get(int64_t group, int64_t file_bytes, dpt_result *result);

/* Whether a record has the columns of this program, no fewer and no more: else another version wrote it.
 * `others`: attributes of the group that are not the record's. */
bool dpt_result_has_columns(int64_t group, int others);
bool dpt_result_has_names(int64_t group, const char *table, const char *const *names, int count);

/** The first unit of each data set whose curvature was measured stands for it: all units of a data set have the same.
 * Local. @return whether unit i is such a one. */
bool dpt_result_is_law(const dpt_result *results, int64_t i);

/** Member `proof` of results.json: dpt_proof of each data set with a law. Local. @param[in,out] root a json_t object.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_result_proof_json(const dpt_result *results, int64_t count, void *root);

/** Member `group_proof`: dpt_proof of the groups left out on each data set. Local. As above. */
dpt_status dpt_result_group_proof_json(const dpt_result *results, int64_t count, void *root);

/** Text of proof.csv. Local; the caller looks at ferror. */
void dpt_result_proof_csv(FILE *file, const dpt_result *results, int64_t count);

#endif
