#ifndef DELTAPATH_TENSOR_DTYPE_H
#define DELTAPATH_TENSOR_DTYPE_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Element types of stored tensors. The first three can be edited; the others are copied as they are. */
typedef enum dpt_dtype {
    DPT_F32,
    DPT_F16,
    DPT_BF16,
    DPT_F64,
    DPT_I64,
    DPT_I32,
    DPT_I16,
    DPT_I8,
    DPT_U8,
    DPT_BOOL,
    DPT_F8_E4M3,
    DPT_F8_E5M2,
    DPT_DTYPE_COUNT
} dpt_dtype;

/** Bytes of one element. Local. */
int64_t dpt_dtype_size(dpt_dtype dtype);

/** Name as safetensors writes it: "F32", "BF16", "F8_E4M3" ... Local. */
const char *dpt_dtype_name(dpt_dtype dtype);

/** Type of a name: safetensors names, and f32/float32, f16/float16, bf16/bfloat16 of job files.
 * Local. @return false when the name is unknown. */
bool dpt_dtype_parse(const char *name, dpt_dtype *out);

/** Whether deltapath can compute with the type: f32, f16, bf16. Local. */
bool dpt_dtype_editable(dpt_dtype dtype);

/** Convert n stored elements to fp32; exact. The type is editable, f8 or i8. Local.
 * @param[in] stored (n) any alignment. @param[out] values (n). */
void dpt_dtype_to_f32(dpt_dtype dtype, const void *stored, float *values, int64_t n);

/** Convert fp32 to n stored elements, rounded once to nearest even; values beyond the range of f16
 * become infinite as IEEE 754 says, beyond that of f8 its largest; NaN stays NaN. The type is editable or f8. Local. */
void dpt_dtype_from_f32(dpt_dtype dtype, const float *values, void *stored, int64_t n);

/** Index of the first stored element that is NaN or infinite; -1 if there is none. Local. */
int64_t dpt_dtype_find_nonfinite(dpt_dtype dtype, const void *stored, int64_t n);

/** Index of the first finite value that is stored as an infinity; -1 if there is none. Local.
 * @param[in] values (n). @param[in] stored (n) what dpt_dtype_from_f32 made of them. */
int64_t dpt_dtype_find_overflow(dpt_dtype dtype, const float *values, const void *stored,
                                int64_t n);

/** How many values other than 0 are stored as 0. Local. */
int64_t dpt_dtype_count_lost(dpt_dtype dtype, const float *values, const void *stored, int64_t n);

#endif
