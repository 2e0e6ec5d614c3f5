#include "law.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int64_t dpt_law_passes(const dpt_job *job, int64_t classes) {
    return job->law.labels == DPT_LABELS_ALL ? classes : job->law.repeats;
}

dpt_status dpt_law_create(int tensors, int repeats, dpt_law *out) {
    *out = (dpt_law){.tensors = tensors, .repeats = repeats, .total = NAN, .total_se = NAN};
    out->draws = dpt_mem_zalloc((int64_t)(repeats + 2) * tensors + repeats, sizeof *out->draws,
                                "draws of labels");
    return out->draws != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

void dpt_law_destroy(dpt_law *law) {
    dpt_mem_free(law->draws);
    *law = (dpt_law){.tensors = 0};
}

dpt_rng dpt_law_labels(const dpt_job *job, const char *data, int r) {
    char name[512];
    snprintf(name, sizeof name, "labels %d of %s", r, data);
    return dpt_rng_make(job->law.seed, name, DPT_RNG_LABEL);
}

double *dpt_law_draw(dpt_law *law, int r) {
    return law->draws + (int64_t)r * law->tensors;
}

/* Mean of n values, `stride` apart, and its standard error; NaN of one value. */
static double law_mean(const double *x, int n, int stride, double *se) {
    double sum = 0.0, off = 0.0;
    for (int r = 0; r < n; r++)
        sum += x[(int64_t)r * stride];
    double mean = sum / n;
    for (int r = 0; r < n; r++) {
        double d = x[(int64_t)r * stride] - mean;
        off += d * d;
    }
    *se = n > 1 ? sqrt(off / (n - 1) / n) : NAN;
    return mean;
}

void dpt_law_finish(dpt_law *law, const bool *selected) {
    int tensors = law->tensors, repeats = law->repeats;
    law->mean = dpt_law_draw(law, repeats);
    law->se = dpt_law_draw(law, repeats + 1);
    law->totals = dpt_law_draw(law, repeats + 2);
    for (int r = 0; r < repeats; r++)
        for (int k = 0; k < tensors; k++)
            dpt_law_draw(law, r)[k] *= selected[k] ? 0.5 : 0.0;
    for (int k = 0; k < tensors; k++)
        law->mean[k] = law_mean(law->draws + k, repeats, tensors, &law->se[k]);
    for (int r = 0; r < repeats; r++)
        for (int k = 0; k < tensors; k++)
            law->totals[r] += dpt_law_draw(law, r)[k];
    law->total = law_mean(law->totals, repeats, 1, &law->total_se);
    for (int k = 0; k < tensors && law->exact; k++)
        law->se[k] = 0.0;
    if (law->exact)
        law->total_se = 0.0;
}

double dpt_law_error(const dpt_law *law, double off) {
    if (law->exact)
        return 0.0;
    return law->repeats > 1 ? sqrt(off / (law->repeats - 1) / law->repeats) : NAN;
}

static double law_s(double p, double k) {
    return (k - 1.0) * (k - 1.0) * p / (1.0 - p);
}

/* A p for each tensor: its s of each, summed up draw by draw in two passes, for mean and standard error. A tensor
 * that keeps its delta costs nothing. */
static void law_predict_each(const dpt_law *law, const double *p, double k,
                             dpt_law_prediction *out) {
    double off = 0.0;
    out->change = 0.0;
    for (int t = 0; t < law->tensors; t++)
        out->change += isnan(p[t]) ? 0.0 : law_s(p[t], k) * law->mean[t];
    for (int r = 0; r < law->repeats; r++) {
        double sum = 0.0;
        for (int t = 0; t < law->tensors; t++)
            sum += isnan(p[t]) ? 0.0 : law_s(p[t], k) * law->draws[(int64_t)r * law->tensors + t];
        off += (sum - out->change) * (sum - out->change);
    }
    out->se = dpt_law_error(law, off);
    out->s = law->total > 0.0 ? out->change / law->total : 0.0;
}

bool dpt_law_predict(const dpt_law *law, const dpt_edit_spec *spec, dpt_law_prediction *out) {
    const dpt_edit_stage_spec *stage = &spec->stages[0];
    *out = (dpt_law_prediction){.s = NAN, .change = NAN, .se = NAN};
    if (law->mean == NULL || spec->nstages != 1 || spec->calibrate != DPT_CALIBRATE_NONE ||
        strcmp(dpt_edit_method_name(stage->method), "dare") != 0 ||
        dpt_edit_stage_get(stage, "rescale") != 0.0)
        return false; /* other rescaling has a mean that is not zero */
    double p = dpt_edit_stage_get(stage, "p"), k = dpt_edit_stage_get(stage, "k");
    if (stage->tensor_values != NULL) {
        law_predict_each(law, stage->tensor_values, k, out);
    } else {
        out->s = law_s(p, k);
        out->change = out->s * law->total;
        out->se = out->s * law->total_se;
    }
    out->in_range = out->s <= DPT_LAW_RANGE;
    return true;
}

const char *dpt_law_number(double mean, double se, char text[64]) {
    int n = snprintf(text, 64, "%+.4g", mean);
    if (!isnan(se))
        snprintf(text + n, 64 - (size_t)n, " +- %.2g", se);
    return text;
}

void dpt_law_log(const char *data, const dpt_law *law) {
    char text[64];
    if (law->mean != NULL)
        dpt_log(DPT_LOG_INFO,
                law->exact ? "%s: curvature along the delta %s [nats], from all labels"
                           : "%s: curvature along the delta %s [nats], from %d draws of labels",
                data, dpt_law_number(law->total, law->total_se, text), law->repeats);
}
