#include "logits.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/weighted.h"
#include "deltapath/tensor/shard.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Masks that a prediction draws, in pairs of opposite sign: 512 of them know the mean to a tenth of a point where the
 * accuracy varies by 2 points from mask to mask. */
enum { LOGITS_PAIRS = 256, LOGITS_DRAWS = 2 * LOGITS_PAIRS };

/* Drop rates between which the safe one is sought, and how often the interval is halved. */
static const double LOGITS_MOST = 0.95;
enum { LOGITS_HALVINGS = 10 };

/* Arrays of (own, classes) besides the moves. */
enum { LOGITS_PLAIN = 4 };

int64_t dpt_logits_bytes(int probes, int64_t samples, int64_t classes, int ranks) {
    int64_t own = (samples + ranks - 1) / ranks;
    return own * classes * (probes + LOGITS_PLAIN) * (int64_t)sizeof(double);
}

dpt_status dpt_logits_create(const dpt_comm *comm, int probes, dpt_logits *out) {
    int64_t end;
    out->probes = probes;
    out->safe_rate = NAN;
    dpt_shard_split(out->samples, comm->size, comm->rank, &out->begin, &end);
    out->own = end - out->begin;
    int64_t n = out->own * out->classes;
    out->values = dpt_mem_zalloc(n * (probes + LOGITS_PLAIN), sizeof *out->values, "logits");
    if (out->values == NULL)
        return DPT_ERR_OUTPUT;
    out->post = out->values;
    out->toward = out->post + n;
    out->toward_second = out->toward + n;
    out->second = out->toward_second + n;
    out->moves = out->second + n;
    return DPT_OK;
}

void dpt_logits_destroy(dpt_logits *logits) {
    dpt_mem_free(logits->values);
    *logits = (dpt_logits){.safe_rate = NAN};
}

void dpt_logits_take_post(dpt_logits *l, const double *post) {
    memcpy(l->post, post + l->begin * l->classes, (size_t)(l->own * l->classes) * sizeof *l->post);
}

/* First derivative, and half the second, of this rank's logit i. */
static double logits_first(const dpt_logits *l, int64_t i, const double *plus,
                           const double *minus) {
    int64_t at = l->begin * l->classes + i;
    return (plus[at] - minus[at]) / (2.0 * l->step);
}

static double logits_second(const dpt_logits *l, int64_t i, const double *plus,
                            const double *minus) {
    int64_t at = l->begin * l->classes + i;
    return (plus[at] + minus[at] - 2.0 * l->post[i]) / (2.0 * l->step * l->step);
}

void dpt_logits_take_toward(dpt_logits *l, const double *plus, const double *minus) {
    for (int64_t i = 0; i < l->own * l->classes; i++) {
        l->toward[i] = logits_first(l, i, plus, minus);
        l->toward_second[i] = logits_second(l, i, plus, minus);
    }
}

/* Sample, probe and class of the moves, from sample and class. */
static double *logits_move(const dpt_logits *l, int r, int64_t i) {
    return l->moves + (i / l->classes * l->probes + r) * l->classes + i % l->classes;
}

void dpt_logits_take_probe(dpt_logits *l, int r, const double *plus, const double *minus) {
    for (int64_t i = 0; i < l->own * l->classes; i++) {
        *logits_move(l, r, i) = logits_first(l, i, plus, minus);
        l->second[i] += logits_second(l, i, plus, minus) / l->probes;
    }
}

dpt_status dpt_logits_compare(const dpt_comm *comm, dpt_logits *l, const double *plus,
                              const double *minus) {
    double sums[2] = {0.0, 0.0}; /* squares of the difference, and of the derivatives */
    for (int64_t i = 0; i < l->own * l->classes; i++) {
        double first = *logits_move(l, 0, i), off = 2.0 * logits_first(l, i, plus, minus) - first;
        sums[0] += off * off;
        sums[1] += first * first;
    }
    dpt_status st = dpt_agree(comm, dpt_comm_sum_f64(comm, sums, 2));
    l->error = sums[1] > 0.0 ? sqrt(sums[0] / sums[1]) : 0.0;
    return st;
}

