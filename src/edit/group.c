#include "group.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"

#include <math.h>
#include <stdlib.h>

/* A matrix to be placed. */
typedef struct item {
    int tensor;
    double cost;
} item;

static int by_falling_cost(const void *a, const void *b) {
    const item *left = a, *right = b;
    if (left->cost != right->cost)
        return left->cost > right->cost ? -1 : 1;
    return (left->tensor > right->tensor) - (left->tensor < right->tensor);
}

/* Multiplications of a decomposition, up to a factor. A group loses some of its speed to messages:
 * a doubling of the ranks is counted as 1.8 times as fast. */
static double group_cost_of(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    double rows = (double)info->shape[0], cols = (double)info->shape[1];
    double minimum = fmin(rows, cols);
    double rank = (double)dpt_edit_lowrank_rank(spec, info->shape[0], info->shape[1]);
    double width = rank > 0.0 ? fmin(minimum, 8.0 * rank + 64.0) : minimum;
    return rows * cols * width;
}

static double speed_of(int size) {
    return pow(1.8, log2((double)size));
}

int64_t dpt_edit_matrix_bytes(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info,
                              dpt_svd_method method, int size) {
    int64_t rows = info->shape[0], cols = info->shape[1];
    int64_t rank = dpt_edit_lowrank_rank(spec, rows, cols);
    int64_t maximum = rows < cols ? rows : cols;
    int64_t slab = (rows + size - 1) / size * cols;
    int64_t step = slab < DPT_EDIT_CHUNK ? slab : DPT_EDIT_CHUNK;
    int64_t exchange = 2 * step * (int64_t)sizeof(float);
    int64_t svd =
        dpt_svd_bytes(rows, cols, rank > 0 && rank < maximum ? rank : maximum, method, size);
    return slab * (int64_t)sizeof(float) + (svd > exchange ? svd : exchange);
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

static int64_t most_bytes(const dpt_edit_stage *stage, dpt_svd_method method, int size) {
    int64_t maximum = 0;
    for (int t = 0; t < stage->catalog->count; t++)
        if (stage->covers[t]) {
            int64_t bytes =
                dpt_edit_matrix_bytes(stage->spec, &stage->catalog->tensors[t], method, size);
            maximum = bytes > maximum ? bytes : maximum;
        }
    return maximum;
}

/* Doublings up to all ranks: the fastest whose largest matrix fits. */
static int choose_size(const dpt_edit_stage *stage, dpt_svd_method method, const item *items,
                       int count, int64_t available, double *busy) {
    int ranks = stage->input->comm->size;
    int best = ranks;
    double best_end = INFINITY;
    for (int size = 1;; size = 2 * size < ranks ? 2 * size : ranks) {
        if (most_bytes(stage, method, size) <= available) {
            double end = schedule(items, count, ranks / size, busy, NULL) / speed_of(size);
            if (end < best_end) {
                best_end = end;
                best = size;
            }
        }
        if (size == ranks)
            return best;
    }
}

static dpt_status fill_plan(dpt_edit_plan *plan, const item *items, int count, double *busy,
                            int *group_of) {
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
            plan->place[group_of[i] * plan->rounds + filled[group_of[i]]++] = items[i].tensor;
        for (int g = 0; g < plan->groups; g++)
            DPT_ASSERT(filled[g] <= plan->rounds);
    }
    dpt_mem_free(filled);
    return plan->place != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_edit_plan_create(const dpt_edit_stage *stage, dpt_svd_method method,
                                dpt_edit_plan *plan) {
    const dpt_comm *comm = stage->input->comm;
    int count = 0;
    *plan = (dpt_edit_plan){.size = stage->input->svd_group};
    int64_t available = -dpt_mem_available();
    dpt_status st = dpt_agree(comm, dpt_comm_max_i64(comm, &available, 1));
    if (st != DPT_OK)
        return st;
    item *items = dpt_mem_alloc(stage->catalog->count, sizeof *items, "plan of low rank");
    int *group_of = dpt_mem_alloc(stage->catalog->count, sizeof *group_of, "plan of low rank");
    double *busy = dpt_mem_alloc(comm->size, sizeof *busy, "plan of low rank");
    bool made = items != NULL && group_of != NULL && busy != NULL;
    st = made ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && plan->size > comm->size)
        st = dpt_error(DPT_ERR_USAGE,
                       "svd_group: %d ranks cannot share a matrix, there are %d: "
                       "lower it or start more ranks",
                       plan->size, comm->size);
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        for (int t = 0; t < stage->catalog->count; t++)
            if (stage->covers[t])
                items[count++] = (item){t, group_cost_of(stage->spec, &stage->catalog->tensors[t])};
        qsort(items, (size_t)count, sizeof *items, by_falling_cost);
        if (plan->size <= 0)
            plan->size = choose_size(stage, method, items, count, -available, busy);
        plan->groups = comm->size / plan->size;
        DPT_ASSERT(plan->size >= 1 && plan->groups >= 1);
        DPT_ASSERT_SAME(comm, plan->size);
        st = dpt_agree(comm, fill_plan(plan, items, count, busy, group_of));
    }
    dpt_mem_free(busy);
    dpt_mem_free(group_of);
    dpt_mem_free(items);
    return st;
}

void dpt_edit_plan_destroy(dpt_edit_plan *plan) {
    dpt_mem_free(plan->place);
    plan->place = NULL;
}

int dpt_edit_plan_matrix(const dpt_edit_plan *plan, int group, int round) {
    return group < plan->groups ? plan->place[group * plan->rounds + round] : -1;
}
