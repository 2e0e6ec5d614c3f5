/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/route.h"

/** The same in double: which experts are chosen is given, as for a finite difference it must not change. */
typedef struct {
    dpt_nn_route_kind kind;
    int64_t T, E, k;
    const int32_t *chosen;
    double *logits, *weight, *dweight;
} reference;

static bool is_chosen(const reference *r, int64_t t, int64_t e) {
    for (int64_t s = 0; s < r->k; s++)
        if (r->chosen[t * r->k + s] == e)
            return true;
    return false;
}

static double route_loss(void *context) {
    reference *r = context;
    double loss = 0.0;
    for (int64_t t = 0; t < r->T; t++) {
        const double *row = r->logits + t * r->E;
        double sum = 0.0;
        for (int64_t e = 0; e < r->E; e++)
            sum += r->kind == DPT_ROUTE_ALL || is_chosen(r, t, e) ? exp(row[e]) : 0.0;
        for (int64_t i = t * r->k; i < (t + 1) * r->k; i++) {
            r->weight[i] = exp(row[r->chosen[i]]) / sum;
            loss += r->dweight[i] * r->weight[i];
        }
    }
    return loss;
}

/** No expert that is left out is larger than one that is taken, and these are sorted. */
static void check_choice(const reference *r, int64_t t) {
    const int32_t *c = r->chosen + t * r->k;
    const double *row = r->logits + t * r->E;
    for (int64_t s = 0; s + 1 < r->k; s++)
        assert_true(row[c[s]] > row[c[s + 1]] || (row[c[s]] == row[c[s + 1]] && c[s] < c[s + 1]));
    for (int32_t e = 0; e < r->E; e++)
        if (!is_chosen(r, t, e))
            assert_true(row[e] < row[c[r->k - 1]] ||
                        (row[e] == row[c[r->k - 1]] && e > c[r->k - 1]));
}

static void check_route(dpt_nn_route_kind kind, int64_t T, int64_t E, int64_t k, double steps) {
    int64_t ld = E + 2;
    float *logits = nn_floats(T * ld, 4.0, 1), *dweight = nn_floats(T * k, 1, 2);
    float *weight = nn_floats(T * k, 1, 3), *dlogits = nn_floats(T * ld, 1, 4);
    int32_t *chosen = test_malloc((size_t)(T * k + 1) * sizeof *chosen);
    if (steps > 0.0) /* many equal ones */
        for (int64_t i = 0; i < T * ld; i++)
            logits[i] = (float)(round((double)logits[i] * steps) / steps);
    reference r = {
        kind, T, E, k, chosen, nn_doubles(T * E), nn_doubles(T * k), nn_widen(T * k, dweight)};
    for (int64_t i = 0; i < T * E; i++)
        r.logits[i] = (double)logits[i / E * ld + i % E];
    dpt_nn_route_forward(kind, T, E, k, logits, ld, chosen, weight);
    for (int64_t t = 0; t < T; t++)
        check_choice(&r, t);
    double *want = nn_finite_difference(route_loss, &r, r.logits, T * E);
    route_loss(&r);
    nn_assert_near(T, k, weight, k, r.weight, 1e-6);
    dpt_nn_route_backward(kind, T, E, k, logits, ld, chosen, weight, dweight, dlogits, ld);
    nn_assert_near(T, E, dlogits, ld, want, 1e-6);
    dpt_nn_route_backward(kind, T, E, k, logits, ld, chosen, weight, dweight, logits, ld);
    nn_assert_near(T, E, logits, ld, want, 1e-6);
    void *all[] = {logits, dweight, weight, dlogits, chosen, r.logits, r.weight, r.dweight, want};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void weights_and_gradient_match_reference(void **state) {
    (void)state;
    for (int kind = DPT_ROUTE_ALL; kind <= DPT_ROUTE_CHOSEN; kind++) {
        check_route((dpt_nn_route_kind)kind, 11, 8, 2, 0.0);
        check_route((dpt_nn_route_kind)kind, 5, 33, 7, 0.0);
        check_route((dpt_nn_route_kind)kind, 9, 6, 3, 1.0);
        check_route((dpt_nn_route_kind)kind, 3, 4, 4, 0.0);
        check_route((dpt_nn_route_kind)kind, 3, 1, 1, 0.0);
        check_route((dpt_nn_route_kind)kind, 0, 4, 2, 0.0);
    }
}

static void extreme_logits_stay_finite(void **state) {
    (void)state;
    const float logits[] = {-3e38f, 1e4f, 3e38f, -1e4f}, dweight[] = {1.0f, 2.0f};
    float weight[2], d[4];
    int32_t chosen[2];
    for (int kind = DPT_ROUTE_ALL; kind <= DPT_ROUTE_CHOSEN; kind++) {
        dpt_nn_route_forward((dpt_nn_route_kind)kind, 1, 4, 2, logits, 4, chosen, weight);
        assert_true(chosen[0] == 2 && chosen[1] == 1 && weight[0] == 1.0f && weight[1] == 0.0f);
        dpt_nn_route_backward((dpt_nn_route_kind)kind, 1, 4, 2, logits, 4, chosen, weight, dweight,
                              d, 4);
        for (int e = 0; e < 4; e++)
            assert_true(d[e] == 0.0f);
    }
}

static void the_choice_is_valid_without_numbers(void **state) {
    (void)state;
    const float logits[] = {NAN, 1.0f, NAN, 2.0f, NAN};
    for (int64_t k = 1; k <= 5; k++) {
        float weight[5];
        int32_t chosen[5];
        bool seen[5] = {false};
        dpt_nn_route_forward(DPT_ROUTE_CHOSEN, 1, 5, k, logits, 5, chosen, weight);
        for (int64_t s = 0; s < k; s++) {
            assert_true(chosen[s] >= 0 && chosen[s] < 5 && !seen[chosen[s]]);
            seen[chosen[s]] = true;
        }
    }
}

static void lists_are_of_each_expert_in_order(void **state) {
    (void)state;
    const int32_t chosen[] = {3, 1, 0, 3, 2, 3, 1, 0};
    int64_t first[4], choice[8];
    dpt_nn_route_list(8, chosen, 1, 4, first, choice);
    const int64_t want_first[] = {0, 2, 3, 6}, want[] = {1, 6, 4, 0, 3, 5};
    assert_memory_equal(first, want_first, sizeof want_first);
    assert_memory_equal(choice, want, sizeof want);
    dpt_nn_route_list(8, chosen, 4, 6, first, choice); /* nobody chose these */
    assert_true(first[0] == 0 && first[1] == 0 && first[2] == 0);
    dpt_nn_route_list(8, chosen, 2, 2, first, choice);
    assert_true(first[0] == 0);
    dpt_nn_route_list(0, chosen, 0, 2, first, choice);
    assert_true(first[2] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_and_gradient_match_reference),
        cmocka_unit_test(extreme_logits_stay_finite),
        cmocka_unit_test(the_choice_is_valid_without_numbers),
        cmocka_unit_test(lists_are_of_each_expert_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
