#include "deltapath/path/riemann.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/weighted.h"

#include <math.h>
#include <string.h>

void dpt_riemann_slope_weights(const double *nodes, int n, double *out) {
    for (int c = 0; c < n; c++)
        out[c] = n == 1 ? NAN : 0.0;
    if (n == 1)
        return;
    out[1] = 1.0 / (nodes[1] - nodes[0]);
    out[0] = -out[1];
}

/* What one walk needs: the values of one point, and the inputs. */
typedef struct walk {
    const dpt_comm *comm;
    const dpt_oracle *oracle;
    dpt_riemann_shared known;
    double *loss;         /* (samples) */
    double *terms;        /* (terms) */
    double *sample_terms; /* (samples) */
} walk;

static dpt_status riemann_allocate(walk *w, dpt_riemann *out) {
    int64_t points = out->quadrature.points;
    int64_t cells;
    if (!dpt_mem_mul(out->terms, points, &cells))
        return dpt_error(DPT_ERR_OUTPUT, "terms of the Riemann sum: the size overflows");
    out->term = dpt_mem_zalloc(cells, sizeof(double), "terms of the Riemann sum");
    out->integrated = dpt_mem_zalloc(out->terms, sizeof(double), "integrated terms");
    out->second_order = dpt_mem_zalloc(out->terms, sizeof(double), "second-order terms");
    out->slope = dpt_mem_zalloc(points, sizeof(double), "slopes");
    out->loss_mean = dpt_mem_zalloc(points, sizeof(double), "losses along the path");
    out->loss_post = dpt_mem_zalloc(out->samples, sizeof(double), "post-trained losses");
    out->loss_edit = dpt_mem_zalloc(out->samples, sizeof(double), "edited losses");
    out->sample_integrated = dpt_mem_zalloc(out->samples, sizeof(double), "terms of samples");
    w->loss = dpt_mem_zalloc(out->samples, sizeof(double), "losses at a point");
    w->terms = dpt_mem_zalloc(out->terms, sizeof(double), "terms at a point");
    w->sample_terms = dpt_mem_zalloc(out->samples, sizeof(double), "terms of samples at a point");
    bool whole = out->term && out->integrated && out->second_order && out->slope &&
                 out->loss_mean && out->loss_post && out->loss_edit && out->sample_integrated &&
                 w->loss && w->terms && w->sample_terms;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

static void fill_nan(double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = NAN;
}

/* Losses and terms of one node: from the oracle, or from what is known at t = 0. */
static dpt_status riemann_visit(walk *w, double t) {
    const dpt_oracle *oracle = w->oracle;
    size_t sample_bytes = (size_t)oracle->samples * sizeof(double);
    if (t != 0.0 || w->known.terms_start == NULL)
        return dpt_agree(w->comm,
                         oracle->slope(oracle->ctx, t, w->loss, w->terms, w->sample_terms));
    memcpy(w->terms, w->known.terms_start, (size_t)oracle->terms * sizeof(double));
    memcpy(w->loss, w->known.loss_start, sample_bytes);
    if (w->known.sample_terms_start != NULL)
        memcpy(w->sample_terms, w->known.sample_terms_start, sample_bytes);
    else
        fill_nan(w->sample_terms, oracle->samples);
    return DPT_OK;
}

static dpt_status walk_nodes(walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    for (int c = 0; c < q->points; c++) {
        dpt_status st = riemann_visit(w, q->node[c]);
        if (st != DPT_OK)
            return st;
        for (int64_t i = 0; i < out->terms; i++) {
            out->term[i * q->points + c] = w->terms[i];
            out->integrated[i] += q->weight[c] * w->terms[i];
            out->slope[c] += w->terms[i];
        }
        for (int64_t s = 0; s < out->samples; s++)
            out->sample_integrated[s] += q->weight[c] * w->sample_terms[s];
        out->loss_mean[c] = dpt_weighted_mean(w->known.sample_shares, out->samples, w->loss);
        size_t bytes = (size_t)out->samples * sizeof(double);
        if (q->node[c] == 0.0)
            memcpy(out->loss_post, w->loss, bytes);
        if (q->node[c] == 1.0)
            memcpy(out->loss_edit, w->loss, bytes);
    }
    return DPT_OK;
}

/* Losses at an end: those that are known come first, so that all edits of a study share the same
 * post-trained losses; then those of a node; then a call of its own. */
static dpt_status end_losses(walk *w, double t, const double *known, bool visited, double *loss) {
    const dpt_oracle *oracle = w->oracle;
    if (known != NULL)
        memcpy(loss, known, (size_t)oracle->samples * sizeof(double));
    else if (!visited)
        return dpt_agree(w->comm, oracle->loss(oracle->ctx, t, loss));
    return DPT_OK;
}

static void riemann_finish(const double *shares, dpt_riemann *out) {
    double weights[DPT_QUADRATURE_MAX];
    int points = out->quadrature.points;
    dpt_riemann_slope_weights(out->quadrature.node, points, weights);
    out->estimate = 0.0;
    out->second_order_total = 0.0;
    for (int64_t i = 0; i < out->terms; i++) {
        double derivative = 0.0;
        for (int c = 0; c < points; c++)
            derivative += weights[c] * out->term[i * points + c];
        out->second_order[i] = 0.5 * derivative;
        out->second_order_total += out->second_order[i];
        out->estimate += out->integrated[i];
    }
    double off = 0.0;
    dpt_quadrature_error_weights(&out->quadrature, weights);
    for (int c = 0; c < points; c++)
        off += weights[c] * out->slope[c];
    out->quadrature_error = fabs(off);
    double change = 0.0;
    for (int64_t s = 0; s < out->samples; s++)
        change += (shares != NULL ? shares[s] : 1.0) * (out->loss_edit[s] - out->loss_post[s]);
    out->change = shares != NULL ? change : change / (double)out->samples;
    out->error = out->estimate - out->change;
}

dpt_status dpt_riemann_run(const dpt_comm *comm, const dpt_oracle *oracle,
                           const dpt_quadrature *quadrature, const dpt_riemann_shared *shared,
                           dpt_riemann *out) {
    DPT_ASSERT_SAME(comm, oracle->samples);
    DPT_ASSERT_SAME(comm, oracle->terms);
    DPT_ASSERT_SAME(comm, quadrature->rule);
    DPT_ASSERT_SAME(comm, quadrature->points);
    DPT_ASSERT_SAME_ARRAY(comm, quadrature->node, quadrature->points);
    walk w = {.comm = comm, .oracle = oracle};
    if (shared != NULL)
        w.known = *shared;
    if (w.known.loss_start == NULL)
        w.known.terms_start = NULL;
    *out = (dpt_riemann){
        .quadrature = *quadrature, .terms = oracle->terms, .samples = oracle->samples};
    dpt_status st = DPT_OK;
    if (oracle->samples < 1 || oracle->terms < 0)
        st = dpt_error(DPT_ERR_INPUT, "Riemann sum: the data set has no sample: add samples");
    else
        st = riemann_allocate(&w, out);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = walk_nodes(&w, out);
    if (st == DPT_OK)
        st = end_losses(&w, 0.0, w.known.loss_start, dpt_quadrature_has_start(quadrature->rule),
                        out->loss_post);
    if (st == DPT_OK)
        st = end_losses(&w, 1.0, w.known.loss_end, dpt_quadrature_has_end(quadrature->rule),
                        out->loss_edit);
    if (st == DPT_OK)
        riemann_finish(w.known.sample_shares, out);
    else
        dpt_riemann_destroy(out);
    DPT_ASSERT_SAME(comm, st == DPT_OK);
    DPT_ASSERT_SAME(comm, out->change);
    dpt_mem_free(w.loss);
    dpt_mem_free(w.terms);
    dpt_mem_free(w.sample_terms);
    return st;
}

void dpt_riemann_destroy(dpt_riemann *riemann) {
    dpt_mem_free(riemann->term);
    dpt_mem_free(riemann->integrated);
    dpt_mem_free(riemann->second_order);
    dpt_mem_free(riemann->slope);
    dpt_mem_free(riemann->loss_mean);
    dpt_mem_free(riemann->loss_post);
    dpt_mem_free(riemann->loss_edit);
    dpt_mem_free(riemann->sample_integrated);
    *riemann = (dpt_riemann){.terms = 0};
}
