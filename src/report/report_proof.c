#include "report_parts.h"

#include "deltapath/base/mem.h"
#include "deltapath/results/proof.h"

#include <inttypes.h>
#include <math.h>

/* Predicted against true change: numbers, and a scatter with the diagonal. */

static void proof_cell(FILE *html, dpt_proof_number x) {
    fputs("<td>", html);
    dpt_report_number(html, x.value, "%.3g");
    fputs(" [", html);
    dpt_report_number(html, x.low, "%.3g");
    fputs(", ", html);
    dpt_report_number(html, x.high, "%.3g");
    fputs("]</td>", html);
}

/* How many edits or groups, and whether few of them carry the intervals. */
static void proof_count(FILE *html, int64_t count, const dpt_proof *proof) {
    bool few = proof->few && !isnan(proof->correlation.low);
    fprintf(html, "<td>%" PRId64 "%s</td>", count, few ? "<small>few</small>" : "");
}

static void proof_row(FILE *html, const char *what, const dpt_proof *proof) {
    fprintf(html, "<tr><td class=\"l\">%s</td>", what);
    proof_count(html, proof->edits, proof);
    proof_cell(html, proof->correlation);
    proof_cell(html, proof->rank_correlation);
    proof_cell(html, proof->slope);
    fputs("<td>", html);
    dpt_report_number(html, proof->ratio, "%.3g");
    fputs("</td></tr>\n", html);
}

static dpt_status proof_table(FILE *html, const dpt_report_group *group) {
    static const char *const names[] = {"all, mean over masks", "in range, mean over masks",
                                        "in range, of the mask that was drawn"};
    dpt_status st = DPT_OK;
    fputs("<h3>Predicted and true change</h3>\n<div class=\"wrap\"><table>\n<thead><tr><th "
          "class=\"l\">predictions</th><th>edits</th><th>correlation</th><th>rank<br>correlation"
          "</th><th>slope of true<br>on predicted</th><th>median true<br>over predicted</th></tr>"
          "</thead>\n<tbody>\n",
          html);
    for (int k = 0; k < 3 && st == DPT_OK; k++) {
        dpt_proof proof;
        st = dpt_proof_measure(group->count, group->units, (dpt_proof_kind)k, &proof);
        proof_row(html, names[k], &proof);
    }
    fputs("</tbody></table></div>\n<p class=\"sub\">From the gradient and the curvature at the "
          "post-trained weights alone, written down before each edit was measured "
          "(predictions.csv); 95 % intervals over edits; few: of few edits, or where "
          "few carry the spread, they may cover less.</p>\n",
          html);
    return st;
}

/* What the logits predicted of the accuracy; nothing without. */
static void proof_accuracy(FILE *html, const dpt_report_group *group) {
    static const char *const which[] = {"", " in range"};
    for (int k = 0; k < 2; k++) {
        dpt_proof_accuracy proof = dpt_proof_measure_accuracy(group->count, group->units, k == 1);
        if (proof.edits > 0)
            fprintf(html,
                    "<p>Predicted accuracy of %" PRId64 " random edits%s: mean absolute error %.3g "
                    "points, bias %+.3g points; %.3g %% of the true ones lie within 1.96 standard "
                    "deviations over masks.</p>\n",
                    proof.edits, which[k], 100.0 * proof.error, 100.0 * proof.bias,
                    100.0 * proof.inside);
    }
}

static void proof_share(FILE *html, double share) {
    fputs("</td><td>", html);
    dpt_report_number(html, 100.0 * share, "%.1f");
}

/* A line for each prediction. */
static void proof_edits(FILE *html, const dpt_report_group *group) {
    fputs("<div class=\"wrap\"><table>\n<thead><tr><th>#</th><th class=\"l\">edit</th><th>first "
          "order</th><th>second order</th><th>predicted<br>change [nats]</th><th>true change</th>"
          "<th>predicted<br>accuracy [%]</th><th>over<br>masks</th><th>true</th>"
          "<th class=\"l\">range</th></tr></thead>\n<tbody>\n",
          html);
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        const double numbers[] = {s->predicted_first, s->predicted_second, s->predicted_change,
                                  s->change};
        if (!isfinite(s->predicted_change))
            continue;
        fprintf(html, "<tr><td>%" PRId64 "</td><td class=\"l\">", i + 1);
        dpt_report_text(html, group->units[i]->edit);
        for (int k = 0; k < 4; k++) {
            fputs("</td><td>", html);
            dpt_report_number(html, numbers[k], "%.4g");
        }
        proof_share(html, s->predicted_accuracy);
        proof_share(html, s->predicted_accuracy_sd);
        proof_share(html, s->accuracy_edit);
        fputs("</td><td class=\"l\">", html);
        dpt_report_text(html, group->units[i]->predicted_range);
        fputs("</td></tr>\n", html);
    }
    fputs("</tbody></table></div>\n", html);
}