bool dpt_logits_knows(const dpt_edit_spec *spec, dpt_logits_edit *out) {
    const dpt_edit_stage_spec *stage = &spec->stages[0];
    const char *method = dpt_edit_method_name(stage->method);
    bool dare = strcmp(method, "dare") == 0, drop = strcmp(method, "drop") == 0;
    if ((!dare && !drop) || spec->nstages != 1 || spec->calibrate != DPT_CALIBRATE_NONE ||
        stage->tensor_values != NULL)
        return false;
    enum { EXACT, L1, NONE }; /* choices of `rescale` */
    int rescale = dare ? (int)dpt_edit_stage_get(stage, "rescale") : NONE;
    double p = dpt_edit_stage_get(stage, "p"), k = dare ? dpt_edit_stage_get(stage, "k") : 0.0;
    double kept = rescale == EXACT ? (1.0 - k * p) / (1.0 - p) : 1.0;
    out->toward = rescale == EXACT ? 0.0 : p * (1.0 - k);
    out->variance = p * (1.0 - p) * (kept - k) * (kept - k);
    return rescale != L1 && p < 1.0;
}

/* One prediction under way. */
typedef struct logits_work {
    float *normal;        /* (pairs, probes) */
    double *mean, *moved; /* (classes) of a sample: without the mask, and what the mask adds */
    double *hits;         /* (draws) shares of samples that are right, then (samples) of draws */
    double *right;        /* the latter */
} logits_work;

static dpt_status logits_work_create(const dpt_logits *l, logits_work *out) {
    int64_t normals = (int64_t)LOGITS_PAIRS * l->probes;
    out->normal = dpt_mem_alloc(normals, sizeof *out->normal, "masks of logits");
    out->mean = dpt_mem_alloc(2 * l->classes, sizeof *out->mean, "logits of a sample");
    out->hits = dpt_mem_zalloc(LOGITS_DRAWS + 2 * l->samples, sizeof *out->hits, "predicted hits");
    if (out->normal == NULL || out->mean == NULL || out->hits == NULL)
        return DPT_ERR_OUTPUT;
    out->moved = out->mean + l->classes;
    out->right = out->hits + LOGITS_DRAWS;
    dpt_rng_normal(dpt_rng_make(0, "masks of logits", DPT_RNG_BOOTSTRAP), 0, normals, out->normal);
    return DPT_OK;
}

static void logits_work_destroy(logits_work *work) {
    dpt_mem_free(work->normal);
    dpt_mem_free(work->mean);
    dpt_mem_free(work->hits);
}

/* Whether mean + sign * moved has its greatest entry, the first of equal ones, at the label. */
static bool logits_is_right(const logits_work *work, double sign, int64_t classes, int32_t label) {
    double own = work->mean[label] + sign * work->moved[label];
    for (int64_t c = 0; c < classes; c++) {
        double other = work->mean[c] + sign * work->moved[c];
        if (other > own || (other == own && c < label))
            return false;
    }
    return true;
}

static void logits_draw_sample(const dpt_logits *l, int64_t s, double scale, logits_work *work) {
    int64_t classes = l->classes, sample = l->begin + s;
    double share = l->shares != NULL ? l->shares[sample] : 1.0 / (double)l->samples;
    for (int m = 0; m < LOGITS_PAIRS; m++) {
        const float *normal = work->normal + (int64_t)m * l->probes;
        memset(work->moved, 0, (size_t)classes * sizeof *work->moved);
        for (int r = 0; r < l->probes; r++) {
            const double *move = l->moves + (s * l->probes + r) * classes;
            double by = scale * (double)normal[r];
            for (int64_t c = 0; c < classes; c++)
                work->moved[c] += by * move[c];
        }
        for (int side = 0; side < 2; side++) {
            if (!logits_is_right(work, side == 0 ? 1.0 : -1.0, classes, l->labels[sample]))
                continue;
            work->hits[2 * m + side] += share;
            work->right[sample] += 1.0 / LOGITS_DRAWS;
        }
    }
}

/* Draw all samples. Collective. */
static dpt_status logits_draw(const dpt_comm *comm, const dpt_logits *l,
                              const dpt_logits_edit *edit, bool bends, logits_work *work) {
    double a = edit->toward, v = edit->variance;
    memset(work->hits, 0, (size_t)(LOGITS_DRAWS + l->samples) * sizeof *work->hits);
    for (int64_t s = 0; s < l->own; s++) {
        for (int64_t c = 0, i = s * l->classes; c < l->classes; c++, i++) {
            double bend = bends ? a * a * l->toward_second[i] + v * l->second[i] : 0.0;
            work->mean[c] = l->post[i] + a * l->toward[i] + bend;
        }
        logits_draw_sample(l, s, sqrt(v / l->probes), work);
    }
    return dpt_agree(comm, dpt_comm_sum_f64(comm, work->hits, LOGITS_DRAWS + l->samples));
}

