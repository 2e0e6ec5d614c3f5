/* ranks: 1 */
/* The choices of least cost against all combinations there are. */
#include "support/test_mpi.h"

#include "../src/study/allocation.h"

#include <math.h>
#include <stdlib.h>

enum { ITEMS = 4, MOST = 5 };

typedef struct problem {
    int64_t first[ITEMS + 1];
    double size[ITEMS * MOST], cost[ITEMS * MOST], level[ITEMS * MOST];
    dpt_allocation of;
} problem;

static double next(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*seed >> 40) / (double)(1 << 24);
}

/* Falling costs of rising sizes; convex: by steps of one size that save less and less. */
static void problem_make(problem *p, uint64_t seed, bool convex) {
    int64_t at = 0;
    for (int i = 0; i < ITEMS; i++) {
        int64_t n = (int64_t)(next(&seed) * (MOST + 1));
        double cost = 10.0, saved = 4.0, size = 1.0;
        p->first[i] = at;
        for (int64_t j = 0; j < n; j++, at++) {
            p->size[at] = size;
            p->cost[at] = cost;
            p->level[at] = (double)j;
            saved *= next(&seed);
            cost -= convex ? saved : 2.0 * next(&seed);
            size += convex ? 1.0 : 0.1 + next(&seed);
        }
    }
    p->first[ITEMS] = at;
    p->of = (dpt_allocation){
        .n = ITEMS, .first = p->first, .size = p->size, .cost = p->cost, .level = p->level};
    p->of.budget = ITEMS + next(&seed) * 8.0;
}

/* Least cost of all combinations within the budget; infinite when none is. */
static double best(const problem *p, int item, double left) {
    if (item == ITEMS)
        return left >= -1e-12 ? 0.0 : INFINITY;
    if (p->first[item] == p->first[item + 1])
        return best(p, item + 1, left);
    double least = INFINITY;
    for (int64_t j = p->first[item]; j < p->first[item + 1]; j++)
        least = fmin(least, p->cost[j] + best(p, item + 1, left - p->size[j]));
    return least;
}

/* Largest saving of one step of any item: what the last step may have to leave. */
static double largest_step(const problem *p) {
    double most = 0.0;
    for (int i = 0; i < ITEMS; i++)
        if (p->first[i] < p->first[i + 1])
            most = fmax(most, p->cost[p->first[i]] - p->cost[p->first[i + 1] - 1]);
    return most;
}

static void least_cost_is_found(void **state) {
    (void)state;
    int exact = 0;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        problem p;
        int64_t chosen[ITEMS];
        problem_make(&p, seed, seed % 2 == 0);
        assert_int_equal(dpt_allocation_by_item(&p.of, chosen), DPT_OK);
        double size = dpt_allocation_sum(&p.of, p.size, chosen);
        double cost = dpt_allocation_sum(&p.of, p.cost, chosen);
        double least = best(&p, 0, p.of.budget);
        assert_true(size <= p.of.budget && cost >= least - 1e-12);
        assert_true(cost <= least + largest_step(&p) + 1e-12);
        if (seed % 2 == 0 && fabs(cost - least) > 1e-12)
            fail_msg("seed %d: cost %g, the best is %g", (int)seed, cost, least);
        exact += fabs(cost - least) < 1e-12;
    }
    assert_true(exact > 300);
}

static void too_little_is_refused(void **state) {
    (void)state;
    problem p;
    int64_t chosen[ITEMS];
    problem_make(&p, 2, true);
    p.of.budget = 0.5;
    assert_int_equal(dpt_allocation_by_item(&p.of, chosen), DPT_ERR_USAGE);
    dpt_error_clear();
    p.of.budget = 1e9; /* enough for all of everything */
    assert_int_equal(dpt_allocation_by_item(&p.of, chosen), DPT_OK);
    for (int i = 0; i < ITEMS; i++)
        if (chosen[i] >= 0)
            assert_true(p.cost[chosen[i]] == p.cost[p.first[i + 1] - 1]);
}

/* One level for a group: the largest that fits, the others at their last choice. */
static void groups_share_a_level(void **state) {
    (void)state;
    static const int64_t first[] = {0, 3, 6, 6, 8};
    static const double size[] = {1, 2, 4, 10, 20, 40, 5, 6}, cost[] = {9, 5, 1, 9, 5, 1, 2, 1};
    static const double level[] = {1, 2, 3, 1, 2, 3, 2, 3};
    dpt_allocation of = {
        .n = 4, .first = first, .size = size, .cost = cost, .level = level, .budget = 30};
    const bool all[] = {true, true, true, true}, second[] = {false, true, false, false},
               last[] = {false, false, false, true};
    int64_t chosen[4];
    assert_true(dpt_allocation_by_group(&of, all, chosen)); /* 2 + 20 + 5 */
    assert_int_equal(chosen[0], 1);
    assert_int_equal(chosen[1], 4);
    assert_int_equal(chosen[2], -1);
    assert_int_equal(chosen[3], 6);
    assert_true(dpt_allocation_by_group(&of, second, chosen)); /* 4 + 20 + 6 */
    assert_int_equal(chosen[0], 2);
    assert_int_equal(chosen[1], 4);
    assert_int_equal(chosen[3], 7);
    assert_false(dpt_allocation_by_group(&of, last, chosen)); /* 4 + 40 and more */
    of.budget = 50;
    assert_true(dpt_allocation_by_group(&of, all, chosen));
    assert_int_equal(chosen[1], 5);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_cost_is_found),
        cmocka_unit_test(too_little_is_refused),
        cmocka_unit_test(groups_share_a_level),
    };
    return test_mpi_main(argc, argv, tests);
}
