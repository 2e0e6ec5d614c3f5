#include "edited.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/phase.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/linalg/reduce.h"

#include <math.h>

dpt_status dpt_edited_form(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                           dpt_quantiser **out) {
    *out = NULL;
    return inputs->job->requantises ? dpt_quantiser_create(comm, inputs->post, shard, out) : DPT_OK;
}

dpt_status dpt_edited_open(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                           const dpt_resources *resources, dpt_evaluation *evaluation,
                           dpt_field **out) {
    DPT_ASSERT_SAME(comm, evaluation == NULL);
    dpt_status st = DPT_OK;
    if (evaluation != NULL) {
        dpt_model_release_work(evaluation->model);
        int64_t lacks = dpt_mem_available() < dpt_resources_edit_bytes(resources);
        st = dpt_agree(comm, dpt_comm_max_i64(comm, &lacks, 1));
        if (st == DPT_OK && lacks)
            st = dpt_evaluation_bind(evaluation, NULL, 0);
    }
    dpt_comm_phase("edit");
    return st != DPT_OK ? st : dpt_field_create(comm, &inputs->out_catalog, shard, out);
}

enum { PIECE = 4096, SUMS = 2, CHANGED = 0, SQUARES = 1 };

/* Sums of E over own cells of quantised tensors: (SUMS) rows of (cells). */
typedef struct edited_sums {
    const dpt_inputs *inputs;
    const dpt_shard *shard;
    dpt_field *edited;
    char *post; /* (DPT_CELL) */
    double *cells;
} edited_sums;

static void edited_add(const edited_sums *s, dpt_range cell, int64_t c) {
    dpt_dtype dtype = s->inputs->catalog->tensors[cell.tensor].dtype;
    int64_t size = dpt_dtype_size(dtype);
    const char *values = dpt_field_cell(s->edited, c);
    float edit[PIECE], post[PIECE];
    for (int64_t at = 0; at < cell.n; at += PIECE) {
        int64_t n = cell.n - at < PIECE ? cell.n - at : PIECE, changed = 0;
        dpt_dtype_to_f32(dtype, values + at * size, edit, n);
        dpt_dtype_to_f32(dtype, s->post + at * size, post, n);
        for (int64_t i = 0; i < n; i++) {
            edit[i] -= post[i];
            changed += edit[i] != 0.0F;
        }
        s->cells[CHANGED * s->shard->cells + c] += (double)changed;
        s->cells[SQUARES * s->shard->cells + c] += dpt_reduce_square(edit, n);
    }
}

static dpt_status edited_sum(const edited_sums *s, const dpt_quantiser *q, int rank) {
    dpt_source post = dpt_store_source(s->inputs->post);
    dpt_status st = DPT_OK;
    for (int64_t c = s->shard->rank_first[rank]; c < s->shard->rank_first[rank + 1] && st == DPT_OK;
         c++) {
        dpt_range cell = dpt_shard_cell(s->shard, c);
        if (!dpt_quantiser_takes(q, cell.tensor))
            continue;
        st = post.read(post.ctx, cell, s->post);
        if (st == DPT_OK)
            edited_add(s, cell, c);
    }
    return st;
}

static dpt_status edited_report(const dpt_comm *comm, const dpt_quantiser *q, edited_sums *s,
                                double *totals, dpt_edit_report *report) {
    int count = report->ntensors;
    dpt_status st = s->cells != NULL && s->post != NULL && totals != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = edited_sum(s, q, comm->rank);
    st = dpt_agree(comm, st);
    for (int i = 0; i < SUMS && st == DPT_OK; i++)
        st = dpt_agree(comm, dpt_reduce_totals(comm, count, s->shard->first_cell,
                                               s->cells + i * s->shard->cells, totals + i * count));
    for (int t = 0; t < count && st == DPT_OK; t++) {
        if (!dpt_quantiser_takes(q, t))
            continue;
        report->stats[t].changed = (int64_t)totals[CHANGED * count + t];
        report->stats[t].edit_norm = sqrt(totals[SQUARES * count + t]);
    }
    return st;
}

/* The cells of this rank, as they are. */
static dpt_status edited_write(const dpt_comm *comm, const dpt_shard *shard, dpt_field *edited,
                               dpt_store_writer *writer) {
    dpt_sink sink = dpt_store_writer_sink(writer);
    dpt_status st = DPT_OK;
    int64_t end = shard->rank_first[comm->rank + 1];
    for (int64_t c = shard->rank_first[comm->rank]; c < end && st == DPT_OK; c++) {
        st = dpt_stop_check();
        if (st == DPT_OK)
            st = sink.write(sink.ctx, dpt_shard_cell(shard, c), dpt_field_cell(edited, c));
    }
    return st;
}

static dpt_status edited_correct(const dpt_comm *comm, const dpt_inputs *inputs,
                                 const dpt_shard *shard, const dpt_quantiser *quantiser,
                                 dpt_field *edited, dpt_edit_report *report) {
    edited_sums sums = {.inputs = inputs, .shard = shard, .edited = edited};
    sums.post = dpt_mem_alloc(DPT_CELL, sizeof(double), "cell of the post-trained model");
    sums.cells = dpt_mem_zalloc(SUMS * shard->cells, sizeof *sums.cells, "sums of an edit");
    double *totals = dpt_mem_zalloc((int64_t)SUMS * report->ntensors, sizeof *totals, "sums");
    dpt_status st = edited_report(comm, quantiser, &sums, totals, report);
    dpt_mem_free(sums.post);
    dpt_mem_free(sums.cells);
    dpt_mem_free(totals);
    return st;
}

dpt_status dpt_edited_finish(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                             dpt_quantiser *quantiser, dpt_field *edited, dpt_store_writer *writer,
                             dpt_edit_report *report) {
    DPT_ASSERT_SAME(comm, quantiser == NULL);
    DPT_ASSERT_SAME(comm, report == NULL);
    if (quantiser == NULL)
        return dpt_agree(comm, writer != NULL ? edited_write(comm, shard, edited, writer) : DPT_OK);
    dpt_status st = dpt_quantiser_apply(quantiser, edited, writer);
    if (st == DPT_OK && report != NULL)
        st = edited_correct(comm, inputs, shard, quantiser, edited, report);
    return st;
}
