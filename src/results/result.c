#include "result_fields.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Share of an edit that rounding takes back or adds, from which on it is said. */
static const double RESULT_ROUNDED = 0.1;

#define RESULT_COLUMN(field, unit, meaning) {#field, unit, meaning},
const dpt_result_column dpt_result_scalar_columns[DPT_RESULT_SCALARS] = {
    DPT_RESULT_SCALAR_COLUMNS(RESULT_COLUMN)};
const dpt_result_column dpt_result_tensor_columns[DPT_RESULT_STATS] = {
    DPT_RESULT_TENSOR_COLUMNS(RESULT_COLUMN)};

#define RESULT_TEXT(field, unit, meaning) {{#field, unit, meaning}, offsetof(dpt_result, field)},
const dpt_result_text_field dpt_result_text_fields[DPT_RESULT_TEXTS] = {
    DPT_RESULT_TEXT_COLUMNS(RESULT_TEXT)};

#define RESULT_ARRAY(name, field, shape, unit, meaning)                                            \
    {{#name, unit, meaning}, offsetof(dpt_result, field), DPT_SHAPE_##shape},
const dpt_result_array_field dpt_result_array_fields[DPT_RESULT_ARRAYS] = {
    DPT_RESULT_ARRAY_COLUMNS(RESULT_ARRAY)};

char **dpt_result_text_at(dpt_result *result, int field) {
    return (char **)((char *)result + dpt_result_text_fields[field].offset);
}

const char *dpt_result_string(const dpt_result *result, int field) {
    const char *text;
    memcpy(&text, (const char *)result + dpt_result_text_fields[field].offset, sizeof text);
    return text != NULL ? text : "";
}

double *dpt_result_array(const dpt_result *result, int field) {
    double *values;
    memcpy(&values, (const char *)result + dpt_result_array_fields[field].offset, sizeof values);
    return values;
}

int dpt_result_array_sides(const dpt_result *result, int field, int64_t sides[2]) {
    dpt_result_shape shape = dpt_result_array_fields[field].shape;
    bool of_matrices = shape == DPT_SHAPE_MATRICES || shape == DPT_SHAPE_MATRICES_POINTS;
    bool by_points = shape == DPT_SHAPE_TENSORS_POINTS || shape == DPT_SHAPE_MATRICES_POINTS;
    sides[0] = shape == DPT_SHAPE_POINTS         ? result->points
               : shape == DPT_SHAPE_SAMPLES      ? result->samples
               : shape == DPT_SHAPE_VALUES       ? result->nvalues
               : shape == DPT_SHAPE_PROOF_GROUPS ? result->nproof
               : of_matrices                     ? result->nmatrices
                                                 : result->tensors;
    sides[1] = by_points ? result->points : shape == DPT_SHAPE_TENSORS_GROUPS ? result->ngroups : 1;
    return by_points || shape == DPT_SHAPE_TENSORS_GROUPS ? 2 : 1;
}

/* An array of the size that the record says, of NaN. */
static bool result_allocate(dpt_result *out, int f) {
    int64_t sides[2], n;
    dpt_result_array_sides(out, f, sides);
    double *values = NULL;
    if (dpt_mem_mul(sides[0], sides[1], &n))
        values = dpt_mem_alloc(n, sizeof *values, dpt_result_array_fields[f].column.name);
    else
        (void)dpt_error(DPT_ERR_OUTPUT, "results: the size of %s overflows",
                        dpt_result_array_fields[f].column.name);
    memcpy((char *)out + dpt_result_array_fields[f].offset, &values, sizeof values);
    for (int64_t i = 0; values != NULL && i < n; i++)
        values[i] = NAN;
    return values != NULL;
}

dpt_status dpt_result_resize(dpt_result *result, int64_t groups, int64_t values, int64_t proof,
                             int64_t matrices) {
    bool whole = true;
    result->ngroups = groups;
    result->nvalues = values;
    result->nproof = proof;
    result->nmatrices = matrices;
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++) {
        dpt_result_shape shape = dpt_result_array_fields[f].shape;
        if (shape != DPT_SHAPE_TENSORS_GROUPS && shape != DPT_SHAPE_VALUES &&
            shape != DPT_SHAPE_PROOF_GROUPS && shape != DPT_SHAPE_MATRICES &&
            shape != DPT_SHAPE_MATRICES_POINTS)
            continue;
        dpt_mem_free(dpt_result_array(result, f));
        whole = result_allocate(result, f) && whole;
    }
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_result_create(int64_t tensors, int64_t points, int64_t samples, dpt_result *out) {
    *out = (dpt_result){.tensors = tensors, .points = points, .samples = samples};
    bool whole = true;
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++)
        whole = result_allocate(out, f) && whole;
    out->stats = dpt_mem_alloc(tensors, sizeof *out->stats, "statistics of tensors");
    double *stats = (double *)out->stats;
    for (int64_t i = 0; stats != NULL && i < tensors * DPT_RESULT_STATS; i++)
        stats[i] = NAN;
    double *scalars = (double *)&out->scalars;
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        scalars[i] = NAN;
    if (whole && out->stats != NULL)
        return DPT_OK;
    dpt_result_destroy(out);
    return DPT_ERR_OUTPUT;
}

void dpt_result_destroy(dpt_result *result) {
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        dpt_mem_free(*dpt_result_text_at(result, f));
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++)
        dpt_mem_free(dpt_result_array(result, f));
    for (int64_t i = 0; i < result->nparameters; i++) {
        dpt_mem_free(result->parameters[i].name);
        dpt_mem_free(result->parameters[i].value);
    }
    for (int64_t i = 0; i < result->nspectra; i++) {
        dpt_mem_free(result->spectra[i].values);
        dpt_mem_free(result->spectra[i].error);
    }
    dpt_mem_free(result->parameters);
    dpt_mem_free(result->spectra);
    dpt_mem_free(result->stats);
    *result = (dpt_result){.tensors = 0};
}

