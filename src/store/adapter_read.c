#include "adapter.h"

#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Values of an adapted tensor. */

enum { CHUNK = 1 << 12 }; /* elements at a time: their sums stay in the L1 cache */

static dpt_status adapter_read_factor(const dpt_store_adapter *adapter, dpt_store_files *io,
                                      int64_t factor, int64_t ig, int64_t n, void *stored,
                                      float *values) {
    const dpt_store_entry *entry = &adapter->header->factors[factor];
    dpt_status st = dpt_store_files_read_entry(io, entry, ig, n, stored);
    if (st == DPT_OK)
        dpt_dtype_to_f32(entry->dtype, stored, values, n);
    return st;
}

dpt_status dpt_store_adapter_replace(const dpt_store_adapter *adapter, dpt_store_files *io,
                                     int tensor, int64_t ig, int64_t n, void *out) {
    const dpt_tensor_info *info = &adapter->catalog->tensors[tensor];
    int64_t size = dpt_dtype_size(info->dtype);
    float stored[CHUNK], values[CHUNK];
    dpt_status st = DPT_OK;
    for (int64_t at = 0; at < n && st == DPT_OK; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        st = adapter_read_factor(adapter, io, adapter->tensors[tensor].full, ig + at, part, stored,
                                 values);
        if (st == DPT_OK)
            dpt_dtype_from_f32(info->dtype, values, (char *)out + at * size, part);
    }
    return st;
}

/* A whole factor (rows, cols) in fp32; transposed where asked for. */
static dpt_status adapter_load(const dpt_store_adapter *adapter, dpt_store_files *io,
                               int64_t factor, bool transposed, float **out) {
    const dpt_store_entry *entry = &adapter->header->factors[factor];
    int64_t rows = entry->shape[0], cols = entry->shape[1];
    float *stored = dpt_mem_alloc(cols, sizeof *stored, "row of a factor");
    float *row = dpt_mem_alloc(cols, sizeof *row, "row of a factor");
    *out = dpt_mem_alloc(rows * cols, sizeof **out, "factor of an adapter");
    dpt_status st = stored != NULL && row != NULL && *out != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < rows && st == DPT_OK; i++) {
        st = adapter_read_factor(adapter, io, factor, i * cols, cols, stored, row);
        for (int64_t j = 0; j < cols && st == DPT_OK; j++)
            (*out)[transposed ? j * rows + i : i * cols + j] = row[j];
    }
    dpt_mem_free(row);
    dpt_mem_free(stored);
    return st;
}

static dpt_status adapter_hold(dpt_store_adapter *adapter, dpt_store_files *io, int tensor) {
    const dpt_store_adapted *to = &adapter->tensors[tensor];
    if (adapter->held == tensor)
        return DPT_OK;
    dpt_mem_free(adapter->left);
    dpt_mem_free(adapter->right);
    adapter->left = adapter->right = NULL;
    adapter->held = -1;
    dpt_status st =
        adapter_load(adapter, io, to->swapped ? to->a : to->b, to->swapped, &adapter->left);
    if (st == DPT_OK)
        st = adapter_load(adapter, io, to->swapped ? to->b : to->a, to->swapped, &adapter->right);
    adapter->held = st == DPT_OK ? tensor : -1;
    return st;
}

/* Row `left` (rank) times columns [0, n) of `right` (rank, ld), as sgemm of torch and NumPy takes it for these ranks:
 * fused, in order. Elsewhere fmaf is a slow call with the same bits. */
static void adapter_product(const float *left, const float *right, int64_t rank, int64_t ld,
                            int64_t n, float *restrict sums) {
    for (int64_t j = 0; j < n; j++)
        sums[j] = 0.0F;
    for (int64_t k = 0; k < rank; k++) {
        const float factor = left[k], *row = right + k * ld;
        for (int64_t j = 0; j < n; j++)
            sums[j] = __builtin_fmaf(factor, row[j], sums[j]);
    }
}

/* Elements [at, at + n) of a row of the tensor. */
static void adapter_add_chunk(const dpt_store_adapter *adapter, const dpt_tensor_info *info,
                              const dpt_store_adapted *to, int64_t row, int64_t at, int64_t n,
                              void *values) {
    float sums[CHUNK], base[CHUNK], rounded[CHUNK];
    adapter_product(adapter->left + row * to->rank, adapter->right + at, to->rank, info->shape[1],
                    n, sums);
    for (int64_t j = 0; j < n; j++)
        sums[j] *= to->scaling;
    if (to->embedding) {
        dpt_dtype_from_f32(info->dtype, sums, rounded, n);
        dpt_dtype_to_f32(info->dtype, rounded, sums, n);
    }
    dpt_dtype_to_f32(info->dtype, values, base, n);
    for (int64_t j = 0; j < n; j++)
        base[j] += sums[j];
    dpt_dtype_from_f32(info->dtype, base, values, n);
}

dpt_status dpt_store_adapter_add(dpt_store_adapter *adapter, dpt_store_files *io, int tensor,
                                 int64_t ig, int64_t n, void *values) {
    const dpt_tensor_info *info = &adapter->catalog->tensors[tensor];
    const dpt_store_adapted *to = &adapter->tensors[tensor];
    int64_t cols = info->shape[1], size = dpt_dtype_size(info->dtype);
    if (n <= 0)
        return DPT_OK;
    dpt_status st = adapter_hold(adapter, io, tensor);
    if (st != DPT_OK)
        return st;
    int64_t first = ig / cols, last = (ig + n - 1) / cols;
#pragma omp parallel for schedule(static) if (n > 8 * CHUNK)
    for (int64_t row = first; row <= last; row++) {
        int64_t begin = row == first ? ig - first * cols : 0;
        int64_t end = row == last ? ig + n - last * cols : cols;
        for (int64_t at = begin; at < end; at += CHUNK)
            adapter_add_chunk(adapter, info, to, row, at, end - at < CHUNK ? end - at : CHUNK,
                              (char *)values + (row * cols + at - ig) * size);
    }
    int64_t bad = dpt_dtype_find_nonfinite(info->dtype, values, n);
    if (bad < 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "%s: element %" PRId64
                     " of '%.300s' and the product of the adapter (scaling %g) are together no "
                     "finite number of %s: repair the base, or lower lora_alpha",
                     adapter->header->files[adapter->header->nfiles - 1], ig + bad, info->name,
                     (double)to->scaling, dpt_dtype_name(info->dtype));
}
