#include "diff.h"

#include "deltapath/store/owned.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void print_number(FILE *out, double value) {
    if (isnan(value))
        fprintf(out, " %10s", "-");
    else
        fprintf(out, " %10.4g", value);
}

static void diff_print_print_row(FILE *out, int width, const char *name, const char *module,
                                 const dpt_diff_row *row) {
    fprintf(out, "%-*s %-8s", width, name, module);
    print_number(out, row->pre);
    print_number(out, row->post);
    print_number(out, row->delta);
    print_number(out, row->pre > 0 ? row->delta / row->pre : NAN);
    print_number(out, row->spectral);
    print_number(out, row->zeros);
    print_number(out, row->cosine);
    print_number(out, row->mean);
    for (int q = 0; q < DPT_DIFF_QUANTILES; q++)
        print_number(out, row->quantiles[q]);
    fprintf(out, "\n");
}

/* The whole model as one long vector; quantiles and the spectral norm have no total. */
static dpt_diff_row total_row(const dpt_diff *d) {
    dpt_diff_row total = {.pre = 0};
    double n = 0;
    double dot = 0;
    for (int t = 0; t < d->catalog->count; t++) {
        const dpt_diff_row *row = &d->rows[t];
        double numel = (double)d->catalog->tensors[t].numel;
        if (!d->pair.comparable[t])
            continue;
        n += numel;
        total.pre += row->pre * row->pre;
        total.post += row->post * row->post;
        total.delta += row->delta * row->delta;
        total.mean += row->mean * numel;
        total.zeros += row->zeros * numel;
        dot += isnan(row->cosine) ? 0.0 : row->cosine * row->pre * row->post;
    }
    total.pre = sqrt(total.pre);
    total.post = sqrt(total.post);
    total.delta = sqrt(total.delta);
    total.mean = n > 0 ? total.mean / n : 0.0;
    total.zeros = n > 0 ? total.zeros / n : 0.0;
    total.cosine = total.pre > 0 && total.post > 0 ? dot / (total.pre * total.post) : NAN;
    total.spectral = NAN;
    for (int q = 0; q < DPT_DIFF_QUANTILES; q++)
        total.quantiles[q] = NAN;
    return total;
}

static int diff_print_widest_name(const dpt_diff *d) {
    size_t widest = 16;
    for (int t = 0; t < d->catalog->count; t++) {
        size_t n = strlen(d->catalog->tensors[t].name);
        widest = n > widest ? n : widest;
    }
    return (int)(widest < 100 ? widest : 100);
}

static void diff_print_print_table(const dpt_diff *d, FILE *out) {
    static const char *const heads[] = {"|pre|", "|post|", "|delta|", "relative", "spectral",
                                        "zeros", "cosine", "mean",    "q10",      "q50",
                                        "q90",   "q99",    "max"};
    int width = diff_print_widest_name(d);
    fprintf(out, "pre  %s\npost %s\n", dpt_store_path(d->pre), dpt_store_path(d->post));
    if (d->report != NULL)
        fprintf(out, "%s\n", d->report);
    fprintf(out, "\n%-*s %-8s", width, "tensor", "module");
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        fprintf(out, " %10s", heads[i]);
    fprintf(out, "\n");
    for (int t = 0; t < d->catalog->count; t++)
        if (d->pair.comparable[t])
            diff_print_print_row(out, width, d->catalog->tensors[t].name,
                                 dpt_role_name(dpt_role_of(d->catalog->tensors[t].name).kind),
                                 &d->rows[t]);
    dpt_diff_row total = total_row(d);
    diff_print_print_row(out, width, "all", "", &total);
    int buffers = 0;
    for (int t = 0; t < d->catalog->count; t++)
        buffers += dpt_role_is_buffer(&d->catalog->tensors[t]);
    fprintf(out, "%d of %d tensors compared", d->compared, d->catalog->count);
    if (buffers > 0)
        fprintf(out, ", %d are buffers and no weights", buffers);
    fputc('\n', out);
    fprintf(
        out,
        "|x|: Euclidean norm; relative: |delta| / |pre|; spectral: largest singular value of "
        "the delta, of the matrices in\na tensor the largest; zeros: share of elements that did "
        "not change; cosine: between pre and post; mean, q10 to max:\nmean and quantiles of the "
        "magnitudes of the delta's elements; -: does not apply\n");
}

static void csv_number(FILE *file, double value) {
    if (isnan(value))
        fprintf(file, ",");
    else
        fprintf(file, ",%.17g", value);
}

/* Names come from a file: quotes are doubled as RFC 4180 says. */
static void diff_print_csv_text(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

/* @param[in] info  NULL: the row is of all tensors. */
static void diff_print_csv_row(FILE *file, const dpt_tensor_info *info, const dpt_diff_row *row) {
    char shape[128] = "";
    diff_print_csv_text(file, info != NULL ? info->name : "all");
    if (info != NULL) {
        dpt_role role = dpt_role_of(info->name);
        fprintf(file, ",%d,%s,", role.layer, dpt_role_name(role.kind));
        dpt_catalog_shape_text(info, shape, sizeof shape);
    } else {
        fputs(",,,", file);
    }
    diff_print_csv_text(file, shape);
    const double numbers[] = {
        row->pre,      row->post,  row->delta,  row->pre > 0 ? row->delta / row->pre : NAN,
        row->spectral, row->zeros, row->cosine, row->mean};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        csv_number(file, numbers[i]);
    for (int q = 0; q < DPT_DIFF_QUANTILES; q++)
        csv_number(file, row->quantiles[q]);
    fputc('\n', file);
}

static const char CSV_WHAT[] = "table of diff";
static const char CSV_START[] = "tensor,layer,module,shape,pre,post,delta,relative,spectral,zeros,"
                                "cosine,mean,q10,q50,q90,q99,max\n";

static void print_csv(const void *ctx, FILE *file) {
    const dpt_diff *d = ctx;
    fputs(CSV_START, file);
    for (int t = 0; t < d->catalog->count; t++) {
        if (d->pair.comparable[t])
            diff_print_csv_row(file, &d->catalog->tensors[t], &d->rows[t]);
    }
    dpt_diff_row total = total_row(d);
    diff_print_csv_row(file, NULL, &total);
}

dpt_status dpt_diff_check_csv(const dpt_diff_options *options) {
    dpt_status st = dpt_owned_check_table(options->csv, CSV_START, CSV_WHAT, options->overwrite);
    return st == DPT_OK ? dpt_owned_check_place(options->csv) : st;
}

static dpt_status write_csv(const dpt_diff *d, const dpt_diff_options *options) {
    return dpt_owned_write_table(options->csv, CSV_START, CSV_WHAT, options->overwrite, print_csv,
                                 d);
}

dpt_status dpt_diff_print(const dpt_diff *d, const dpt_diff_options *options) {
    FILE *out = options->out != NULL ? options->out : stdout;
    diff_print_print_table(d, out);
    if (fflush(out) != 0 || ferror(out))
        return dpt_error(DPT_ERR_OUTPUT, "standard output cannot be written");
    return options->csv != NULL ? write_csv(d, options) : DPT_OK;
}
