#include "deltapath/path/central.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>
#include <string.h>

enum { CENTRAL_HALVINGS = 4 };
static const double CENTRAL_TOLERANCE = 1e-3;

/* Values of the oracle on both sides. */
typedef struct central_work {
    double *loss;         /* (samples) */
    double *sample_terms; /* (samples) */
    double *side;         /* (terms) */
} central_work;

static dpt_status central_work_create(const dpt_oracle *oracle, central_work *out) {
    out->loss = dpt_mem_zalloc(oracle->samples, sizeof(double), "losses at a step");
    out->sample_terms = dpt_mem_zalloc(oracle->samples, sizeof(double), "terms of samples");
    out->side = dpt_mem_zalloc(oracle->terms, sizeof(double), "terms at a step");
    return out->loss != NULL && out->sample_terms != NULL && out->side != NULL ? DPT_OK
                                                                               : DPT_ERR_OUTPUT;
}

static void central_work_destroy(central_work *work) {
    dpt_mem_free(work->loss);
    dpt_mem_free(work->sample_terms);
    dpt_mem_free(work->side);
}

static dpt_status central_difference(const dpt_comm *comm, const dpt_oracle *oracle,
                                     const central_work *work, double step, double *derivative) {
    dpt_status st = dpt_agree(
        comm, oracle->slope(oracle->ctx, step, work->loss, derivative, work->sample_terms));
    if (st == DPT_OK)
        st = dpt_agree(
            comm, oracle->slope(oracle->ctx, -step, work->loss, work->side, work->sample_terms));
    for (int64_t i = 0; i < oracle->terms && st == DPT_OK; i++)
        derivative[i] = (derivative[i] - work->side[i]) / (2.0 * step);
    return st;
}

dpt_status dpt_central_step(const dpt_comm *comm, const dpt_oracle *oracle, double step,
                            double *derivative) {
    DPT_ASSERT_SAME(comm, oracle->terms);
    DPT_ASSERT_SAME(comm, step);
    central_work work = {.loss = NULL};
    dpt_status st = dpt_agree(comm, central_work_create(oracle, &work));
    if (st == DPT_OK)
        st = central_difference(comm, oracle, &work, step, derivative);
    central_work_destroy(&work);
    return st;
}

/* What two steps differ by. Differences of terms that happen to cancel are no accuracy. */
static double central_error(const double *wide, const double *narrow, int64_t terms) {
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < terms; i++) {
        double d = narrow[i] - wide[i];
        sum += d;
        squares += d * d;
    }
    return fmax(fabs(sum), sqrt(squares));
}

/* The two steps as one number each, where they are the best so far. @return whether they are. */
static bool central_take(const double *wide, const double *narrow, int64_t terms, double step,
                         dpt_central *out) {
    double error = central_error(wide, narrow, terms);
    if (!isnan(out->error) && !(error < out->error))
        return false;
    out->step = step;
    out->error = error;
    out->total = 0.0;
    for (int64_t i = 0; i < terms; i++) {
        out->derivative[i] = narrow[i] + (narrow[i] - wide[i]) / 3.0;
        out->total += out->derivative[i];
    }
    return true;
}

static dpt_status central_search(const dpt_comm *comm, const dpt_oracle *oracle,
                                 const central_work *work, double first, double *pair[2],
                                 dpt_central *out) {
    double step = first;
    dpt_status st = central_difference(comm, oracle, work, step, pair[0]);
    for (int k = 0; k <= CENTRAL_HALVINGS && st == DPT_OK; k++) {
        step /= 2.0;
        double *wide = pair[k % 2], *narrow = pair[(k + 1) % 2];
        st = central_difference(comm, oracle, work, step, narrow);
        if (st == DPT_OK && !central_take(wide, narrow, oracle->terms, step, out))
            break;
        if (!(out->error > CENTRAL_TOLERANCE * fabs(out->total)))
            break;
    }
    return st;
}

dpt_status dpt_central_run(const dpt_comm *comm, const dpt_oracle *oracle, double first,
                           dpt_central *out) {
    DPT_ASSERT_SAME(comm, oracle->terms);
    DPT_ASSERT_SAME(comm, first);
    central_work work = {.loss = NULL};
    *out = (dpt_central){.total = NAN, .error = NAN};
    double *pair[2];
    for (int i = 0; i < 2; i++)
        pair[i] = dpt_mem_zalloc(oracle->terms, sizeof(double), "derivatives of terms");
    out->derivative = dpt_mem_zalloc(oracle->terms, sizeof(double), "derivatives of terms");
    bool whole = pair[0] != NULL && pair[1] != NULL && out->derivative != NULL;
    dpt_status st = central_work_create(oracle, &work);
    st = dpt_agree(comm, whole ? st : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = central_search(comm, oracle, &work, first, pair, out);
    if (st != DPT_OK)
        dpt_central_destroy(out);
    central_work_destroy(&work);
    dpt_mem_free(pair[0]);
    dpt_mem_free(pair[1]);
    return st;
}

void dpt_central_destroy(dpt_central *central) {
    dpt_mem_free(central->derivative);
    *central = (dpt_central){.derivative = NULL};
}
