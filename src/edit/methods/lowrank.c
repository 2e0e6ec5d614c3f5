#include "../stage.h"
#include "../group.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/linalg/svd.h"
#include "deltapath/tensor/redist.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Low rank: arXiv:2410.13841 Eq. (10)-(12), F(Delta) = U_r S_r V_r^T of each matrix, which is a tensor or a part of
 * one. The ranks work in groups, each on one matrix at a time, or on those that lie side by side in the rows of a
 * tensor; the product goes back to the owners of its cells. A matrix that is stored as (inputs, outputs) is
 * decomposed as it is stored: the product is the transpose. */

enum { LOWRANK_RANK, LOWRANK_SPARSITY, LOWRANK_ENERGY, LOWRANK_SVD };

static dpt_status lowrank_check(const dpt_edit_stage_spec *spec) {
    int given =
        spec->given[LOWRANK_RANK] + spec->given[LOWRANK_SPARSITY] + spec->given[LOWRANK_ENERGY];
    if (given != 1)
        return dpt_error(DPT_ERR_USAGE,
                         "lowrank: %s of rank, sparsity and energy %s given: give "
                         "exactly one",
                         given == 0 ? "none" : "more than one", given == 0 ? "is" : "are");
    return DPT_OK;
}

static bool lowrank_covers(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    (void)spec;
    return dpt_role_is_matrix(info);
}

int64_t dpt_edit_lowrank_rank(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols) {
    double minimum = (double)(rows < cols ? rows : cols);
    if (spec->given[LOWRANK_RANK])
        return (int64_t)dpt_edit_value(spec, LOWRANK_RANK);
    /* 1 - 0.9 is a little less than 0.1: without the allowance 64 of 640 would become 63. */
    if (spec->given[LOWRANK_SPARSITY])
        return (int64_t)floor((1.0 - dpt_edit_value(spec, LOWRANK_SPARSITY)) * minimum + 1e-9);
    return 0;
}

dpt_svd_method dpt_edit_lowrank_svd(const dpt_edit_stage_spec *spec) {
    return (dpt_svd_method)(int)dpt_edit_value(spec, LOWRANK_SVD);
}

/* "name", or "name[q]" of a part. */
typedef struct lowrank_name {
    char text[1024];
} lowrank_name;

static lowrank_name lowrank_name_of(const dpt_edit_input *input, int part) {
    char label[DPT_PART_LABEL];
    lowrank_name name;
    const char *tensor = input->post.catalog->tensors[input->parts->items[part].tensor].name;
    dpt_part_label(input->parts, part, label);
    snprintf(name.text, sizeof name.text, label[0] != '\0' ? "%s[%s]" : "%s", tensor, label);
    return name;
}

static int64_t lowrank_limit(const dpt_layout *layout) {
    return layout->rows < layout->cols ? layout->rows : layout->cols;
}

/* The rank that a matrix gets: known before any work, unless it follows from the energy. */
static dpt_status lowrank_fits(const dpt_edit_stage_spec *spec, const dpt_edit_input *input,
                               int tensor) {
    for (int p = input->parts->first[tensor]; p < input->parts->first[tensor + 1]; p++) {
        const dpt_layout *layout = &input->parts->items[p].layout;
        int64_t limit = lowrank_limit(layout);
        int64_t rank = dpt_edit_lowrank_rank(spec, layout->rows, layout->cols);
        if (!spec->given[LOWRANK_ENERGY] && rank > limit)
            return dpt_error(DPT_ERR_USAGE,
                             "lowrank: rank: %" PRId64 " is above %" PRId64
                             ", the limit of tensor '%s': lower it or select other tensors",
                             rank, limit, lowrank_name_of(input, p).text);
        if (!spec->given[LOWRANK_ENERGY] && rank < 1)
            return dpt_error(DPT_ERR_USAGE,
                             "lowrank: sparsity: %g leaves rank 0 of %" PRId64
                             " for tensor '%s': lower it or select other tensors",
                             dpt_edit_value(spec, LOWRANK_SPARSITY), limit,
                             lowrank_name_of(input, p).text);
    }
    return DPT_OK;
}

