#include "diff.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/quantile.h"
#include "deltapath/model/model.h"
#include "deltapath/linalg/reduce.h"
#include "deltapath/linalg/blas_memory.h"
#include "deltapath/linalg/svd.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double quantile_of[DPT_DIFF_QUANTILES] = {0.10, 0.50, 0.90, 0.99, 1.0};

enum { BATCH_TENSORS = 64, ITERATIONS = 20, BYTES_WIDEST = 4 };

/* Sums of one cell, each into its slot. */
enum { SUM_PRE, SUM_POST, SUM_DELTA, SUM_DOT, SUM_ABS, SUM_ZERO, SUMS };

static dpt_status sum_cell(dpt_diff *d, int64_t cell) {
    dpt_range range = dpt_shard_cell(&d->shard, cell);
    if (!d->pair.comparable[range.tensor])
        return DPT_OK;
    dpt_status st = dpt_pair_values(&d->pair, range, d->stored, d->a, d->b);
    if (st != DPT_OK)
        return st;
    d->partial[SUM_PRE][cell] = dpt_reduce_square(d->a, range.n);
    d->partial[SUM_POST][cell] = dpt_reduce_square(d->b, range.n);
    d->partial[SUM_DOT][cell] = dpt_reduce_dot(d->a, d->b, range.n);
    int64_t zeros = 0;
    for (int64_t i = 0; i < range.n; i++) {
        d->a[i] = d->b[i] - d->a[i];
        zeros += d->a[i] == 0.0f;
    }
    d->partial[SUM_DELTA][cell] = dpt_reduce_square(d->a, range.n);
    d->partial[SUM_ABS][cell] = dpt_reduce_abs(d->a, range.n);
    d->partial[SUM_ZERO][cell] = (double)zeros;
    return DPT_OK;
}

static dpt_status take_sums(dpt_diff *d) {
    const dpt_shard *shard = &d->shard;
    dpt_status st = DPT_OK;
    dpt_progress progress;
    int64_t end = shard->rank_first[d->comm->rank + 1];
    dpt_progress_begin(&progress, "diff (rank 0's share)", "elements",
                       (end - shard->rank_first[d->comm->rank]) * DPT_CELL);
    for (int64_t c = shard->rank_first[d->comm->rank]; c < end && st == DPT_OK; c++) {
        st = sum_cell(d, c);
        dpt_progress_add(&progress, DPT_CELL);
    }
    dpt_progress_end(&progress);
    st = dpt_agree(d->comm, st);
    for (int s = 0; s < SUMS && st == DPT_OK; s++)
        st = dpt_agree(d->comm, dpt_reduce_totals(d->comm, shard->ntensors, shard->first_cell,
                                                  d->partial[s], d->totals[s]));
    return st;
}

static dpt_status quantile_values(void *ctx, dpt_range range, float *values) {
    dpt_diff *d = ctx;
    return dpt_pair_delta(&d->pair, range, d->stored, d->a, values);
}

/* Nearest rank: the q-quantile of n magnitudes is the ceil(q n)-th from below, which is the
 * (n - ceil(q n) + 1)-th from above. */
static int64_t rank_from_above(int64_t n, double q) {
    int64_t below = (int64_t)ceil(q * (double)n);
    below = below < 1 ? 1 : below > n ? n : below;
    return n - below + 1;
}

/* Tensors [first, end) in one selection; the histograms of all at once could outgrow the budget. */
static dpt_status take_quantiles(dpt_diff *d, int first, int end) {
    dpt_quantile_target targets[BATCH_TENSORS * DPT_DIFF_QUANTILES];
    dpt_cut cuts[BATCH_TENSORS * DPT_DIFF_QUANTILES];
    int64_t count = 0;
    for (int t = 0; t < d->catalog->count; t++) {
        bool inside =
            t >= first && t < end && d->pair.comparable[t] && d->catalog->tensors[t].numel > 0;
        d->group_of[t] = inside ? t : -1;
        for (int q = 0; q < DPT_DIFF_QUANTILES && inside; q++, count++)
            targets[count] = (dpt_quantile_target){
                .group = t, .count = rank_from_above(d->catalog->tensors[t].numel, quantile_of[q])};
    }
    if (count == 0)
        return DPT_OK;
    const dpt_quantile_source source = {.values = quantile_values, .ctx = d};
    dpt_status st = dpt_agree(d->comm, dpt_quantile_select(d->comm, &d->shard, NULL, d->group_of,
                                                           count, targets, &source, cuts));
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        float value;
        memcpy(&value, &cuts[i].bits, sizeof value);
        d->rows[targets[i].group].quantiles[i % DPT_DIFF_QUANTILES] = (double)value;
    }
    return st;
}

