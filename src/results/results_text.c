#include "result_fields.h"
#include "result_seeds.h"

#include "deltapath/store/owned.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 17 };

/* Control characters become spaces: a line of the table stays a line. */
static void results_text_csv_text(FILE *file, const char *text) {
    if (strpbrk(text, "\",;\r\n") == NULL) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', file);
        fputc((unsigned char)*text < ' ' ? ' ' : *text, file);
    }
    fputc('"', file);
}

static void results_text_csv_row(FILE *file, const dpt_result *r) {
    results_text_csv_text(file, r->edit);
    fputc(',', file);
    results_text_csv_text(file, r->data != NULL ? r->data : "");
    fputc(',', file);
    results_text_csv_text(file, r->method != NULL ? r->method : "");
    fputs(",\"", file);
    for (int64_t i = 0; i < r->nparameters; i++) {
        const char *const pieces[] = {i > 0 ? " " : "", r->parameters[i].name, "=",
                                      r->parameters[i].value};
        for (int k = 0; k < 4; k++)
            for (const char *c = pieces[k]; *c != '\0'; c++)
                fprintf(file, *c == '"' ? "\"\"" : "%c", (unsigned char)*c < ' ' ? ' ' : *c);
    }
    fprintf(file, "\",%s,%s,%" PRId64 ",%" PRId64, r->loss != NULL ? r->loss : "",
            r->rule != NULL ? r->rule : "", r->points, r->samples);
    const double *scalars = (const double *)&r->scalars;
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        if (isnan(scalars[i]))
            fputc(',', file);
        else
            fprintf(file, ",%.*g", DIGITS, scalars[i]);
    fprintf(file, ",%s,", r->verdict != NULL ? r->verdict : "");
    results_text_csv_text(file, r->reason != NULL ? r->reason : "");
    fputc('\n', file);
}

void dpt_results_csv(FILE *file, const dpt_result *results, int64_t count) {
    fputs(DPT_OWNED_SUMMARY_START, file);
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        fprintf(file, ",%s", dpt_result_scalar_columns[i].name);
    fputs(",verdict,reason\n", file);
    for (int64_t i = 0; i < count; i++)
        results_text_csv_row(file, &results[i]);
}

/* JSON has no NaN and no infinity: both are null. */
static json_t *number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

/* Names come from files and may be no UTF-8: other bytes become '?'. */
static json_t *text(const char *bytes) {
    json_t *out = json_string(bytes != NULL ? bytes : "");
    if (out != NULL)
        return out;
    char *plain = dpt_mem_strdup(bytes, "text of a result");
    for (char *c = plain; c != NULL && *c != '\0'; c++)
        if ((unsigned char)*c > 126)
            *c = '?';
    out = json_string(plain != NULL ? plain : "");
    dpt_mem_free(plain);
    return out;
}

static void results_text_set_text(json_t *object, const char *key, const char *value) {
    json_object_set_new(object, key, text(value));
}

static json_t *numbers(const double *x, int64_t n) {
    json_t *out = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(out, number(x[i]));
    return out;
}

static json_t *parameters_object(const dpt_result *r) {
    json_t *out = json_object();
    for (int64_t i = 0; i < r->nparameters; i++) {
        const char *value = r->parameters[i].value;
        char *end;
        double x = strtod(value, &end);
        bool numeric = *value != '\0' && *end == '\0' && isfinite(x);
        json_t *name = text(r->parameters[i].name);
        json_object_set_new(out, json_string_value(name), numeric ? json_real(x) : text(value));
        json_decref(name);
    }
    return out;
}

/* Sums of the integrated and second-order terms over the tensors of one part. */
typedef struct part_sum {
    bool any;
    double integrated;
    double second_order;
} part_sum;

static void add(part_sum *sum, double integrated, double second_order) {
    sum->any = true;
    sum->integrated += integrated;
    sum->second_order += second_order;
}

/* Kinds of module: of a tensor with several matrices those of these. */
static bool add_kinds(const dpt_results_study *study, const dpt_result *r, part_sum *by_kind) {
    const dpt_results_matrices *matrices = &study->matrices;
    bool split_up = r->nmatrices > 0 && r->nmatrices == matrices->count;
    bool *split = dpt_results_matrices_split(matrices, r->tensors);
    for (int64_t i = 0; split != NULL && i < r->tensors; i++)
        if (!split_up || !split[i])
            add(&by_kind[dpt_role_of(study->tensor_names[i]).kind], r->integrated[i],
                r->second_order[i]);
    for (int64_t m = 0; split_up && m < matrices->count; m++)
        add(&by_kind[matrices->kind[m]], r->matrix_integrated[m], r->matrix_second_order[m]);
    dpt_mem_free(split);
    return split != NULL;
}

