#include "report_parts.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL_SHOWN = 34,
    ROW_HEIGHT = 24,
    WIDTH = 900,
    NUMBERED_COLUMNS = 16,
    ROOMY_COLUMNS = 11,
    WIDE_COLUMNS = 8,
    LINES_MAX = 12,
    KEY_MAX = 30
};

static const double SMALL_TERM = 0.004; /* of the largest */

static double larger(double maximum, double x) {
    return isfinite(x) && fabs(x) > maximum ? fabs(x) : maximum;
}

static int figure_by_size(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median of the finite absolute values; they are sorted in place. */
static double median(double *x, int64_t n) {
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i]) && x[i] != 0.0)
            x[m++] = fabs(x[i]);
    if (m == 0)
        return 0.0;
    qsort(x, (size_t)m, sizeof *x, figure_by_size);
    return x[m / 2];
}

/* A number of a CSV: nothing when it is not known. */
static void cell(FILE *csv, double x) {
    if (isfinite(x))
        fprintf(csv, ",%.17g", x);
    else
        fputc(',', csv);
}

static int longest_label(const dpt_report_group *group) {
    int longest = 8;
    for (int64_t i = 0; i < group->count; i++) {
        int length = (int)strlen(group->units[i]->edit);
        longest = length > longest ? length : longest;
    }
    return longest < LABEL_SHOWN ? longest : LABEL_SHOWN;
}

static dpt_status changes_csv(dpt_report_plots *plots, const dpt_report_group *group,
                              char path[1024]) {
    FILE *csv = dpt_report_csv(plots, "changes", group->data,
                               "number,edit,verdict,colour,change,change_low,change_high,estimate,"
                               "estimate_low,estimate_high,error,share,margin",
                               path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        const char *verdict = group->units[i]->verdict;
        char label[DPT_REPORT_LABEL_MAX];
        dpt_report_label(group->units[i]->edit, label);
        fprintf(csv, "%" PRId64 ",%s,", i + 1, label);
        dpt_report_label(verdict != NULL ? verdict : "", label);
        fprintf(csv, "%s,%u", label, dpt_report_colour(verdict));
        const double values[] = {s->change,
                                 isnan(s->change_low) ? s->change : s->change_low,
                                 isnan(s->change_high) ? s->change : s->change_high,
                                 s->estimate,
                                 isnan(s->estimate_low) ? s->estimate : s->estimate_low,
                                 isnan(s->estimate_high) ? s->estimate : s->estimate_high,
                                 s->error,
                                 s->share,
                                 s->margin};
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            cell(csv, values[k]);
        fputc('\n', csv);
    }
    return dpt_report_csv_close(csv, path);
}

/* What the plots of the changes share: the axis, its ends in places, and the margin. */
typedef struct span {
    dpt_report_axis axis;
    double low;
    double high;
    double margin;
} span;

static void figure_widen(span *s, double x) {
    if (!isfinite(x))
        return;
    s->low = x < s->low ? x : s->low;
    s->high = x > s->high ? x : s->high;
}

static dpt_status changes_span(const dpt_report_group *group, span *out) {
    double *sizes = dpt_mem_alloc(group->count, sizeof *sizes, "changes");
    if (sizes == NULL)
        return DPT_ERR_OUTPUT;
    *out = (span){.low = 0.0, .high = 0.0, .margin = NAN};
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        const double ends[] = {s->change,   s->change_low,   s->change_high,
                               s->estimate, s->estimate_low, s->estimate_high};
        sizes[i] = s->change;
        for (int k = 0; k < 6; k++)
            figure_widen(out, ends[k]);
        out->margin = isnan(out->margin) ? s->margin : out->margin;
    }
    double typical = median(sizes, group->count);
    if (out->margin > 0.0) {
        typical = typical > 0.0 ? fmin(typical, out->margin) : out->margin;
        figure_widen(out, 1.5 * out->margin);
        figure_widen(out, -1.5 * out->margin);
    }
    out->axis = dpt_report_axis_make(fmax(-out->low, out->high), typical);
    out->low = dpt_report_axis_place(&out->axis, out->low);
    out->high = dpt_report_axis_place(&out->axis, out->high);
    double pad = out->high > out->low ? 0.05 * (out->high - out->low) : 1.0;
    out->low -= pad;
    out->high += pad;
    dpt_mem_free(sizes);
    return DPT_OK;
}

