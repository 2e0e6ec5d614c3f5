/** Error function of 16 numbers at once, where the processor has AVX-512.
 *
 * A polynomial for each quarter of [0, 4), whose coefficients stand in registers: half of the work of dpt_nn_erff.
 */
#ifndef DELTAPATH_SRC_NN_VERF_H
#define DELTAPATH_SRC_NN_VERF_H

#ifdef __AVX512F__
#include <immintrin.h>
#include <stdint.h>

enum { DPT_ERF_DEGREE = 5 };

/** Coefficients of powers of the distance from the middle of a quarter: interpolation at Chebyshev nodes. */
static const float dpt_nn_erf_quarters[DPT_ERF_DEGREE + 1][16] = {
    {1.40316203e-01f, 4.04116899e-01f, 6.23240888e-01f, 7.84075081e-01f, 8.88388216e-01f,
     9.48170066e-01f, 9.78443742e-01f, 9.91990030e-01f, 9.97345984e-01f, 9.99217033e-01f,
     9.99794602e-01f, 9.99952137e-01f, 9.99990106e-01f, 9.99998212e-01f, 9.99999702e-01f,
     9.99999940e-01f},
    {1.11088526e+00f, 9.80352819e-01f, 7.63499558e-01f, 5.24745047e-01f, 3.18273962e-01f,
     1.70359775e-01f, 8.04722533e-02f, 3.35458256e-02f, 1.23408195e-02f, 4.00647800e-03f,
     1.14787545e-03f, 2.90228490e-04f, 6.47587949e-05f, 1.27517833e-05f, 2.21593359e-06f,
     3.39825789e-07f},
    {-1.38857558e-01f, -3.67625445e-01f, -4.77181554e-01f, -4.59150493e-01f, -3.58060330e-01f,
     -2.34247714e-01f, -1.30769402e-01f, -6.28989935e-02f, -2.62239985e-02f, -9.51495953e-03f,
     -3.01286369e-03f, -8.34249309e-04f, -2.02308394e-04f, -4.30168366e-05f, -8.02721570e-06f,
     -1.31555328e-06f},
    {-3.58718276e-01f, -2.34875023e-01f, -5.56747913e-02f, 9.29196477e-02f, 1.62450284e-01f,
     1.57938004e-01f, 1.14841931e-01f, 6.74421415e-02f, 3.30378078e-02f, 1.37305092e-02f,
     4.89028171e-03f, 1.50242320e-03f, 3.99962708e-04f, 9.25610002e-05f, 1.86669549e-05f,
     3.28675333e-06f},
    {6.81783259e-02f, 1.65413812e-01f, 1.75493687e-01f, 1.12152785e-01f, 2.83348728e-02f,
     -2.99830250e-02f, -4.93812673e-02f, -4.21630591e-02f, -2.64029279e-02f, -1.32059455e-02f,
     -5.46693848e-03f, -1.90853828e-03f, -5.68222604e-04f, -1.45342943e-04f, -3.21036641e-05f,
     -6.14645296e-06f},
    {1.03527993e-01f, 4.53261510e-02f, -2.70350482e-02f, -6.67091832e-02f, -6.10611960e-02f,
     -3.06439158e-02f, -2.30325200e-03f, 1.13280220e-02f, 1.24442121e-02f, 8.36057868e-03f,
     4.23641410e-03f, 1.72770733e-03f, 5.84262016e-04f, 1.66579775e-04f, 4.04595994e-05f,
     8.43043017e-06f},
};

/** erf(x) within 1.2e-7 for every x. NaN gives 1 or -1.
 *
 * Local.
 */
static inline __m512 dpt_nn_erf16(__m512 x) {
    const __m512 below_4 = _mm512_set1_ps(3.9999998f);
    __m512 t = _mm512_min_ps(_mm512_abs_ps(x), below_4);
    __m512i quarter = _mm512_cvttps_epi32(_mm512_mul_ps(t, _mm512_set1_ps(4.0f)));
    __m512 u = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(quarter), _mm512_set1_ps(0.25f),
                                _mm512_sub_ps(t, _mm512_set1_ps(0.125f)));
    __m512 p = _mm512_permutexvar_ps(quarter, _mm512_loadu_ps(dpt_nn_erf_quarters[DPT_ERF_DEGREE]));
    for (int k = DPT_ERF_DEGREE - 1; k >= 0; k--)
        p = _mm512_fmadd_ps(
            p, u, _mm512_permutexvar_ps(quarter, _mm512_loadu_ps(dpt_nn_erf_quarters[k])));
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(
        _mm512_or_si512(_mm512_castps_si512(p), _mm512_and_si512(_mm512_castps_si512(x), sign)));
}

#endif
#endif
