#include "../stage.h"
#include "../group.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/linalg/svd.h"
#include "deltapath/tensor/redist.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Low rank: arXiv:2410.13841 Eq. (10)-(12), F(Delta) = U_r S_r V_r^T of each matrix. The ranks work
 * in groups, each on one matrix at a time; the product goes back to the owners of its cells. */

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
    return dpt_edit_is_matrix(info);
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

/* The rank that a tensor gets: known before any work, unless it follows from the energy. */
static dpt_status lowrank_fits(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    if (spec->given[LOWRANK_ENERGY])
        return DPT_OK;
    int64_t limit = info->shape[0] < info->shape[1] ? info->shape[0] : info->shape[1];
    int64_t rank = dpt_edit_lowrank_rank(spec, info->shape[0], info->shape[1]);
    if (rank > limit)
        return dpt_error(DPT_ERR_USAGE,
                         "lowrank: rank: %" PRId64 " is above %" PRId64
                         ", the limit of tensor '%s': lower it or select other tensors",
                         rank, limit, info->name);
    if (rank < 1)
        return dpt_error(DPT_ERR_USAGE,
                         "lowrank: sparsity: %g leaves rank 0 of %" PRId64
                         " for tensor '%s': lower it or select other tensors",
                         dpt_edit_value(spec, LOWRANK_SPARSITY), limit, info->name);
    return DPT_OK;
}

static dpt_status lowrank_check_ranks(const dpt_edit_stage *stage) {
    dpt_status st = DPT_OK;
    for (int t = 0; t < stage->catalog->count && st == DPT_OK; t++)
        if (stage->covers[t])
            st = lowrank_fits(stage->spec, &stage->catalog->tensors[t]);
    return st;
}

/* One matrix on its group. */
typedef struct matrix {
    int tensor; /* -1: this rank has none in this round */
    int64_t rows, cols;
    int64_t first_row, last_row; /* of this rank */
    float *slab;                 /* (last_row - first_row, cols) */
} matrix;

static int64_t lowrank_slab_elements(const matrix *m) {
    return m->tensor < 0 ? 0 : (m->last_row - m->first_row) * m->cols;
}

/* Elements [at, at + n) of the slab in one step of an exchange; n may be 0. */
static dpt_range lowrank_step_range(const matrix *m, int64_t at) {
    int64_t left = lowrank_slab_elements(m) - at;
    int64_t n = left < 0 ? 0 : left < DPT_EDIT_CHUNK ? left : DPT_EDIT_CHUNK;
    return (dpt_range){
        .tensor = m->tensor < 0 ? 0 : m->tensor, .ig = m->first_row * m->cols + at, .n = n};
}

/* Deltas of a part of the slab from what is stored. Collective. */
static dpt_status lowrank_fetch_stored(dpt_edit_work *work, dpt_range range, void *pre, void *post,
                                       float *delta) {
    const dpt_edit_input *input = work->input;
    int64_t count = range.n > 0;
    dpt_block want = dpt_block_of_range(range);
    dpt_status st = input->post.fetch(input->post.ctx, count, &want, &post);
    dpt_status pre_st = input->pre.fetch(input->pre.ctx, count, &want, &pre);
    st = dpt_agree(input->comm, st != DPT_OK ? st : pre_st);
    if (st != DPT_OK || count == 0)
        return st;
    int64_t pre_size = dpt_dtype_size(dpt_edit_pre_type(work, range.tensor));
    int64_t post_size = dpt_dtype_size(work->catalog->tensors[range.tensor].dtype);
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int64_t at = 0; at < range.n; at += DPT_EDIT_PIECE) {
        int64_t n = range.n - at < DPT_EDIT_PIECE ? range.n - at : DPT_EDIT_PIECE;
        bad |= !dpt_edit_subtract(work, range.tensor, n, (char *)pre + at * pre_size,
                                  (char *)post + at * post_size, delta + at,
                                  dpt_edit_scratch(work, 0));
    }
    return bad ? dpt_edit_bad_value(work, range, pre, post) : DPT_OK;
}

