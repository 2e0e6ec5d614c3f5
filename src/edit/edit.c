#include "stage.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/choice.h"
#include "deltapath/base/nearest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EDIT_METHOD_ADDRESS(NAME) &dpt_edit_method_##NAME,
static const dpt_edit_method *const methods[] = {DPT_EDIT_METHODS(EDIT_METHOD_ADDRESS)};

enum { METHODS = sizeof methods / sizeof methods[0] };

int dpt_edit_method_count(void) {
    return METHODS;
}

const char *dpt_edit_method_name(int method) {
    return methods[method]->name;
}

int dpt_edit_method_find(const char *name) {
    for (int m = 0; m < METHODS; m++)
        if (strcmp(methods[m]->name, name) == 0)
            return m;
    return -1;
}

int dpt_edit_method_params(int method, const dpt_edit_param **params) {
    *params = methods[method]->params;
    return methods[method]->nparams;
}

const dpt_edit_method *dpt_edit_method_get(int method) {
    return methods[method];
}

void dpt_edit_stage_init(dpt_edit_stage_spec *stage, int method) {
    memset(stage, 0, sizeof *stage);
    stage->method = method;
    for (int i = 0; i < methods[method]->nparams; i++)
        stage->values[i] = methods[method]->params[i].default_value;
}

double dpt_edit_value(const dpt_edit_stage_spec *spec, int param) {
    return spec->values[param];
}

double dpt_edit_value_of(const dpt_edit_stage_spec *spec, int param, int tensor) {
    return spec->tensor_values != NULL ? spec->tensor_values[tensor] : spec->values[param];
}

void dpt_edit_stage_become(dpt_edit_stage_spec *spec, const char *method, const char *param,
                           double value) {
    dpt_edit_stage_init(spec, dpt_edit_method_find(method));
    for (int i = 0; i < methods[spec->method]->nparams; i++)
        if (strcmp(methods[spec->method]->params[i].name, param) == 0)
            spec->values[i] = value;
}

static bool in_range(const dpt_edit_param *param, double value) {
    bool above = param->lower_open ? value > param->lower : value >= param->lower;
    bool below = param->upper_open ? value < param->upper : value <= param->upper;
    return above && below;
}

static dpt_status set_number(dpt_edit_stage_spec *stage, int index, const char *value) {
    const dpt_edit_method *method = methods[stage->method];
    const dpt_edit_param *param = &method->params[index];
    char *end = NULL;
    stage->given[index] = true;
    stage->values[index] = NAN;
    if (param->automatic && strcmp(value, "auto") == 0)
        return DPT_OK;
    double number = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(number))
        return dpt_error(DPT_ERR_USAGE, "%s: %s: \"%s\" is not a number: %s", method->name,
                         param->name, value, param->help);
    if (param->kind == DPT_PARAM_INTEGER && number != floor(number))
        return dpt_error(DPT_ERR_USAGE, "%s: %s: %s is not an integer: %s", method->name,
                         param->name, value, param->help);
    if (!in_range(param, number))
        return dpt_error(DPT_ERR_USAGE, "%s: %s: %s is outside %c%g, %g%c: %s", method->name,
                         param->name, value, param->lower_open ? '(' : '[', param->lower,
                         param->upper, param->upper_open ? ')' : ']', param->help);
    stage->values[index] = number;
    return DPT_OK;
}

/* "p, k, rescale" */
static void list_params(const dpt_edit_method *method, char *text, size_t size) {
    text[0] = '\0';
    for (int i = 0; i < method->nparams; i++) {
        size_t at = strlen(text);
        snprintf(text + at, size - at, "%s%s", i > 0 ? ", " : "", method->params[i].name);
    }
}

dpt_status dpt_edit_stage_set(dpt_edit_stage_spec *stage, const char *param, const char *value) {
    const dpt_edit_method *method = methods[stage->method];
    int index = 0;
    while (index < method->nparams && strcmp(method->params[index].name, param) != 0)
        index++;
    if (index == method->nparams) {
        char known[256];
        list_params(method, known, sizeof known);
        return dpt_error(DPT_ERR_USAGE, "%s: unknown parameter \"%s\": it knows %s", method->name,
                         param, known);
    }
    if (method->params[index].kind != DPT_PARAM_CHOICE)
        return set_number(stage, index, value);
    int choice = dpt_choice_find(method->params[index].choices, value);
    char hint[DPT_NEAREST_HINT];
    if (choice < 0)
        return dpt_error(DPT_ERR_USAGE, "%s: %s: \"%s\" is not one of %s%s", method->name, param,
                         value, method->params[index].choices,
                         dpt_nearest_of_list(value, method->params[index].choices, "|", hint));
    stage->values[index] = (double)choice;
    stage->given[index] = true;
    return DPT_OK;
}

bool dpt_edit_stage_is_auto(const dpt_edit_stage_spec *stage) {
    const dpt_edit_method *method = methods[stage->method];
    if (method->found)
        return true;
    for (int i = 0; i < method->nparams; i++)
        if (method->params[i].automatic && isnan(stage->values[i]))
            return stage->tensor_values == NULL;
    return false;
}

double dpt_edit_stage_get(const dpt_edit_stage_spec *stage, const char *param) {
    const dpt_edit_method *method = methods[stage->method];
    for (int i = 0; i < method->nparams; i++)
        if (strcmp(method->params[i].name, param) == 0)
            return stage->values[i];
    return NAN;
}

bool dpt_edit_stage_given(const dpt_edit_stage_spec *stage, const char *param) {
    const dpt_edit_method *method = methods[stage->method];
    for (int i = 0; i < method->nparams; i++)
        if (strcmp(method->params[i].name, param) == 0)
            return stage->given[i];
    return false;
}