static void verdict_key(FILE *script) {
    static const char *const verdicts[] = {"competitive", "improved", "decreased", "undecided"};
    for (int k = 0; k < 4; k++)
        fprintf(script, ", NaN with points pt 7 ps 0.9 lc rgb 0x%06x title '%s'",
                dpt_report_colour(verdicts[k]), verdicts[k]);
    fputc('\n', script);
}

static dpt_status forest(dpt_report_plots *plots, FILE *html, const dpt_report_group *group,
                         const char *path, const span *s) {
    char *text = NULL;
    size_t size = 0;
    FILE *script = dpt_report_script(&text, &size, WIDTH, 110 + ROW_HEIGHT * (int)group->count);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    dpt_report_axis_function(script, &s->axis);
    dpt_report_axis_tics(script, &s->axis, "x");
    fprintf(script,
            "set lmargin %d\nset xrange [%.17g:%.17g]\nset yrange [%.1f:0.4]\n"
            "set xlabel 'change of the loss [nats]' tc rgb '#333a45'\n"
            "set key top horizontal outside center samplen 1\n"
            "set arrow 1 from 0, graph 0 to 0, graph 1 nohead lc rgb '#333a45' lw 1.2 back\n",
            longest_label(group) + 2, s->low, s->high, (double)group->count + 0.6);
    if (s->margin > 0.0)
        fprintf(script,
                "set object 1 rectangle from f(%.17g), graph 0 to f(%.17g), graph 1 fc rgb "
                "'#dff1e6' fs solid noborder behind\n",
                -s->margin, s->margin);
    fprintf(script,
            "plot '%s' skip 1 using (f($5)):1:(f($6)):(f($7)):4:ytic(strcol(2)[1:34]) with "
            "xerrorbars pt 7 "
            "ps 0.8 lw 2 lc rgb variable notitle, '' skip 1 using (f($8)):1 with points pt 12 "
            "ps 1.1 lc rgb '#333a45' title 'estimate'",
            dpt_report_csv_name(path));
    verdict_key(script);
    char caption[300];
    snprintf(caption, sizeof caption, "True change of the loss with its confidence interval.%s%s",
             s->margin > 0.0 ? " The band is the margin of the equivalence test." : "",
             s->axis.linear > 0.0 ? " The axis is linear near zero and logarithmic beyond." : "");
    return dpt_report_figure(plots, html, script, &text, caption);
}

static dpt_status scatter(dpt_report_plots *plots, FILE *html, const dpt_report_group *group,
                          const char *path, const span *s) {
    enum { SIDE = 470, LEFT = 110, BOTTOM = 64, TOP = 16, RIGHT = 30 };
    const dpt_report_square plot = {.axis = s->axis,
                                    .low = s->low,
                                    .high = s->high,
                                    .pixels = SIDE,
                                    .key_width = 170.0,
                                    .key_height = 110.0};
    const double width = LEFT + SIDE + RIGHT;
    const double height = BOTTOM + SIDE + TOP;
    char *text = NULL;
    size_t size = 0;
    int64_t left;
    FILE *script = dpt_report_script(&text, &size, (int)width, (int)height);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    dpt_report_axis_function(script, &s->axis);
    dpt_report_axis_tics(script, &s->axis, "x");
    dpt_report_axis_tics(script, &s->axis, "y");
    dpt_status st = dpt_report_numbers(script, &plot, group, &left);
    fprintf(script,
            "set lmargin at screen %.17g\nset rmargin at screen %.17g\n"
            "set bmargin at screen %.17g\nset tmargin at screen %.17g\n"
            "set xrange [%.17g:%.17g]\nset yrange [%.17g:%.17g]\n"
            "set xlabel 'true change [nats]' tc rgb '#333a45'\n"
            "set ylabel 'estimate along the path [nats]' tc rgb '#333a45'\n"
            "set key bottom right samplen 1\n"
            "plot x with lines lc rgb '#8a8f98' dt 2 title 'estimate = change', "
            "'%s' skip 1 using (f($5)):(f($8)):(f($6)):(f($7)):(f($9)):(f($10)):4 with "
            "xyerrorbars pt 7 ps 0.7 lw 1.2 lc rgb variable notitle",
            LEFT / width, (LEFT + SIDE) / width, BOTTOM / height, (BOTTOM + SIDE) / height, s->low,
            s->high, s->low, s->high, dpt_report_csv_name(path));
    verdict_key(script);
    dpt_status drawn = dpt_report_figure(
        plots, html, script, &text,
        left == 0 ? "Estimate from the gradients along the path against the true change; "
                    "the numbers are those of the table."
                  : "Estimate from the gradients along the path against the true change; "
                    "the numbers are those of the table. Points too crowded for a number have "
                    "none.");
    return st != DPT_OK ? st : drawn;
}