static dpt_status lowrank_check_ranks(const dpt_edit_stage *stage) {
    dpt_status st = DPT_OK;
    for (int t = 0; t < stage->catalog->count && st == DPT_OK; t++)
        if (stage->covers[t])
            st = lowrank_fits(stage->spec, stage->input, t);
    return st;
}

/* What a rank has of the matrices of its group: rows of the tensor as it is stored. */
typedef struct slab {
    const dpt_edit_matrices *of; /* NULL: this rank has none in this round */
    int64_t first_row, last_row; /* of this rank */
    float *values;               /* (last_row - first_row, of->stored.cols) */
} slab;

static int64_t lowrank_slab_elements(const slab *m) {
    return m->of == NULL ? 0 : (m->last_row - m->first_row) * m->of->stored.cols;
}

/* Elements of the slab [at, ...) that follow each other in the tensor too, at most `n`. */
static dpt_range lowrank_run(const slab *m, int64_t at, int64_t n) {
    const dpt_layout *stored = &m->of->stored;
    int64_t row = m->first_row + at / stored->cols, col = at % stored->cols;
    int64_t rows = 1;
    if (stored->row_stride == stored->cols) { /* to the end of its run of rows, or of the slab */
        int64_t end = (row / stored->run + 1) * stored->run;
        rows = (end < m->last_row ? end : m->last_row) - row;
    }
    int64_t run = rows * stored->cols - col;
    return (dpt_range){.tensor = m->of->tensor,
                       .ig = dpt_layout_place(stored, row, 0) + col,
                       .n = run < n ? run : n};
}

/* A step of an exchange: at most DPT_EDIT_CHUNK elements of the slab, as runs of the tensor. */
typedef struct exchange {
    int64_t n, count;
    dpt_range *runs;  /* (count) */
    dpt_block *wants; /* (count) the same */
    void **a, **b;    /* (count) places of a buffer for each run */
} exchange;

static void lowrank_exchange_free(exchange *e) {
    dpt_mem_free(e->runs);
    dpt_mem_free(e->wants);
    dpt_mem_free(e->a);
    dpt_mem_free(e->b);
    *e = (exchange){.n = 0};
}

static dpt_status lowrank_exchange_make(const slab *m, int64_t step, exchange *e) {
    int64_t at = step * DPT_EDIT_CHUNK, left = lowrank_slab_elements(m) - at;
    *e = (exchange){.n = left < 0 ? 0 : left < DPT_EDIT_CHUNK ? left : DPT_EDIT_CHUNK};
    for (int64_t done = 0; done < e->n; e->count++)
        done += lowrank_run(m, at + done, e->n - done).n;
    e->runs = dpt_mem_alloc(e->count, sizeof *e->runs, "exchange of rows");
    e->wants = dpt_mem_alloc(e->count, sizeof *e->wants, "exchange of rows");
    e->a = dpt_mem_alloc(e->count, sizeof *e->a, "exchange of rows");
    e->b = dpt_mem_alloc(e->count, sizeof *e->b, "exchange of rows");
    if (e->runs == NULL || e->wants == NULL || e->a == NULL || e->b == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t done = 0, i = 0; done < e->n; i++) {
        e->runs[i] = lowrank_run(m, at + done, e->n - done);
        e->wants[i] = dpt_block_of_range(e->runs[i]);
        done += e->runs[i].n;
    }
    return DPT_OK;
}

/* Places of the runs in a buffer that has them end to end. */
static void lowrank_exchange_place(const exchange *e, void *buffer, int64_t size, void **places) {
    int64_t at = 0;
    for (int64_t i = 0; i < e->count; i++) {
        places[i] = (char *)buffer + at * size;
        at += e->runs[i].n;
    }
}