static dpt_status edit_check_stage(const dpt_edit_stage_spec *stage) {
    if (stage->method < 0 || stage->method >= METHODS)
        return dpt_error(DPT_ERR_INTERNAL, "edit: method %d is not in the table", stage->method);
    const dpt_edit_method *method = methods[stage->method];
    for (int i = 0; i < method->nparams; i++) {
        const dpt_edit_param *param = &method->params[i];
        if (param->required && !stage->given[i])
            return dpt_error(DPT_ERR_USAGE, "%s: %s is missing: %s", method->name, param->name,
                             param->help);
        bool found = !(param->automatic && isnan(stage->values[i]));
        if (stage->given[i] && param->kind != DPT_PARAM_CHOICE && found &&
            !in_range(param, stage->values[i]))
            return dpt_error(DPT_ERR_USAGE, "%s: %s: %g is outside %c%g, %g%c: %s", method->name,
                             param->name, stage->values[i], param->lower_open ? '(' : '[',
                             param->lower, param->upper, param->upper_open ? ')' : ']',
                             param->help);
    }
    return method->check != NULL ? method->check(stage) : DPT_OK;
}

dpt_status dpt_edit_spec_check(const dpt_edit_spec *spec) {
    bool exact = true;
    if (spec->nstages < 1 || spec->nstages > DPT_EDIT_STAGE_MAX)
        return dpt_error(DPT_ERR_USAGE, "edit: %d methods in sequence: give 1 to %d", spec->nstages,
                         DPT_EDIT_STAGE_MAX);
    for (int s = 0; s < spec->nstages; s++) {
        dpt_status st = edit_check_stage(&spec->stages[s]);
        if (st != DPT_OK)
            return st;
        exact = exact && methods[spec->stages[s].method]->multiple;
    }
    if (exact && spec->calibrate != DPT_CALIBRATE_NONE)
        return dpt_error(DPT_ERR_USAGE,
                         "calibrate: it would only undo %s: calibrate an edit that "
                         "loses something",
                         methods[spec->stages[0].method]->name);
    return DPT_OK;
}

static bool wants_gradient(const dpt_edit_stage_spec *spec) {
    const dpt_edit_method *method = methods[spec->method];
    return method->gradient != NULL && method->gradient(spec);
}

bool dpt_edit_needs_gradient(const dpt_edit_spec *spec) {
    bool needs = spec->calibrate != DPT_CALIBRATE_NONE;
    for (int s = 0; s < spec->nstages; s++)
        needs = needs || wants_gradient(&spec->stages[s]);
    return needs;
}

bool dpt_edit_draws_mask(const dpt_edit_spec *spec) {
    bool draws = false;
    for (int s = 0; s < spec->nstages; s++)
        draws = draws || methods[spec->stages[s].method]->mask != NULL;
    return draws;
}

bool dpt_edit_own_only(const dpt_edit_stage_spec *spec) {
    return methods[spec->method]->apply_cell != NULL || wants_gradient(spec);
}

const char *dpt_edit_tensor_name(const dpt_edit_stage *stage, int tensor) {
    return stage->catalog->tensors[tensor].name;
}

double dpt_edit_part_mean(const dpt_parts *parts, int tensor, const double *of) {
    int first = parts->first[tensor], last = parts->first[tensor + 1];
    double sum = 0.0, all = 0.0;
    if (last - first == 1)
        return of[first];
    for (int p = first; p < last; p++) {
        double n = (double)(parts->items[p].layout.rows * parts->items[p].layout.cols);
        sum += n * of[p];
        all += n;
    }
    return all > 0.0 ? sum / all : 0.0;
}

dpt_rng dpt_edit_stream(const dpt_edit_stage *stage, int tensor, uint32_t kind) {
    DPT_ASSERT(kind < DPT_EDIT_PURPOSES && stage->index >= 0); /* streams of stages never meet */
    uint32_t purpose = kind + (uint32_t)stage->index * DPT_EDIT_PURPOSES;
    return dpt_rng_make(stage->seed, dpt_edit_tensor_name(stage, tensor), purpose);
}

static void edit_print_param(FILE *file, const char *method, const dpt_edit_param *param) {
    fprintf(file, "| `%s` | `%s` | ", method, param->name);
    if (param->kind == DPT_PARAM_CHOICE) {
        dpt_choice_print(file, param->choices);
        fputs(" | ", file);
    } else {
        fprintf(file, "%s%s in %c%g, ", param->automatic ? "`auto` or " : "",
                param->kind == DPT_PARAM_INTEGER ? "integer" : "number",
                param->lower_open ? '(' : '[', param->lower);
        if (param->upper < 1e9)
            fprintf(file, "%g%c | ", param->upper, param->upper_open ? ')' : ']');
        else
            fputs("...) | ", file);
    }
    if (param->required)
        fputs("required", file);
    else if (param->kind == DPT_PARAM_CHOICE)
        fprintf(file, "`%.*s`", (int)strcspn(param->choices, "|"), param->choices);
    else if (param->optional)
        fputs("none", file);
    else
        fprintf(file, "`%g`", param->default_value);
    fprintf(file, " | %s |\n", param->help);
}

void dpt_edit_print_methods(FILE *file) {
    fputs("| method | parameter | value | default | meaning |\n|---|---|---|---|---|\n", file);
    for (int m = 0; m < METHODS; m++) {
        fprintf(file, "| `%s` | | | | %s |\n", methods[m]->name, methods[m]->help);
        for (int i = 0; i < methods[m]->nparams; i++)
            edit_print_param(file, methods[m]->name, &methods[m]->params[i]);
    }
}
