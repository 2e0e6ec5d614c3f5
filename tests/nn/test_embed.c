/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/embed.h"

enum { T = 50, C = 300, V = 17, LD = C + 2 };

static void blocks_add_up_to_the_whole_table(void **state) {
    (void)state;
    const int64_t cut[] = {0, 5, 5, 16, V}; /* an empty block among them */
    int32_t tokens[T];
    uint64_t seed = 1;
    for (int t = 0; t < T; t++)
        tokens[t] = (int32_t)((nn_random(&seed) + 1.0) * 0.5 * V);
    tokens[0] = 0;
    tokens[1] = V - 1;
    float *e = nn_floats(V * LD, 1, 3), *dx = nn_floats(T * LD, 1, 4);
    float *dw = nn_floats(V * LD, 0, 6);
    double *want_dw = nn_doubles(V * C);
    double term[T] = {0}, want_term[T] = {0};
    for (int b = 0; b < 4; b++) {
        int64_t v0 = cut[b], v1 = cut[b + 1];
        dpt_nn_embed_backward(T, C, v0, v1, tokens, dx, LD, dw + v0 * LD, LD);
        dpt_nn_embed_terms(T, C, v0, v1, tokens, dx, LD, e + v0 * LD, LD, term);
    }
    for (int i = 0; i < T * C; i++) {
        int t = i / C, c = i % C;
        want_dw[tokens[t] * C + c] += (double)dx[t * LD + c];
        want_term[t] += (double)dx[t * LD + c] * (double)e[tokens[t] * LD + c];
    }
    nn_assert_near(V, C, dw, LD, want_dw, 1e-6);
    nn_assert_near_double(T, term, want_term, 1e-12);
    void *all[] = {e, dx, dw, want_dw};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void foreign_tokens(void **state) {
    (void)state;
    const int32_t tokens[] = {-1, 8, INT32_MAX, INT32_MIN};
    float w[4] = {1, 2, 3, 4}, dx[4] = {9, 9, 9, 9};
    double term[4] = {0};
    dpt_nn_embed_backward(4, 1, 4, 8, tokens, dx, 1, w, 1);
    dpt_nn_embed_terms(4, 1, 4, 8, tokens, dx, 1, w, 1, term);
    for (int i = 0; i < 4; i++)
        assert_true(w[i] == (float)(i + 1) && term[i] == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_add_up_to_the_whole_table),
        cmocka_unit_test(foreign_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
