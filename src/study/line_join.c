#include "line_join.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>

/* Up to this share of abs(E) the weights of an edit may lie off the multiple of its lead: see doc/architecture.md. */
static const double LINE_MOST = 1e-3;

/* Takes the lead cell by cell and adds up how far the edit is from its multiple. */
typedef struct line_sink {
    const dpt_edit_input *input;
    const dpt_catalog *catalog; /* of what is written */
    dpt_source edited;
    double factor;
    void *stored;              /* (DPT_CELL) of the largest type */
    float *lead, *post, *edit; /* (DPT_CELL) */
    double *sums;              /* (tensors, 2) of the squares of the distance, and of E */
} line_sink;

static dpt_status line_write(void *ctx, dpt_range range, const void *values) {
    const line_sink *sink = ctx;
    dpt_dtype type = sink->catalog->tensors[range.tensor].dtype;
    const dpt_source *post = &sink->input->post;
    double *sums = sink->sums + 2 * (int64_t)range.tensor;
    if (!dpt_dtype_editable(type))
        return DPT_OK;
    dpt_status st = post->read(post->ctx, range, sink->stored);
    if (st != DPT_OK)
        return st;
    dpt_dtype_to_f32(post->catalog->tensors[range.tensor].dtype, sink->stored, sink->post, range.n);
    st = sink->edited.read(sink->edited.ctx, range, sink->stored);
    if (st != DPT_OK)
        return st;
    dpt_dtype_to_f32(type, sink->stored, sink->edit, range.n);
    dpt_dtype_to_f32(type, values, sink->lead, range.n);
    for (int64_t i = 0; i < range.n; i++) {
        double edit = (double)sink->edit[i] - (double)sink->post[i];
        double lead = (double)sink->lead[i] - (double)sink->post[i];
        double apart = edit - sink->factor * lead;
        sums[0] += apart * apart;
        sums[1] += edit * edit;
    }
    return DPT_OK;
}

static dpt_status line_sink_create(const dpt_edit_input *input, const dpt_line *line,
                                   dpt_field *edited, line_sink *out) {
    *out = (line_sink){.input = input, .edited = dpt_field_source(edited), .factor = line->factor};
    out->catalog = out->edited.catalog;
    out->stored = dpt_mem_alloc(DPT_CELL, sizeof(double), "cell of a model");
    out->lead = dpt_mem_alloc(DPT_CELL, sizeof *out->lead, "cell of a model");
    out->post = dpt_mem_alloc(DPT_CELL, sizeof *out->post, "cell of a model");
    out->edit = dpt_mem_alloc(DPT_CELL, sizeof *out->edit, "cell of a model");
    out->sums = dpt_mem_zalloc(2 * (int64_t)out->catalog->count, sizeof *out->sums, "sums");
    bool whole = out->stored != NULL && out->lead != NULL && out->post != NULL &&
                 out->edit != NULL && out->sums != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

static void line_sink_destroy(line_sink *sink) {
    dpt_mem_free(sink->stored);
    dpt_mem_free(sink->lead);
    dpt_mem_free(sink->post);
    dpt_mem_free(sink->edit);
    dpt_mem_free(sink->sums);
}

/* The tensor that is farthest from its multiple; -1 where none is apart from it. */
static int line_find_most(const line_sink *sink, double *most) {
    int tensor = -1;
    *most = 0.0;
    for (int t = 0; t < sink->catalog->count; t++) {
        const double *sums = sink->sums + 2 * (int64_t)t;
        double share = sums[1] > 0.0 ? sqrt(sums[0] / sums[1]) : INFINITY;
        if (sums[0] > 0.0 && share > *most) {
            *most = share;
            tensor = t;
        }
    }
    return tensor;
}

static dpt_status line_measure(const dpt_line *line, const dpt_edit_spec *lead,
                               const dpt_edit_input *input, dpt_field *edited, double *most,
                               int *tensor) {
    line_sink keeper;
    dpt_status st = dpt_agree(input->comm, line_sink_create(input, line, edited, &keeper));
    dpt_sink sink = {.ctx = &keeper, .catalog = keeper.catalog, .write = line_write};
    if (st == DPT_OK)
        st = dpt_edit_run(lead, input, sink, NULL);
    if (st == DPT_OK)
        st = dpt_agree(input->comm, dpt_comm_sum_f64(input->comm, keeper.sums,
                                                     2 * (int64_t)keeper.catalog->count));
    if (st == DPT_OK)
        *tensor = line_find_most(&keeper, most);
    line_sink_destroy(&keeper);
    return st;
}

static dpt_status line_note(dpt_auto_alpha *notes, const char *lead, double factor,
                            double rounding) {
    dpt_status st = dpt_auto_alpha_note(notes, "path_of", "%s", lead);
    if (st == DPT_OK)
        st = dpt_auto_alpha_note(notes, "path_factor", "%.9g", factor);
    return st == DPT_OK ? dpt_auto_alpha_note(notes, "path_rounding", "%.2e", rounding) : st;
}

dpt_status dpt_line_join(const dpt_inputs *in, const dpt_edit_input *input, int e,
                         dpt_field *edited, dpt_line *line, dpt_auto_alpha *notes) {
    DPT_ASSERT_SAME(input->comm, e);
    const dpt_job_edit *edits = in->job->edits, *lead = &edits[line->lead];
    int tensor = -1;
    double rounding = 0.0;
    if (line->slopes == NULL || line->lead == e)
        return DPT_OK;
    dpt_status st = line_measure(line, &lead->spec, input, edited, &rounding, &tensor);
    int64_t apart = !(rounding <= LINE_MOST);
    if (st == DPT_OK)
        st = dpt_agree(input->comm, dpt_comm_max_i64(input->comm, &apart, 1));
    if (st != DPT_OK)
        return st;
    const char *name = tensor >= 0 ? in->catalog->tensors[tensor].name : "no tensor";
    if (!apart) {
        dpt_log(DPT_LOG_INFO,
                "%s: its path is that of %s, times %.6g, to %.1e of its size (%s): passes are "
                "shared",
                edits[e].id, lead->id, line->factor, rounding, name);
        return dpt_agree(input->comm, line_note(notes, lead->id, line->factor, rounding));
    }
    dpt_log(DPT_LOG_INFO,
            "%s: is %.6g times %s but for rounding to the type of the output, %.1e of its size "
            "in %s: no pass is shared",
            edits[e].id, line->factor, lead->id, rounding, name);
    *line = (dpt_line){.lead = e, .factor = 1.0};
    return DPT_OK;
}

int64_t dpt_line_bytes(const dpt_inputs *in) {
    dpt_lines lines;
    bool any = false;
    if (dpt_lines_create(in, false, &lines) != DPT_OK)
        return 0; /* what follows finds no memory either, and says so */
    for (int e = 0; e < in->job->nedits; e++)
        any = any || lines.edits[e].slopes != NULL;
    dpt_lines_destroy(&lines);
    return any ? DPT_CELL * (int64_t)(sizeof(double) + 3 * sizeof(float)) : 0;
}
