#ifndef DELTAPATH_SRC_STORE_DEQUANTISE_H
#define DELTAPATH_SRC_STORE_DEQUANTISE_H

/* Quantised tensors that are shown as plain ones: what lies in the files is `values` or codes in one tensor of the
 * header and their scales in another, which the catalog leaves out. */

#include "store_internal.h"

typedef enum dpt_store_kind {
    DPT_STORE_PLAIN,
    DPT_STORE_SCALED, /**< f8 or i8 times a scale */
    DPT_STORE_MXFP4 /**< two codes of 4 bits a byte, 32 with a scale; matrices are shown transposed */
} dpt_store_kind;

/** How a tensor of the catalog lies in the files. A scaled one is a row of matrices of rows x cols values as they lie,
 * cut into blocks that share a scale; the last block of a side may be short. All 0 when it is plain. */
typedef struct dpt_store_form {
    dpt_store_kind kind;
    int64_t entry;  /**< of the header: values or codes */
    int64_t scales; /**< of the header; -1 */
    int64_t rows, cols;
    int64_t block_rows, block_cols;
} dpt_store_form;

/** The catalog of a sealed header, sorted by name, and how each of its tensors lies. Local; the same on all ranks.
 *
 * `X` of f8 with `X_scale_inv` (X ends with `weight` as a rule), of f8 or i8 with `X_scale`, and `X_blocks` of u8 with
 * `X_scales` become one tensor X of the float type that the configuration names, bf16 when it names none.
 * @param[out] forms  (tensors of the catalog), allocated.
 * @param[out] config  the header's without what tells of the quantisation; NULL when it is to be taken as it is.
 * Errors: DPT_ERR_INPUT naming file and tensor of scales that do not fit; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_store_dequantise(const dpt_store_header *header, dpt_catalog *catalog,
                                dpt_store_form **forms, char **config);

/** The same of every tensor as it lies, quantised or not. */
dpt_status dpt_store_show_stored(const dpt_store_header *header, dpt_catalog *catalog,
                                 dpt_store_form **forms);

/** dpt_store_open_on whose store shows that. Collective over comm (same: path, base). Errors: as dpt_store_open. */
dpt_status dpt_store_open_stored(const dpt_comm *comm, const char *path, const char *base,
                                 dpt_store **out);

/** How a tensor lies, for people, and the bytes of its codes and scales; false, "" and 0 when it is plain. Local. */
bool dpt_store_form_text(const dpt_store_header *header, const dpt_store_form *form, char *text,
                         int size, int64_t *bytes);

/** How a tensor of a store's catalog lies; elements [at, at + n) of an entry of its header, as they are stored. Local. */
const dpt_store_form *dpt_store_form_of(const dpt_store *store, int tensor);
dpt_status dpt_store_read_entry(dpt_store *store, int64_t entry, int64_t at, int64_t n, void *out);

/** Of a scaled tensor: how many of the n > 0 elements from ig on have one scale, and which. Local. */
int64_t dpt_store_form_piece(const dpt_store_form *form, int64_t ig, int64_t n, int64_t *scale);

/** Log how many tensors are quantised, and how the first is; nothing without one. Local. */
void dpt_store_say_forms(const dpt_store *store);

/** Elements [ig, ig + n) of a tensor that is not plain, in its type of the catalog. Local; no more than 1.1 MiB is held.
 *
 * Scaled: fp32 value times fp32 scale, rounded to the type. MXFP4: value times 2^(scale - 127), likewise; the same bits
 * as transformers' finegrained_fp8 and mxfp4 give.
 * Errors: DPT_ERR_INPUT naming the file when it cannot be read, and the tensor when a scale is NaN or infinite. */
dpt_status dpt_store_dequantise_run(const dpt_store_header *header, dpt_store_files *io,
                                    const dpt_store_form *form, dpt_dtype dtype, int64_t ig,
                                    int64_t n, void *out);

/** A block of which dpt_store_dequantise_run would read the same codes for each row: rows of one MXFP4 matrix. The
 * block lies inside the tensor. Local. Errors: as above. */
bool dpt_store_dequantise_takes(const dpt_store_form *form, const dpt_block *block);
dpt_status dpt_store_dequantise_block(const dpt_store_header *header, dpt_store_files *io,
                                      const dpt_store_form *form, dpt_dtype dtype,
                                      const dpt_block *block, void *out);

/** An MXFP4 tensor of an edited model in memory. */
typedef struct dpt_store_mxfp4_task {
    const dpt_comm *comm;
    dpt_store *like;
    const dpt_shard *shard;
    int tensor;
    dpt_field *edited;
    dpt_store_writer *writer; /**< or NULL */
} dpt_store_mxfp4_task;

/** dpt_quantiser_apply for such a tensor. Collective over the task's comm, agreed; the same bits at any number of ranks. */
dpt_status dpt_store_quantise_mxfp4(const dpt_store_mxfp4_task *task);

#endif
