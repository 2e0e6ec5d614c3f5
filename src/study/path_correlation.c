#include "path_correlation.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>

/* What a node leaves: the correlations of the tensors, then those of all entries with what the law needs. */
enum { ALL_R, ALL_N, ALL_MASK, ALL_PRODUCT, ALL };

typedef struct path_correlator {
    dpt_evaluation *evaluation;
    dpt_cell_gradient *cells;
    const dpt_edit_spec *spec;
    dpt_edit_input input;
} path_correlator;

bool dpt_path_correlation_wanted(const dpt_job *job, const dpt_job_edit *edit) {
    dpt_edit_spec plain = edit->spec;
    plain.calibrate = DPT_CALIBRATE_NONE; /* scales what comes after the mask */
    return job->correlation == DPT_CORRELATION_PATH && dpt_edit_draws_mask(&plain) &&
           !dpt_edit_needs_gradient(&plain);
}

/* A dpt_pass.reduce. */
static dpt_status correlate_node(void *ctx, dpt_model_gradient *gradient, double *kept) {
    path_correlator *c = ctx;
    int tensors = c->input.post.catalog->count;
    dpt_edit_correlation all;
    dpt_status st = dpt_cell_gradient_take(c->cells, c->evaluation, gradient);
    if (st == DPT_OK)
        st = dpt_edit_correlate_mask(c->spec, &c->input, &all, kept);
    if (st != DPT_OK)
        return st;
    kept[tensors + ALL_R] = all.r;
    kept[tensors + ALL_N] = all.n;
    kept[tensors + ALL_MASK] = all.mask_sd;
    kept[tensors + ALL_PRODUCT] = all.product_sd;
    return DPT_OK;
}

/* The law: <g(t), E> = 2 t s c on average, and E_i = (k - 1)(m_i - p) / (1 - p) Delta_i. */
static double correlation_by_law(const dpt_law *law, const dpt_job_edit *edit, double t,
                                 const double *all) {
    dpt_law_prediction predicted;
    if (!dpt_law_predict(law, &edit->spec, &predicted))
        return NAN;
    const dpt_edit_stage_spec *stage = &edit->spec.stages[0];
    double p = dpt_edit_stage_get(stage, "p"), k = dpt_edit_stage_get(stage, "k");
    double covariance = 2.0 * t * predicted.change * (1.0 - p) / (k - 1.0) / all[ALL_N];
    return covariance / (all[ALL_MASK] * all[ALL_PRODUCT]);
}

static dpt_status correlation_create(int points, int tensors, dpt_path_correlation *out) {
    out->all = dpt_mem_zalloc(points, sizeof *out->all, "correlations of a path");
    out->law = dpt_mem_zalloc(points, sizeof *out->law, "correlations of a path");
    out->tensors =
        dpt_mem_zalloc((int64_t)points * tensors, sizeof *out->tensors, "correlations of a path");
    return out->all != NULL && out->law != NULL && out->tensors != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_path_correlation_measure(dpt_evaluation *ev, int d, dpt_cell_gradient *cells,
                                        const dpt_job_edit *edit, const dpt_edit_input *input,
                                        const dpt_quadrature *quadrature,
                                        dpt_path_correlation *out) {
    DPT_ASSERT_SAME(&ev->mesh.world, d);
    DPT_ASSERT_SAME(&ev->mesh.world, quadrature->points);
    DPT_ASSERT_SAME(&ev->mesh.world, edit->spec.seed);
    int tensors = input->post.catalog->count;
    path_correlator c = {.evaluation = ev, .cells = cells, .spec = &edit->spec, .input = *input};
    c.input.gradient = &cells->source;
    *out = (dpt_path_correlation){.all = NULL};
    double *kept = dpt_mem_zalloc(tensors + ALL, sizeof *kept, "correlations of a node");
    dpt_status st = correlation_create(quadrature->points, tensors, out);
    st = dpt_agree(&ev->mesh.world, kept != NULL ? st : DPT_ERR_OUTPUT);
    for (int i = 0; i < quadrature->points && st == DPT_OK; i++) {
        double t = quadrature->node[i];
        st = dpt_evaluation_reduce(ev, d, t, correlate_node, &c, kept, tensors + ALL);
        if (st != DPT_OK)
            break;
        const double *all = kept + tensors;
        out->all[i] = all[ALL_R];
        out->law[i] = correlation_by_law(&ev->data[d].law, edit, t, all);
        out->n = all[ALL_N];
        for (int k = 0; k < tensors; k++)
            out->tensors[(int64_t)i * tensors + k] = kept[k];
    }
    dpt_mem_free(kept);
    if (st != DPT_OK)
        dpt_path_correlation_destroy(out);
    return st;
}

void dpt_path_correlation_destroy(dpt_path_correlation *correlation) {
    dpt_mem_free(correlation->all);
    dpt_mem_free(correlation->law);
    dpt_mem_free(correlation->tensors);
    *correlation = (dpt_path_correlation){.all = NULL};
}
