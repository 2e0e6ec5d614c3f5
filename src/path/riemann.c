#include "deltapath/path/riemann.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/weighted.h"
#include "start_slopes.h"

#include <math.h>
#include <string.h>

/* What a pass in fp32 leaves of the mean loss. */
static const double ROUNDING = 1e-6;

void dpt_riemann_slope_weights(const double *nodes, int n, double *out) {
    for (int c = 0; c < n; c++)
        out[c] = n == 1 ? NAN : 0.0;
    if (n == 1)
        return;
    out[1] = 1.0 / (nodes[1] - nodes[0]);
    out[0] = -out[1];
}

/* A rule that is refined has its weights in the end: then the samples of all visits are kept. Of others those
 * of the first nodes are, and the last row is that of the visit in hand. */
enum { KEPT = 4 };

/* What one walk needs: the inputs, and what its visits gave in their order. */
typedef struct walk {
    const dpt_comm *comm;
    const dpt_oracle *oracle;
    dpt_riemann_shared known;
    bool nested;
    int most;             /* visits */
    int rows;             /* of samples */
    int visits;           /* so far */
    int start;            /* the visit that has no terms of samples, or -1 */
    double *at;           /* (most) t */
    double *mean;         /* (most) loss */
    double *terms;        /* (most, terms + parts) */
    double *loss;         /* (rows, samples) */
    double *sample_terms; /* (rows, samples) */
} walk;

static double *walk_row(const walk *w, double *rows, int visit) {
    return rows + (visit < w->rows ? visit : w->rows - 1) * w->oracle->samples;
}

/* Terms of a visit, and their parts after them. */
static double *walk_terms(const walk *w, int visit) {
    return w->terms + visit * (w->oracle->terms + w->oracle->parts);
}