dpt_status dpt_report_changes(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    char path[1024];
    span s;
    dpt_status st = changes_csv(plots, group, path);
    if (st == DPT_OK)
        st = changes_span(group, &s);
    if (st == DPT_OK)
        st = forest(plots, html, group, path, &s);
    bool estimates = false;
    for (int64_t i = 0; i < group->count; i++)
        estimates = estimates || isfinite(group->units[i]->scalars.estimate);
    if (st == DPT_OK && estimates)
        st = scatter(plots, html, group, path, &s);
    return st;
}

/* Sums of the terms over columns, which are layers or kinds of module. */
typedef struct map {
    int64_t rows;
    int columns;
    bool by_layer;
    double *sums; /* (rows, columns) */
    bool *used;   /* (columns) */
} map;

static int column_of(const map *m, const char *tensor) {
    dpt_role part = dpt_role_of(tensor);
    return m->by_layer ? part.layer + 1 : (int)part.kind;
}

static void map_add(map *m, int64_t row, int column, double term) {
    m->used[column] = true;
    m->sums[row * m->columns + column] += term;
}

/* By kind of module, tensors with several matrices count as these. */
static dpt_status map_fill(const dpt_report_group *group, map *m) {
    const dpt_results *results = group->results;
    const dpt_results_matrices *matrices = &results->matrices;
    bool *split = dpt_results_matrices_split(matrices, results->tensors);
    for (int64_t row = 0; split != NULL && row < m->rows; row++) {
        const dpt_result *unit = group->units[row];
        bool parts = !m->by_layer && unit->nmatrices > 0;
        for (int64_t i = 0; i < results->tensors; i++)
            if (!parts || !split[i])
                map_add(m, row, column_of(m, results->tensor_names[i]),
                        unit->tensors > 0 ? unit->integrated[i] : NAN);
        for (int64_t i = 0; parts && i < matrices->count; i++)
            map_add(m, row, (int)matrices->kind[i], unit->matrix_integrated[i]);
    }
    dpt_mem_free(split);
    return split != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static dpt_status map_make(const dpt_report_group *group, bool by_layer, map *m) {
    const dpt_results *results = group->results;
    *m = (map){.rows = group->count, .by_layer = by_layer, .columns = 1};
    for (int64_t i = 0; i < results->tensors; i++) {
        int column = column_of(m, results->tensor_names[i]);
        m->columns = column >= m->columns ? column + 1 : m->columns;
    }
    if (!by_layer)
        m->columns = DPT_ROLE_COUNT;
    int64_t cells;
    if (!dpt_mem_mul(m->rows, m->columns, &cells))
        return dpt_error(DPT_ERR_OUTPUT, "report: too many layers");
    m->sums = dpt_mem_zalloc(cells, sizeof *m->sums, "terms by part");
    m->used = dpt_mem_zalloc(m->columns, sizeof *m->used, "terms by part");
    if (m->sums == NULL || m->used == NULL)
        return DPT_ERR_OUTPUT;
    return map_fill(group, m);
}

static dpt_status map_csv(dpt_report_plots *plots, const dpt_report_group *group, const map *m,
                          char path[1024]) {
    FILE *csv = dpt_report_csv(plots, m->by_layer ? "terms-by-layer" : "terms-by-module",
                               group->data, "row,edit,column,part,term", path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t row = 0; row < m->rows; row++) {
        char label[DPT_REPORT_LABEL_MAX];
        dpt_report_label(group->units[row]->edit, label);
        for (int c = 0, place = 0; c < m->columns; c++) {
            if (!m->used[c])
                continue;
            char part[DPT_ROLE_LABEL];
            dpt_role_label((dpt_role){.layer = c - 1, .kind = (dpt_role_kind)c}, m->by_layer, part);
            fprintf(csv, "%" PRId64 ",%s,%d,%s", row + 1, label, place++, part);
            cell(csv, m->sums[row * m->columns + c]);
            fputc('\n', csv);
        }
    }
    return dpt_report_csv_close(csv, path);
}

static dpt_status map_figure(dpt_report_plots *plots, FILE *html, const dpt_report_group *group,
                             const map *m, const char *path) {
    char *text = NULL;
    size_t size = 0;
    double maximum = 0.0;
    int columns = 0;
    bool unknown = false;
    for (int64_t i = 0; i < m->rows * m->columns; i++) {
        maximum = larger(maximum, m->sums[i]);
        unknown = unknown || !isfinite(m->sums[i]);
    }
    for (int c = 0; c < m->columns; c++)
        columns += m->used[c];
    dpt_report_axis axis = {.maximum = maximum > 0.0 ? maximum : 1.0, .linear = 0.0};
    axis.linear = axis.maximum / 300.0; /* small terms next to large ones keep a colour */
    FILE *script = dpt_report_script(&text, &size, WIDTH, 120 + ROW_HEIGHT * (int)m->rows);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    double reach = dpt_report_axis_place(&axis, axis.maximum);
    dpt_report_axis_function(script, &axis);
    dpt_report_axis_tics(script, &axis, "cb");
    fputs(DPT_REPORT_HURTS, script);
    fprintf(script,
            "unset grid\nset border 0\nset tics scale 0\nset lmargin %d\n"
            "set xrange [-0.5:%.1f]\nset yrange [%.1f:0.5]\nset cbrange [%.17g:%.17g]\n"
            "set cblabel 'term [nats]' tc rgb '#333a45'\nset xlabel '%s' tc rgb '#333a45'\n"
            "plot '%s' skip 1 using 3:1:($3-0.49):($3+0.49):($1-0.47):($1+0.47):(f($5)):"
            "xtic(4):ytic(strcol(2)[1:34]) with boxxyerror fs solid noborder fc palette notitle",
            longest_label(group) + 2, columns - 0.5, (double)m->rows + 0.5, -reach, reach,
            m->by_layer ? "layer" : "module", dpt_report_csv_name(path));
    if (columns <= NUMBERED_COLUMNS) /* narrow cells have no room for small numbers */
        fprintf(script,
                ", '' skip 1 using 3:1:(abs($5) < %.17g ? '' : sprintf('%%.2g', $5)):"
                "(abs(f($5)) > %.17g ? 0xffffff : 0x333a45) with labels font ',%d' tc rgb variable "
                "notitle",
                columns <= ROOMY_COLUMNS ? 0.0 : SMALL_TERM * axis.maximum, 0.75 * reach,
                columns <= WIDE_COLUMNS ? 9 : 8);
    fputc('\n', script);
    char caption[400];
    snprintf(caption, sizeof caption, "Approximation term %s%s%s",
             m->by_layer ? "by layer: red hurts, blue helps. \"outside\" is embeddings, final "
                           "norm and head."
                         : "by kind of module: red hurts, blue helps.",
             columns <= ROOMY_COLUMNS      ? ""
             : columns <= NUMBERED_COLUMNS ? " Cells below 0.4 % of the largest have no number."
                                           : " Cells this narrow have no numbers.",
             unknown ? " A cell without a colour is a term that is not known." : "");
    return dpt_report_figure(plots, html, script, &text, caption);
}

dpt_status dpt_report_terms(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    dpt_status st = DPT_OK;
    for (int k = 0; k < 2 && st == DPT_OK; k++) {
        char path[1024];
        map m;
        st = map_make(group, k == 0, &m);
        if (st == DPT_OK)
            st = map_csv(plots, group, &m, path);
        if (st == DPT_OK)
            st = map_figure(plots, html, group, &m, path);
        dpt_mem_free(m.sums);
        dpt_mem_free(m.used);
    }
    return st;
}

static double slope_at(const dpt_result *r, int64_t point) {
    double sum = 0.0;
    for (int64_t i = 0; i < r->tensors; i++)
        sum += r->terms[i * r->points + point];
    return sum;
}

/* How many units have a larger change than this one: the lines of the largest are drawn. */
static int64_t rank_of(const dpt_report_group *group, int64_t unit) {
    int64_t rank = 0;
    double size = fabs(group->units[unit]->scalars.change);
    for (int64_t i = 0; i < group->count; i++) {
        double other = fabs(group->units[i]->scalars.change);
        rank += other > size || (other == size && i < unit);
    }
    return rank;
}

static dpt_status slopes_csv(dpt_report_plots *plots, const dpt_report_group *group,
                             char path[1024], dpt_report_axis *axis) {
    double maximum = 0.0;
    double *sizes = dpt_mem_zalloc(group->count, sizeof *sizes, "derivatives");
    FILE *csv = sizes == NULL ? NULL
                              : dpt_report_csv(plots, "derivative", group->data,
                                               "number,edit,t,derivative,loss", path);
    if (csv == NULL) {
        dpt_mem_free(sizes);
        return DPT_ERR_OUTPUT;
    }
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result *r = group->units[i];
        char label[DPT_REPORT_LABEL_MAX];
        dpt_report_label(r->edit, label);
        for (int64_t c = 0; c < r->points; c++) {
            double slope = slope_at(r, c);
            sizes[i] = larger(sizes[i], slope);
            maximum = larger(maximum, slope);
            fprintf(csv, "%" PRId64 ",%s,%.17g", i + 1, label, r->nodes[c]);
            cell(csv, slope);
            cell(csv, r->path_loss[c]);
            fputc('\n', csv);
        }
    }
    *axis = dpt_report_axis_make(maximum, median(sizes, group->count));
    dpt_mem_free(sizes);
    return dpt_report_csv_close(csv, path);
}

