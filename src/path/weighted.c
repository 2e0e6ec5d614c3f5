#include "deltapath/path/weighted.h"

#include "deltapath/base/mem.h"
#include "deltapath/path/paired.h"
#include "deltapath/path/verdict.h"

#include <float.h>
#include <math.h>
#include <string.h>

double dpt_weighted_mean(const double *shares, int64_t n, const double *x) {
    double sum = 0.0;
    for (int64_t s = 0; s < n; s++)
        sum += shares != NULL ? shares[s] * x[s] : x[s];
    return shares != NULL ? sum : sum / (double)n;
}

static void weighted_values(const double *shares, int64_t n, const double *x, double *out) {
    if (shares == NULL) {
        memmove(out, x, (size_t)n * sizeof *out);
        return;
    }
    int64_t count = 0;
    for (int64_t s = 0; s < n; s++)
        count += shares[s] > 0.0;
    double mean = dpt_weighted_mean(shares, n, x);
    double off = 0.0;
    int64_t k = 0;
    for (int64_t s = 0; s < n; s++) {
        if (!(shares[s] > 0.0))
            continue;
        double rest = fmax(1.0 - shares[s], DBL_EPSILON);
        out[k] = count > 1 ? (double)(count - 1) * shares[s] / rest * (x[s] - mean) : 0.0;
        off += out[k++] / (double)count;
    }
    for (k = 0; k < count; k++)
        out[k] += mean - off;
}

/* Shares of the clusters, and values for those with weight in the order of their numbers. */
static dpt_status weighted_gather(const int64_t *clusters, dpt_weighted *out) {
    int64_t n = out->n;
    double *sums = dpt_mem_zalloc(n, sizeof *sums, "shares of clusters");
    int64_t *values = dpt_mem_alloc(n, sizeof *values, "numbers of clusters");
    out->cluster_shares = sums;
    out->value_of = dpt_mem_alloc(n, sizeof *out->value_of, "clusters of samples");
    out->means = dpt_mem_alloc(n, sizeof *out->means, "means of clusters");
    bool complete = sums != NULL && values != NULL && out->value_of != NULL && out->means != NULL;
    for (int64_t i = 0; i < n && complete; i++)
        sums[clusters[i]] += out->shares != NULL ? out->shares[i] : 1.0 / (double)n;
    out->count = 0;
    for (int64_t c = 0; c < n && complete; c++) {
        values[c] = sums[c] > 0.0 ? out->count : -1;
        if (sums[c] > 0.0)
            sums[out->count++] = sums[c];
    }
    for (int64_t i = 0; i < n && complete; i++)
        out->value_of[i] = out->shares == NULL || out->shares[i] > 0.0 ? values[clusters[i]] : -1;
    dpt_mem_free(values);
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_weighted_create(int64_t n, const double *shares, const int64_t *clusters,
                               dpt_weighted *out) {
    *out = (dpt_weighted){.n = n, .count = n, .shares = shares};
    dpt_status st = clusters != NULL ? weighted_gather(clusters, out) : DPT_OK;
    if (st != DPT_OK) {
        dpt_weighted_destroy(out);
        return st;
    }
    const double *of = clusters != NULL ? out->cluster_shares : shares;
    double squares = of == NULL ? 1.0 / (double)n : 0.0;
    int64_t count = 0;
    for (int64_t i = 0; of != NULL && i < out->count; i++) {
        squares += of[i] * of[i];
        count += of[i] > 0.0;
    }
    out->count = of != NULL ? count : n;
    out->effective = 1.0 / squares;
    return DPT_OK;
}

void dpt_weighted_destroy(dpt_weighted *weighted) {
    dpt_mem_free(weighted->cluster_shares);
    dpt_mem_free(weighted->value_of);
    dpt_mem_free(weighted->means);
    *weighted = (dpt_weighted){.n = 0};
}

void dpt_weighted_apply(const dpt_weighted *w, const double *x, double *out) {
    if (w->value_of == NULL) {
        weighted_values(w->shares, w->n, x, out);
        return;
    }
    for (int64_t v = 0; v < w->count; v++)
        w->means[v] = 0.0;
    for (int64_t i = 0; i < w->n; i++)
        if (w->value_of[i] >= 0)
            w->means[w->value_of[i]] +=
                (w->shares != NULL ? w->shares[i] : 1.0 / (double)w->n) * x[i];
    for (int64_t v = 0; v < w->count; v++)
        w->means[v] /= w->cluster_shares[v];
    weighted_values(w->cluster_shares, w->count, w->means, out);
}

dpt_status dpt_weighted_interval(const dpt_weighted *weighted, double effective, const double *x,
                                 double *room, double confidence, dpt_interval *out) {
    const dpt_paired_options options = {.effective = fmin(weighted->effective, effective),
                                        .rule = DPT_PAIRED_T};
    dpt_paired paired;
    dpt_weighted_apply(weighted, x, room);
    dpt_status st = dpt_paired_create(weighted->count, room, NULL, &options, &paired);
    *out = dpt_paired_interval(&paired, confidence);
    if (dpt_verdict_is_one(options.effective))
        out->low = out->high = NAN;
    dpt_paired_destroy(&paired);
    return st;
}