static dpt_status riemann_allocate(walk *w, dpt_riemann *out) {
    int64_t points = w->most;
    int64_t cells, columns, values;
    if (!dpt_mem_mul(out->terms, points, &cells) ||
        !dpt_mem_mul(out->terms + out->parts, points, &columns) ||
        !dpt_mem_mul(out->samples, w->rows, &values))
        return dpt_error(DPT_ERR_OUTPUT, "terms of the Riemann sum: the size overflows");
    out->term = dpt_mem_zalloc(cells, sizeof(double), "terms of the Riemann sum");
    out->part = dpt_mem_zalloc(out->parts * points, sizeof(double), "terms of parts");
    out->part_integrated = dpt_mem_zalloc(out->parts, sizeof(double), "integrated terms");
    out->part_second_order = dpt_mem_zalloc(out->parts, sizeof(double), "second-order terms");
    out->integrated = dpt_mem_zalloc(out->terms, sizeof(double), "integrated terms");
    out->split = dpt_mem_zalloc(out->terms, sizeof(double), "split of the change");
    out->split_error = dpt_mem_zalloc(out->terms, sizeof(double), "split of the change");
    out->second_order = dpt_mem_zalloc(out->terms, sizeof(double), "second-order terms");
    out->slope = dpt_mem_zalloc(points, sizeof(double), "slopes");
    out->loss_mean = dpt_mem_zalloc(points, sizeof(double), "losses along the path");
    out->loss_post = dpt_mem_zalloc(out->samples, sizeof(double), "post-trained losses");
    out->loss_edit = dpt_mem_zalloc(out->samples, sizeof(double), "edited losses");
    out->sample_integrated = dpt_mem_zalloc(out->samples, sizeof(double), "terms of samples");
    w->at = dpt_mem_zalloc(points, sizeof(double), "points of the path");
    w->mean = dpt_mem_zalloc(points, sizeof(double), "losses along the path");
    w->terms = dpt_mem_zalloc(columns, sizeof(double), "terms at the points");
    w->loss = dpt_mem_zalloc(values, sizeof(double), "losses at the points");
    w->sample_terms = dpt_mem_zalloc(values, sizeof(double), "terms of samples at the points");
    bool whole = out->term && out->part && out->part_integrated && out->part_second_order &&
                 out->integrated && out->split && out->split_error && out->second_order &&
                 out->slope && out->loss_mean && out->loss_post && out->loss_edit &&
                 out->sample_integrated && w->at && w->mean && w->terms && w->loss &&
                 w->sample_terms;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

static void walk_release(walk *w) {
    dpt_mem_free(w->at);
    dpt_mem_free(w->mean);
    dpt_mem_free(w->terms);
    dpt_mem_free(w->loss);
    dpt_mem_free(w->sample_terms);
}

/* Losses and terms of one node: from the oracle, or from what is known at t = 0. */
static dpt_status riemann_take(walk *w, double t, dpt_riemann *out) {
    const dpt_oracle *oracle = w->oracle;
    size_t sample_bytes = (size_t)oracle->samples * sizeof(double);
    double *terms = walk_terms(w, w->visits);
    double *loss = walk_row(w, w->loss, w->visits);
    double *sample_terms = walk_row(w, w->sample_terms, w->visits);
    if (t != 0.0 || w->known.terms_start == NULL) {
        out->gradients++;
        return dpt_agree(w->comm, oracle->slope(oracle->ctx, t, loss, terms, sample_terms));
    }
    memcpy(terms, w->known.terms_start, (size_t)(oracle->terms + oracle->parts) * sizeof(double));
    memcpy(loss, w->known.loss_start, sample_bytes);
    if (w->known.sample_terms_start != NULL)
        memcpy(sample_terms, w->known.sample_terms_start, sample_bytes);
    else
        w->start = w->visits;
    return DPT_OK;
}

static dpt_status riemann_visit(walk *w, double t, dpt_riemann *out) {
    dpt_status st = riemann_take(w, t, out);
    if (st != DPT_OK)
        return st;
    const double *loss = walk_row(w, w->loss, w->visits);
    size_t bytes = (size_t)out->samples * sizeof(double);
    if (t == 0.0)
        memcpy(out->loss_post, loss, bytes);
    if (t == 1.0)
        memcpy(out->loss_edit, loss, bytes);
    w->mean[w->visits] = dpt_weighted_mean(w->known.sample_shares, out->samples, loss);
    w->at[w->visits++] = t;
    return DPT_OK;
}

/* The visit at a node; those of a rule that is refined are in no order. @return visits where there is none. */
static int walk_find(const walk *w, double t) {
    int v = 0;
    while (v < w->visits && w->at[v] != t)
        v++;
    return v;
}

static void add_samples(const walk *w, int visit, double weight, dpt_riemann *out) {
    const double *terms = walk_row(w, w->sample_terms, visit);
    for (int64_t s = 0; s < out->samples && visit != w->start; s++)
        out->sample_integrated[s] += weight * terms[s];
}

/* Nodes of the rule in hand that were not visited yet. */
static dpt_status walk_nodes(walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    for (int c = 0; c < q->points; c++) {
        if (w->nested && walk_find(w, q->node[c]) < w->visits)
            continue;
        dpt_status st = riemann_visit(w, q->node[c], out);
        if (st != DPT_OK)
            return st;
        if (!w->nested)
            add_samples(w, c, q->weight[c], out);
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

static void riemann_sum(const walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    out->estimate = 0.0;
    for (int64_t i = 0; i < out->terms; i++) {
        out->integrated[i] = 0.0;
        for (int c = 0; c < q->points; c++) {
            int visit = w->nested ? walk_find(w, q->node[c]) : c;
            double term = walk_terms(w, visit)[i];
            out->term[i * q->points + c] = term;
            out->integrated[i] += q->weight[c] * term;
        }
        out->estimate += out->integrated[i];
    }
    double change = 0.0;
    const double *shares = w->known.sample_shares;
    for (int64_t s = 0; s < out->samples; s++)
        change += (shares != NULL ? shares[s] : 1.0) * (out->loss_edit[s] - out->loss_post[s]);
    out->change = shares != NULL ? change : change / (double)out->samples;
    out->error = out->estimate - out->change;
}

/* Whether more slopes are to be taken: agreed, whatever the last bits of a sum are on a rank. A change that
 * is no number asks for none. */
static dpt_status riemann_ask(const walk *w, const dpt_riemann *out, bool *more) {
    const double *shares = w->known.sample_shares;
    double level = fmax(dpt_weighted_mean(shares, out->samples, out->loss_post),
                        dpt_weighted_mean(shares, out->samples, out->loss_edit));
    double allowed = fmax(out->quadrature.tolerance * fabs(out->change), ROUNDING * fabs(level));
    int64_t asks = fabs(out->error) > allowed;
    dpt_status st = dpt_agree(w->comm, dpt_comm_max_i64(w->comm, &asks, 1));
    *more = asks != 0;
    return st;
}

static dpt_status riemann_refine(walk *w, const dpt_quadrature *finest, dpt_riemann *out) {
    dpt_status st = DPT_OK;
    bool more = true;
    for (int step = 1; st == DPT_OK; step++) {
        int points = dpt_quadrature_refined(step, finest->points);
        if (points == 0)
            break;
        riemann_sum(w, out);
        st = riemann_ask(w, out, &more);
        if (st != DPT_OK || !more)
            break;
        st = dpt_agree(w->comm, dpt_quadrature_create(finest->rule, points, &out->quadrature));
        out->quadrature.tolerance = finest->tolerance;
        if (st == DPT_OK)
            st = walk_nodes(w, out);
    }
    return st;
}

static double weigh_row(const dpt_riemann *out, const double *rows, int64_t i,
                        const double *weights) {
    double sum = 0.0;
    for (int c = 0; c < out->quadrature.points; c++)
        sum += weights[c] * rows[i * out->quadrature.points + c];
    return sum;
}

static double weigh_terms(const dpt_riemann *out, int64_t i, const double *weights) {
    return weigh_row(out, out->term, i, weights);
}

static void riemann_finish_orders(dpt_riemann *out) {
    double weights[DPT_QUADRATURE_MAX];
    dpt_riemann_slope_weights(out->quadrature.node, out->quadrature.points, weights);
    out->second_order_total = 0.0;
    for (int64_t i = 0; i < out->terms; i++) {
        out->second_order[i] = 0.5 * weigh_terms(out, i, weights);
        out->second_order_total += out->second_order[i];
    }
    for (int64_t i = 0; i < out->parts; i++)
        out->part_second_order[i] = 0.5 * weigh_row(out, out->part, i, weights);
}

/* What the estimate misses goes to the tensors in proportion to the sizes of the errors that their own slopes
 * show; where these are not known, to their terms. */
static void riemann_split(dpt_riemann *out) {
    double weights[DPT_QUADRATURE_MAX];
    double sizes = 0.0, total = 0.0;
    dpt_quadrature_error_weights(&out->quadrature, weights);
    for (int64_t i = 0; i < out->terms; i++) {
        double off = weigh_terms(out, i, weights);
        out->split_error[i] = fabs(isnan(off) ? out->integrated[i] : off);
        sizes += out->split_error[i];
        total += off;
    }
    out->quadrature_error = fabs(total);
    for (int64_t i = 0; i < out->terms; i++)
        out->split[i] =
            out->integrated[i] - (sizes > 0.0 ? out->split_error[i] / sizes : 0.0) * out->error;
}

static void riemann_finish_samples(const walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    const double *loss[2], *terms[2];
    double at[2];
    int others = 0;
    for (int c = 0; c < q->points && w->nested; c++)
        add_samples(w, walk_find(w, q->node[c]), q->weight[c], out);
    if (w->start < 0)
        return;
    for (int c = 1; c < q->points && others < 2; c++) {
        int visit = w->nested ? walk_find(w, q->node[c]) : c;
        loss[others] = walk_row(w, w->loss, visit);
        terms[others] = walk_row(w, w->sample_terms, visit);
        at[others++] = q->node[c];
    }
    dpt_start_known known = {.samples = out->samples,
                             .shares = w->known.sample_shares,
                             .mean = out->slope[0],
                             .points = others,
                             .at = at,
                             .loss = loss,
                             .terms = terms,
                             .loss_start = out->loss_post,
                             .loss_end = out->loss_edit};
    out->sample_error = dpt_start_slopes_add(&known, q->weight[0], out->sample_integrated);
}

static void riemann_sum_parts(const walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    for (int64_t i = 0; i < out->parts; i++)
        for (int c = 0; c < q->points; c++) {
            int visit = w->nested ? walk_find(w, q->node[c]) : c;
            double term = walk_terms(w, visit)[out->terms + i];
            out->part[i * q->points + c] = term;
            out->part_integrated[i] += q->weight[c] * term;
        }
}

static void riemann_finish(const walk *w, dpt_riemann *out) {
    const dpt_quadrature *q = &out->quadrature;
    riemann_sum(w, out);
    riemann_sum_parts(w, out);
    for (int c = 0; c < q->points; c++) {
        int visit = w->nested ? walk_find(w, q->node[c]) : c;
        out->loss_mean[c] = w->mean[visit];
        out->slope[c] = 0.0;
        for (int64_t i = 0; i < out->terms; i++)
            out->slope[c] += out->term[i * q->points + c];
    }
    riemann_finish_orders(out);
    riemann_split(out);
    riemann_finish_samples(w, out);
}

static dpt_status riemann_walk(walk *w, const dpt_quadrature *finest, dpt_riemann *out) {
    dpt_status st = DPT_OK;
    dpt_rule rule = finest->rule;
    out->quadrature = *finest;
    if (w->nested) {
        int points = dpt_quadrature_refined(0, finest->points);
        st = dpt_agree(w->comm, dpt_quadrature_create(rule, points, &out->quadrature));
        out->quadrature.tolerance = finest->tolerance;
    }
    if (st == DPT_OK)
        st = walk_nodes(w, out);
    if (st == DPT_OK)
        st =
            end_losses(w, 0.0, w->known.loss_start, dpt_quadrature_has_start(rule), out->loss_post);
    if (st == DPT_OK)
        st = end_losses(w, 1.0, w->known.loss_end, dpt_quadrature_has_end(rule), out->loss_edit);
    return st == DPT_OK && w->nested ? riemann_refine(w, finest, out) : st;
}

dpt_status dpt_riemann_run(const dpt_comm *comm, const dpt_oracle *oracle,
                           const dpt_quadrature *quadrature, const dpt_riemann_shared *shared,
                           dpt_riemann *out) {
    DPT_ASSERT_SAME(comm, oracle->samples);
    DPT_ASSERT_SAME(comm, oracle->terms);
    DPT_ASSERT_SAME(comm, oracle->parts);
    DPT_ASSERT_SAME(comm, quadrature->rule);
    DPT_ASSERT_SAME(comm, quadrature->points);
    DPT_ASSERT_SAME(comm, quadrature->tolerance);
    DPT_ASSERT_SAME_ARRAY(comm, quadrature->node, quadrature->points);
    walk w = {.comm = comm,
              .oracle = oracle,
              .nested = quadrature->rule == DPT_RULE_AUTO,
              .most = quadrature->points,
              .start = -1};
    w.rows = w.nested || w.most < KEPT ? w.most : KEPT;
    if (shared != NULL)
        w.known = *shared;
    if (w.known.loss_start == NULL)
        w.known.terms_start = NULL;
    *out =
        (dpt_riemann){.terms = oracle->terms, .parts = oracle->parts, .samples = oracle->samples};
    dpt_status st = DPT_OK;
    if (oracle->samples < 1 || oracle->terms < 0)
        st = dpt_error(DPT_ERR_INPUT, "Riemann sum: the data set has no sample: add samples");
    else
        st = riemann_allocate(&w, out);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = riemann_walk(&w, quadrature, out);
    if (st == DPT_OK)
        riemann_finish(&w, out);
    else
        dpt_riemann_destroy(out);
    DPT_ASSERT_SAME(comm, st == DPT_OK);
    DPT_ASSERT_SAME(comm, out->change);
    walk_release(&w);
    return st;
}

void dpt_riemann_destroy(dpt_riemann *riemann) {
    dpt_mem_free(riemann->term);
    dpt_mem_free(riemann->part);
    dpt_mem_free(riemann->part_integrated);
    dpt_mem_free(riemann->part_second_order);
    dpt_mem_free(riemann->integrated);
    dpt_mem_free(riemann->split);
    dpt_mem_free(riemann->split_error);
    dpt_mem_free(riemann->second_order);
    dpt_mem_free(riemann->slope);
    dpt_mem_free(riemann->loss_mean);
    dpt_mem_free(riemann->loss_post);
    dpt_mem_free(riemann->loss_edit);
    dpt_mem_free(riemann->sample_integrated);
    *riemann = (dpt_riemann){.terms = 0};
}
