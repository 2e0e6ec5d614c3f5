#include "factors.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <string.h>

struct dpt_edit_factor_set {
    dpt_edit_factor_set *next;
    dpt_edit_factors *of;
    dpt_edit_spec spec; /* one of the edits that share it */
    int size;           /* ranks of a group */
    bool whole;         /* there is room for all of its matrices */
    int64_t bytes;      /* that it is counted with */
    dpt_svd *items;     /* (parts) rank 0: not kept; u: own rows, v: own share of the rows of V */
};

struct dpt_edit_factors {
    int64_t room, used, most; /* bytes */
    int parts;
    const dpt_edit_spec *const *expected; /* (count) the edit in hand and those after it */
    int count;
    dpt_edit_factor_set *sets;
    dpt_edit_decomposed done;
};

dpt_edit_factors *dpt_edit_factors_create(int64_t room, int parts) {
    dpt_edit_factors *factors = dpt_mem_zalloc(1, sizeof *factors, "shared decompositions");
    if (factors != NULL) {
        factors->room = room;
        factors->parts = parts;
    }
    return factors;
}

static void set_destroy(dpt_edit_factor_set *set) {
    for (int p = 0; set->items != NULL && p < set->of->parts; p++)
        dpt_svd_destroy(&set->items[p]);
    set->of->used -= set->bytes;
    DPT_ASSERT(set->of->used >= 0);
    dpt_mem_free(set->items);
    dpt_mem_free(set);
}

void dpt_edit_factors_destroy(dpt_edit_factors *factors) {
    while (factors != NULL && factors->sets != NULL) {
        dpt_edit_factor_set *set = factors->sets;
        factors->sets = set->next;
        set_destroy(set);
    }
    dpt_mem_free(factors);
}

/* The stage of low rank; -1: an edit that shares no decomposition. */
static int cut_stage(const dpt_edit_spec *spec) {
    for (int s = 0; s < spec->nstages; s++)
        if (spec->stages[s].cut)
            return s;
    return -1;
}

static bool same_stage(const dpt_edit_stage_spec *a, const dpt_edit_stage_spec *b) {
    return a->method == b->method && memcmp(a->values, b->values, sizeof a->values) == 0 &&
           memcmp(a->given, b->given, sizeof a->given) == 0 && a->tensor_values == NULL &&
           b->tensor_values == NULL;
}

/* Whether two edits decompose the same matrices in the same way. */
static bool same_decomposition(const dpt_edit_spec *a, const dpt_edit_spec *b) {
    int s = cut_stage(a);
    if (s < 0 || s != cut_stage(b) || a->seed != b->seed)
        return false;
    for (int i = 0; i < s; i++)
        if (!same_stage(&a->stages[i], &b->stages[i]))
            return false;
    const dpt_edit_stage_spec *x = &a->stages[s], *y = &b->stages[s];
    return x->method == y->method && x->cut_from == y->cut_from &&
           memcmp(x->given, y->given, sizeof x->given) == 0 &&
           dpt_edit_lowrank_svd(x) == dpt_edit_lowrank_svd(y);
}

void dpt_edit_factors_expect(dpt_edit_factors *factors, int count,
                             const dpt_edit_spec *const *specs) {
    factors->expected = specs;
    factors->count = count;
    for (dpt_edit_factor_set **at = &factors->sets; *at != NULL;) {
        dpt_edit_factor_set *set = *at;
        bool wanted = false;
        for (int i = 0; i < count && !wanted; i++)
            wanted = same_decomposition(&set->spec, specs[i]);
        if (wanted) {
            at = &set->next;
            continue;
        }
        *at = set->next;
        set_destroy(set);
    }
}

static int64_t factor_bytes(int64_t rows, int64_t cols, int64_t rank, int size) {
    int64_t own = (rows + size - 1) / size + (cols + size - 1) / size;
    return (own * (int64_t)sizeof(float) + 2 * (int64_t)sizeof(double)) * rank;
}

/* The most that a rank keeps of all matrices; of an energy, as if it took every triplet. */
static int64_t set_bytes(const dpt_edit_stage *stage, const dpt_edit_plan *plan) {
    const dpt_parts *parts = stage->input->parts;
    int64_t most = 0;
    for (int g = 0; g < plan->groups; g++) {
        int64_t sum = 0;
        for (int round = 0; round < plan->rounds; round++) {
            int i = dpt_edit_plan_matrix(plan, g, round);
            const dpt_edit_matrices *m = i >= 0 ? &plan->matrices[i] : NULL;
            for (int k = 0; m != NULL && k < m->count; k++) {
                int64_t rows = m->stored.rows, cols = dpt_edit_matrices_cols(m, parts, k);
                int64_t rank = dpt_edit_lowrank_decomposed(stage->spec, rows, cols);
                int64_t limit = rows < cols ? rows : cols;
                sum += factor_bytes(rows, cols, rank > 0 ? rank : limit, plan->size);
            }
        }
        most = sum > most ? sum : most;
    }
    return most + (int64_t)stage->input->parts->count * (int64_t)sizeof(dpt_svd);
}