/* Deltas of one run from what is stored. Local. */
static bool lowrank_subtract(const dpt_edit_work *work, dpt_range run, const char *pre,
                             const char *post, float *delta) {
    int64_t pre_size = dpt_dtype_size(dpt_edit_pre_type(work, run.tensor));
    int64_t post_size = dpt_dtype_size(work->catalog->tensors[run.tensor].dtype);
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int64_t at = 0; at < run.n; at += DPT_EDIT_PIECE) {
        int64_t n = run.n - at < DPT_EDIT_PIECE ? run.n - at : DPT_EDIT_PIECE;
        bad |= !dpt_edit_subtract(work, run.tensor, n, pre + at * pre_size, post + at * post_size,
                                  delta + at, dpt_edit_scratch(work, 0));
    }
    return !bad;
}

/* Deltas of a step from what is stored. Collective. */
static dpt_status lowrank_fetch_stored(dpt_edit_work *work, const exchange *e, int tensor,
                                       void *pre, void *post, float *delta) {
    const dpt_edit_input *input = work->input;
    if (e->count > 0) {
        lowrank_exchange_place(e, pre, dpt_dtype_size(dpt_edit_pre_type(work, tensor)), e->a);
        lowrank_exchange_place(e, post, dpt_dtype_size(work->catalog->tensors[tensor].dtype), e->b);
    }
    dpt_status st = input->post.fetch(input->post.ctx, e->count, e->wants, e->b);
    dpt_status pre_st = input->pre.fetch(input->pre.ctx, e->count, e->wants, e->a);
    st = dpt_agree(input->comm, st != DPT_OK ? st : pre_st);
    for (int64_t i = 0; i < e->count && st == DPT_OK; i++) {
        if (!lowrank_subtract(work, e->runs[i], e->a[i], e->b[i], delta))
            return dpt_edit_bad_value(work, e->runs[i], e->a[i], e->b[i]);
        delta += e->runs[i].n;
    }
    return st;
}

/* Deltas of a step as the stages before this one left them. Collective. */
static dpt_status lowrank_fetch_step(dpt_edit_work *work, const dpt_edit_stage *stage,
                                     const slab *m, int64_t step, void *pre, void *post,
                                     bool follows) {
    exchange e;
    const dpt_comm *comm = work->input->comm;
    int tensor = m->of != NULL ? m->of->tensor : 0;
    dpt_status st = dpt_agree(comm, lowrank_exchange_make(m, step, &e));
    float *delta = e.n > 0 ? m->values + step * DPT_EDIT_CHUNK : NULL;
    if (st == DPT_OK && follows) {
        lowrank_exchange_place(&e, delta, sizeof *delta, e.a);
        st = dpt_redist_gather(comm, &work->wide_shard, (const void *const *)work->base, e.count,
                               e.wants, e.a);
    } else if (st == DPT_OK) {
        st = lowrank_fetch_stored(work, &e, tensor, pre, post, delta);
    }
    for (int64_t i = 0; st == DPT_OK && i < e.count; i++) {
        dpt_edit_apply(work, work->base_stage[tensor], stage->index, e.runs[i], delta);
        delta += e.runs[i].n;
    }
    lowrank_exchange_free(&e);
    return dpt_agree(comm, st);
}

/* Deltas of the slab as the stages before this one left them. Collective (same: steps). */
static dpt_status lowrank_fetch_slab(dpt_edit_work *work, const dpt_edit_stage *stage,
                                     const slab *m, int64_t steps, void *pre, void *post,
                                     bool follows) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++)
        st = lowrank_fetch_step(work, stage, m, s, pre, post, follows);
    return st;
}

