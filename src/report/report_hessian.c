#include "report_parts.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Second derivatives: a table, eigenvalues, and a picture of the blocks of each edit. */

enum { HESSIAN_PICTURES = 12, HESSIAN_WIDTH = 620, HESSIAN_NUMBERED = 8 };

/* Place of a label in a list with bars between; -1 when it is not there. */
static int hessian_find(const char *names, const char *label) {
    size_t length = strlen(label);
    int place = 0;
    for (const char *at = names; at != NULL; place++) {
        const char *bar = strchr(at, '|');
        size_t n = bar != NULL ? (size_t)(bar - at) : strlen(at);
        if (n == length && strncmp(at, label, n) == 0)
            return place;
        at = bar != NULL ? bar + 1 : NULL;
    }
    return -1;
}

static void hessian_name(const char *names, int64_t place, char label[DPT_REPORT_LABEL_MAX]) {
    char name[DPT_RESULT_GROUP_NAME];
    dpt_result_group_name(names, place, name);
    dpt_report_label(name, label);
}

/* The group of a tensor: layers and kinds of module have no label in common. */
static int hessian_group(const char *names, const char *tensor) {
    dpt_role role = dpt_role_of(tensor);
    char label[DPT_ROLE_LABEL];
    dpt_role_label(role, true, label);
    int place = hessian_find(names, label);
    if (place >= 0)
        return place;
    dpt_role_label(role, false, label);
    return hessian_find(names, label);
}

/* Sums over the tensors of each group: (ngroups, ngroups). */
static double *hessian_sums(const dpt_report_group *group, const dpt_result *r) {
    double *sums = dpt_mem_zalloc(r->ngroups * r->ngroups, sizeof *sums, "blocks");
    for (int64_t t = 0; sums != NULL && t < r->tensors && t < group->results->tensors; t++) {
        int row = hessian_group(r->groups, group->results->tensor_names[t]);
        for (int64_t m = 0; row >= 0 && row < r->ngroups && m < r->ngroups; m++)
            sums[row * r->ngroups + m] += r->blocks[t * r->ngroups + m];
    }
    return sums;
}

static dpt_status hessian_csv_unit(FILE *csv, const dpt_report_group *group, int64_t i) {
    const dpt_result *r = group->units[i];
    char label[DPT_REPORT_LABEL_MAX], row[DPT_REPORT_LABEL_MAX], column[DPT_REPORT_LABEL_MAX];
    double *sums = hessian_sums(group, r);
    if (sums == NULL)
        return DPT_ERR_OUTPUT;
    dpt_report_label(r->edit, label);
    for (int64_t l = 0; l < r->ngroups; l++)
        for (int64_t m = 0; m < r->ngroups; m++) {
            hessian_name(r->groups, l, row);
            hessian_name(r->groups, m, column);
            fprintf(csv, "%" PRId64 ",%s,%" PRId64 ",%s,%" PRId64 ",%s,%.17g\n", i + 1, label, l,
                    row, m, column, sums[l * r->ngroups + m]);
        }
    dpt_mem_free(sums);
    return DPT_OK;
}

static dpt_status hessian_csv(dpt_report_plots *plots, const dpt_report_group *group,
                              char path[1024]) {
    FILE *csv = dpt_report_csv(plots, "blocks", group->data,
                               "number,edit,row,row_group,column,column_group,block", path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < group->count && st == DPT_OK; i++)
        if (group->units[i]->ngroups > 0)
            st = hessian_csv_unit(csv, group, i);
    dpt_status closed = dpt_report_csv_close(csv, path);
    return st == DPT_OK ? closed : st;
}

static dpt_status hessian_picture(dpt_report_plots *plots, FILE *html,
                                  const dpt_report_group *group, int64_t i, const char *path) {
    const dpt_result *r = group->units[i];
    char *text = NULL;
    size_t size = 0;
    double maximum = 0.0, *sums = hessian_sums(group, r);
    for (int64_t k = 0; sums != NULL && k < r->ngroups * r->ngroups; k++)
        maximum = fabs(sums[k]) > maximum ? fabs(sums[k]) : maximum;
    dpt_mem_free(sums);
    dpt_report_axis axis = {.maximum = maximum > 0.0 ? maximum : 1.0, .linear = 0.0};
    axis.linear = axis.maximum / 100.0; /* small blocks next to large ones keep a colour */
    FILE *script = dpt_report_script(&text, &size, HESSIAN_WIDTH, HESSIAN_WIDTH - 80);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    double reach = dpt_report_axis_place(&axis, axis.maximum);
    dpt_report_axis_function(script, &axis);
    dpt_report_axis_tics(script, &axis, "cb");
    fprintf(script,
            DPT_REPORT_HURTS
            "unset grid\nset border 0\nset tics scale 0\n"
            "set xrange [-0.5:%.1f]\nset yrange [%.1f:-0.5]\nset cbrange [%.17g:%.17g]\n"
            "set cblabel 'block [nats]' tc rgb '#333a45'\n"
            "plot '%s' skip 1 using ($1==%" PRId64 "?$5:NaN):3:($5-0.49):($5+0.49):($3-0.49):"
            "($3+0.49):(f($7)):xtic(6):ytic(4) with boxxyerror fs solid noborder fc palette "
            "notitle",
            (double)r->ngroups - 0.5, (double)r->ngroups - 0.5, -reach, reach,
            dpt_report_csv_name(path), i + 1);
    if (r->ngroups <= HESSIAN_NUMBERED)
        fprintf(script,
                ", '' skip 1 using ($1==%" PRId64 "?$5:NaN):3:(sprintf('%%.2g', $7)):"
                "(abs(f($7)) > %.17g ? 0xffffff : 0x333a45) with labels font ',9' tc rgb variable "
                "notitle",
                i + 1, 0.75 * reach);
    fputc('\n', script);
    char caption[300], label[DPT_REPORT_LABEL_MAX];
    dpt_report_label(r->edit, label);
    snprintf(caption, sizeof caption,
             "Blocks 1/2 E_l^T H E_m of %s at the post-trained weights: what changes of two groups "
             "cost together. Their sum is the true second order; red hurts.",
             label);
    return dpt_report_figure(plots, html, script, &text, caption);
}