/* @param[in,out] most  largest size of a number. @param[out] sizes (count) of the true changes. */
static dpt_status proof_csv(dpt_report_plots *plots, const dpt_report_group *group, char path[1024],
                            double *most, double *typical) {
    FILE *csv = dpt_report_csv(plots, "predictions", group->data,
                               "number,edit,predicted,change,in_range,colour", path);
    int64_t n = 0;
    double logs = 0.0;
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        char label[DPT_REPORT_LABEL_MAX];
        if (!isfinite(s->predicted_change) || !isfinite(s->change))
            continue;
        dpt_report_label(group->units[i]->edit, label);
        fprintf(csv, "%" PRId64 ",%s,%.17g,%.17g,%g,%u\n", i + 1, label, s->predicted_change,
                s->change, s->predicted_in_range,
                s->predicted_in_range == 1.0 ? 0x1a7f37U : 0xb35900U);
        *most = fmax(*most, fmax(fabs(s->predicted_change), fabs(s->change)));
        if (s->change != 0.0) {
            logs += log(fabs(s->change));
            n++;
        }
    }
    *typical = n > 0 ? exp(logs / (double)n) : 0.0;
    return dpt_report_csv_close(csv, path);
}

/* A script with the same axis on both sides, to be followed by a plot command; NULL without memory. */
static FILE *proof_script(double most, double typical, const char *x, const char *y, char **text,
                          size_t *size) {
    enum { WIDTH = 560, HEIGHT = 480 };
    dpt_report_axis axis = dpt_report_axis_make(most, typical);
    double end = 1.05 * dpt_report_axis_place(&axis, most);
    FILE *script = dpt_report_script(text, size, WIDTH, HEIGHT);
    if (script == NULL)
        return NULL;
    dpt_report_axis_function(script, &axis);
    dpt_report_axis_tics(script, &axis, "x");
    dpt_report_axis_tics(script, &axis, "y");
    fprintf(script,
            "set xrange [%.17g:%.17g]\nset yrange [%.17g:%.17g]\n"
            "set xlabel '%s [nats]' tc rgb '#333a45'\nset ylabel '%s [nats]' tc rgb '#333a45'\n"
            "set key bottom right samplen 1\n",
            -end, end, -end, end, x, y);
    return script;
}

static dpt_status proof_figure(dpt_report_plots *plots, FILE *html, const char *path, double most,
                               double typical) {
    char *text = NULL;
    size_t size = 0;
    FILE *script = proof_script(most, typical, "predicted change", "true change", &text, &size);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    fprintf(script,
            "plot x with lines lc rgb '#8a8f98' dt 2 title 'true = predicted', "
            "'%s' skip 1 using (f($3)):(f($4)):6 with points pt 7 ps 0.7 lc rgb variable notitle, "
            "NaN with points pt 7 lc rgb '#1a7f37' title 'in range', "
            "NaN with points pt 7 lc rgb '#b35900' title 'out of range'\n",
            dpt_report_csv_name(path));
    return dpt_report_figure(plots, html, script, &text,
                             "True change against what was predicted before it was measured.");
}

dpt_status dpt_report_proof(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    char path[1024];
    double most = 0.0, typical = 0.0;
    bool any = false;
    for (int64_t i = 0; i < group->count; i++)
        any = any || isfinite(group->units[i]->scalars.predicted_change);
    if (!any)
        return DPT_OK;
    dpt_status st = proof_table(html, group);
    if (st == DPT_OK)
        st = proof_csv(plots, group, path, &most, &typical);
    if (st == DPT_OK && most > 0.0)
        st = proof_figure(plots, html, path, most, typical);
    proof_accuracy(html, group);
    proof_edits(html, group);
    return st;
}

static void left_out_row(FILE *html, const char *what, const dpt_proof *proof, const double *sums) {
    fputs("<tr><td class=\"l\">", html);
    dpt_report_text(html, what);
    fputs("</td>", html);
    proof_count(html, proof->groups, proof);
    proof_cell(html, proof->correlation);
    proof_cell(html, proof->rank_correlation);
    proof_cell(html, proof->slope);
    for (int k = 0; k < 2; k++) {
        fputs("<td>", html);
        if (sums != NULL)
            dpt_report_number(html, sums[k], "%.3g");
        fputs("</td>", html);
    }
    fputs("</tr>\n", html);
}

/* One edit, by the columns of its unit. */
static void left_out_unit(FILE *html, const dpt_result *unit) {
    const dpt_result_scalars *s = &unit->scalars;
    const double sums[] = {s->change, s->proof_interaction};
    dpt_proof proof = {
        .correlation = {s->proof_correlation, s->proof_correlation_low, s->proof_correlation_high},
        .rank_correlation = {s->proof_rank_correlation, s->proof_rank_correlation_low,
                             s->proof_rank_correlation_high},
        .slope = {s->proof_slope, s->proof_slope_low, s->proof_slope_high},
        .few = s->proof_few == 1.0};
    for (int64_t g = 0; g < unit->nproof; g++)
        proof.groups += isfinite(unit->proof_term[g]) && isfinite(unit->proof_change[g]);
    left_out_row(html, unit->edit, &proof, sums);
}

