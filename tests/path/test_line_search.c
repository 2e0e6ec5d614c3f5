/* ranks: 1
 * The search for a minimum, on lines whose minimum is known. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/path/line_search.h"

#include <math.h>

typedef struct line {
    int kind;
    double minimum;
    int calls;
    int fail_at;
} line;

enum { QUADRATIC, QUARTIC, STEEP, WALL, FALLING, FLAT, WAVES, WRONG_SLOPE };

static dpt_status value(void *ctx, double x, double *loss, double *slope) {
    line *l = ctx;
    double d = x - l->minimum;
    if (++l->calls == l->fail_at)
        return DPT_ERR_INPUT;
    switch (l->kind) {
    case QUADRATIC:
        *loss = 2.0 + d * d;
        *slope = 2.0 * d;
        break;
    case QUARTIC:
        *loss = d * d * d * d;
        *slope = 4.0 * d * d * d;
        break;
    case STEEP: /* a rise as that of an edited model's loss: flat at first, then a thousandfold */
        *loss = exp(12.0 * d) / 12.0 - d;
        *slope = exp(12.0 * d) - 1.0;
        break;
    case WALL:
        *loss = x > 0.25 ? INFINITY : d * d;
        *slope = x > 0.25 ? NAN : 2.0 * d;
        break;
    case FALLING:
        *loss = -x;
        *slope = -1.0;
        break;
    case WAVES:
        *loss = sin(9.0 * x) + 0.1 * x;
        *slope = 9.0 * cos(9.0 * x) + 0.1;
        break;
    case WRONG_SLOPE: /* the loss rises although the slope says that it falls */
        *loss = x * x;
        *slope = -1.0;
        break;
    default:
        *loss = 1.0;
        *slope = 0.0;
    }
    return DPT_OK;
}

static dpt_line_search find(line *l, int evaluations) {
    dpt_line_search_options options = dpt_line_search_defaults();
    dpt_line_search out;
    options.evaluations = evaluations;
    assert_int_equal(dpt_line_search_run(value, l, &options, &out), DPT_OK);
    assert_int_equal(out.evaluations, l->calls);
    assert_true(out.evaluations <= evaluations && out.points == out.evaluations);
    assert_true(out.loss <= out.point[0].loss);
    return out;
}

static void test_smooth(void **state) {
    (void)state;
    static const double places[] = {-0.9, -0.31, -0.02, 0.004, 0.1, 0.17, 0.5, 0.97};
    for (int i = 0; i < 8; i++) {
        line quadratic = {.kind = QUADRATIC, .minimum = places[i]};
        dpt_line_search out = find(&quadratic, 8);
        assert_near(out.at, places[i], 0.012);
        assert_true(out.bracketed && !out.border);
        line steep = {.kind = STEEP, .minimum = places[i]};
        out = find(&steep, 12);
        assert_near(out.at, places[i], 0.03);
        line quartic = {.kind = QUARTIC, .minimum = places[i]};
        out = find(&quartic, 12);
        assert_near(out.at, places[i], 0.3 * fabs(places[i]) + 0.01); /* flat at its minimum */
    }
}

static void test_few_gradients(void **state) {
    (void)state;
    line l = {.kind = QUADRATIC, .minimum = 0.17};
    assert_true(find(&l, 32).evaluations <= 5);
    line steep = {.kind = STEEP, .minimum = 0.17};
    assert_true(find(&steep, 32).evaluations <= 9);
}

static void test_hard(void **state) {
    (void)state;
    line wall = {.kind = WALL, .minimum = 0.2};
    dpt_line_search out = find(&wall, 16);
    assert_near(out.at, 0.2, 0.02);
    line falling = {.kind = FALLING};
    out = find(&falling, 16);
    assert_true(out.at == 1.0 && out.border && !out.bracketed);
    line flat = {.kind = FLAT};
    out = find(&flat, 16);
    assert_true(out.at == 0.0 && out.evaluations == 1 && !out.bracketed);
    line waves = {.kind = WAVES}; /* several minima: one that is lower than 0 */
    out = find(&waves, 16);
    assert_true(out.bracketed && out.loss < -0.9);
    line wrong = {.kind = WRONG_SLOPE};
    out = find(&wrong, 16);
    assert_true(out.at == 0.0 && out.loss == 0.0);
    line none = {.kind = FALLING};
    dpt_line_search_options options = dpt_line_search_defaults();
    options.upper = 0.0;
    assert_int_equal(dpt_line_search_run(value, &none, &options, &out), DPT_OK);
    assert_true(out.at == 0.0 && out.border && out.evaluations == 1);
}

static void test_budget_and_start(void **state) {
    (void)state;
    for (int budget = 1; budget < 6; budget++) {
        line l = {.kind = STEEP, .minimum = 0.6};
        find(&l, budget);
    }
    line l = {.kind = QUADRATIC, .minimum = 0.17};
    const dpt_line_search_point start = {.at = 0.0, .loss = 2.0289, .slope = -0.34};
    dpt_line_search_options options = dpt_line_search_defaults();
    options.start = &start;
    dpt_line_search out;
    assert_int_equal(dpt_line_search_run(value, &l, &options, &out), DPT_OK);
    assert_near(out.at, 0.17, 0.002);
    assert_true(out.points == out.evaluations + 1 && out.evaluations == l.calls);
}

static void test_errors(void **state) {
    (void)state;
    for (int at = 1; at < 4; at++) {
        line l = {.kind = QUADRATIC, .minimum = 0.5, .fail_at = at};
        dpt_line_search_options options = dpt_line_search_defaults();
        dpt_line_search out;
        assert_int_equal(dpt_line_search_run(value, &l, &options, &out), DPT_ERR_INPUT);
        assert_int_equal(l.calls, at);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smooth), cmocka_unit_test(test_few_gradients),
        cmocka_unit_test(test_hard),   cmocka_unit_test(test_budget_and_start),
        cmocka_unit_test(test_errors),
    };
    return test_mpi_main(argc, argv, tests);
}