static json_t *part_object(const part_sum *sum, const char *key, json_t *name) {
    json_t *out = json_object();
    json_object_set_new(out, key, name);
    json_object_set_new(out, "integrated", number(sum->integrated));
    json_object_set_new(out, "second_order", number(sum->second_order));
    return out;
}

/* Parts in order of first appearance would depend on names: layers go up, those outside are -1. */
static dpt_status aggregate(const dpt_results_study *study, const dpt_result *r, json_t *unit) {
    int layers = 0;
    for (int64_t i = 0; i < r->tensors; i++) {
        int layer = dpt_role_of(study->tensor_names[i]).layer;
        layers = layer >= layers ? layer + 1 : layers;
    }
    part_sum *by_layer = dpt_mem_zalloc((int64_t)layers + 1, sizeof *by_layer, "sums by layer");
    if (by_layer == NULL)
        return DPT_ERR_OUTPUT;
    part_sum by_kind[DPT_ROLE_COUNT] = {{.any = false}};
    for (int64_t i = 0; i < r->tensors; i++) {
        dpt_role part = dpt_role_of(study->tensor_names[i]);
        add(&by_layer[part.layer + 1], r->integrated[i], r->second_order[i]);
    }
    if (!add_kinds(study, r, by_kind)) {
        dpt_mem_free(by_layer);
        return DPT_ERR_OUTPUT;
    }
    json_t *list = json_array();
    for (int k = 0; k <= layers; k++)
        if (by_layer[k].any)
            json_array_append_new(list, part_object(&by_layer[k], "layer", json_integer(k - 1)));
    json_object_set_new(unit, "by_layer", list);
    list = json_array();
    for (int k = 0; k < DPT_ROLE_COUNT; k++)
        if (by_kind[k].any)
            json_array_append_new(
                list, part_object(&by_kind[k], "module", text(dpt_role_name((dpt_role_kind)k))));
    json_object_set_new(unit, "by_module", list);
    dpt_mem_free(by_layer);
    return DPT_OK;
}

/* The groups that were left out, with what the arrays have of them. */
static void results_text_set_left_out(json_t *unit, const dpt_result *r) {
    json_t *list = json_array();
    for (int64_t g = 0; g < r->nproof; g++) {
        char name[DPT_RESULT_GROUP_NAME];
        json_t *one = json_object();
        dpt_result_group_name(r->proof_groups, g, name);
        results_text_set_text(one, "group", name);
        json_object_set_new(one, "term", number(r->proof_term[g]));
        json_object_set_new(one, "change", number(r->proof_change[g]));
        json_object_set_new(one, "low", number(r->proof_change_low[g]));
        json_object_set_new(one, "high", number(r->proof_change_high[g]));
        json_object_set_new(one, "alone", number(r->proof_alone[g]));
        json_array_append_new(list, one);
    }
    if (r->nproof > 0)
        json_object_set(unit, "left_out", list);
    json_decref(list);
}

static dpt_status unit_object(const dpt_results_study *study, const dpt_result *r, json_t **out) {
    json_t *unit = json_object();
    *out = unit;
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        results_text_set_text(unit, dpt_result_text_fields[f].column.name, dpt_result_string(r, f));
    json_object_set_new(unit, "parameters", parameters_object(r));
    json_object_set_new(unit, "samples", json_integer(r->samples));
    const double *scalars = (const double *)&r->scalars;
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        json_object_set_new(unit, dpt_result_scalar_columns[i].name, number(scalars[i]));
    if (r->points == 0)
        return DPT_OK;
    json_object_set_new(unit, "points", numbers(r->nodes, r->points));
    json_object_set_new(unit, "weights", numbers(r->weights, r->points));
    json_object_set_new(unit, "path_loss", numbers(r->path_loss, r->points));
    json_t *slopes = json_array();
    for (int64_t c = 0; c < r->points; c++) {
        double slope = 0.0;
        for (int64_t i = 0; i < r->tensors; i++)
            slope += r->terms[i * r->points + c];
        json_array_append_new(slopes, number(slope));
    }
    json_object_set_new(unit, "slope", slopes);
    results_text_set_left_out(unit, r);
    return aggregate(study, r, unit);
}

