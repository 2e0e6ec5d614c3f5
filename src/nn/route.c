#include "deltapath/nn/route.h"

#include <math.h>
#include <string.h>

enum { PARALLEL_MIN = 1 << 15 };

/** The k largest of a row, sorted; what is no number is not larger than anything. */
static void choose_row(int64_t E, int64_t k, const float *row, int32_t *chosen) {
    int64_t count = 0;
    for (int64_t e = 0; e < E; e++) {
        if (count == k && !(row[e] > row[chosen[k - 1]]))
            continue;
        int64_t at = count < k ? count++ : k - 1;
        for (; at > 0 && row[e] > row[chosen[at - 1]]; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = (int32_t)e;
    }
}

/** Sum over all experts of the exponentials below the largest logit. */
static double sum_of_row(int64_t E, const float *row, double max) {
    double sum = 0.0;
    for (int64_t e = 0; e < E; e++)
        sum += exp((double)row[e] - max);
    return sum;
}

void dpt_nn_route_forward(dpt_nn_route_kind kind, int64_t T, int64_t E, int64_t k,
                          const float *logits, int64_t ld, int32_t *chosen, float *weight) {
    /* logits (T,E), chosen (T,k), weight (T,k) */
#pragma omp parallel for schedule(static) if (T * E >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *row = logits + t * ld;
        int32_t *c = chosen + t * k;
        choose_row(E, k, row, c);
        double max = (double)row[c[0]], sum = kind == DPT_ROUTE_ALL ? sum_of_row(E, row, max) : 0.0;
        for (int64_t s = 0; s < k && kind == DPT_ROUTE_CHOSEN; s++)
            sum += exp((double)row[c[s]] - max);
        for (int64_t s = 0; s < k; s++)
            weight[t * k + s] = (float)(exp((double)row[c[s]] - max) / sum);
    }
}

void dpt_nn_route_backward(dpt_nn_route_kind kind, int64_t T, int64_t E, int64_t k,
                           const float *logits, int64_t ld, const int32_t *chosen,
                           const float *weight, const float *dweight, float *dlogits, int64_t ldd) {
    /* logits (T,E), chosen (T,k), weight (T,k), dweight (T,k), dlogits (T,E) */
    /* forward: weight[s] = p[chosen[s]], p = softmax(logits) over all or over the chosen */
#pragma omp parallel for schedule(static) if (T * E >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *row = logits + t * ld, *w = weight + t * k, *dw = dweight + t * k;
        const int32_t *c = chosen + t * k;
        float *d = dlogits + t * ldd;
        double dot = 0.0;
        for (int64_t s = 0; s < k; s++)
            dot += (double)w[s] * (double)dw[s];
        if (kind == DPT_ROUTE_ALL) {
            double max = (double)row[c[0]], sum = sum_of_row(E, row, max);
            for (int64_t e = 0; e < E; e++)
                d[e] = (float)(-dot * exp((double)row[e] - max) / sum);
        } else {
            memset(d, 0, (size_t)E * sizeof *d);
        }
        for (int64_t s = 0; s < k; s++)
            d[c[s]] = (float)((double)w[s] * ((double)dw[s] - dot));
    }
}

void dpt_nn_route_list(int64_t n, const int32_t *chosen, int64_t begin, int64_t end, int64_t *first,
                       int64_t *choice) {
    /* chosen (n), first (end-begin+1), choice (n) */
    int64_t experts = end - begin, at = 0;
    memset(first, 0, (size_t)(experts + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++)
        if (chosen[i] >= begin && chosen[i] < end)
            first[chosen[i] - begin]++;
    for (int64_t e = 0; e <= experts; e++) { /* numbers to first places */
        int64_t count = first[e];
        first[e] = at;
        at += count;
    }
    for (int64_t i = 0; i < n; i++)
        if (chosen[i] >= begin && chosen[i] < end)
            choice[first[chosen[i] - begin]++] = i;
    /* Each has become the first place of the next. */
    memmove(first + 1, first, (size_t)experts * sizeof *first);
    first[0] = 0;
}