/* A line of a matrix: n elements that are `step` apart. */
static dpt_status read_line(dpt_diff *d, dpt_range range, int64_t step, float *line) {
    int64_t most = DPT_CELL / step, n = range.n;
    dpt_status st = DPT_OK;
    for (int64_t at = 0; at < n && st == DPT_OK; at += most) {
        int64_t take = n - at < most ? n - at : most;
        dpt_range part = {.tensor = range.tensor, .ig = range.ig + at * step};
        part.n = (take - 1) * step + 1;
        st = dpt_pair_delta(&d->pair, part, d->stored, d->a, step == 1 ? line + at : d->b);
        for (int64_t i = 0; i < take && step > 1 && st == DPT_OK; i++)
            line[at + i] = d->b[i * step];
    }
    return st;
}

/* This rank's lines of the delta of a matrix: its outputs, or its inputs where those lie together. */
static dpt_status read_slab(dpt_diff *d, const dpt_part *part, int64_t begin, int64_t end,
                            float *slab) {
    const dpt_layout *l = &part->layout;
    bool turned = dpt_layout_is_transposed(l);
    int64_t length = turned ? l->rows : l->cols;
    bool whole = !turned && l->run == l->rows && l->row_stride == l->cols; /* one stretch */
    int64_t lines = whole && begin < end ? end - begin : 1;
    dpt_status st = DPT_OK;
    for (int64_t at = begin; at < end && st == DPT_OK; at += lines) {
        dpt_range range = {.tensor = part->tensor, .n = lines * length};
        range.ig = turned ? dpt_layout_place(l, 0, at) : dpt_layout_place(l, at, 0);
        st = read_line(d, range, turned ? l->row_stride : 1, slab + (at - begin) * length);
    }
    return st;
}

/* All ranks share each matrix; one that does not fit in the budget is left out on all. The norm of a transpose is that
 * of the matrix. */
static dpt_status take_matrix(dpt_diff *d, const dpt_part *part, int iterations, double *norm) {
    bool turned = dpt_layout_is_transposed(&part->layout);
    int64_t lines = turned ? part->layout.cols : part->layout.rows;
    int64_t length = turned ? part->layout.rows : part->layout.cols;
    int64_t begin;
    int64_t end;
    *norm = NAN;
    dpt_shard_split(lines, d->comm->size, d->comm->rank, &begin, &end);
    int64_t bytes = (end - begin) * length * (int64_t)sizeof(float);
    int64_t short_of = bytes > dpt_mem_available() / 2;
    dpt_status st = dpt_agree(d->comm, dpt_comm_max_i64(d->comm, &short_of, 1));
    if (st != DPT_OK || short_of)
        return st;
    float *slab = dpt_mem_alloc((end - begin) * length, sizeof *slab, "slab of a delta");
    st = slab == NULL ? DPT_ERR_OUTPUT : read_slab(d, part, begin, end, slab);
    st = dpt_agree(d->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(d->comm, dpt_svd_spectral_norm(d->comm, lines, length, end - begin, slab,
                                                      iterations, norm));
    dpt_mem_free(slab);
    return st;
}

/* The largest of a tensor's matrices; none when one of them is left out. */
static dpt_status take_spectral(dpt_diff *d, int t, int iterations) {
    const dpt_tensor_info *info = &d->catalog->tensors[t];
    dpt_status st = DPT_OK;
    double most = 0.0;
    if (!dpt_role_is_matrix(info) || info->numel == 0 || !d->pair.comparable[t])
        return DPT_OK;
    for (int p = d->parts.first[t]; p < d->parts.first[t + 1] && st == DPT_OK; p++) {
        double norm;
        st = take_matrix(d, &d->parts.items[p], iterations, &norm);
        most = norm > most || isnan(norm) ? norm : most;
        if (isnan(most))
            break;
    }
    d->rows[t].spectral = most;
    return st;
}

static void fill_row(dpt_diff *d, int t) {
    dpt_diff_row *row = &d->rows[t];
    double n = (double)d->catalog->tensors[t].numel;
    row->pre = sqrt(d->totals[SUM_PRE][t]);
    row->post = sqrt(d->totals[SUM_POST][t]);
    row->delta = sqrt(d->totals[SUM_DELTA][t]);
    row->mean = n > 0 ? d->totals[SUM_ABS][t] / n : 0.0;
    row->zeros = n > 0 ? d->totals[SUM_ZERO][t] / n : 0.0;
    row->cosine = d->totals[SUM_DOT][t] / (row->pre * row->post);
    if (isinf(row->cosine))
        row->cosine = NAN;
    row->spectral = NAN;
}

static dpt_status compute(dpt_diff *d, const dpt_diff_options *options) {
    dpt_status st = take_sums(d);
    for (int t = 0; t < d->catalog->count && st == DPT_OK; t++)
        fill_row(d, t);
    for (int t = 0; t < d->catalog->count && st == DPT_OK; t += BATCH_TENSORS)
        st = take_quantiles(d, t, t + BATCH_TENSORS);
    int iterations = options->iterations == 0 ? ITERATIONS : options->iterations;
    for (int t = 0; t < d->catalog->count && st == DPT_OK && iterations > 0; t++)
        st = take_spectral(d, t, iterations);
    return st;
}

/* Only pairs of float types that we compute with take part. */
static dpt_status diff_pair(dpt_diff *d) {
    dpt_status st = dpt_store_check_usable(d->pre);
    if (st == DPT_OK)
        st = dpt_store_check_usable(d->post);
    dpt_pair_side pre = {.source = dpt_store_source(d->pre), .name = dpt_store_path(d->pre)};
    dpt_pair_side post = {.source = dpt_store_source(d->post), .name = dpt_store_path(d->post)};
    if (st == DPT_OK)
        st = dpt_model_config_head(dpt_store_config(d->pre), pre.source.catalog, &pre.head);
    if (st == DPT_OK)
        st = dpt_model_config_head(dpt_store_config(d->post), post.source.catalog, &post.head);
    if (st == DPT_OK)
        st = dpt_store_check_head(d->pre, &pre.head);
    if (st == DPT_OK)
        st = dpt_store_check_head(d->post, &post.head);
    if (st == DPT_OK)
        st = dpt_pair_create(&pre, &post, DPT_MISMATCH_KEEP_POST, &d->pair, &d->report);
    if (st != DPT_OK)
        return st;
    for (int t = 0; t < d->catalog->count; t++)
        d->compared += d->pair.comparable[t];
    if (d->compared == 0)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s and %s have no tensor in common that can be compared: give two models "
                       "of one architecture",
                       dpt_store_path(d->pre), dpt_store_path(d->post));
    return st;
}

