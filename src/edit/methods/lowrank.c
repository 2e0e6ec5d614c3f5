#include "../stage.h"
#include "../factors.h"
#include "../slab.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/linalg/svd.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Low rank: arXiv:2410.13841 Eq. (10)-(12), F(Delta) = U_r S_r V_r^T of each matrix, which is a tensor or a part of
 * one. The ranks work in groups, each on one matrix at a time, or on those that lie side by side in the rows of a
 * tensor; small ones are exchanged together. The product goes back to the owners of its cells. A matrix that is stored as (inputs, outputs) is
 * decomposed as it is stored: the product is the transpose. */

static dpt_status lowrank_check(const dpt_edit_stage_spec *spec) {
    int given = spec->given[DPT_LOWRANK_RANK] + spec->given[DPT_LOWRANK_SPARSITY] +
                spec->given[DPT_LOWRANK_ENERGY];
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
        if (!spec->given[DPT_LOWRANK_ENERGY] && rank > limit)
            return dpt_error(DPT_ERR_USAGE,
                             "lowrank: rank: %" PRId64 " is above %" PRId64
                             ", the limit of tensor '%s': lower it or select other tensors",
                             rank, limit, lowrank_name_of(input, p).text);
        if (!spec->given[DPT_LOWRANK_ENERGY] && rank < 1)
            return dpt_error(DPT_ERR_USAGE,
                             "lowrank: sparsity: %g leaves rank 0 of %" PRId64
                             " for tensor '%s': lower it or select other tensors",
                             dpt_edit_value(spec, DPT_LOWRANK_SPARSITY), limit,
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

static dpt_status lowrank_record(dpt_edit_work *work, int part, const dpt_svd *svd) {
    int64_t need = work->nsingular + dpt_edit_record_length((double)svd->rank);
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
    to[DPT_EDIT_RECORD_PART] = (double)part;
    to[DPT_EDIT_RECORD_RANK] = (double)svd->rank;
    to[DPT_EDIT_RECORD_RESIDUAL] = svd->norm > 0.0 ? svd->residual / svd->norm : 0.0;
    to[DPT_EDIT_RECORD_NORM] = svd->norm;
    to += DPT_EDIT_RECORD_VALUES;
    memcpy(to, svd->s, (size_t)svd->rank * sizeof *svd->s);
    memcpy(to + svd->rank, svd->s_error, (size_t)svd->rank * sizeof *svd->s_error);
    work->nsingular = need;
    return DPT_OK;
}

/* A stage at work. */
typedef struct lowrank_run {
    dpt_edit_work *work;
    dpt_edit_stage *stage;
    dpt_edit_plan plan;
    dpt_edit_factor_set *kept; /* decompositions that edits share, or NULL */
    dpt_comm group;            /* size 0: this rank is in none */
    bool follows;              /* stages before this one left base cells */
} lowrank_run;

/* A matrix as a group has it. */
typedef struct lowrank_matrix {
    int part;
    int64_t rows, cols, local; /* rows of this rank */
    float *values;             /* (local, cols) */
} lowrank_matrix;

/* Decompose a matrix. Collective over the group. */
static dpt_status lowrank_decompose(const lowrank_run *run, const lowrank_matrix *m, dpt_svd *svd) {
    const dpt_edit_stage_spec *spec = run->stage->spec;
    int tensor = run->work->input->parts->items[m->part].tensor;
    lowrank_name name = lowrank_name_of(run->work->input, m->part);
    bool each = spec->tensor_values != NULL;
    double energy = spec->cut ? spec->cut_from : dpt_edit_value(spec, DPT_LOWRANK_ENERGY);
    dpt_svd_options options = {.method = dpt_edit_lowrank_svd(spec),
                               .rank = each ? (int64_t)spec->tensor_values[tensor]
                                            : dpt_edit_lowrank_decomposed(spec, m->rows, m->cols),
                               .energy = spec->given[DPT_LOWRANK_ENERGY] && !each ? energy : 0.0,
                               .tolerance = 1e-3,
                               .seed = run->stage->seed,
                               .name = name.text};
    return dpt_svd_compute(&run->group, m->rows, m->cols, m->local, m->values, &options, svd);
}

/* Triplets of a decomposition that the edit keeps. */
static int64_t lowrank_kept(const dpt_edit_stage_spec *spec, const lowrank_matrix *m,
                            const dpt_svd *svd) {
    bool energy = spec->given[DPT_LOWRANK_ENERGY];
    if (!spec->cut || (energy && dpt_edit_value(spec, DPT_LOWRANK_ENERGY) == spec->cut_from))
        return svd->rank;
    int64_t rank = energy ? dpt_svd_rank_of(svd, dpt_edit_value(spec, DPT_LOWRANK_ENERGY))
                          : dpt_edit_lowrank_rank(spec, m->rows, m->cols);
    return rank < svd->rank ? rank : svd->rank;
}

/* The triplets of a matrix that the edit keeps, from what another edit left or from a decomposition. Collective over the
 * group. */
static dpt_status lowrank_factor(const lowrank_run *run, const lowrank_matrix *m, dpt_svd *svd) {
    const dpt_edit_stage_spec *spec = run->stage->spec;
    bool has = dpt_edit_factors_has(run->kept, m->part);
    if (run->group.rank == 0)
        dpt_edit_factors_note(run->work->input->factors, has);
    if (has) {
        int64_t rank = lowrank_kept(spec, m, dpt_edit_factors_get(run->kept, m->part));
        return dpt_edit_factors_take(run->kept, &run->group, m->part, m->cols, m->local, rank, svd);
    }
    dpt_status st = lowrank_decompose(run, m, svd);
    if (st == DPT_OK && run->kept != NULL)
        st =
            dpt_edit_factors_keep(run->kept, &run->group, m->part, m->rows, m->cols, m->local, svd);
    if (st == DPT_OK && spec->cut)
        dpt_svd_cut(svd, m->cols, m->local, lowrank_kept(spec, m, svd));
    return st;
}

/* Replace a matrix by its truncated form. Collective over the group, agreed. */
static dpt_status lowrank_truncate(const lowrank_run *run, const lowrank_matrix *m) {
    dpt_svd svd = {.rank = 0};
    dpt_status st = lowrank_factor(run, m, &svd);
    if (st == DPT_OK) {
        dpt_svd_product(&svd, m->cols, 0, m->local, m->values);
        if (run->group.rank == 0)
            st = lowrank_record(run->work, m->part, &svd);
    }
    dpt_svd_destroy(&svd);
    return dpt_agree(&run->group, st);
}

/* Columns of a matrix that lies side by side with others in the rows of a slab: from `to` back into the slab, or out
 * of it. */
static void lowrank_copy_columns(const dpt_edit_slab *m, const dpt_layout *layout, bool back,
                                 float *to) {
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
static dpt_status lowrank_truncate_slab(const lowrank_run *run, const dpt_edit_slab *m) {
    const dpt_edit_matrices *of = m->of;
    lowrank_matrix one = {.part = of->first,
                          .rows = of->stored.rows,
                          .cols = of->stored.cols,
                          .local = m->last_row - m->first_row,
                          .values = m->values};
    if (of->count == 1)
        return lowrank_truncate(run, &one);
    float *alone = dpt_mem_alloc(dpt_edit_slab_elements(m), sizeof *alone, "rows of a matrix");
    dpt_status st = dpt_agree(&run->group, alone != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int k = 0; k < of->count && st == DPT_OK; k++) {
        const dpt_layout *layout = &run->work->input->parts->items[of->first + k].layout;
        lowrank_copy_columns(m, layout, false, alone);
        one.part = of->first + k;
        one.cols = layout->rows;
        one.values = alone;
        st = lowrank_truncate(run, &one);
        if (st == DPT_OK)
            lowrank_copy_columns(m, layout, true, alone);
    }
    dpt_mem_free(alone);
    return st;
}

/* What this rank has in rounds [from, to), without its values. */
static dpt_status lowrank_take_slabs(const lowrank_run *run, int from, int to,
                                     dpt_edit_slabs *slabs) {
    const dpt_comm *comm = run->work->input->comm, *group = &run->group;
    const dpt_edit_plan *plan = &run->plan;
    *slabs = (dpt_edit_slabs){.count = to - from};
    slabs->items = dpt_mem_zalloc(to - from, sizeof *slabs->items, "rows of matrices");
    if (slabs->items == NULL)
        return DPT_ERR_OUTPUT;
    for (int round = from; round < to && group->size > 0; round++) {
        int mine = dpt_edit_plan_matrix(plan, comm->rank / plan->size, round);
        dpt_edit_slab *m = &slabs->items[round - from];
        if (mine < 0)
            continue;
        m->of = &plan->matrices[mine];
        dpt_shard_split(m->of->stored.rows, group->size, group->rank, &m->first_row, &m->last_row);
        slabs->elements += dpt_edit_slab_elements(m);
    }
    return DPT_OK;
}

/* Values of the slabs, end to end. */
static dpt_status lowrank_make_values(dpt_edit_slabs *slabs) {
    slabs->values = dpt_mem_alloc(slabs->elements, sizeof *slabs->values, "rows of matrices");
    float *at = slabs->values;
    for (int k = 0; k < slabs->count && at != NULL; k++) {
        slabs->items[k].values = at;
        at += dpt_edit_slab_elements(&slabs->items[k]);
    }
    return at != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Base cells of all matrices of rounds [from, to). */
static dpt_status lowrank_make_bases(const lowrank_run *run, int from, int to) {
    dpt_edit_work *work = run->work;
    const dpt_edit_plan *plan = &run->plan;
    dpt_status st = DPT_OK;
    for (int round = from; round < to; round++)
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

/* Rounds from `from` on whose matrices are exchanged together: as many as leave every rank DPT_EDIT_TOGETHER elements
 * and all of them DPT_EDIT_TOGETHER_ALL, or one round. Local; the same on all ranks. @return the end. */
static int lowrank_bundle(const dpt_edit_plan *plan, int from) {
    int64_t elements = 0, all = 0;
    int round = from;
    for (; round < plan->rounds; round++) {
        int64_t most = 0;
        for (int g = 0; g < plan->groups; g++) {
            int i = dpt_edit_plan_matrix(plan, g, round);
            int64_t own = i < 0 ? 0 : dpt_edit_matrices_slab(&plan->matrices[i], plan->size);
            most = own > most ? own : most;
            all += own * plan->size;
        }
        elements += most;
        if (round > from && (elements > DPT_EDIT_TOGETHER || all > DPT_EDIT_TOGETHER_ALL))
            break;
    }
    return round;
}

/* Whether this rank lacks what a matrix of the slabs becomes. */
static bool lowrank_lacks(const lowrank_run *run, const dpt_edit_slabs *slabs) {
    for (int i = 0; i < slabs->count; i++)
        for (int k = 0; slabs->items[i].of != NULL && k < slabs->items[i].of->count; k++)
            if (!dpt_edit_factors_has(run->kept, slabs->items[i].of->first + k))
                return true;
    return false;
}

/* The deltas of slabs, unless all ranks have what these become. Collective over all ranks, agreed.
 * @param[out] steps  of an exchange of the slabs. */
static dpt_status lowrank_fetch(const lowrank_run *run, const dpt_edit_slabs *slabs, dpt_status st,
                                int64_t *steps) {
    const dpt_comm *comm = run->work->input->comm;
    void *pre = dpt_mem_alloc(dpt_edit_slabs_room(slabs), 1, "rows of pre");
    void *post = dpt_mem_alloc(dpt_edit_slabs_room(slabs), 1, "rows of post");
    if (pre == NULL || post == NULL)
        st = dpt_status_worse(st, DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_agree_fault("edit.lowrank");
    if (st == DPT_OK)
        st = dpt_stop_check();
    st = dpt_agree(comm, st);
    int64_t most[2] = {dpt_edit_slabs_steps(slabs), lowrank_lacks(run, slabs)};
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_i64(comm, most, 2));
    *steps = most[0];
    if (st == DPT_OK && most[1] != 0)
        st = dpt_edit_slabs_fetch(run->work, run->stage, slabs, *steps, pre, post, run->follows);
    dpt_mem_free(post);
    dpt_mem_free(pre);
    return st;
}

/* The matrices of rounds [from, to), for each group. Collective over all ranks. */
static dpt_status lowrank_run_rounds(const lowrank_run *run, int from, int to) {
    const dpt_comm *comm = run->work->input->comm;
    dpt_edit_slabs slabs;
    int64_t steps = 0;
    dpt_status st = lowrank_take_slabs(run, from, to, &slabs);
    if (st == DPT_OK)
        st = lowrank_make_values(&slabs);
    st = lowrank_fetch(run, &slabs, st, &steps);
    if (st == DPT_OK) {
        for (int k = 0; k < slabs.count && st == DPT_OK; k++)
            if (slabs.items[k].of != NULL)
                st = lowrank_truncate_slab(run, &slabs.items[k]);
        if (st == DPT_OK)
            st = lowrank_make_bases(run, from, to);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK)
        st = dpt_edit_slabs_scatter(run->work, &slabs, steps);
    dpt_mem_free(slabs.values);
    dpt_mem_free(slabs.items);
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

/* What follows the exchange of rounds [from, to). Collective. */
static dpt_status lowrank_close_rounds(dpt_edit_work *work, const dpt_edit_stage *stage,
                                       const dpt_edit_plan *plan, int from, int to,
                                       progress *so_far) {
    dpt_status st = DPT_OK;
    for (int round = from; round < to; round++)
        for (int g = 0; g < plan->groups; g++)
            if (dpt_edit_plan_matrix(plan, g, round) >= 0)
                so_far->done[dpt_edit_plan_matrix(plan, g, round)] = true;
    for (int round = from; round < to; round++)
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
static dpt_status lowrank_run_plan(lowrank_run *run) {
    const dpt_edit_plan *plan = &run->plan;
    dpt_edit_work *work = run->work;
    const dpt_comm *comm = work->input->comm;
    progress so_far = {.flush = true};
    for (int s = run->stage->index + 1; s < work->nstages; s++)
        so_far.flush = so_far.flush && work->stages[s].method->prepare == NULL;
    so_far.done = dpt_mem_zalloc(plan->count, sizeof *so_far.done, "plan of low rank");
    so_far.next = dpt_mem_alloc(work->catalog->count, sizeof *so_far.next, "plan of low rank");
    dpt_status st = so_far.done != NULL && so_far.next != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int t = 0; st == DPT_OK && t < work->catalog->count; t++)
        so_far.next[t] = work->input->shard->first_cell[t];
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        int color = comm->rank / plan->size < plan->groups ? comm->rank / plan->size : -1;
        st = dpt_agree(comm, dpt_comm_split(comm, color, comm->rank, &run->group));
    }
    for (int from = 0, to; st == DPT_OK && from < plan->rounds; from = to) {
        to = lowrank_bundle(plan, from);
        st = lowrank_run_rounds(run, from, to);
        if (st == DPT_OK)
            st = lowrank_close_rounds(work, run->stage, plan, from, to, &so_far);
    }
    dpt_comm_destroy(&run->group);
    dpt_mem_free(so_far.done);
    dpt_mem_free(so_far.next);
    return st;
}

static dpt_status lowrank_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    lowrank_run run = {.work = work, .stage = stage, .group = {.size = 0}};
    const dpt_comm *comm = work->input->comm;
    work->nsingular = 0; /* the last such stage of a sequence is reported */
    bool folds = false;
    for (int s = 0; s < stage->index; s++) {
        run.follows = run.follows || work->stages[s].method->whole;
        folds = folds || dpt_edit_own_only(work->stages[s].spec);
    }
    run.follows = run.follows || folds;
    DPT_ASSERT_SAME(comm, work->input->svd_room);
    dpt_status st = dpt_agree(comm, lowrank_check_ranks(stage));
    if (st == DPT_OK && folds)
        st = lowrank_fold_stages(work, stage);
    if (st == DPT_OK)
        st = dpt_edit_plan_make(stage, comm->size, &run.plan);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_edit_factors_open(work->spec, stage, &run.plan, &run.kept));
    if (st == DPT_OK) {
        DPT_ASSERT_SAME(comm, run.plan.size);
        dpt_edit_factors_note_group(work->input->factors, run.plan.size);
        st = lowrank_run_plan(&run);
    }
    dpt_edit_plan_destroy(&run.plan);
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
