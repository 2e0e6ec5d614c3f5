/* ranks: 1 */
/* Intervals that are corrected for skewness: their ends, p values, and what few samples count. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/path/paired.h"

#include <math.h>

enum { N = 40 };

/* Ends and p values are of one transform of the statistic, and few samples with a long tail are not called
 * equivalent by what they have met of it. */
static void test_corrected(void **state) {
    (void)state;
    double x[N];
    for (int s = 0; s < N; s++)
        x[s] = exp(0.25 * s) / 100.0;
    const dpt_paired_options options = {.effective = NAN, .rule = DPT_PAIRED_AUTO};
    for (int sign = 1; sign >= -1; sign -= 2) {
        dpt_paired p;
        assert_int_equal(dpt_paired_create(N, x, NULL, &options, &p), DPT_OK);
        assert_true(p.corrected && !p.resampled && sign * p.skew > 1.0);
        static const double levels[] = {1e-9, 1e-3, 0.025, 0.4, 0.975, 0.999999};
        for (int i = 0; i < 6; i++) {
            double end = dpt_paired_end(&p, levels[i]);
            assert_near(dpt_paired_p_above(&p, end) / levels[i], 1.0, 1e-9);
            assert_near(dpt_paired_p_below(&p, end), 1.0 - levels[i], 1e-9);
            assert_true(i == 0 || end > dpt_paired_end(&p, levels[i - 1]));
        }
        /* The long tail is on the side of the skewness. */
        double below = p.mean - dpt_paired_end(&p, 0.025);
        double above = dpt_paired_end(&p, 0.975) - p.mean;
        assert_true(sign * (above - below) > 0.2 * (above + below));
        assert_true(p.few);
        assert_near(p.enough, 28.0 + 25.0 * p.skew * p.skew, 1e-9);
        double far = sign > 0 ? 0.95 : 0.05;
        double end = dpt_paired_safe_end(&p, far);
        assert_near(end - p.mean, DPT_PAIRED_REACH * (dpt_paired_end(&p, far) - p.mean), 1e-12);
        double tail =
            sign > 0 ? dpt_paired_safe_p_below(&p, end) : dpt_paired_safe_p_above(&p, end);
        assert_near(tail, 0.05, 1e-9);
        assert_near(dpt_paired_safe_end(&p, 1.0 - far), dpt_paired_end(&p, 1.0 - far), 0.0);
        dpt_paired_destroy(&p);
        for (int s = 0; s < N; s++)
            x[s] = -x[s];
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corrected),
    };
    return test_mpi_main(argc, argv, tests);
}
