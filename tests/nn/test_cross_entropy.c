/* ranks: 1 */
#include "nn/nn_test.h"

#include "deltapath/nn/cross_entropy.h"

typedef struct {
    int64_t R, V;
    double cap; /**< 0: none */
    double *logits;
    const int32_t *targets;
    const float *scale;
} reference;

static double logit(const reference *r, int64_t row, int64_t v) {
    double z = r->logits[row * r->V + v];
    return r->cap > 0.0 ? r->cap * tanh(z / r->cap) : z;
}

static double row_loss(const reference *r, int64_t row) {
    double max = -INFINITY, sum = 0.0;
    for (int64_t v = 0; v < r->V; v++)
        max = fmax(max, logit(r, row, v));
    for (int64_t v = 0; v < r->V; v++)
        sum += exp(logit(r, row, v) - max);
    return log(sum) + max - logit(r, row, r->targets[row]);
}

static double scaled_loss(void *context) {
    reference *r = context;
    double loss = 0.0;
    for (int64_t row = 0; row < r->R; row++)
        loss += (double)r->scale[row] * row_loss(r, row);
    return loss;
}

/** Runs the pieces over column blocks as ranks would, reducing by hand. */
static void check_capped(int64_t R, int64_t V, int64_t ld, const int64_t *cut, int blocks,
                         double logit_scale, float cap, bool finite_difference) {
    float *logits = nn_floats(R * ld, logit_scale, 1), *scale = nn_floats(R, 1, 2);
    float *max = nn_floats(R, 1, 3), *part = nn_floats(R, 1, 4);
    double *sumexp = nn_doubles(R), *target = nn_doubles(R), *part_sum = nn_doubles(R);
    double *part_target = nn_doubles(R), *loss = nn_doubles(R), *want = nn_doubles(R);
    int32_t *targets = test_calloc((size_t)R + 1, sizeof *targets);
    uint64_t seed = 5;
    for (int64_t r = 0; r < R; r++)
        targets[r] = (int32_t)((nn_random(&seed) + 1.0) * 0.5 * (double)V);
    reference ref = {R, V, (double)cap, nn_doubles(R * V), targets, scale};
    for (int64_t i = 0; i < R * V; i++)
        ref.logits[i] = (double)logits[i / V * ld + i % V];

    for (int b = 0; b < blocks && cap > 0.0f; b++)
        dpt_nn_ce_cap(R, cut[b + 1] - cut[b], cap, logits + cut[b], ld);
    for (int64_t r = 0; r < R; r++)
        max[r] = -INFINITY;
    for (int b = 0; b < blocks; b++) {
        dpt_nn_ce_row_max(R, cut[b + 1] - cut[b], logits + cut[b], ld, part);
        for (int64_t r = 0; r < R; r++)
            max[r] = fmaxf(max[r], part[r]);
    }
    for (int b = 0; b < blocks; b++) {
        dpt_nn_ce_sums(R, cut[b + 1] - cut[b], cut[b], logits + cut[b], ld, targets, max, part_sum,
                       part_target);
        for (int64_t r = 0; r < R; r++) {
            sumexp[r] += part_sum[r];
            target[r] += part_target[r];
        }
    }
    dpt_nn_ce_loss(R, max, sumexp, target, loss);
    for (int64_t r = 0; r < R; r++)
        want[r] = row_loss(&ref, r);
    nn_assert_near_double(R, loss, want, 1e-6);
    for (int b = 0; b < blocks; b++)
        dpt_nn_ce_backward(R, cut[b + 1] - cut[b], cut[b], cap, logits + cut[b], ld, targets, max,
                           sumexp, scale);
    if (finite_difference) {
        double *gradient = nn_finite_difference(scaled_loss, &ref, ref.logits, R * V);
        nn_assert_near(R, V, logits, ld, gradient, 1e-5);
        test_free(gradient);
    }
    for (int64_t r = 0; r < R;
         r++) { /* without a cap the gradient of a softmax sums to zero over the row */
        double sum = 0.0;
        for (int64_t v = 0; v < V; v++)
            sum += (double)logits[r * ld + v];
        assert_true(cap > 0.0f || fabs(sum) < 2e-6);
    }
    void *all[] = {logits,   scale,       max,  part, sumexp,  target,
                   part_sum, part_target, loss, want, targets, ref.logits};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void check_blocks(int64_t R, int64_t V, int64_t ld, const int64_t *cut, int blocks,
                         double logit_scale, bool finite_difference) {
    check_capped(R, V, ld, cut, blocks, logit_scale, 0.0f, finite_difference);
}

static void capped_logits_match_reference(void **state) {
    (void)state;
    const int64_t four[] = {0, 7, 7, 22, 23};
    for (float cap = 1.0f; cap < 50.0f; cap *= 6.0f)
        check_capped(6, 23, 26, four, 4, 5.0, cap, true);
    check_capped(0, 23, 23, four, 4, 3.0, 2.0f, true);
}

static void loss_and_gradient_match_reference(void **state) {
    (void)state;
    const int64_t one[] = {0, 23}, four[] = {0, 7, 7, 22, 23}, tiny[] = {0, 1};
    check_blocks(5, 23, 23, one, 1, 3.0, true);
    check_blocks(6, 23, 26, four, 4, 3.0, true);
    check_blocks(3, 23, 23, four, 4, 40.0, true);
    check_blocks(2, 1, 1, tiny, 1, 1.0, false);
    check_blocks(0, 23, 23, four, 4, 3.0, true);
}

static void long_rows_and_extreme_logits(void **state) {
    (void)state;
    const int64_t cut[] = {0, 65000, 131072}, small[] = {0, 100, 333};
    check_blocks(3, 131072, 131072, cut, 2, 8.0, false);
    check_blocks(4, 333, 333, small, 2, 1e4, false);
}

static void a_certain_row_has_no_loss(void **state) {
    (void)state;
    float logits[] = {1e4f, -1e4f, 0.0f}, max[1], scale[] = {1.0f};
    const int32_t target[] = {0};
    double sum[1], at[1];
    dpt_nn_ce_row_max(1, 3, logits, 3, max);
    dpt_nn_ce_sums(1, 3, 0, logits, 3, target, max, sum, at);
    dpt_nn_ce_loss(1, max, sum, at, at);
    assert_true(at[0] == 0.0);
    dpt_nn_ce_backward(1, 3, 0, 0.0f, logits, 3, target, max, sum, scale);
    assert_true(logits[0] == 0.0f && logits[1] == 0.0f && logits[2] == 0.0f);
}

static void an_empty_block_is_neutral(void **state) {
    (void)state;
    const int32_t target[] = {3, 0};
    const float global_max[] = {1.0f, 2.0f};
    float max[2], value[2];
    double sum[2] = {7, 7}, at[2] = {7, 7};
    int64_t index[2];
    dpt_nn_ce_row_max(2, 0, NULL, 0, max);
    dpt_nn_ce_sums(2, 0, 3, NULL, 0, target, global_max, sum, at);
    dpt_nn_ce_argmax(2, 0, 3, NULL, 0, value, index);
    for (int r = 0; r < 2; r++) {
        assert_true(max[r] == -INFINITY && value[r] == -INFINITY && index[r] == -1);
        assert_true(sum[r] == 0.0 && at[r] == 0.0);
    }
}

static void argmax_takes_the_first_of_equals(void **state) {
    (void)state;
    enum { V = 70 };
    float logits[3 * V], value[3];
    int64_t index[3];
    for (int i = 0; i < 3 * V; i++)
        logits[i] = -5.0f;
    logits[40] = logits[41] = 2.0f;
    logits[2 * V + V - 1] = 1.0f;
    dpt_nn_ce_argmax(3, V, 1000, logits, V, value, index);
    assert_true(index[0] == 1040 && value[0] == 2.0f);
    assert_true(index[1] == 1000 && value[1] == -5.0f);
    assert_true(index[2] == 1000 + V - 1 && value[2] == 1.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_and_gradient_match_reference),
        cmocka_unit_test(capped_logits_match_reference),
        cmocka_unit_test(long_rows_and_extreme_logits),
        cmocka_unit_test(a_certain_row_has_no_loss),
        cmocka_unit_test(an_empty_block_is_neutral),
        cmocka_unit_test(argmax_takes_the_first_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
