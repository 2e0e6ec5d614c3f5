#include "slab.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/tensor/redist.h"

int64_t dpt_edit_slab_elements(const dpt_edit_slab *m) {
    return m->of == NULL ? 0 : (m->last_row - m->first_row) * m->of->stored.cols;
}

/* Elements of the slab [at, ...) that follow each other in the tensor too, at most `n`. */
static dpt_range slab_run(const dpt_edit_slab *m, int64_t at, int64_t n) {
    const dpt_layout *stored = &m->of->stored;
    int64_t row = m->first_row + at / stored->cols, col = at % stored->cols;
    int64_t rows = 1;
    if (stored->row_stride == stored->cols) { /* to the end of its run of rows, or of the slab */
        int64_t end = (row / stored->run + 1) * stored->run;
        rows = (end < m->last_row ? end : m->last_row) - row;
    }
    int64_t run = rows * stored->cols - col;
    return (dpt_range){.tensor = m->of->tensor,
                       .ig = dpt_layout_place(stored, row, 0) + col,
                       .n = run < n ? run : n};
}

/* A step of an exchange, as runs of tensors. */
typedef struct exchange {
    int64_t n, count;
    dpt_range *runs;  /* (count) */
    dpt_block *wants; /* (count) the same */
    void **a, **b;    /* (count) places of a buffer for each run */
} exchange;

static void exchange_free(exchange *e) {
    dpt_mem_free(e->runs);
    dpt_mem_free(e->wants);
    dpt_mem_free(e->a);
    dpt_mem_free(e->b);
    *e = (exchange){.n = 0};
}

int64_t dpt_edit_slabs_steps(const dpt_edit_slabs *slabs) {
    DPT_ASSERT(slabs->count <= 1 || slabs->elements <= DPT_EDIT_CHUNK);
    return (slabs->elements + DPT_EDIT_CHUNK - 1) / DPT_EDIT_CHUNK;
}

enum { ALIGNED = 8 }; /* bytes to which the values of a tensor are moved up, of whatever type */

int64_t dpt_edit_slabs_room(const dpt_edit_slabs *slabs) {
    int64_t step = slabs->elements < DPT_EDIT_CHUNK ? slabs->elements : DPT_EDIT_CHUNK;
    return step * (int64_t)sizeof(float) + (int64_t)slabs->count * ALIGNED;
}

/* Runs of a slab in a step, after those that there are; only counted where there is no room. */
static void exchange_add(const dpt_edit_slab *m, int64_t step, exchange *e) {
    int64_t at = step * DPT_EDIT_CHUNK, end = dpt_edit_slab_elements(m);
    end = end - at < DPT_EDIT_CHUNK ? end : at + DPT_EDIT_CHUNK;
    while (at < end) {
        dpt_range run = slab_run(m, at, end - at);
        if (e->runs != NULL) {
            e->runs[e->count] = run;
            e->wants[e->count] = dpt_block_of_range(run);
        }
        e->count++;
        e->n += run.n;
        at += run.n;
    }
}

static dpt_status exchange_make(const dpt_edit_slabs *slabs, int64_t step, exchange *e) {
    *e = (exchange){.n = 0};
    for (int k = 0; k < slabs->count; k++)
        exchange_add(&slabs->items[k], step, e);
    e->runs = dpt_mem_alloc(e->count, sizeof *e->runs, "exchange of rows");
    e->wants = dpt_mem_alloc(e->count, sizeof *e->wants, "exchange of rows");
    e->a = dpt_mem_alloc(e->count, sizeof *e->a, "exchange of rows");
    e->b = dpt_mem_alloc(e->count, sizeof *e->b, "exchange of rows");
    if (e->runs == NULL || e->wants == NULL || e->a == NULL || e->b == NULL)
        return DPT_ERR_OUTPUT;
    e->n = e->count = 0;
    for (int k = 0; k < slabs->count; k++)
        exchange_add(&slabs->items[k], step, e);
    return DPT_OK;
}

/* Places of the runs in a buffer that has their values in the types of a catalog, one after the other. */
static void exchange_place(const exchange *e, void *buffer, const dpt_catalog *types,
                           void **places) {
    int64_t at = 0;
    for (int64_t i = 0; i < e->count; i++) {
        int tensor = e->runs[i].tensor;
        if (i > 0 && tensor != e->runs[i - 1].tensor)
            at = (at + ALIGNED - 1) / ALIGNED * ALIGNED;
        places[i] = (char *)buffer + at;
        at += e->runs[i].n * dpt_dtype_size(types->tensors[tensor].dtype);
    }
}

