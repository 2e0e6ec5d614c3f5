#include "report_parts.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* How the curvature along the delta is split over the tensors. */

enum { CURVATURE_BARS = 24 };

typedef struct curvature_row {
    int64_t tensor;
    double c, se, delta; /* |Delta| */
} curvature_row;

static int curvature_by_size(const void *a, const void *b) {
    const curvature_row *x = a, *y = b;
    if (x->c != y->c)
        return x->c > y->c ? -1 : 1;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

/* The first unit with a curvature has that of all; NULL without one. */
static const dpt_result *curvature_unit(const dpt_report_group *group) {
    for (int64_t i = 0; i < group->count; i++)
        if (isfinite(group->units[i]->scalars.curvature))
            return group->units[i];
    return NULL;
}

/* Tensors with a share, the largest first. @return how many. */
static int64_t curvature_rows(const dpt_report_group *group, const dpt_result *unit,
                              curvature_row *rows) {
    int64_t n = 0;
    for (int64_t t = 0; t < unit->tensors; t++) {
        double delta = 0.0; /* of an edit that touches the tensor */
        for (int64_t i = 0; i < group->count; i++)
            delta = fmax(delta, group->units[i]->stats[t].delta_norm);
        if (unit->curvature[t] > 0.0)
            rows[n++] = (curvature_row){t, unit->curvature[t], unit->curvature_se[t], delta};
    }
    qsort(rows, (size_t)n, sizeof *rows, curvature_by_size);
    return n;
}

static dpt_status curvature_csv(dpt_report_plots *plots, const dpt_report_group *group,
                                const dpt_result *unit, int64_t n, const curvature_row *rows,
                                char path[1024]) {
    FILE *csv = dpt_report_csv(
        plots, "curvature", group->data,
        "number,tensor,module,layer,numel,delta_squared,curvature,curvature_se,share", path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    double all = unit->scalars.curvature;
    for (int64_t i = 0; i < n; i++) {
        const curvature_row *row = &rows[i];
        const char *name = group->results->tensor_names[row->tensor];
        dpt_role role = dpt_role_of(name);
        char label[DPT_REPORT_LABEL_MAX];
        dpt_report_label(name, label);
        fprintf(csv, "%" PRId64 ",%s,%s,%d,%" PRId64 ",%.17g,%.17g,", i + 1, label,
                dpt_role_name(role.kind), role.layer, group->results->tensor_numel[row->tensor],
                row->delta * row->delta, row->c);
        if (isfinite(row->se))
            fprintf(csv, "%.17g", row->se);
        fprintf(csv, ",%.17g\n", row->c / all);
    }
    return dpt_report_csv_close(csv, path);
}

/* @param[in] errors whether they are known: of one draw they are not. */
static dpt_status curvature_figure(dpt_report_plots *plots, FILE *html, int64_t n, bool errors,
                                   const char *path) {
    int shown = n < CURVATURE_BARS ? (int)n : CURVATURE_BARS;
    char *text = NULL;
    size_t size = 0;
    FILE *script = dpt_report_script(&text, &size, 860, 70 + 20 * shown);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    fprintf(script,
            "set yrange [%.1f:0.4]\nset xrange [0:*]\nset lmargin 52\nunset key\n"
            "set xlabel 'curvature along the delta [nats]' tc rgb '#333a45'\n"
            "set style fill solid 0.7 noborder\n"
            "plot '%s' skip 1 every ::0::%d using ($7/2):1:($7/2):(0.35):ytic(2) with boxxyerror "
            "lc rgb '#2166ac'",
            (double)shown + 0.6, dpt_report_csv_name(path), shown - 1);
    if (errors)
        fprintf(script,
                ", '' skip 1 every ::0::%d using 7:1:8 with xerrorbars pt 0 lc rgb '#333a45'",
                shown - 1);
    fprintf(script, "\n");
    return dpt_report_figure(
        plots, html, script, &text,
        errors ? "Tensors with the largest curvature along the delta, with standard errors over "
                 "the draws of labels."
               : "Tensors with the largest curvature along the delta, from one draw of labels, "
                 "which shows no error.");
}

dpt_status dpt_report_curvature(dpt_report_plots *plots, FILE *html,
                                const dpt_report_group *group) {
    const dpt_result *unit = curvature_unit(group);
    char path[1024];
    if (unit == NULL || !(unit->scalars.curvature > 0.0))
        return DPT_OK;
    curvature_row *rows = dpt_mem_alloc(unit->tensors, sizeof *rows, "curvatures of tensors");
    dpt_status st = rows != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    int64_t n = st == DPT_OK ? curvature_rows(group, unit, rows) : 0;
    if (st == DPT_OK)
        st = curvature_csv(plots, group, unit, n, rows, path);
    bool errors = n > 0 && isfinite(rows[0].se);
    dpt_mem_free(rows);
    return st == DPT_OK ? curvature_figure(plots, html, n, errors, path) : st;
}