/* The cells that matrices lie in: [*begin, *end). */
static void lowrank_cells_of(const dpt_edit_work *work, const dpt_edit_matrices *m, int64_t *begin,
                             int64_t *end) {
    const dpt_layout *stored = &m->stored;
    int64_t last = dpt_layout_place(stored, stored->rows - 1, stored->cols - 1);
    *begin = dpt_shard_cell_of(work->input->shard, m->tensor, stored->first);
    *end = dpt_shard_cell_of(work->input->shard, m->tensor, last) + 1;
}

/* Own cells of a run in fp32. */
static dpt_status lowrank_make_base(dpt_edit_work *work, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
        if (c < work->first || c >= work->last || work->base[c - work->first] != NULL)
            continue;
        int64_t n = dpt_shard_cell(work->input->shard, c).n;
        float *cell = dpt_mem_alloc(n, sizeof *cell, "deltas between two stages of an edit");
        work->base[c - work->first] = cell;
        if (cell == NULL)
            return DPT_ERR_OUTPUT;
    }
    return DPT_OK;
}

/* Send the slab to the owners of its cells. Collective (same: steps). */
static dpt_status lowrank_scatter_slab(dpt_edit_work *work, const slab *m, int64_t steps) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++) {
        exchange e;
        st = dpt_agree(work->input->comm, lowrank_exchange_make(m, s, &e));
        if (st == DPT_OK) {
            lowrank_exchange_place(&e, m->values + s * DPT_EDIT_CHUNK, sizeof *m->values, e.a);
            st = dpt_redist_scatter(work->input->comm, &work->wide_shard, (void *const *)work->base,
                                    e.count, e.runs, (const void *const *)e.a);
        }
        lowrank_exchange_free(&e);
    }
    return st;
}

static dpt_status lowrank_record(dpt_edit_work *work, int part, const dpt_svd *svd) {
    int64_t need = work->nsingular + 4 + svd->rank;
    if (need > work->singular_room) {
        int64_t room = 2 * need;
        double *grown =
            dpt_mem_realloc(work->singular, room, sizeof *work->singular, "singular values");
        if (grown == NULL)
            return DPT_ERR_OUTPUT;
        work->singular = grown;
        work->singular_room = room;
    }
    double *to = work->singular + work->nsingular;
    to[0] = (double)part;
    to[1] = (double)svd->rank;
    to[2] = svd->norm > 0.0 ? svd->residual / svd->norm : 0.0;
    to[3] = svd->norm;
    memcpy(to + 4, svd->s, (size_t)svd->rank * sizeof *svd->s);
    work->nsingular = need;
    return DPT_OK;
}

/* Replace a matrix by its truncated form. Collective over the group.
 * @param[in,out] values (local, cols) rows of this rank. */
static dpt_status lowrank_truncate(dpt_edit_work *work, const dpt_edit_stage *stage,
                                   const dpt_comm *group, int part, int64_t rows, int64_t cols,
                                   int64_t local, float *values) {
    dpt_svd svd = {.rank = 0};
    int tensor = work->input->parts->items[part].tensor;
    lowrank_name name = lowrank_name_of(work->input, part);
    bool each = stage->spec->tensor_values != NULL;
    dpt_svd_options options = {.method = dpt_edit_lowrank_svd(stage->spec),
                               .rank = each ? (int64_t)stage->spec->tensor_values[tensor]
                                            : dpt_edit_lowrank_rank(stage->spec, rows, cols),
                               .energy = stage->spec->given[LOWRANK_ENERGY] && !each
                                             ? dpt_edit_value(stage->spec, LOWRANK_ENERGY)
                                             : 0.0,
                               .tolerance = 1e-3,
                               .seed = stage->seed,
                               .name = name.text};
    dpt_status st = dpt_svd_compute(group, rows, cols, local, values, &options, &svd);
    if (st == DPT_OK) {
        dpt_svd_product(&svd, cols, 0, local, values);
        if (group->rank == 0)
            st = lowrank_record(work, part, &svd);
    }
    dpt_svd_destroy(&svd);
    return st;
}

/* Columns of a matrix that lies side by side with others in the rows of a slab: from `to` back into the slab, or out
 * of it. */
