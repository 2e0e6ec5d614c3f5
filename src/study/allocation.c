#include "allocation.h"

#include "deltapath/base/mem.h"

#include <stdlib.h>

/* A step along the hull of an item, from one choice to a larger one. */
typedef struct allocation_step {
    int item;
    int64_t from, to;
    double gain; /* cost that it saves for a unit of size */
} allocation_step;

static int allocation_compare(const void *a, const void *b) {
    const allocation_step *x = a, *y = b;
    if (x->gain != y->gain)
        return x->gain > y->gain ? -1 : 1;
    if (x->item != y->item)
        return x->item < y->item ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

static double allocation_gain(const dpt_allocation *of, int64_t from, int64_t to) {
    return (of->cost[from] - of->cost[to]) / (of->size[to] - of->size[from]);
}

/* Lower convex hull of the choices of an item, by rising size and falling cost. @return how many. */
static int64_t allocation_hull(const dpt_allocation *of, int item, int64_t *hull) {
    int64_t n = 0;
    for (int64_t j = of->first[item]; j < of->first[item + 1]; j++) {
        if (n > 0 && of->cost[j] >= of->cost[hull[n - 1]])
            continue;
        while (n > 0 && of->size[j] <= of->size[hull[n - 1]])
            n--;
        while (n > 1 &&
               allocation_gain(of, hull[n - 2], hull[n - 1]) <= allocation_gain(of, hull[n - 1], j))
            n--;
        hull[n++] = j;
    }
    return n;
}

/* Steps along the hulls of all items, which begin at their smallest choices. */
static int64_t allocation_steps(const dpt_allocation *of, int64_t *hull, int64_t *chosen,
                                allocation_step *steps) {
    int64_t count = 0;
    for (int i = 0; i < of->n; i++) {
        int64_t n = allocation_hull(of, i, hull);
        chosen[i] = n > 0 ? hull[0] : -1;
        for (int64_t h = 1; h < n; h++)
            steps[count++] = (allocation_step){.item = i,
                                               .from = hull[h - 1],
                                               .to = hull[h],
                                               .gain = allocation_gain(of, hull[h - 1], hull[h])};
    }
    return count;
}

double dpt_allocation_sum(const dpt_allocation *of, const double *values, const int64_t *chosen) {
    double sum = 0.0;
    for (int i = 0; i < of->n; i++)
        sum += chosen[i] >= 0 ? values[chosen[i]] : 0.0;
    return sum;
}

/* Take the steps that fit, the best first. @return the sum of the sizes. */
static double allocation_take(const dpt_allocation *of, const allocation_step *steps, int64_t count,
                              int64_t *chosen) {
    double size = dpt_allocation_sum(of, of->size, chosen);
    for (int64_t s = 0; s < count; s++) {
        const allocation_step *step = &steps[s];
        double grown = size + of->size[step->to] - of->size[step->from];
        if (chosen[step->item] != step->from || grown > of->budget)
            continue;
        chosen[step->item] = step->to;
        size = grown;
    }
    return size;
}

dpt_status dpt_allocation_by_item(const dpt_allocation *of, int64_t *chosen) {
    int64_t most = of->first[of->n];
    allocation_step *steps = dpt_mem_alloc(most, sizeof *steps, "steps of an allocation");
    int64_t *hull = dpt_mem_alloc(most, sizeof *hull, "steps of an allocation");
    dpt_status st = steps != NULL && hull != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK) {
        int64_t count = allocation_steps(of, hull, chosen, steps);
        qsort(steps, (size_t)count, sizeof *steps, allocation_compare);
        double size = allocation_take(of, steps, count, chosen);
        if (size > of->budget)
            st = dpt_error(DPT_ERR_USAGE,
                           "allocate: the smallest choice of every tensor takes %.6g, which is "
                           "above the %.6g that are left for them: allow more",
                           size, of->budget);
    }
    dpt_mem_free(hull);
    dpt_mem_free(steps);
    return st;
}

static void allocation_at_level(const dpt_allocation *of, const bool *in_group, double level,
                                int64_t *chosen) {
    for (int i = 0; i < of->n; i++) {
        int64_t at = of->first[i + 1] - 1;
        if (at < of->first[i])
            at = -1;
        while (in_group[i] && at > of->first[i] && of->level[at] > level)
            at--;
        chosen[i] = at;
    }
}

bool dpt_allocation_by_group(const dpt_allocation *of, const bool *in_group, int64_t *chosen) {
    double fits = 0.0, high = 0.0;
    for (int64_t j = 0; j < of->first[of->n]; j++)
        high = of->level[j] > high ? of->level[j] : high;
    allocation_at_level(of, in_group, high, chosen);
    if (dpt_allocation_sum(of, of->size, chosen) <= of->budget)
        return true;
    for (int step = 0; step < 60; step++) {
        double middle = 0.5 * (fits + high);
        allocation_at_level(of, in_group, middle, chosen);
        if (dpt_allocation_sum(of, of->size, chosen) <= of->budget)
            fits = middle;
        else
            high = middle;
    }
    allocation_at_level(of, in_group, fits, chosen);
    return dpt_allocation_sum(of, of->size, chosen) <= of->budget;
}
