#include "group.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <math.h>
#include <stdlib.h>

/* Matrices to be placed. */
typedef struct item {
    int matrices;
    int tensor;
    double cost;
    double longest; /* of the tensor's */
} item;

/* Those of a tensor stay together: its deltas are held until all are done. */
static int by_falling_cost(const void *a, const void *b) {
    const item *left = a, *right = b;
    if (left->longest != right->longest)
        return left->longest > right->longest ? -1 : 1;
    return (left->matrices > right->matrices) - (left->matrices < right->matrices);
}

int64_t dpt_edit_matrices_cols(const dpt_edit_matrices *m, const dpt_parts *parts, int k) {
    const dpt_layout *layout = &parts->items[m->first + k].layout;
    return dpt_layout_is_transposed(layout) ? layout->rows : layout->cols;
}

bool dpt_edit_matrices_of(const dpt_parts *parts, int part, dpt_edit_matrices *out) {
    const dpt_part *it = &parts->items[part];
    dpt_part_item item = dpt_parts_item(parts, it->tensor, it->layout.first);
    *out =
        (dpt_edit_matrices){.tensor = it->tensor, .first = part, .count = 1, .stored = it->layout};
    if (!dpt_layout_is_transposed(&it->layout))
        return true;
    out->count = item.count;
    out->stored = (dpt_layout){.rows = it->layout.cols,
                               .cols = (item.end - item.begin) / it->layout.cols,
                               .first = item.begin,
                               .run = it->layout.cols,
                               .col_stride = 1};
    out->stored.row_stride = out->stored.cols;
    out->stored.run_stride = item.end - item.begin;
    return part == item.first;
}

double dpt_edit_matrices_cost(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                              const dpt_edit_matrices *m) {
    double cost = 0.0;
    for (int k = 0; k < m->count; k++) {
        int64_t cols = dpt_edit_matrices_cols(m, parts, k);
        int64_t rank = dpt_edit_lowrank_decomposed(spec, m->stored.rows, cols);
        cost += dpt_svd_cost(m->stored.rows, cols, rank, dpt_edit_lowrank_svd(spec));
    }
    return cost;
}

/* A group loses some of its speed to messages: a doubling of the ranks is counted as 1.8 times as fast. */
static double speed_of(int size) {
    return pow(1.8, log2((double)size));
}

int64_t dpt_edit_matrices_slab(const dpt_edit_matrices *m, int size) {
    return (m->stored.rows + size - 1) / size * m->stored.cols;
}

int64_t dpt_edit_matrices_bytes(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                                const dpt_edit_matrices *m, int size, bool expected) {
    dpt_svd_method method = dpt_edit_lowrank_svd(spec);
    int64_t rows = m->stored.rows, own = (rows + size - 1) / size, most = 0;
    int64_t slab = dpt_edit_matrices_slab(m, size); /* or small ones together */
    slab = slab > DPT_EDIT_TOGETHER ? slab : DPT_EDIT_TOGETHER;
    int64_t step = slab < DPT_EDIT_CHUNK ? slab : DPT_EDIT_CHUNK;
    int64_t exchange = 2 * step * (int64_t)sizeof(float);
    for (int k = 0; k < m->count; k++) {
        int64_t cols = dpt_edit_matrices_cols(m, parts, k);
        int64_t rank = dpt_edit_lowrank_decomposed(spec, rows, cols);
        int64_t maximum = rows < cols ? rows : cols;
        int64_t wanted = rank > 0 && rank < maximum ? rank : maximum;
        int64_t svd = expected ? dpt_svd_bytes_expected(rows, cols, wanted, method, size)
                               : dpt_svd_bytes(rows, cols, wanted, method, size);
        svd += m->count > 1 ? own * cols * (int64_t)sizeof(float) : 0;
        most = svd > most ? svd : most;
    }
    return slab * (int64_t)sizeof(float) + (most > exchange ? most : exchange);
}

/* Longest first, each to the group that is free soonest. @return when the last one is done.
 * @param[out] group_of (count) or NULL. */
static double schedule(const item *items, int count, int groups, double *busy, int *group_of) {
    double end = 0.0;
    for (int g = 0; g < groups; g++)
        busy[g] = 0.0;
    for (int i = 0; i < count; i++) {
        int best = 0;
        for (int g = 1; g < groups; g++)
            if (busy[g] < busy[best])
                best = g;
        busy[best] += items[i].cost;
        end = fmax(end, busy[best]);
        if (group_of != NULL)
            group_of[i] = best;
    }
    return end;
}

static int64_t most_bytes(const dpt_edit_stage *stage, const dpt_edit_plan *plan, int size) {
    int64_t maximum = 0;
    for (int i = 0; i < plan->count; i++) {
        int64_t bytes = dpt_edit_matrices_bytes(stage->spec, stage->input->parts,
                                                &plan->matrices[i], size, false);
        maximum = bytes > maximum ? bytes : maximum;
    }
    return maximum;
}

