#ifndef DELTAPATH_SRC_STORE_ADAPTER_H
#define DELTAPATH_SRC_STORE_ADAPTER_H

/* A PEFT adapter on its base: the header has the tensors of the base and, as factors, those of the adapter's file. */

#include "store_internal.h"

/** How an adapter changes one tensor of its base: its own values in their place, a product added to them, or both. */
typedef struct dpt_store_adapted {
    int64_t full; /**< factor with values in the base's place; -1 */
    int64_t a, b; /**< factors A (rank, inputs) and B (outputs, rank); -1 */
    int64_t rank;
    float scaling;  /**< of B A */
    bool swapped;   /**< the tensor is (inputs, outputs), as of embeddings and GPT-2 */
    bool embedding; /**< the product is rounded to the tensor's type before it is added */
} dpt_store_adapted;

/** What changes the tensors of a catalog, and the factors of the one that was read last. */
typedef struct dpt_store_adapter {
    const dpt_store_header *header; /**< borrowed, as the catalog */
    const dpt_catalog *catalog;
    dpt_store_adapted *tensors; /**< (tensors of the catalog); NULL: there is no adapter */
    dpt_store_adapted apart;    /**< what it has for a head that is no tensor of the base */
    bool ties;                  /**< ensure_weight_tying */
    int held;                   /**< tensor whose factors are in memory; -1 */
    float *left, *right;        /**< (rows, rank) and (rank, columns) of it */
} dpt_store_adapter;

/** Find what each factor of the header changes. Local; the same on all ranks.
 * Errors: DPT_ERR_INPUT naming the adapter and the option, tensor or module that does not fit; DPT_ERR_OUTPUT. */
dpt_status dpt_store_adapter_create(const dpt_store_header *header, const dpt_catalog *catalog,
                                    dpt_store_adapter *out);
void dpt_store_adapter_destroy(dpt_store_adapter *adapter); /**< Local; an empty one is allowed. */

/** How a tensor is changed; NULL: it is not. Local. */
const dpt_store_adapted *dpt_store_adapter_of(const dpt_store_adapter *adapter, int tensor);

/** dpt_store_check_head. @param[in] path  for messages. */
dpt_status dpt_store_adapter_check_head(const dpt_store_adapter *adapter, dpt_store_files *io,
                                        const char *path, const dpt_tied_head *head);

/** Elements [ig, ig + n) of a tensor that has values of its own, rounded to its type in the catalog. Local.
 * Errors: DPT_ERR_INPUT naming the file; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_store_adapter_replace(const dpt_store_adapter *adapter, dpt_store_files *io,
                                     int tensor, int64_t ig, int64_t n, void *out);

/** Add scaling B A to elements [ig, ig + n) of a tensor that has factors. Local.
 *
 * Computes: as merge_and_unload() of peft (get_delta_weight in fp32, added to the weights): the sum over the rank is a
 * chain of fused multiply-adds in fp32 from its first to its last, times the scaling in fp32; one rounding of the sum,
 * and as peft does it one of the product before, of embeddings.
 * Factors stay in memory until those of another tensor are wanted.
 * @param[in,out] values (n) of the type in the catalog.
 * Errors: DPT_ERR_INPUT naming the file, or a tensor with a result that is not finite; DPT_ERR_OUTPUT.
 * Determinism: same bits for any range. */
dpt_status dpt_store_adapter_add(dpt_store_adapter *adapter, dpt_store_files *io, int tensor,
                                 int64_t ig, int64_t n, void *values);

/* What the options of an adapter_config.json say of a module. */
typedef struct dpt_store_adapter_options {
    const char *path; /**< for messages */
    json_t *root;
    int64_t rank;
    double alpha;
    bool rslora, fan_in_fan_out;
} dpt_store_adapter_options;

/** Read and check the options that all modules share; those that change the weights in another way are refused by
 * name. Local. Errors: DPT_ERR_INPUT naming file and key. */
dpt_status dpt_store_adapter_read(const char *path, const char *text,
                                  dpt_store_adapter_options *out);
void dpt_store_adapter_forget(dpt_store_adapter_options *options); /**< Local. */

/** Rank and scaling of a module, by the patterns of the options. Local. Errors: DPT_ERR_INPUT naming a key. */
dpt_status dpt_store_adapter_module(const dpt_store_adapter_options *options, const char *module,
                                    int64_t *rank, double *scaling);

#endif