static void set_count(dpt_edit_factor_set *set, int64_t bytes) {
    set->bytes += bytes;
    set->of->used += bytes;
    set->of->most = set->of->used > set->of->most ? set->of->used : set->of->most;
}

/* Of an energy the ranks are not known before: what it keeps is counted as it comes. */
static bool set_by_energy(const dpt_edit_stage *stage) {
    return dpt_edit_lowrank_decomposed(stage->spec, 2, 2) == 0;
}

static bool factors_expects(const dpt_edit_factors *factors, const dpt_edit_spec *spec) {
    for (int i = 1; i < factors->count; i++) /* after the edit in hand */
        if (same_decomposition(factors->expected[i], spec))
            return true;
    return false;
}

dpt_status dpt_edit_factors_open(const dpt_edit_spec *spec, const dpt_edit_stage *stage,
                                 const dpt_edit_plan *plan, dpt_edit_factor_set **out) {
    dpt_edit_factors *factors = stage->input->factors;
    *out = NULL;
    if (factors == NULL || !stage->spec->cut)
        return DPT_OK;
    for (dpt_edit_factor_set *set = factors->sets; set != NULL; set = set->next)
        if (same_decomposition(&set->spec, spec)) {
            DPT_ASSERT(set->size == plan->size);
            *out = set;
            return DPT_OK;
        }
    int64_t bytes = set_bytes(stage, plan);
    bool whole = factors->used + bytes <= factors->room;
    if (!factors_expects(factors, spec) || (!whole && !set_by_energy(stage)))
        return DPT_OK;
    dpt_edit_factor_set *set = dpt_mem_zalloc(1, sizeof *set, "shared decompositions");
    if (set == NULL)
        return DPT_ERR_OUTPUT;
    *set = (dpt_edit_factor_set){
        .next = factors->sets, .of = factors, .spec = *spec, .size = plan->size, .whole = whole};
    set->items = dpt_mem_zalloc(factors->parts, sizeof *set->items, "shared decompositions");
    if (set->items == NULL) {
        dpt_mem_free(set);
        return DPT_ERR_OUTPUT;
    }
    factors->sets = set;
    set_count(set, whole ? bytes : 0);
    *out = set;
    return DPT_OK;
}

bool dpt_edit_factors_has(const dpt_edit_factor_set *set, int part) {
    return set != NULL && set->items[part].rank > 0;
}

const dpt_svd *dpt_edit_factors_get(const dpt_edit_factor_set *set, int part) {
    return &set->items[part];
}

dpt_status dpt_edit_factors_keep(dpt_edit_factor_set *set, const dpt_comm *group, int part,
                                 int64_t rows, int64_t cols, int64_t local, const dpt_svd *svd) {
    int64_t bytes = factor_bytes(rows, cols, svd->rank, group->size), begin, end, k = svd->rank;
    if (!set->whole && set->of->used + bytes > set->of->room)
        return DPT_OK;
    DPT_ASSERT(set->items[part].rank == 0);
    dpt_shard_split(cols, group->size, group->rank, &begin, &end);
    dpt_svd *to = &set->items[part];
    *to = *svd;
    to->s = dpt_mem_alloc(k, sizeof *to->s, "shared decompositions");
    to->s_error = dpt_mem_alloc(k, sizeof *to->s_error, "shared decompositions");
    to->u = dpt_mem_alloc(local * k, sizeof *to->u, "shared decompositions");
    to->v = dpt_mem_alloc((end - begin) * k, sizeof *to->v, "shared decompositions");
    if (to->s == NULL || to->s_error == NULL || to->u == NULL || to->v == NULL) {
        dpt_svd_destroy(to);
        return DPT_ERR_OUTPUT;
    }
    memcpy(to->s, svd->s, (size_t)k * sizeof *to->s);
    memcpy(to->s_error, svd->s_error, (size_t)k * sizeof *to->s_error);
    memcpy(to->u, svd->u, (size_t)(local * k) * sizeof *to->u);
    memcpy(to->v, svd->v + begin * k, (size_t)((end - begin) * k) * sizeof *to->v);
    set_count(set, set->whole ? 0 : bytes);
    return DPT_OK;
}