dpt_status dpt_report_slopes(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    static const unsigned colours[LINES_MAX] = {0x4477aa, 0xee6677, 0x228833, 0xccbb44,
                                                0x66ccee, 0xaa3377, 0x888888, 0x222222,
                                                0xff8c00, 0x8c564b, 0x7a6ff0, 0x00b3a4};
    char path[1024];
    char *text = NULL;
    size_t size = 0;
    dpt_report_axis axis;
    dpt_status st = slopes_csv(plots, group, path, &axis);
    FILE *script = st == DPT_OK ? dpt_report_script(&text, &size, WIDTH, 420) : NULL;
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    dpt_report_axis_function(script, &axis);
    dpt_report_axis_tics(script, &axis, "y");
    fputs("set xrange [0:1]\nset xlabel 't, from post-trained (0) to edited (1)' tc rgb "
          "'#333a45'\nset ylabel 'derivative of the loss [nats]' tc rgb '#333a45'\n"
          "set xzeroaxis lc rgb '#333a45' lt 1\nset key outside right top samplen 2\n"
          "plot NaN notitle",
          script);
    for (int64_t i = 0; i < group->count; i++) {
        int64_t rank = rank_of(group, i);
        char label[DPT_REPORT_LABEL_MAX];
        dpt_report_label(group->units[i]->edit, label);
        label[KEY_MAX] = '\0';
        if (rank < LINES_MAX && group->units[i]->points > 0) /* the label has no quote */
            fprintf(script,
                    ", '%s' skip 1 using ($1 == %" PRId64 " ? $3 : NaN):(f($4)) with linespoints "
                    "pt 7 ps 0.5 lw 1.6 lc rgb 0x%06x title '%s'",
                    dpt_report_csv_name(path), i + 1, colours[rank], label);
    }
    fputc('\n', script);
    return dpt_report_figure(
        plots, html, script, &text,
        group->count > LINES_MAX ? "Directional derivative along the path, of the twelve edits "
                                   "with the largest change; all are in the CSV."
        : axis.linear > 0.0      ? "Directional derivative along the path, on an axis that is "
                                   "linear near zero and logarithmic beyond."
                                 : "Directional derivative along the path. Its area is the "
                                   "estimate; a straight line is a quadratic loss.");
}