static void lowrank_copy_columns(const slab *m, const dpt_layout *layout, bool back, float *to) {
    int64_t first = layout->first - m->of->stored.first;
    for (int64_t r = 0; r < m->last_row - m->first_row; r++) {
        float *row = m->values + r * m->of->stored.cols + first;
        for (int64_t c = 0; c < layout->rows; c++, to++)
            if (back)
                row[c * layout->row_stride] = *to;
            else
                *to = row[c * layout->row_stride];
    }
}

/* Replace all matrices of a slab by their truncated forms. Collective over the group. */
static dpt_status lowrank_truncate_slab(dpt_edit_work *work, const dpt_edit_stage *stage,
                                        const dpt_comm *group, const slab *m) {
    const dpt_edit_matrices *of = m->of;
    int64_t local = m->last_row - m->first_row;
    if (of->count == 1)
        return lowrank_truncate(work, stage, group, of->first, of->stored.rows, of->stored.cols,
                                local, m->values);
    float *alone = dpt_mem_alloc(lowrank_slab_elements(m), sizeof *alone, "rows of a matrix");
    dpt_status st = dpt_agree(group, alone != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int k = 0; k < of->count && st == DPT_OK; k++) {
        const dpt_layout *layout = &work->input->parts->items[of->first + k].layout;
        lowrank_copy_columns(m, layout, false, alone);
        st = lowrank_truncate(work, stage, group, of->first + k, of->stored.rows, layout->rows,
                              local, alone);
        st = dpt_agree(group, st);
        if (st == DPT_OK)
            lowrank_copy_columns(m, layout, true, alone);
    }
    dpt_mem_free(alone);
    return st;
}

static slab lowrank_take_slab(const dpt_comm *group, const dpt_edit_plan *plan, int matrices) {
    slab m = {.of = NULL};
    if (matrices < 0)
        return m;
    m.of = &plan->matrices[matrices];
    dpt_shard_split(m.of->stored.rows, group->size, group->rank, &m.first_row, &m.last_row);
    return m;
}

/* Base cells of all matrices of a round. */
static dpt_status lowrank_make_bases(dpt_edit_work *work, const dpt_edit_plan *plan, int round) {
    dpt_status st = DPT_OK;
    for (int g = 0; st == DPT_OK && g < plan->groups; g++) {
        int64_t begin, end;
        int i = dpt_edit_plan_matrix(plan, g, round);
        if (i < 0)
            continue;
        lowrank_cells_of(work, &plan->matrices[i], &begin, &end);
        st = lowrank_make_base(work, begin, end);
    }
    return st;
}

/* The matrices of one round, for each group. Collective over all ranks. */
static dpt_status lowrank_run_round(dpt_edit_work *work, dpt_edit_stage *stage,
                                    const dpt_comm *group, const dpt_edit_plan *plan, int round,
                                    bool follows) {
    const dpt_comm *comm = work->input->comm;
    int mine = group->size > 0 ? dpt_edit_plan_matrix(plan, comm->rank / plan->size, round) : -1;
    slab m = lowrank_take_slab(group, plan, mine);
    int64_t room =
        lowrank_slab_elements(&m) < DPT_EDIT_CHUNK ? lowrank_slab_elements(&m) : DPT_EDIT_CHUNK;
    m.values = dpt_mem_alloc(lowrank_slab_elements(&m), sizeof *m.values, "rows of a matrix");
    void *pre = dpt_mem_alloc(room, sizeof(float), "rows of pre");
    void *post = dpt_mem_alloc(room, sizeof(float), "rows of post");
    dpt_status st = m.values != NULL && pre != NULL && post != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_agree_fault("edit.lowrank");
    if (st == DPT_OK)
        st = dpt_stop_check();
    st = dpt_agree(comm, st);
    int64_t steps = (lowrank_slab_elements(&m) + DPT_EDIT_CHUNK - 1) / DPT_EDIT_CHUNK;
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_i64(comm, &steps, 1));
    if (st == DPT_OK)
        st = lowrank_fetch_slab(work, stage, &m, steps, pre, post, follows);
    dpt_mem_free(post);
    dpt_mem_free(pre);
    if (st == DPT_OK) {
        if (m.of != NULL)
            st = lowrank_truncate_slab(work, stage, group, &m);
        if (st == DPT_OK)
            st = lowrank_make_bases(work, plan, round);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK)
        st = lowrank_scatter_slab(work, &m, steps);
    dpt_mem_free(m.values);
    return st;
}