/* Leading columns of rows of `from` ones. */
static void take_columns(int64_t rows, int64_t from, int64_t count, const float *in, float *out) {
    for (int64_t i = 0; i < rows; i++)
        memcpy(out + i * count, in + i * from, (size_t)count * sizeof *out);
}

dpt_status dpt_edit_factors_take(const dpt_edit_factor_set *set, const dpt_comm *group, int part,
                                 int64_t cols, int64_t local, int64_t rank, dpt_svd *out) {
    const dpt_svd *from = &set->items[part];
    int64_t begin, end;
    dpt_shard_split(cols, group->size, group->rank, &begin, &end);
    *out = *from;
    out->rank = rank;
    out->s = dpt_mem_alloc(rank, sizeof *out->s, "singular values");
    out->s_error = dpt_mem_alloc(rank, sizeof *out->s_error, "errors of singular values");
    out->u = dpt_mem_alloc(local * rank, sizeof *out->u, "left singular vectors");
    out->v = dpt_mem_alloc(cols * rank, sizeof *out->v, "right singular vectors");
    float *share = dpt_mem_alloc((end - begin) * rank, sizeof *share, "right singular vectors");
    bool whole = out->s && out->s_error && out->u && out->v && share;
    dpt_status st = dpt_agree(group, whole ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        out->residual = dpt_svd_residual_of(from, rank);
        memcpy(out->s, from->s, (size_t)rank * sizeof *out->s);
        memcpy(out->s_error, from->s_error, (size_t)rank * sizeof *out->s_error);
        take_columns(local, from->rank, rank, from->u, out->u);
        take_columns(end - begin, from->rank, rank, from->v, share);
        st = dpt_agree(group, dpt_comm_allgather_even(group, share, cols,
                                                      rank * (int64_t)sizeof *share, out->v));
    }
    dpt_mem_free(share);
    return st;
}

void dpt_edit_factors_note(dpt_edit_factors *factors, bool taken) {
    if (factors != NULL)
        *(taken ? &factors->done.taken : &factors->done.made) += 1;
}

void dpt_edit_factors_note_group(dpt_edit_factors *factors, int size) {
    if (factors == NULL)
        return;
    dpt_edit_decomposed *done = &factors->done;
    done->least = done->least == 0 || size < done->least ? size : done->least;
    done->most = size > done->most ? size : done->most;
}

dpt_edit_decomposed dpt_edit_factors_count(const dpt_edit_factors *factors) {
    dpt_edit_decomposed done = factors->done;
    done.bytes = factors->most;
    return done;
}

/* What a stage of low rank would be given. */
static dpt_status foresee_stage(dpt_edit_factors *factors, const dpt_edit_spec *spec,
                                dpt_edit_stage *stage, int ranks, int64_t matrices) {
    dpt_edit_plan plan;
    dpt_edit_factor_set *set = NULL, *had = factors->sets;
    dpt_status st = dpt_edit_plan_make(stage, ranks, &plan);
    if (st != DPT_OK)
        return st;
    st = dpt_edit_factors_open(spec, stage, &plan, &set);
    bool taken = set != NULL && set->whole && factors->sets == had;
    *(taken ? &factors->done.taken : &factors->done.made) += matrices;
    dpt_edit_factors_note_group(factors, plan.size);
    dpt_edit_plan_destroy(&plan);
    return st;
}

dpt_status dpt_edit_factors_foresee(dpt_edit_factors *factors, const dpt_edit_spec *spec,
                                    const dpt_edit_input *input, int ranks) {
    dpt_edit_input with = *input;
    with.factors = factors;
    int tensors = input->post.catalog->count;
    bool *covers = dpt_mem_alloc(tensors, sizeof *covers, "tensors of an edit");
    dpt_status st = covers != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int s = 0; s < spec->nstages && st == DPT_OK; s++) {
        dpt_edit_stage stage = {.spec = &spec->stages[s],
                                .input = &with,
                                .catalog = input->post.catalog,
                                .index = s,
                                .covers = covers};
        if (!dpt_edit_method_get(stage.spec->method)->whole)
            continue;
        int64_t matrices = 0;
        for (int t = 0; t < tensors; t++) {
            covers[t] = dpt_edit_covers(stage.spec, input, t);
            matrices += covers[t] ? input->parts->first[t + 1] - input->parts->first[t] : 0;
        }
        st = foresee_stage(factors, spec, &stage, ranks, matrices);
    }
    dpt_mem_free(covers);
    return st;
}
