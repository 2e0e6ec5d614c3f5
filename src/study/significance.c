#include "significance.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/weighted.h"
#include "cell_gradient.h"
#include "recipe.h"

#include <math.h>
#include <string.h>

/* Three standard errors of a normal distribution: a study has hundreds of tensors. */
static const double SIGNIFICANCE_CONFIDENCE = 0.9973;

bool dpt_significance_is_wanted(const dpt_edit_spec *spec) {
    return spec->calibrate == DPT_CALIBRATE_SIGNIFICANT;
}

int dpt_significance_count(const dpt_job *job) {
    int count = 0;
    for (int e = 0; e < job->nedits; e++)
        count += dpt_significance_is_wanted(&job->edits[e].spec);
    return count;
}

int64_t dpt_significance_bytes(const dpt_inputs *in, int64_t cells, int64_t gradient) {
    int64_t most = 0;
    for (int e = 0; e < in->job->nedits; e++) {
        const dpt_job_edit *edit = &in->job->edits[e];
        if (!dpt_significance_is_wanted(&edit->spec))
            continue;
        int64_t samples = in->data[edit->gradient_data].samples;
        most = samples > most ? samples : most;
    }
    int64_t sums = 2 * (int64_t)sizeof(double); /* as they come in, and as they are */
    return most > 0 ? cells + gradient + most * in->catalog->count * sums : 0;
}

/* Takes the edited model in fp32 as it is written, cell by cell, and keeps F of it. */
typedef struct significance_sink {
    const dpt_edit_input *input;
    dpt_catalog
        catalog; /* what can be edited is f32, so that nothing is rounded to the output's type */
    dpt_cell_gradient *cells;
    float *stored, *pre; /* (DPT_CELL) */
} significance_sink;

/* W_pre + F: F is kept; zero where the edit does not touch. */
static dpt_status significance_write(void *ctx, dpt_range range, const void *values) {
    const significance_sink *sink = ctx;
    const dpt_edit_input *input = sink->input;
    const float *edited = values;
    int64_t cell = input->shard->first_cell[range.tensor] + range.ig / DPT_CELL;
    float *to = (float *)dpt_field_cell(sink->cells->field, cell) + range.ig % DPT_CELL;
    bool selected = input->selected == NULL || input->selected[range.tensor];
    if (!input->comparable[range.tensor] || !selected) {
        memset(to, 0, (size_t)range.n * sizeof *to);
        return DPT_OK;
    }
    dpt_status st = input->pre.read(input->pre.ctx, range, sink->stored);
    if (st != DPT_OK)
        return st;
    dpt_dtype_to_f32(input->pre.catalog->tensors[range.tensor].dtype, sink->stored, sink->pre,
                     range.n);
    for (int64_t i = 0; i < range.n; i++)
        to[i] = edited[i] - sink->pre[i];
    return DPT_OK;
}

static dpt_status significance_sink_create(const dpt_edit_input *input, dpt_cell_gradient *cells,
                                           significance_sink *out) {
    *out = (significance_sink){.input = input, .cells = cells};
    dpt_status st = dpt_catalog_copy(input->post.catalog, &out->catalog);
    for (int t = 0; t < out->catalog.count && st == DPT_OK; t++)
        if (dpt_dtype_editable(out->catalog.tensors[t].dtype))
            out->catalog.tensors[t].dtype = DPT_F32;
    out->stored = dpt_mem_alloc(DPT_CELL, sizeof *out->stored, "cell of a model");
    out->pre = dpt_mem_alloc(DPT_CELL, sizeof *out->pre, "cell of a model");
    return out->stored != NULL && out->pre != NULL ? st : DPT_ERR_OUTPUT;
}

static dpt_status significance_fill(const dpt_edit_spec *spec, const dpt_edit_input *input,
                                    dpt_cell_gradient *cells) {
    significance_sink keeper;
    dpt_edit_spec plain = *spec;
    plain.calibrate = DPT_CALIBRATE_NONE;
    dpt_status st = dpt_agree(input->comm, significance_sink_create(input, cells, &keeper));
    dpt_sink sink = {.ctx = &keeper, .catalog = &keeper.catalog, .write = significance_write};
    if (st == DPT_OK)
        st = dpt_edit_run(&plain, input, sink, NULL);
    dpt_mem_free(keeper.pre);
    dpt_mem_free(keeper.stored);
    dpt_catalog_destroy(&keeper.catalog);
    return st;
}

/* Of each column. @param[in,out] x room for a column. */
static dpt_status significance_judge(const dpt_evaluation *ev, int d, const double *slopes,
                                     double *x, dpt_edit_slope *out) {
    const dpt_dataset *data = &ev->inputs->data[d];
    int tensors = ev->inputs->catalog->count;
    dpt_weighted weighted;
    dpt_status st = dpt_weighted_create(data->samples, dpt_loss_shares(ev->data[d].loss),
                                        data->clusters, &weighted);
    if (st != DPT_OK)
        return st;
    for (int t = 0; t < tensors && st == DPT_OK; t++) {
        for (int64_t s = 0; s < data->samples; s++)
            x[s] = slopes[s * tensors + t];
        dpt_interval slope;
        st = dpt_weighted_interval(&weighted, data->effective, x, x, SIGNIFICANCE_CONFIDENCE,
                                   &slope);
        out[t] = (dpt_edit_slope){.mean = slope.mean,
                                  .se = slope.se,
                                  .significant =
                                      slope.se > 0.0 && (slope.low > 0.0 || slope.high < 0.0)};
    }
    dpt_weighted_destroy(&weighted);
    return st;
}

static uint64_t significance_key(const dpt_inputs *in, const dpt_job_edit *edit,
                                 const dpt_edit_spec *spec) {
    uint64_t parts[] = {dpt_recipe_in_memory(in, edit, spec),
                        dpt_hash_string("edited delta as a direction")};
    return dpt_hash_bytes(parts, sizeof parts);
}

dpt_status dpt_significance_measure(dpt_evaluation *ev, const dpt_job_edit *edit,
                                    const dpt_edit_spec *spec, const dpt_edit_input *input,
                                    dpt_edit_slope *slopes) {
    const dpt_comm *world = &ev->mesh.world;
    DPT_ASSERT_SAME_TEXT(world, edit->id);
    int d = edit->gradient_data;
    int64_t samples = ev->data[d].samples;
    dpt_cell_gradient cells = {.field = NULL};
    dpt_status st = dpt_cell_gradient_create(world, ev->inputs->catalog, input->shard, &cells);
    if (st == DPT_OK)
        st = significance_fill(spec, input, &cells);
    if (st == DPT_OK)
        st = dpt_evaluation_bind_direction(ev, &cells.source,
                                           significance_key(ev->inputs, edit, spec));
    dpt_cell_gradient_destroy(&cells);
    double *terms = dpt_mem_zalloc(samples * ev->inputs->catalog->count, sizeof *terms, "slopes");
    double *column = dpt_mem_alloc(samples, sizeof *column, "slopes of a tensor");
    if (st == DPT_OK && (terms == NULL || column == NULL))
        st = DPT_ERR_OUTPUT;
    st = dpt_agree(world, st);
    if (st == DPT_OK)
        st = dpt_evaluation_tensor_slopes(ev, d, 0.0, terms);
    if (st == DPT_OK)
        st = dpt_agree(world, significance_judge(ev, d, terms, column, slopes));
    dpt_mem_free(column);
    dpt_mem_free(terms);
    return st;
}