/* Spectra are of the delta, so those of the first unit that has a tensor stand for all. */
static bool is_first(const dpt_results *results, int64_t unit, const dpt_result_spectrum *s) {
    for (int64_t i = 0; i < unit; i++)
        for (int64_t k = 0; k < results->results[i].nspectra; k++)
            if (results->results[i].spectra[k].tensor == s->tensor &&
                strcmp(results->results[i].spectra[k].part, s->part) == 0)
                return false;
    return true;
}

/* Kind of a matrix: that of its tensor, or what its part says, as in "q" or "3.gate". */
static dpt_role_kind spectra_kind(const dpt_result_spectrum *s, dpt_role_kind of_tensor) {
    const char *dot = strrchr(s->part, '.');
    for (int k = 0; k < DPT_ROLE_COUNT; k++)
        if (strcmp(dot != NULL ? dot + 1 : s->part, dpt_role_name((dpt_role_kind)k)) == 0)
            return (dpt_role_kind)k;
    return of_tensor;
}

static void spectra_label(const char *tensor, const char *part, char label[DPT_REPORT_LABEL_MAX]) {
    char name[512];
    snprintf(name, sizeof name, part[0] != '\0' ? "%.400s[%s]" : "%.400s", tensor, part);
    dpt_report_label(name, label);
}

