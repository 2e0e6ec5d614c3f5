#include "deltapath/linalg/reduce.h"

#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>

/* Element i goes to lane i % LANES; the lanes are added as a tree of fixed shape. */
enum { LANES = 16 };

static double reduce_horizontal_sum(double *lane) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

double dpt_reduce_abs(const float *x, int64_t n) {
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (double)fabsf(x[i + l]);
    for (int l = 0; i + l < n; l++)
        lane[l] += (double)fabsf(x[i + l]);
    return reduce_horizontal_sum(lane);
}

double dpt_reduce_dot(const float *x, const float *y, int64_t n) {
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (double)x[i + l] * (double)y[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += (double)x[i + l] * (double)y[i + l];
    return reduce_horizontal_sum(lane);
}

double dpt_reduce_square(const float *x, int64_t n) {
    return dpt_reduce_dot(x, x, n);
}

dpt_status dpt_reduce_totals(const dpt_comm *comm, int64_t groups, const int64_t *first,
                             double *partial, double *totals) {
    DPT_ASSERT_SAME(comm, groups);
    DPT_ASSERT_SAME_ARRAY(comm, first, groups + 1);
    int64_t slots = groups > 0 ? first[groups] : 0;
    dpt_status st = dpt_agree(comm, dpt_comm_sum_f64(comm, partial, slots));
    if (st != DPT_OK)
        return st;
    /* Adding 0 on other ranks turns -0 into 0; on one rank nothing was added. */
    for (int64_t i = 0; i < slots; i++)
        partial[i] += 0.0;
    for (int64_t g = 0; g < groups; g++) {
        DPT_ASSERT(first[g] >= 0 && first[g] <= first[g + 1]);
        totals[g] = 0.0;
        for (int64_t i = first[g]; i < first[g + 1]; i++)
            totals[g] += partial[i];
    }
    return DPT_OK;
}