/* Deltas of the slab as the stages before this one left them. Collective (same: steps). */
static dpt_status lowrank_fetch_slab(dpt_edit_work *work, const dpt_edit_stage *stage,
                                     const matrix *m, int64_t steps, void *pre, void *post,
                                     bool follows) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++) {
        dpt_range range = lowrank_step_range(m, s * DPT_EDIT_CHUNK);
        float *delta = range.n > 0 ? m->slab + s * DPT_EDIT_CHUNK : NULL;
        int from = range.n > 0 ? work->base_stage[range.tensor] : 0;
        if (follows) {
            dpt_block want = dpt_block_of_range(range);
            st = dpt_redist_gather(work->input->comm, &work->wide_shard,
                                   (const void *const *)work->base, range.n > 0, &want,
                                   (void *const *)&delta);
        } else {
            st = lowrank_fetch_stored(work, range, pre, post, delta);
        }
        if (st == DPT_OK && range.n > 0)
            dpt_edit_apply(work, from, stage->index, range, delta);
        st = dpt_agree(work->input->comm, st);
    }
    return st;
}

/* Own cells of a tensor in fp32. */
static dpt_status lowrank_make_base(dpt_edit_work *work, int tensor) {
    const int64_t *cells = work->input->shard->first_cell + tensor;
    for (int64_t c = cells[0]; c < cells[1]; c++) {
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
static dpt_status lowrank_scatter_slab(dpt_edit_work *work, const matrix *m, int64_t steps) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++) {
        dpt_range range = lowrank_step_range(m, s * DPT_EDIT_CHUNK);
        const void *data = range.n > 0 ? m->slab + s * DPT_EDIT_CHUNK : NULL;
        st = dpt_redist_scatter(work->input->comm, &work->wide_shard, (void *const *)work->base,
                                range.n > 0, &range, &data);
    }
    return st;
}

static dpt_status lowrank_record(dpt_edit_work *work, int tensor, const dpt_svd *svd) {
    int64_t need = work->nsingular + 3 + svd->rank;
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
    to[0] = (double)tensor;
    to[1] = (double)svd->rank;
    to[2] = svd->norm > 0.0 ? svd->residual / svd->norm : 0.0;
    memcpy(to + 3, svd->s, (size_t)svd->rank * sizeof *svd->s);
    work->nsingular = need;
    return DPT_OK;
}

/* Replace the slab by its truncated form. Collective over the group. */
static dpt_status lowrank_truncate_slab(dpt_edit_work *work, const dpt_edit_stage *stage,
                                        const dpt_comm *group, const matrix *m) {
    dpt_svd svd = {.rank = 0};
    bool each = stage->spec->tensor_values != NULL;
    dpt_svd_options options = {.method = dpt_edit_lowrank_svd(stage->spec),
                               .rank = each ? (int64_t)stage->spec->tensor_values[m->tensor]
                                            : dpt_edit_lowrank_rank(stage->spec, m->rows, m->cols),
                               .energy = stage->spec->given[LOWRANK_ENERGY] && !each
                                             ? dpt_edit_value(stage->spec, LOWRANK_ENERGY)
                                             : 0.0,
                               .tolerance = 1e-3,
                               .seed = stage->seed,
                               .name = dpt_edit_tensor_name(stage, m->tensor)};
    int64_t local = m->last_row - m->first_row;
    dpt_status st = dpt_svd_compute(group, m->rows, m->cols, local, m->slab, &options, &svd);
    if (st == DPT_OK) {
        dpt_svd_product(&svd, m->cols, 0, local, m->slab);
        if (group->rank == 0)
            st = lowrank_record(work, m->tensor, &svd);
    }
    dpt_svd_destroy(&svd);
    return st;
}

static matrix lowrank_take_matrix(const dpt_edit_stage *stage, const dpt_comm *group, int tensor) {
    matrix m = {.tensor = tensor};
    if (tensor < 0)
        return m;
    m.rows = stage->catalog->tensors[tensor].shape[0];
    m.cols = stage->catalog->tensors[tensor].shape[1];
    dpt_shard_split(m.rows, group->size, group->rank, &m.first_row, &m.last_row);
    return m;
}