static dpt_status spectra_csv(dpt_report_plots *plots, const dpt_results *results, char path[1024],
                              bool used[DPT_ROLE_COUNT]) {
    FILE *csv = dpt_report_csv(plots, "spectra", "",
                               "tensor,layer,module,kind,index,value,relative,error", path);
    if (csv == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < results->count; i++) {
        for (int64_t k = 0; k < results->results[i].nspectra; k++) {
            const dpt_result_spectrum *s = &results->results[i].spectra[k];
            if (s->tensor >= results->tensors || !is_first(results, i, s) || s->count < 2)
                continue;
            dpt_role part = dpt_role_of(results->tensor_names[s->tensor]);
            char label[DPT_REPORT_LABEL_MAX];
            spectra_label(results->tensor_names[s->tensor], s->part, label);
            part.kind = spectra_kind(s, part.kind);
            used[part.kind] = true;
            for (int64_t j = 0; j < s->count; j++) {
                fprintf(csv, "%s,%d,%s,%d,%" PRId64, label, part.layer, dpt_role_name(part.kind),
                        (int)part.kind, j + 1);
                cell(csv, s->values[j]);
                cell(csv, s->values[0] > 0.0 ? s->values[j] / s->values[0] : NAN);
                cell(csv, s->error[j]);
                fputc('\n', csv);
            }
            fputc('\n', csv); /* a blank line ends the line of a tensor in the plot */
        }
    }
    return dpt_report_csv_close(csv, path);
}

dpt_status dpt_report_spectra(dpt_report_plots *plots, FILE *html, const dpt_results *results) {
    static const unsigned colours[DPT_ROLE_COUNT] = {
        0x888888, 0x4477aa, 0x66ccee, 0x228833, 0x117733, 0xccbb44, 0xee6677,
        0xaa3377, 0xcc3311, 0x332288, 0xee7733, 0x999933, 0x661100, 0xbbbbbb};
    char path[1024];
    char *text = NULL;
    size_t size = 0;
    bool used[DPT_ROLE_COUNT] = {false};
    bool any = false;
    dpt_status st = spectra_csv(plots, results, path, used);
    for (int k = 0; k < DPT_ROLE_COUNT; k++)
        any = any || used[k];
    if (st != DPT_OK || !any)
        return st;
    FILE *script = dpt_report_script(&text, &size, WIDTH, 420);
    if (script == NULL)
        return DPT_ERR_OUTPUT;
    fputs("set logscale y\nset format y '%g'\nset xlabel 'index' tc rgb '#333a45'\nset ylabel "
          "'singular value / largest' tc rgb '#333a45'\nset key outside right top samplen 2\n"
          "plot NaN notitle",
          script);
    for (int k = 0; k < DPT_ROLE_COUNT; k++)
        if (used[k])
            fprintf(
                script,
                ", '%s' skip 1 using ($4 == %d && $7 > 0 ? $5 : NaN):7 with linespoints pt 7 "
                "ps 0.3 lw 0.8 lc rgb 0x%06x notitle, NaN with lines lw 3 lc rgb 0x%06x title '%s'",
                dpt_report_csv_name(path), k, colours[k], colours[k],
                dpt_role_name((dpt_role_kind)k));
    fputc('\n', script);
    fputs("<h2>Singular values of the delta</h2>\n", html);
    return dpt_report_figure(plots, html, script, &text,
                             "Decay of the singular values of every decomposed delta, by kind of "
                             "module; a line is one matrix.");
}