/* The curvature of a data set, by tensor where there is any. */
static json_t *law_object(const dpt_results_study *study, const dpt_result *r) {
    json_t *out = json_object();
    json_t *tensors = json_array();
    results_text_set_text(out, "data", r->data);
    json_object_set_new(out, "curvature", number(r->scalars.curvature));
    json_object_set_new(out, "curvature_se", number(r->scalars.curvature_se));
    for (int64_t i = 0; i < r->tensors; i++) {
        if (r->curvature[i] == 0.0)
            continue;
        json_t *one = json_object();
        results_text_set_text(one, "tensor", study->tensor_names[i]);
        json_object_set_new(one, "curvature", number(r->curvature[i]));
        json_object_set_new(one, "curvature_se", number(r->curvature_se[i]));
        json_array_append_new(tensors, one);
    }
    json_object_set_new(out, "tensors", tensors);
    return out;
}

static void results_text_set_law(json_t *root, const dpt_results_study *study,
                                 const dpt_result *results, int64_t count) {
    json_t *law = json_array();
    for (int64_t i = 0; i < count; i++)
        if (dpt_result_is_law(results, i))
            json_array_append_new(law, law_object(study, &results[i]));
    if (json_array_size(law) > 0)
        json_object_set(root, "law", law);
    json_decref(law);
}

dpt_status dpt_results_json(FILE *file, const dpt_results_study *study, const dpt_result *results,
                            int64_t count) {
    json_t *root = json_object();
    json_t *units = json_array();
    results_text_set_text(root, "format", "deltapath-results");
    json_object_set_new(root, "version", json_integer(DPT_RESULTS_VERSION));
    results_text_set_text(root, "name", study->name);
    json_t *provenance =
        study->provenance != NULL ? json_loads(study->provenance, 0, NULL) : json_null();
    json_object_set_new(root, "provenance",
                        provenance != NULL ? provenance : text(study->provenance));
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        json_t *unit = NULL;
        st = unit_object(study, &results[i], &unit);
        json_array_append_new(units, unit);
    }
    results_text_set_law(root, study, results, count);
    if (st == DPT_OK)
        st = dpt_result_proof_json(results, count, root);
    if (st == DPT_OK)
        st = dpt_result_group_proof_json(results, count, root);
    json_object_set_new(root, "units", units);
    json_object_set_new(root, "seeds", dpt_result_seeds_json(study));
    if (st == DPT_OK && json_dumpf(root, file, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS)) != 0)
        st = DPT_ERR_OUTPUT;
    json_decref(root);
    return st;
}

static void print_column(FILE *file, const dpt_result_column *column, const char *shape) {
    fprintf(file, "| `%s` | %s | %s | %s |\n", column->name, shape, column->unit, column->meaning);
}

void dpt_results_print_columns(FILE *file) {
    static const char *const shapes[] = {[DPT_SHAPE_POINTS] = "(points)",
                                         [DPT_SHAPE_TENSORS_POINTS] = "(tensors, points)",
                                         [DPT_SHAPE_TENSORS_GROUPS] = "(tensors, groups)",
                                         [DPT_SHAPE_VALUES] = "(values)",
                                         [DPT_SHAPE_PROOF_GROUPS] = "(proof groups)",
                                         [DPT_SHAPE_TENSORS] = "(tensors)",
                                         [DPT_SHAPE_MATRICES] = "(matrices)",
                                         [DPT_SHAPE_MATRICES_POINTS] = "(matrices, points)",
                                         [DPT_SHAPE_SAMPLES] = "(samples)"};
    fputs("| column | of | unit | meaning |\n|---|---|---|---|\n", file);
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        print_column(file, &dpt_result_text_fields[f].column, "unit");
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        print_column(file, &dpt_result_scalar_columns[i], "unit");
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++)
        print_column(file, &dpt_result_array_fields[f].column,
                     shapes[dpt_result_array_fields[f].shape]);
    for (int i = 0; i < DPT_RESULT_STATS; i++)
        print_column(file, &dpt_result_tensor_columns[i], "(tensors), `tensor_stats`");
#define PRINT_SPREAD(name, scalar, meaning)                                                        \
    fputs("| `" #name "_mean`, `" #name "_sd`, `" #name "_low`, `" #name                           \
          "_high` | seeds | - | " meaning                                                          \
          ": mean, standard deviation, 95 % interval of the mean over seeds |\n",                  \
          file);
    DPT_RESULT_SEEDS_COLUMNS(PRINT_SPREAD)
#define PRINT_CROSSED(field, unit, meaning)                                                        \
    fputs("| `" #field "` | seeds | " unit " | " meaning " |\n", file);
    DPT_RESULT_CROSSED_COLUMNS(PRINT_CROSSED)
}