/* The matrices of one round, one for each group. Collective over all ranks. */
static dpt_status lowrank_run_round(dpt_edit_work *work, dpt_edit_stage *stage,
                                    const dpt_comm *group, const dpt_edit_plan *plan, int round,
                                    bool follows) {
    const dpt_comm *comm = work->input->comm;
    int mine = group->size > 0 ? dpt_edit_plan_matrix(plan, comm->rank / plan->size, round) : -1;
    matrix m = lowrank_take_matrix(stage, group, mine);
    int64_t room =
        lowrank_slab_elements(&m) < DPT_EDIT_CHUNK ? lowrank_slab_elements(&m) : DPT_EDIT_CHUNK;
    m.slab = dpt_mem_alloc(lowrank_slab_elements(&m), sizeof *m.slab, "rows of a matrix");
    void *pre = dpt_mem_alloc(room, sizeof(float), "rows of pre");
    void *post = dpt_mem_alloc(room, sizeof(float), "rows of post");
    dpt_status st = m.slab != NULL && pre != NULL && post != NULL ? DPT_OK : DPT_ERR_OUTPUT;
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
        if (m.tensor >= 0)
            st = lowrank_truncate_slab(work, stage, group, &m);
        for (int g = 0; st == DPT_OK && g < plan->groups; g++)
            if (dpt_edit_plan_matrix(plan, g, round) >= 0)
                st = lowrank_make_base(work, dpt_edit_plan_matrix(plan, g, round));
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK)
        st = lowrank_scatter_slab(work, &m, steps);
    dpt_mem_free(m.slab);
    return st;
}

/* What follows the exchange of a round: its tensors are written at once where no later stage must
 * see all of them first, so that their deltas need no memory any longer. */
static dpt_status lowrank_close_round(dpt_edit_work *work, const dpt_edit_stage *stage,
                                      const dpt_edit_plan *plan, int round, bool flush) {
    dpt_status st = DPT_OK;
    for (int g = 0; g < plan->groups; g++) {
        int t = dpt_edit_plan_matrix(plan, g, round);
        if (t < 0)
            continue;
        work->base_stage[t] = stage->index + 1;
        if (!flush)
            continue;
        if (st == DPT_OK)
            st = dpt_edit_write_tensor(work, t);
        work->written[t] = true;
        dpt_edit_base_free(work, t);
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
        st = lowrank_make_base(work, t);
        const int64_t *cells = work->input->shard->first_cell + t;
        for (int64_t c = cells[0]; st == DPT_OK && c < cells[1]; c++)
            if (c >= work->first && c < work->last)
                st = dpt_edit_delta(work, stage->index, dpt_shard_cell(work->input->shard, c),
                                    work->base[c - work->first]);
        work->base_stage[t] = stage->index;
    }
    return dpt_agree(work->input->comm, st);
}

static dpt_status lowrank_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    const dpt_comm *comm = work->input->comm;
    dpt_edit_plan plan = {.groups = 0};
    dpt_comm group = {.size = 0};
    work->nsingular = 0; /* the last such stage of a sequence is reported */
    bool flush = true;
    for (int s = stage->index + 1; s < work->nstages; s++)
        flush = flush && work->stages[s].method->prepare == NULL;
    bool follows = false, folds = false;
    for (int s = 0; s < stage->index; s++) {
        follows = follows || work->stages[s].method->whole;
        folds = folds || dpt_edit_own_only(work->stages[s].spec);
    }
    dpt_status st = dpt_agree(comm, lowrank_check_ranks(stage));
    if (st == DPT_OK && folds)
        st = lowrank_fold_stages(work, stage);
    follows = follows || folds;
    if (st == DPT_OK)
        st = dpt_edit_plan_create(stage, dpt_edit_lowrank_svd(stage->spec), &plan);
    if (st == DPT_OK) {
        int color = comm->rank / plan.size < plan.groups ? comm->rank / plan.size : -1;
        st = dpt_agree(comm, dpt_comm_split(comm, color, comm->rank, &group));
    }
    for (int round = 0; st == DPT_OK && round < plan.rounds; round++) {
        st = lowrank_run_round(work, stage, &group, &plan, round, follows);
        if (st == DPT_OK)
            st = lowrank_close_round(work, stage, &plan, round, flush);
    }
    dpt_comm_destroy(&group);
    dpt_edit_plan_destroy(&plan);
    return st;
}

static double lowrank_bytes(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info,
                            double value) {
    (void)spec;
    double sides = (double)(info->shape[0] + info->shape[1]);
    return value * sides * (double)dpt_dtype_size(info->dtype);
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
    .prepare = lowrank_prepare,
    .bytes = lowrank_bytes};
