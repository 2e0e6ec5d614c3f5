#include "magnitudes.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"

#include <math.h>
#include <string.h>

enum { BINS = 1 << 15, LOW_BITS = 16 };

dpt_status dpt_edit_magnitudes_create(dpt_edit_magnitudes *out) {
    *out = (dpt_edit_magnitudes){.n = 0};
    out->count = dpt_mem_zalloc(BINS, sizeof *out->count, "counts of magnitudes");
    out->above = dpt_mem_zalloc(BINS, sizeof *out->above, "counts of magnitudes");
    out->sum = dpt_mem_zalloc(BINS, sizeof *out->sum, "counts of magnitudes");
    out->square = dpt_mem_zalloc(BINS, sizeof *out->square, "counts of magnitudes");
    bool made = out->count != NULL && out->above != NULL && out->sum != NULL && out->square != NULL;
    return made ? DPT_OK : DPT_ERR_OUTPUT;
}

void dpt_edit_magnitudes_destroy(dpt_edit_magnitudes *of) {
    dpt_mem_free(of->count);
    dpt_mem_free(of->above);
    dpt_mem_free(of->sum);
    dpt_mem_free(of->square);
}

static double magnitudes_edge(int64_t bin) {
    uint32_t bits = (uint32_t)bin << LOW_BITS;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Sums over the `k` largest of a bin. */
static void magnitudes_part(const dpt_edit_magnitudes *of, int64_t bin, int64_t k, double *sum,
                            double *square) {
    if (k == 0 || bin == 0) /* the lowest bin holds zeros and what is as good as zero */
        return;
    double high = magnitudes_edge(bin + 1), low = magnitudes_edge(bin);
    double w = (high - low) * (double)k / (double)of->count[bin];
    *sum += (double)k * (high - w / 2.0);
    *square += (double)k * (high * high - high * w + w * w / 3.0);
}

static void magnitudes_accumulate(dpt_edit_magnitudes *of) {
    int64_t above = 0;
    double sum = 0.0, square = 0.0;
    for (int64_t bin = BINS - 1; bin >= 0; bin--) {
        of->above[bin] = above;
        of->sum[bin] = sum;
        of->square[bin] = square;
        magnitudes_part(of, bin, of->count[bin], &sum, &square);
        above += of->count[bin];
    }
    of->n = above;
}

/* Sums over the `k` largest entries. */
static void magnitudes_largest(const dpt_edit_magnitudes *of, int64_t k, double *sum,
                               double *square) {
    int64_t low = 0, high = BINS - 1; /* the highest bin with at most k entries above it */
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (of->above[middle] < k)
            high = middle;
        else
            low = middle + 1;
    }
    *sum = of->sum[low];
    *square = of->square[low];
    if (k > of->above[low])
        magnitudes_part(of, low, k - of->above[low], sum, square);
}

static void magnitudes_add(const float *delta, int64_t n, int64_t stride, int64_t *count) {
    for (int64_t i = 0; i < n; i += stride) {
        uint32_t bits;
        memcpy(&bits, &delta[i], sizeof bits);
        count[(bits & UINT32_C(0x7fffffff)) >> LOW_BITS]++;
    }
}

/* Deltas of a run, those of one part where it is given. */
static void magnitudes_add_part(const dpt_parts *parts, int part, dpt_range range,
                                const float *delta, int64_t *count) {
    for (int64_t at = 0; at < range.n;) {
        dpt_part_span span = dpt_parts_span(parts, range.tensor, range.ig + at, range.n - at);
        for (int w = 0; w < span.ways; w++)
            if (span.part[w] == part)
                magnitudes_add(delta + at + w, span.n - w, span.ways, count);
        at += span.n;
    }
}

static dpt_status magnitudes_count_cells(dpt_edit_work *work, int tensor, int part, float *delta,
                                         int64_t *count) {
    const dpt_parts *parts = work->input->parts;
    dpt_part_item item = {.end = work->catalog->tensors[tensor].numel};
    dpt_status st = dpt_stop_check();
    if (part >= 0)
        item = dpt_parts_item(parts, tensor, parts->items[part].layout.first);
    int64_t cells[] = {dpt_shard_cell_of(work->input->shard, tensor, item.begin),
                       dpt_shard_cell_of(work->input->shard, tensor, item.end - 1) + 1};
    for (int64_t c = cells[0]; c < cells[1] && st == DPT_OK; c++) {
        if (c < work->first || c >= work->last)
            continue;
        dpt_range range = dpt_shard_cell(work->input->shard, c);
        st = dpt_edit_delta(work, 0, range, delta);
        if (st == DPT_OK && part >= 0)
            magnitudes_add_part(parts, part, range, delta, count);
        else if (st == DPT_OK)
            magnitudes_add(delta, range.n, 1, count);
    }
    return st;
}

dpt_status dpt_edit_magnitudes_count(dpt_edit_work *work, int tensor, int part,
                                     dpt_edit_magnitudes *of) {
    DPT_ASSERT_SAME(work->input->comm, tensor);
    DPT_ASSERT_SAME(work->input->comm, part);
    memset(of->count, 0, BINS * sizeof *of->count);
    float *delta = dpt_mem_alloc(DPT_CELL, sizeof *delta, "deltas of a cell");
    dpt_status st = delta != NULL ? magnitudes_count_cells(work, tensor, part, delta, of->count)
                                  : DPT_ERR_OUTPUT;
    st = dpt_status_worse(st, dpt_comm_sum_i64(work->input->comm, of->count, BINS));
    st = dpt_agree(work->input->comm, st);
    dpt_mem_free(delta);
    magnitudes_accumulate(of);
    return st;
}

double dpt_edit_magnitudes_square(const dpt_edit_magnitudes *of) {
    double sum, all;
    magnitudes_largest(of, of->n, &sum, &all);
    return all;
}

double dpt_edit_magnitudes_pruned(const dpt_edit_magnitudes *of, int64_t kept) {
    double sum, square, all;
    magnitudes_largest(of, of->n, &sum, &all);
    magnitudes_largest(of, kept, &sum, &square);
    return all > 0.0 ? fmax(0.0, 1.0 - square / all) : 0.0;
}

double dpt_edit_magnitudes_blocks(const dpt_edit_magnitudes *of, int blocks) {
    double sum, all, before_sum = 0.0, before_square = 0.0, lost = 0.0;
    int64_t begin = 0, nonzero = of->n - of->count[0];
    magnitudes_largest(of, of->n, &sum, &all);
    for (int j = 0; j < blocks; j++) {
        int64_t end = of->n / blocks * (j + 1) + of->n % blocks * (j + 1) / blocks;
        int64_t filled = (end < nonzero ? end : nonzero) - (begin < nonzero ? begin : nonzero);
        double square;
        magnitudes_largest(of, end, &sum, &square);
        if (end > begin) {
            double s1 = sum - before_sum, s2 = square - before_square;
            double mean = s1 / (double)(end - begin);
            lost += fmax(0.0, s2 - 2.0 * mean * s1 + (double)filled * mean * mean);
        }
        before_sum = sum;
        before_square = square;
        begin = end;
    }
    return all > 0.0 ? lost / all : 0.0;
}