static dpt_status diff_allocate(dpt_diff *d) {
    int count = d->catalog->count;
    dpt_status st = dpt_shard_create(d->catalog, d->comm->size, &d->shard);
    if (st == DPT_OK)
        st = dpt_parts_create(d->catalog, dpt_store_heads(d->post), &d->parts);
    if (st != DPT_OK)
        return st;
    d->stored = dpt_mem_alloc(DPT_CELL, BYTES_WIDEST, "diff buffer");
    d->a = dpt_mem_alloc(DPT_CELL, sizeof *d->a, "diff buffer");
    d->b = dpt_mem_alloc(DPT_CELL, sizeof *d->b, "diff buffer");
    d->group_of = dpt_mem_zalloc(count, sizeof *d->group_of, "diff groups");
    d->rows = dpt_mem_zalloc(count, sizeof *d->rows, "diff table");
    bool ok =
        d->stored != NULL && d->a != NULL && d->b != NULL && d->group_of != NULL && d->rows != NULL;
    for (int s = 0; s < SUMS && ok; s++) {
        d->partial[s] = dpt_mem_zalloc(d->shard.cells, sizeof *d->partial[s], "diff sums");
        d->totals[s] = dpt_mem_zalloc(count, sizeof *d->totals[s], "diff sums");
        ok = d->partial[s] != NULL && d->totals[s] != NULL;
    }
    return ok ? DPT_OK : DPT_ERR_OUTPUT;
}

static void diff_destroy(dpt_diff *d) {
    for (int s = 0; s < SUMS; s++) {
        dpt_mem_free(d->partial[s]);
        dpt_mem_free(d->totals[s]);
    }
    dpt_mem_free(d->stored);
    dpt_mem_free(d->a);
    dpt_mem_free(d->b);
    dpt_mem_free(d->group_of);
    dpt_mem_free(d->rows);
    dpt_mem_free(d->report);
    dpt_pair_destroy(&d->pair);
    dpt_parts_destroy(&d->parts);
    dpt_shard_destroy(&d->shard);
    if (d->post != NULL)
        dpt_store_close(d->post);
    if (d->pre != NULL)
        dpt_store_close(d->pre);
}

dpt_status dpt_diff_run(const dpt_comm *comm, const dpt_diff_options *options) {
    DPT_ASSERT_SAME_TEXT(comm, options->pre);
    DPT_ASSERT_SAME_TEXT(comm, options->post);
    DPT_ASSERT_SAME_TEXT(comm, options->csv);
    DPT_ASSERT_SAME(comm, options->iterations);
    _Static_assert((int)SUMS == (int)DPT_DIFF_SUMS, "one array for each sum");
    dpt_diff d = {.comm = comm};
    dpt_status st = dpt_store_open(comm, options->pre, &d.pre);
    if (st == DPT_OK)
        st = dpt_store_open_on(comm, options->post, options->pre, &d.post);
    if (st == DPT_OK) {
        d.catalog = dpt_store_catalog(d.post);
        if (comm->rank == 0 && options->csv != NULL)
            st = dpt_diff_check_csv(options);
        if (st == DPT_OK)
            st = diff_pair(&d);
        if (st == DPT_OK)
            st = diff_allocate(&d);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK && options->iterations >= 0)
        st = dpt_blas_take_memory(comm);
    if (st == DPT_OK)
        st = compute(&d, options);
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? dpt_diff_print(&d, options) : DPT_OK);
    diff_destroy(&d);
    return st;
}