dpt_status dpt_result_set_string(char **text, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    char *copy = length < 0 ? NULL : dpt_mem_alloc((int64_t)length + 1, 1, "text of a result");
    if (copy != NULL)
        vsnprintf(copy, (size_t)length + 1, format, again);
    va_end(again);
    va_end(args);
    if (copy == NULL)
        return DPT_ERR_OUTPUT;
    dpt_mem_free(*text);
    *text = copy;
    return DPT_OK;
}

bool dpt_result_is_rounded(double rounding) {
    return fabs(rounding) > RESULT_ROUNDED;
}

bool dpt_result_is_few(const dpt_result_scalars *scalars) {
    return !isnan(scalars->change_low) && scalars->effective < scalars->change_enough;
}

dpt_status dpt_result_add_parameter(dpt_result *result, const char *name, const char *value) {
    dpt_result_parameter *grown =
        dpt_mem_realloc(result->parameters, result->nparameters + 1, sizeof *grown, "parameters");
    if (grown == NULL)
        return DPT_ERR_OUTPUT;
    result->parameters = grown;
    dpt_result_parameter new = {.name = dpt_mem_strdup(name, "parameter"),
                                .value = dpt_mem_strdup(value, "parameter")};
    if (new.name == NULL || new.value == NULL) {
        dpt_mem_free(new.name);
        dpt_mem_free(new.value);
        return DPT_ERR_OUTPUT;
    }
    grown[result->nparameters++] = new;
    return DPT_OK;
}

dpt_status dpt_result_add_spectrum(dpt_result *result, const dpt_result_spectrum *spectrum) {
    dpt_result_spectrum *grown =
        dpt_mem_realloc(result->spectra, result->nspectra + 1, sizeof *grown, "spectra");
    if (grown == NULL)
        return DPT_ERR_OUTPUT;
    result->spectra = grown;
    size_t bytes = (size_t)spectrum->count * sizeof(double);
    double *values = dpt_mem_alloc(spectrum->count, sizeof *values, "singular values");
    double *error = dpt_mem_alloc(spectrum->count, sizeof *error, "errors of singular values");
    if (values == NULL || error == NULL) {
        dpt_mem_free(values);
        dpt_mem_free(error);
        return DPT_ERR_OUTPUT;
    }
    memcpy(values, spectrum->values, bytes);
    memcpy(error, spectrum->error, bytes);
    grown[result->nspectra] = *spectrum;
    grown[result->nspectra].values = values;
    grown[result->nspectra++].error = error;
    return DPT_OK;
}

