#include "svd_methods.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/reduce.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Largest magnitudes within 2^+-60 stay as they are: their squares, and the sums of squares of any
 * matrix, are far from the ends of fp32. */
enum { SAFE_EXPONENT = 60, SAFE_PRODUCT_EXPONENT = 90 };

/* Bits of the largest magnitude of a row; those of NaN are above those of infinity. */
static uint32_t largest_bits(const float *row, int64_t n) {
    uint32_t largest = 0;
    for (int64_t e = 0; e < n; e++) {
        uint32_t bits;
        memcpy(&bits, row + e, sizeof bits);
        bits &= 0x7FFFFFFFU;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* The squares of the slab, and its largest magnitude if asked for, in one pass over memory. */
static double scale_measure(const dpt_svd_problem *problem, double *largest) {
    double total = 0.0;
    uint32_t most = 0;
    for (int64_t i = 0; i < problem->local_rows; i++) {
        const float *row = problem->slab + i * problem->cols;
        uint32_t bits = largest != NULL ? largest_bits(row, problem->cols) : 0;
        most = bits > most ? bits : most;
        total += dpt_reduce_square(row, problem->cols);
    }
    float value;
    memcpy(&value, &most, sizeof value);
    if (largest != NULL)
        *largest = isnan(value) ? INFINITY : value;
    return total;
}

dpt_status dpt_svd_scale(dpt_svd_problem *problem, float **copy, int *exponent) {
    int64_t n = problem->local_rows * problem->cols;
    double largest = 0.0;
    *copy = NULL;
    *exponent = 0;
    problem->square = scale_measure(problem, &largest);
    dpt_status st = dpt_comm_max_f64(problem->comm, &largest, 1);
    /* NaN and infinity are refused by whoever takes the norm. */
    int at = largest > 0.0 && largest <= FLT_MAX ? ilogb(largest) : 0;
    if (st != DPT_OK || (at >= -SAFE_EXPONENT && at <= SAFE_EXPONENT))
        return st;
    *copy = dpt_mem_alloc(n, sizeof **copy, "rows of a scaled matrix");
    st = dpt_agree(problem->comm, *copy == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st != DPT_OK) {
        dpt_mem_free(*copy);
        *copy = NULL;
        return st;
    }
    double factor = ldexp(1.0, -at);
    for (int64_t e = 0; e < n; e++)
        (*copy)[e] = (float)(problem->slab[e] * factor);
    problem->slab = *copy;
    problem->square = scale_measure(problem, NULL);
    *exponent = at;
    return DPT_OK;
}

void dpt_svd_unscale(dpt_svd *svd, int exponent) {
    if (exponent == 0)
        return;
    for (int64_t i = 0; i < svd->rank; i++) {
        svd->s[i] = ldexp(svd->s[i], exponent);
        svd->s_error[i] = ldexp(svd->s_error[i], exponent);
    }
    svd->norm = ldexp(svd->norm, exponent);
    svd->residual = ldexp(svd->residual, exponent);
}

int dpt_svd_product_exponent(const dpt_svd *svd) {
    int at = svd->rank > 0 && svd->s[0] > 0.0 ? ilogb(svd->s[0]) : 0;
    return at < -SAFE_PRODUCT_EXPONENT || at > SAFE_PRODUCT_EXPONENT ? at : 0;
}
