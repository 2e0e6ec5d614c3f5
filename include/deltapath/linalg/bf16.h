#ifndef DELTAPATH_LINALG_BF16_H
#define DELTAPATH_LINALG_BF16_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Products of bf16 matrices with sums in fp32, by oneDNN, which takes the instructions that the processor has (AMX,
 * AVX-512-BF16). Keeps what oneDNN has made for each shape. */
typedef struct dpt_bf16 dpt_bf16;

/** What this processor does with them. */
typedef enum dpt_bf16_speed {
    DPT_BF16_NONE,     /**< oneDNN has no such product here */
    DPT_BF16_EMULATED, /**< without instructions for it: slower than fp32 */
    DPT_BF16_FAST
} dpt_bf16_speed;

dpt_bf16_speed dpt_bf16_find_speed(void); /**< Local. */

/** Local. Errors: DPT_ERR_OUTPUT without memory or when oneDNN fails; *out is NULL. */
dpt_status dpt_bf16_create(dpt_bf16 **out);
void dpt_bf16_destroy(dpt_bf16 *bf16); /**< Local; NULL is allowed. */

/** c (M, N) = op(a) op(b), or that added to c; K the inner size. All matrices are row-major without gaps. */
typedef struct dpt_bf16_shape {
    int64_t M, N, K;
    bool trans_a; /**< a is (K, M), not (M, K) */
    bool trans_b; /**< b is (N, K), not (K, N) */
    bool add;
    bool
        uneven; /**< M, or of trans_a alone K, is one of many: calls are cut so that these share what is made */
} dpt_bf16_shape;

/** Local. A product that fails leaves c undefined, and is said by dpt_bf16_get_status.
 * Determinism: the same bits for the same shape, values, processor and number of threads. */
void dpt_bf16_multiply(dpt_bf16 *bf16, const dpt_bf16_shape *shape, const uint16_t *a,
                       const uint16_t *b, float *c);

/** Of all products so far. Local. Errors: DPT_ERR_OUTPUT where one failed. */
dpt_status dpt_bf16_get_status(const dpt_bf16 *bf16);

/** Products so far. Local. */
int64_t dpt_bf16_count(const dpt_bf16 *bf16);

#endif