/* Places of the runs in the deltas, which follow each other. */
static void exchange_place_deltas(const exchange *e, float *delta, void **places) {
    for (int64_t i = 0; i < e->count; i++) {
        places[i] = delta;
        delta += e->runs[i].n;
    }
}

/* Deltas of one run from what is stored. Local. */
static bool slab_subtract(const dpt_edit_work *work, dpt_range run, const char *pre,
                          const char *post, float *delta) {
    int64_t pre_size = dpt_dtype_size(dpt_edit_pre_type(work, run.tensor));
    int64_t post_size = dpt_dtype_size(work->catalog->tensors[run.tensor].dtype);
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int64_t at = 0; at < run.n; at += DPT_EDIT_PIECE) {
        int64_t n = run.n - at < DPT_EDIT_PIECE ? run.n - at : DPT_EDIT_PIECE;
        bad |= !dpt_edit_subtract(work, run.tensor, n, pre + at * pre_size, post + at * post_size,
                                  delta + at, dpt_edit_scratch(work, 0));
    }
    return !bad;
}

/* Deltas of a step from what is stored. Collective. */
static dpt_status exchange_fetch_stored(dpt_edit_work *work, const exchange *e, void *pre,
                                        void *post, float *delta) {
    const dpt_edit_input *input = work->input;
    exchange_place(e, pre, input->pre.catalog, e->a);
    exchange_place(e, post, work->catalog, e->b);
    dpt_status st = input->post.fetch(input->post.ctx, e->count, e->wants, e->b);
    dpt_status pre_st = input->pre.fetch(input->pre.ctx, e->count, e->wants, e->a);
    st = dpt_agree(input->comm, st != DPT_OK ? st : pre_st);
    for (int64_t i = 0; i < e->count && st == DPT_OK; i++) {
        if (!slab_subtract(work, e->runs[i], e->a[i], e->b[i], delta))
            return dpt_edit_bad_value(work, e->runs[i], e->a[i], e->b[i]);
        delta += e->runs[i].n;
    }
    return st;
}

/* Deltas of a step as the stages before this one left them. Collective. */
static dpt_status exchange_fetch(dpt_edit_work *work, const dpt_edit_stage *stage,
                                 const dpt_edit_slabs *slabs, int64_t step, void *pre, void *post,
                                 bool follows) {
    exchange e;
    const dpt_comm *comm = work->input->comm;
    dpt_status st = dpt_agree(comm, exchange_make(slabs, step, &e));
    float *delta = e.n > 0 ? slabs->values + step * DPT_EDIT_CHUNK : NULL;
    if (st == DPT_OK && follows) {
        exchange_place_deltas(&e, delta, e.a);
        st = dpt_redist_gather(comm, &work->wide_shard, (const void *const *)work->base, e.count,
                               e.wants, e.a);
    } else if (st == DPT_OK) {
        st = exchange_fetch_stored(work, &e, pre, post, delta);
    }
    for (int64_t i = 0; st == DPT_OK && i < e.count; i++) {
        dpt_edit_apply(work, work->base_stage[e.runs[i].tensor], stage->index, e.runs[i], delta);
        delta += e.runs[i].n;
    }
    exchange_free(&e);
    return dpt_agree(comm, st);
}

dpt_status dpt_edit_slabs_fetch(dpt_edit_work *work, const dpt_edit_stage *stage,
                                const dpt_edit_slabs *slabs, int64_t steps, void *pre, void *post,
                                bool follows) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++)
        st = exchange_fetch(work, stage, slabs, s, pre, post, follows);
    return st;
}

dpt_status dpt_edit_slabs_scatter(dpt_edit_work *work, const dpt_edit_slabs *slabs, int64_t steps) {
    DPT_ASSERT_SAME(work->input->comm, steps);
    dpt_status st = DPT_OK;
    for (int64_t s = 0; st == DPT_OK && s < steps; s++) {
        exchange e;
        st = dpt_agree(work->input->comm, exchange_make(slabs, s, &e));
        if (st == DPT_OK) {
            exchange_place_deltas(&e, e.n > 0 ? slabs->values + s * DPT_EDIT_CHUNK : NULL, e.a);
            st = dpt_redist_scatter(work->input->comm, &work->wide_shard, (void *const *)work->base,
                                    e.count, e.runs, (const void *const *)e.a);
        }
        exchange_free(&e);
    }
    return st;
}