/* All edits together, by what is compared, and then each. */
static dpt_status left_out_table(FILE *html, const dpt_report_group *group) {
    static const char *const names[] = {"all edits, group left out", "all edits, group alone",
                                        "all edits, middle of both"};
    dpt_status st = DPT_OK;
    dpt_proof proof;
    fputs("<h3>Terms of groups and what the groups change</h3>\n<div class=\"wrap\"><table>\n"
          "<thead><tr><th class=\"l\">edits</th><th>groups</th><th>correlation</th><th>rank<br>"
          "correlation</th><th>slope of change<br>on term</th><th>change<br>[nats]</th>"
          "<th>interaction<br>[nats]</th></tr></thead>\n<tbody>\n",
          html);
    for (int k = 0; k < 3 && st == DPT_OK; k++) {
        st = dpt_proof_measure_groups(group->count, group->units, (dpt_proof_of_groups)k, &proof);
        if (st == DPT_OK && proof.groups > 0)
            left_out_row(html, names[k], &proof, NULL);
    }
    for (int64_t i = 0; i < group->count; i++)
        if (group->units[i]->nproof > 0)
            left_out_unit(html, group->units[i]);
    fputs(
        "</tbody></table></div>\n<p class=\"sub\">A group's term is its part of the path sum. "
        "What the group changes is the loss of the edit less that of the edit with the group left "
        "at the post-trained weights; the interaction is the sum of that over the groups, less "
        "the change. 95 % intervals over edits, and over the groups of one edit; few: they "
        "may cover less.</p>\n",
        html);
    return st;
}

/* Points of the figure: left out in one colour, alone in another. */
static dpt_status left_out_csv(dpt_report_plots *plots, const dpt_report_group *group,
                               char path[1024], double *most, double *typical) {
    FILE *csv = dpt_report_csv(plots, "groups", group->data,
                               "number,edit,group,term,change,low,high,alone", path);
    int64_t n = 0;
    double logs = 0.0;
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < group->count; i++)
        for (int64_t g = 0; g < group->units[i]->nproof; g++) {
            const dpt_result *r = group->units[i];
            const double row[] = {r->proof_term[g], r->proof_change[g], r->proof_change_low[g],
                                  r->proof_change_high[g], r->proof_alone[g]};
            char edit[DPT_REPORT_LABEL_MAX], name[DPT_RESULT_GROUP_NAME];
            if (!isfinite(row[0]) || !isfinite(row[1]))
                continue;
            dpt_report_label(r->edit, edit);
            dpt_result_group_name(r->proof_groups, g, name);
            fprintf(csv, "%" PRId64 ",%s,%s", i + 1, edit, name);
            for (int k = 0; k < 5; k++)
                fprintf(csv, isfinite(row[k]) ? ",%.17g" : ",", row[k]);
            fputc('\n', csv);
            *most = fmax(*most, fmax(fabs(row[0]), fabs(row[1])));
            *most = isfinite(row[4]) ? fmax(*most, fabs(row[4])) : *most;
            logs += row[1] != 0.0 ? log(fabs(row[1])) : 0.0;
            n += row[1] != 0.0;
        }
    *typical = n > 0 ? exp(logs / (double)n) : 0.0;
    return dpt_report_csv_close(csv, path);
}

static dpt_status left_out_figure(dpt_report_plots *plots, FILE *html, const char *path,
                                  double most, double typical) {
    char *text = NULL;
    size_t size = 0;
    FILE *script =
        proof_script(most, typical, "term of the group", "change by the group", &text, &size);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    fprintf(script,
            "plot x with lines lc rgb '#8a8f98' dt 2 title 'change = term', "
            "'%s' skip 1 using (f($4)):(f($8)) with points pt 6 ps 0.6 lc rgb '#b35900' title "
            "'alone', "
            "'' skip 1 using (f($4)):(f($5)):(f($6)):(f($7)) with yerrorbars pt 7 ps 0.5 lc rgb "
            "'#1a7f37' title 'left out'\n",
            dpt_report_csv_name(path));
    return dpt_report_figure(plots, html, script, &text,
                             "What a group of tensors changes against its term in the path sum: "
                             "left out of the edit, with 95 % intervals over samples, and alone.");
}

dpt_status dpt_report_left_out(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    char path[1024];
    double most = 0.0, typical = 0.0;
    int64_t groups = 0;
    for (int64_t i = 0; i < group->count; i++)
        groups += group->units[i]->nproof;
    if (groups == 0)
        return DPT_OK;
    dpt_status st = left_out_table(html, group);
    if (st == DPT_OK)
        st = left_out_csv(plots, group, path, &most, &typical);
    if (st == DPT_OK && most > 0.0)
        st = left_out_figure(plots, html, path, most, typical);
    return st;
}