/* Doublings up to all ranks: the fastest whose largest matrix has room. */
static int choose_size(const dpt_edit_stage *stage, const dpt_edit_plan *plan, const item *items,
                       int ranks, double *busy) {
    int64_t room = stage->input->svd_room > 0 ? stage->input->svd_room : INT64_MAX;
    int best = ranks;
    double best_end = INFINITY;
    for (int size = 1;; size = 2 * size < ranks ? 2 * size : ranks) {
        if (most_bytes(stage, plan, size) <= room) {
            double end = schedule(items, plan->count, ranks / size, busy, NULL) / speed_of(size);
            if (end < best_end) {
                best_end = end;
                best = size;
            }
        }
        if (size == ranks)
            return best;
    }
}

static dpt_status fill_plan(dpt_edit_plan *plan, const item *items, double *busy, int *group_of) {
    int count = plan->count;
    schedule(items, count, plan->groups, busy, group_of);
    int *filled = dpt_mem_zalloc(plan->groups, sizeof *filled, "plan of low rank");
    if (filled == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < count; i++)
        if (++filled[group_of[i]] > plan->rounds)
            plan->rounds = filled[group_of[i]];
    int64_t places = (int64_t)plan->groups * plan->rounds;
    plan->place = dpt_mem_alloc(places, sizeof *plan->place, "plan of low rank");
    if (plan->place != NULL) {
        for (int64_t p = 0; p < places; p++)
            plan->place[p] = -1;
        for (int g = 0; g < plan->groups; g++)
            filled[g] = 0;
        for (int i = 0; i < count; i++)
            plan->place[group_of[i] * plan->rounds + filled[group_of[i]]++] = items[i].matrices;
        for (int g = 0; g < plan->groups; g++)
            DPT_ASSERT(filled[g] <= plan->rounds);
    }
    dpt_mem_free(filled);
    return plan->place != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* All matrices of the tensors that the stage covers. */
static dpt_status group_list(const dpt_edit_stage *stage, dpt_edit_plan *plan) {
    const dpt_parts *parts = stage->input->parts;
    plan->matrices = dpt_mem_alloc(parts->count, sizeof *plan->matrices, "plan of low rank");
    plan->first =
        dpt_mem_alloc((int64_t)stage->catalog->count + 1, sizeof *plan->first, "plan of low rank");
    if (plan->matrices == NULL || plan->first == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < stage->catalog->count; t++) {
        plan->first[t] = plan->count;
        for (int p = parts->first[t]; stage->covers[t] && p < parts->first[t + 1]; p++)
            plan->count += dpt_edit_matrices_of(parts, p, &plan->matrices[plan->count]);
    }
    plan->first[stage->catalog->count] = plan->count;
    return DPT_OK;
}

static void group_sort(const dpt_edit_stage *stage, const dpt_edit_plan *plan, item *items) {
    for (int t = 0; t < stage->catalog->count; t++) {
        double longest = 0.0;
        for (int i = plan->first[t]; i < plan->first[t + 1]; i++) {
            double cost =
                dpt_edit_matrices_cost(stage->spec, stage->input->parts, &plan->matrices[i]);
            items[i] = (item){.matrices = i, .tensor = t, .cost = cost};
            longest = fmax(longest, cost);
        }
        for (int i = plan->first[t]; i < plan->first[t + 1]; i++)
            items[i].longest = longest;
    }
    qsort(items, (size_t)plan->count, sizeof *items, by_falling_cost);
}

dpt_status dpt_edit_plan_make(const dpt_edit_stage *stage, int ranks, dpt_edit_plan *plan) {
    *plan = (dpt_edit_plan){.size = stage->input->svd_group};
    dpt_status st = group_list(stage, plan);
    item *items = dpt_mem_alloc(plan->count, sizeof *items, "plan of low rank");
    int *group_of = dpt_mem_alloc(plan->count, sizeof *group_of, "plan of low rank");
    double *busy = dpt_mem_alloc(ranks, sizeof *busy, "plan of low rank");
    if (items == NULL || group_of == NULL || busy == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK && plan->size > ranks)
        st = dpt_error(DPT_ERR_USAGE,
                       "svd_group: %d ranks cannot share a matrix, there are %d: "
                       "lower it or start more ranks",
                       plan->size, ranks);
    if (st == DPT_OK) {
        group_sort(stage, plan, items);
        if (plan->size <= 0)
            plan->size = choose_size(stage, plan, items, ranks, busy);
        plan->groups = ranks / plan->size;
        DPT_ASSERT(plan->size >= 1 && plan->groups >= 1);
        st = fill_plan(plan, items, busy, group_of);
    }
    dpt_mem_free(busy);
    dpt_mem_free(group_of);
    dpt_mem_free(items);
    if (st != DPT_OK)
        dpt_edit_plan_destroy(plan);
    return st;
}

void dpt_edit_plan_destroy(dpt_edit_plan *plan) {
    dpt_mem_free(plan->place);
    dpt_mem_free(plan->matrices);
    dpt_mem_free(plan->first);
    *plan = (dpt_edit_plan){.groups = 0};
}

int dpt_edit_plan_matrix(const dpt_edit_plan *plan, int group, int round) {
    return group < plan->groups ? plan->place[group * plan->rounds + round] : -1;
}