/* How far the stage has come. */
typedef struct progress {
    bool flush; /* cells are written when they are complete: no later stage must see them first */
    bool *done; /* (matrices) */
    int64_t *next; /* (tensors) cell from which on none is written */
} progress;

/* Write the cells of a tensor before the first element that is still to come, so that their deltas need no memory any
 * longer. */
static dpt_status lowrank_close_tensor(dpt_edit_work *work, const dpt_edit_stage *stage,
                                       const dpt_edit_plan *plan, int t, progress *so_far) {
    dpt_status st = DPT_OK;
    int stages = work->base_stage[t];
    int64_t end = work->input->shard->first_cell[t + 1];
    bool all = true;
    for (int i = plan->first[t]; i < plan->first[t + 1]; i++) {
        int64_t cell = dpt_shard_cell_of(work->input->shard, t, plan->matrices[i].stored.first);
        if (so_far->done[i])
            continue;
        all = false;
        end = cell < end ? cell : end;
    }
    work->base_stage[t] = stage->index + 1;
    if (so_far->flush && end > so_far->next[t]) {
        st = dpt_edit_write_cells(&work, 1, so_far->next[t], end);
        dpt_edit_base_free(work, so_far->next[t], end);
        so_far->next[t] = end;
        work->written[t] = all;
    }
    if (!all)
        work->base_stage[t] = stages;
    return st;
}

/* What follows the exchange of a round. Collective. */
static dpt_status lowrank_close_round(dpt_edit_work *work, const dpt_edit_stage *stage,
                                      const dpt_edit_plan *plan, int round, progress *so_far) {
    dpt_status st = DPT_OK;
    for (int g = 0; g < plan->groups; g++)
        if (dpt_edit_plan_matrix(plan, g, round) >= 0)
            so_far->done[dpt_edit_plan_matrix(plan, g, round)] = true;
    for (int g = 0; g < plan->groups && st == DPT_OK; g++) {
        int i = dpt_edit_plan_matrix(plan, g, round);
        if (i >= 0)
            st = lowrank_close_tensor(work, stage, plan, plan->matrices[i].tensor, so_far);
    }
    return dpt_agree(work->input->comm, st);
}

/* Fold the stages before this one into base cells, where one of them works on own cells only: the
 * slabs are then exchanged in place of the stored values. */
static dpt_status lowrank_fold_stages(dpt_edit_work *work, const dpt_edit_stage *stage) {
    dpt_status st = DPT_OK;
    for (int t = 0; st == DPT_OK && t < work->catalog->count; t++) {
        if (!stage->covers[t])
            continue;
        const int64_t *cells = work->input->shard->first_cell + t;
        st = lowrank_make_base(work, cells[0], cells[1]);
        for (int64_t c = cells[0]; st == DPT_OK && c < cells[1]; c++)
            if (c >= work->first && c < work->last)
                st = dpt_edit_delta(work, stage->index, dpt_shard_cell(work->input->shard, c),
                                    work->base[c - work->first]);
        work->base_stage[t] = stage->index;
    }
    return dpt_agree(work->input->comm, st);
}