void dpt_result_group_name(const char *groups, int64_t place, char name[DPT_RESULT_GROUP_NAME]) {
    const char *at = groups;
    for (int64_t i = 0; i < place && at != NULL; i++) {
        at = strchr(at, '|');
        at = at != NULL ? at + 1 : NULL;
    }
    size_t n = at != NULL ? strcspn(at, "|") : 0, most = DPT_RESULT_GROUP_NAME - 1;
    snprintf(name, DPT_RESULT_GROUP_NAME, "%.*s", (int)(n < most ? n : most), at != NULL ? at : "");
}

static const char *result_data(const dpt_result *r) {
    return r->data != NULL ? r->data : "";
}

bool dpt_result_is_law(const dpt_result *results, int64_t i) {
    if (isnan(results[i].scalars.curvature))
        return false;
    for (int64_t j = 0; j < i; j++)
        if (strcmp(result_data(&results[j]), result_data(&results[i])) == 0 &&
            !isnan(results[j].scalars.curvature))
            return false;
    return true;
}

static void hash_text(dpt_hash *hash, const char *text) {
    dpt_hash_update(hash, text, strlen(text) + 1);
}

uint64_t dpt_result_hash(const dpt_result *r) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        hash_text(&hash, dpt_result_string(r, f));
    for (int64_t i = 0; i < r->nparameters; i++) {
        hash_text(&hash, r->parameters[i].name);
        hash_text(&hash, r->parameters[i].value);
    }
    const int64_t sizes[] = {r->tensors, r->points, r->samples,  r->ngroups,
                             r->nvalues, r->nproof, r->nspectra, r->nmatrices};
    dpt_hash_update(&hash, sizes, sizeof sizes);
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++) {
        int64_t sides[2];
        dpt_result_array_sides(r, f, sides);
        dpt_hash_update(&hash, dpt_result_array(r, f),
                        (size_t)(sides[0] * sides[1]) * sizeof(double));
    }
    dpt_hash_update(&hash, r->stats, (size_t)r->tensors * sizeof *r->stats);
    dpt_hash_update(&hash, &r->scalars, sizeof r->scalars);
    for (int64_t i = 0; i < r->nspectra; i++) {
        dpt_hash_update(&hash, &r->spectra[i].tensor, sizeof(int64_t));
        hash_text(&hash, r->spectra[i].part);
        dpt_hash_update(&hash, &r->spectra[i].residual, sizeof(double));
        dpt_hash_update(&hash, &r->spectra[i].count, sizeof(int64_t));
        dpt_hash_update(&hash, r->spectra[i].values, (size_t)r->spectra[i].count * sizeof(double));
        dpt_hash_update(&hash, r->spectra[i].error, (size_t)r->spectra[i].count * sizeof(double));
    }
    return dpt_hash_value(&hash);
}

char *dpt_result_encode(const char *name) {
    enum { LONGEST = 100 };
    if (name[0] == '\0')
        return dpt_mem_strdup("-", "name of a unit");
    char text[3 * LONGEST + 1];
    size_t at = 0;
    size_t i = 0;
    bool dash = strcmp(name, "-") == 0;
    for (; i < LONGEST && name[i] != '\0'; i++) {
        unsigned char c = (unsigned char)name[i];
        bool plain = c < 128 && (isalnum(c) || strchr("._+=,-", c) != NULL);
        if (plain && !dash && !(i == 0 && c == '.'))
            text[at++] = (char)c;
        else
            at += (size_t)snprintf(text + at, 4, "%%%02X", c);
    }
    text[at] = '\0';
    if (name[i] == '\0')
        return dpt_mem_strdup(text, "name of a unit");
    return dpt_mem_format("%.*s~%016" PRIx64, LONGEST, text, dpt_hash_string(name));
}