dpt_logits_prediction dpt_logits_unknown(void) {
    return (dpt_logits_prediction){
        .accuracy = NAN, .sd = NAN, .change = NAN, .low = NAN, .high = NAN, .error = NAN};
}

/* About the first of them: where all masks agree the spread is zero, without rounding. */
static double logits_mean(const logits_work *work, double *sd) {
    double first = work->hits[0], mean = 0.0, off = 0.0;
    for (int m = 0; m < LOGITS_DRAWS; m++)
        mean += (work->hits[m] - first) / LOGITS_DRAWS;
    for (int m = 0; m < LOGITS_DRAWS; m++)
        off += (work->hits[m] - first - mean) * (work->hits[m] - first - mean);
    *sd = sqrt(off / (LOGITS_DRAWS - 1));
    return fmin(first + mean, 1.0); /* shares add up to 1 but for rounding */
}

/* The change and its interval over samples, from the chance of each to be right. */
static dpt_status logits_set_change(const dpt_logits *l, logits_work *work,
                                    dpt_logits_prediction *out) {
    dpt_weighted weighted;
    dpt_status st = dpt_weighted_create(l->samples, l->shares, l->clusters, &weighted);
    if (st != DPT_OK)
        return st;
    for (int64_t s = 0; s < l->samples; s++)
        work->right[s] -= l->correct[s] != 0 ? 1.0 : 0.0;
    out->change = dpt_weighted_mean(l->shares, l->samples, work->right);
    dpt_interval over;
    st = dpt_weighted_interval(&weighted, l->effective, work->right, work->right + l->samples, 0.95,
                               &over);
    out->low = over.low;
    out->high = over.high;
    dpt_weighted_destroy(&weighted);
    return st;
}

dpt_status dpt_logits_predict(const dpt_comm *comm, const dpt_logits *l,
                              const dpt_logits_edit *edit, dpt_logits_prediction *out) {
    DPT_ASSERT_SAME(comm, edit->toward);
    DPT_ASSERT_SAME(comm, edit->variance);
    logits_work work = {.normal = NULL};
    double plain = NAN, ignored;
    *out = dpt_logits_unknown();
    dpt_status st = dpt_agree(comm, logits_work_create(l, &work));
    if (st == DPT_OK)
        st = logits_draw(comm, l, edit, false, &work);
    if (st == DPT_OK) {
        plain = logits_mean(&work, &ignored);
        st = logits_draw(comm, l, edit, true, &work);
    }
    if (st == DPT_OK) {
        out->accuracy = logits_mean(&work, &out->sd);
        out->error = fabs(out->accuracy - plain);
        out->in_range = out->error <= DPT_LOGITS_RANGE;
        st = dpt_agree(comm, logits_set_change(l, &work, out));
    }
    logits_work_destroy(&work);
    return st;
}

dpt_status dpt_logits_safe_rate(const dpt_comm *comm, const dpt_logits *l, double margin,
                                double *rate) {
    DPT_ASSERT_SAME(comm, margin);
    double low = 0.0, high = LOGITS_MOST;
    dpt_status st = DPT_OK;
    *rate = NAN;
    if (l->probes == 0 || !(margin > 0.0))
        return DPT_OK;
    for (int i = 0; i < LOGITS_HALVINGS && st == DPT_OK; i++) {
        dpt_logits_prediction at;
        double p = 0.5 * (low + high);
        const dpt_logits_edit edit = {.variance = p / (1.0 - p)};
        st = dpt_logits_predict(comm, l, &edit, &at);
        if (at.in_range && at.change >= -margin)
            low = p;
        else
            high = p;
    }
    *rate = low;
    return st;
}

void dpt_logits_log(const char *data, const dpt_logits *l) {
    char safe[96] = "no safe p is sought, for `accuracy_margin: 0` leaves the accuracy out";
    if (l->probes == 0)
        return;
    if (!isnan(l->safe_rate))
        snprintf(safe, sizeof safe,
                 "dare with k = 0 is predicted to keep the accuracy up to p = %.3g", l->safe_rate);
    dpt_log(DPT_LOG_INFO,
            "%s: logits along %d random signs of the delta; differences at t = %g, relative "
            "numerical error %.2g; %s",
            data, l->probes, l->step, l->error, safe);
}