static dpt_status hessian_pictures(dpt_report_plots *plots, FILE *html,
                                   const dpt_report_group *group) {
    char path[1024];
    int64_t first = 0, shown = 0;
    while (first < group->count && group->units[first]->ngroups == 0)
        first++;
    if (first == group->count)
        return DPT_OK;
    dpt_status st = hessian_csv(plots, group, path);
    for (int64_t i = first; i < group->count && st == DPT_OK && shown < HESSIAN_PICTURES; i++)
        if (group->units[i]->ngroups > 0) {
            st = hessian_picture(plots, html, group, i, path);
            shown++;
        }
    return st;
}

static void hessian_values(FILE *html, const char *what, int64_t n, const double *values,
                           const double *residuals) {
    fputs("<tr><td class=\"l\">", html);
    fputs(what, html);
    fputs("</td><td class=\"l\">", html);
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            fprintf(html, "%s%.4g&thinsp;&plusmn;&thinsp;%.1g", i > 0 ? ", " : "", values[i],
                    residuals[i]);
    fputs("</td></tr>\n", html);
}

/* All units of a data set have the same eigenvalues. */
static void hessian_spectrum(FILE *html, const dpt_report_group *group) {
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result *r = group->units[i];
        if (r->nvalues == 0)
            continue;
        fputs("<div class=\"wrap\"><table>\n<thead><tr><th class=\"l\">matrix</th><th class=\"l\">"
              "eigenvalues of greatest size, with residuals</th></tr></thead>\n<tbody>\n",
              html);
        hessian_values(html, "H", r->nvalues, r->hessian_eigenvalues, r->hessian_residuals);
        hessian_values(html, "D H D, D = diag(&Delta;)", r->nvalues, r->delta_eigenvalues,
                       r->delta_residuals);
        fputs("</tbody></table></div>\n", html);
        return;
    }
}

static void hessian_table(FILE *html, const dpt_report_group *group) {
    fputs("<div class=\"wrap\"><table>\n<thead><tr><th class=\"l\">edit</th><th>true second "
          "order<br>[nats]</th><th>numerical<br>error</th><th>secant of<br>the path</th><th>true "
          "change<br>[nats]</th></tr></thead>\n<tbody>\n",
          html);
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        const double values[] = {s->hessian_second_order, s->hessian_error, s->second_order,
                                 s->change};
        static const char *const formats[] = {"%+.4g", "%.1g", "%+.4g", "%+.4g"};
        if (isnan(s->hessian_second_order))
            continue;
        fputs("<tr><td class=\"l e\">", html);
        dpt_report_text(html, group->units[i]->edit);
        fputs("</td>", html);
        for (int k = 0; k < 4; k++) {
            fputs("<td>", html);
            dpt_report_number(html, values[k], formats[k]);
            fputs("</td>", html);
        }
        fputs("</tr>\n", html);
    }
    fputs("</tbody></table></div>\n<p class=\"note\">Half of E<sup>T</sup> H E with the Hessian at "
          "the post-trained weights, by differences of slopes there; the secant is its mean up to "
          "the second node of the path.</p>\n",
          html);
}

dpt_status dpt_report_hessian(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    bool orders = false, values = false;
    for (int64_t i = 0; i < group->count; i++) {
        orders = orders || !isnan(group->units[i]->scalars.hessian_second_order);
        values = values || group->units[i]->nvalues > 0;
    }
    if (!orders && !values)
        return DPT_OK;
    fputs("<h3>Second derivatives</h3>\n", html);
    if (orders)
        hessian_table(html, group);
    hessian_spectrum(html, group);
    return hessian_pictures(plots, html, group);
}