/* All rounds. Collective. */
static dpt_status lowrank_run_plan(dpt_edit_work *work, dpt_edit_stage *stage,
                                   const dpt_edit_plan *plan, bool follows) {
    const dpt_comm *comm = work->input->comm;
    dpt_comm group = {.size = 0};
    progress so_far = {.flush = true};
    for (int s = stage->index + 1; s < work->nstages; s++)
        so_far.flush = so_far.flush && work->stages[s].method->prepare == NULL;
    so_far.done = dpt_mem_zalloc(plan->count, sizeof *so_far.done, "plan of low rank");
    so_far.next = dpt_mem_alloc(work->catalog->count, sizeof *so_far.next, "plan of low rank");
    dpt_status st = so_far.done != NULL && so_far.next != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int t = 0; st == DPT_OK && t < work->catalog->count; t++)
        so_far.next[t] = work->input->shard->first_cell[t];
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        int color = comm->rank / plan->size < plan->groups ? comm->rank / plan->size : -1;
        st = dpt_agree(comm, dpt_comm_split(comm, color, comm->rank, &group));
    }
    for (int round = 0; st == DPT_OK && round < plan->rounds; round++) {
        st = lowrank_run_round(work, stage, &group, plan, round, follows);
        if (st == DPT_OK)
            st = lowrank_close_round(work, stage, plan, round, &so_far);
    }
    dpt_comm_destroy(&group);
    dpt_mem_free(so_far.done);
    dpt_mem_free(so_far.next);
    return st;
}

static dpt_status lowrank_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    dpt_edit_plan plan = {.groups = 0};
    work->nsingular = 0; /* the last such stage of a sequence is reported */
    bool follows = false, folds = false;
    for (int s = 0; s < stage->index; s++) {
        follows = follows || work->stages[s].method->whole;
        folds = folds || dpt_edit_own_only(work->stages[s].spec);
    }
    dpt_status st = dpt_agree(work->input->comm, lowrank_check_ranks(stage));
    if (st == DPT_OK && folds)
        st = lowrank_fold_stages(work, stage);
    if (st == DPT_OK)
        st = dpt_edit_plan_create(stage, dpt_edit_lowrank_svd(stage->spec), &plan);
    if (st == DPT_OK)
        st = lowrank_run_plan(work, stage, &plan, follows || folds);
    dpt_edit_plan_destroy(&plan);
    return st;
}

static double lowrank_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    (void)spec;
    double sides = 0.0;
    for (int p = 0; p < of->count; p++)
        sides += (double)(of->parts[p].layout.rows + of->parts[p].layout.cols);
    return of->value * sides * (double)dpt_dtype_size(of->info->dtype);
}

static double lowrank_reads(const dpt_edit_stage_spec *spec) {
    (void)spec;
    return 1.0;
}

const dpt_edit_method dpt_edit_method_lowrank = {
    .name = "lowrank",
    .help = "keep the leading singular triplets of each matrix of deltas",
    .whole = true,
    .nparams = 4,
    .params = {{.name = "rank",
                .optional = true,
                .kind = DPT_PARAM_INTEGER,
                .lower = 1.0,
                .upper = 1e9,
                .help = "triplets that are kept, at least 1"},
               {.name = "sparsity",
                .optional = true,
                .kind = DPT_PARAM_REAL,
                .lower = 0.0,
                .upper = 1.0,
                .upper_open = true,
                .help = "keeps floor((1 - sparsity) min(rows, columns)) triplets"},
               {.name = "energy",
                .optional = true,
                .kind = DPT_PARAM_REAL,
                .lower = 0.0,
                .lower_open = true,
                .upper = 1.0,
                .help = "keeps the fewest triplets with this share of the squared norm"},
               {.name = "svd",
                .kind = DPT_PARAM_CHOICE,
                .choices = "auto|random|exact|reference",
                .default_value = DPT_SVD_AUTO,
                .help = "algorithm of the decomposition"}},
    .check = lowrank_check,
    .covers = lowrank_covers,
    .fits = lowrank_fits,
    .reads = lowrank_reads,
    .prepare = lowrank_prepare,
    .bytes = lowrank_bytes};
