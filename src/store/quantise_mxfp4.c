#include "dequantise.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <math.h>

/* A group is 32 values of one row of a matrix as it lies: of one column of the plain tensor, which is transposed. The 32
 * rows of the plain tensor that hold a group of each of its columns are a band, one run of elements; a rank works on those
 * that begin among its cells, some at once, and gets and gives back what other ranks have of them. */

enum {
    GROUP = 32,
    TILE = 32,
    BATCH_ELEMENTS = 1 << 22,
    E8M0_ONE = 127, /* scale byte of 2^0; 0 is 2^-127 */
    E8M0_MOST = 254
};

/* Bands [band, band + bands) of a matrix; none: another rank has more batches. */
typedef struct mx_batch {
    int64_t matrix, band, bands;
} mx_batch;

typedef struct mx_work {
    const dpt_store_mxfp4_task *task;
    const dpt_store_form *form;
    dpt_dtype dtype;
    int64_t width, bands; /* columns of the plain matrix; its bands */
    int64_t most;         /* bands of a batch */
    char *values, *post;  /* (most, GROUP, width) */
    uint8_t *codes;       /* (TILE, most, GROUP / 2) */
    uint8_t *scales;      /* (TILE, most) */
} mx_work;

/* Code of the nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6; of two that are as near the even code. */
static int mx_nearest(float value) {
    float size = fabsf(value);
    int code = (size > 0.25F) + (size >= 0.75F) + (size > 1.25F) + (size >= 1.75F) + (size > 2.5F) +
               (size >= 3.5F) + (size > 5.0F);
    return code | (signbit(value) ? 8 : 0);
}

/* The least power of two that a scale can be under which no value exceeds the largest code; 1 where all are 0. */
static uint8_t mx_scale(const float *values) {
    float most = 0.0F;
    int power;
    for (int k = 0; k < GROUP; k++)
        most = fabsf(values[k]) > most ? fabsf(values[k]) : most;
    if (most == 0.0F)
        return E8M0_ONE;
    power = frexp((double)most / 6.0, &power) > 0.5 ? power : power - 1;
    power += E8M0_ONE;
    return (uint8_t)(power > E8M0_MOST ? E8M0_MOST : power > 0 ? power : 0);
}

/* Whether no value differs; zeros of both signs are one value. */
static bool mx_same(const float *a, const float *b) {
    bool same = true;
    for (int k = 0; k < GROUP; k++)
        same = same && a[k] == b[k];
    return same;
}

/* One group: its codes, and what they mean in place of its values. */
static void mx_round(float *values, uint8_t scale, uint8_t *codes) {
    static const float numbers[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    for (int k = 0; k < GROUP; k++) {
        int code = mx_nearest(ldexpf(values[k], E8M0_ONE - scale));
        float value = ldexpf(numbers[code & 7], scale - E8M0_ONE);
        values[k] = code & 8 ? -value : value;
        codes[k / 2] = (uint8_t)(k % 2 == 0 ? code : codes[k / 2] | code << 4);
    }
}

/* Values of one band in `rows` columns from `row` on, or back. tile (TILE, GROUP). */
static void mx_gather(const mx_work *w, const char *from, int64_t row, int64_t rows, float *tile) {
    int64_t size = dpt_dtype_size(w->dtype);
    float line[TILE];
    for (int k = 0; k < GROUP; k++) {
        dpt_dtype_to_f32(w->dtype, from + (k * w->width + row) * size, line, rows);
        for (int64_t r = 0; r < rows; r++)
            tile[r * GROUP + k] = line[r];
    }
}

static void mx_scatter(const mx_work *w, const float *tile, int64_t row, int64_t rows, char *to) {
    int64_t size = dpt_dtype_size(w->dtype);
    float line[TILE];
    for (int k = 0; k < GROUP; k++) {
        for (int64_t r = 0; r < rows; r++)
            line[r] = tile[r * GROUP + k];
        dpt_dtype_from_f32(w->dtype, line, to + (k * w->width + row) * size, rows);
    }
}

/* First element of a batch's row of codes or scales, of `each` elements a group. */
static int64_t mx_place(const mx_work *w, const mx_batch *batch, int64_t row, int64_t each) {
    return ((batch->matrix * w->width + row) * w->bands + batch->band) * each;
}

static dpt_status mx_write(const mx_work *w, const mx_batch *batch, int64_t row, int64_t rows) {
    dpt_status st = DPT_OK;
    if (w->task->writer == NULL)
        return DPT_OK;
    dpt_sink sink = dpt_store_writer_sink(w->task->writer);
    for (int64_t r = 0; r < rows && st == DPT_OK; r++) {
        dpt_range codes = {.tensor = (int)w->form->entry, .n = batch->bands * GROUP / 2};
        dpt_range scales = {.tensor = (int)w->form->scales, .n = batch->bands};
        codes.ig = mx_place(w, batch, row + r, GROUP / 2);
        scales.ig = mx_place(w, batch, row + r, 1);
        st = sink.write(sink.ctx, codes, w->codes + r * batch->bands * GROUP / 2);
        if (st == DPT_OK)
            st = sink.write(sink.ctx, scales, w->scales + r * batch->bands);
    }
    return st;
}

/* Some columns of all bands of a batch. What is as in post keeps its scale, and so its codes but for signs of zeros:
 * values are exact. */
static dpt_status mx_columns(const mx_work *w, const mx_batch *batch, int64_t row, int64_t rows) {
    int64_t band_bytes = GROUP * w->width * dpt_dtype_size(w->dtype);
    float tile[TILE * GROUP], post[TILE * GROUP];
    dpt_status st = DPT_OK;
    for (int64_t r = 0; r < rows && st == DPT_OK; r++)
        st = dpt_store_read_entry(w->task->like, w->form->scales, mx_place(w, batch, row + r, 1),
                                  batch->bands, w->scales + r * batch->bands);
    for (int64_t b = 0; b < batch->bands && st == DPT_OK; b++) {
        mx_gather(w, w->values + b * band_bytes, row, rows, tile);
        mx_gather(w, w->post + b * band_bytes, row, rows, post);
        for (int64_t r = 0; r < rows; r++) {
            float *group = tile + r * GROUP;
            uint8_t *scale = &w->scales[r * batch->bands + b];
            if (!mx_same(group, post + r * GROUP))
                *scale = mx_scale(group);
            mx_round(group, *scale, w->codes + (r * batch->bands + b) * GROUP / 2);
        }
        mx_scatter(w, tile, row, rows, w->values + b * band_bytes);
    }
    return st == DPT_OK ? mx_write(w, batch, row, rows) : st;
}

static dpt_range mx_range(const mx_work *w, const mx_batch *batch) {
    int64_t band = GROUP * w->width;
    return (dpt_range){.tensor = w->task->tensor,
                       .ig = (batch->matrix * w->bands + batch->band) * band,
                       .n = batch->bands * band};
}

/* Collective: every rank with a batch, or none. */
static dpt_status mx_run_batch(mx_work *w, const mx_batch *batch, dpt_status st) {
    dpt_source field = dpt_field_source(w->task->edited);
    dpt_sink back = dpt_field_sink(w->task->edited);
    dpt_source like = dpt_store_source(w->task->like);
    int64_t count = batch->bands > 0 ? 1 : 0;
    dpt_range range = mx_range(w, batch);
    dpt_block want = dpt_block_of_range(range);
    void *out = w->values;
    st = dpt_agree(w->task->comm, st);
    if (st == DPT_OK)
        st = field.fetch(field.ctx, count, &want, &out);
    if (st == DPT_OK && count > 0)
        st = like.read(like.ctx, range, w->post);
    for (int64_t row = 0; row < w->width && count > 0 && st == DPT_OK; row += TILE)
        st = mx_columns(w, batch, row, w->width - row < TILE ? w->width - row : TILE);
    st = dpt_agree(w->task->comm, st);
    const void *values = w->values;
    return st == DPT_OK ? back.scatter(back.ctx, count, &range, &values) : st;
}

static dpt_status mx_allocate_work(mx_work *w) {
    int64_t band = GROUP * w->width, values = 0;
    w->most = band > 0 ? BATCH_ELEMENTS / band : 0;
    w->most = w->most < 1 ? 1 : w->most > w->bands ? w->bands : w->most;
    if (!dpt_mem_mul(w->most, band, &values))
        return dpt_error(DPT_ERR_OUTPUT, "a tensor is too large to be quantised");
    w->values = dpt_mem_alloc(values, (size_t)dpt_dtype_size(w->dtype), "bands of a tensor");
    w->post = dpt_mem_alloc(values, (size_t)dpt_dtype_size(w->dtype), "bands of a tensor");
    w->codes = dpt_mem_alloc(w->most * TILE, GROUP / 2, "codes of a tensor");
    w->scales = dpt_mem_alloc(w->most * TILE, 1, "scales of a tensor");
    bool whole = w->values != NULL && w->post != NULL && w->codes != NULL && w->scales != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Bands from `next` on that make a batch: of one matrix, before `end`. */
static mx_batch mx_next(const mx_work *w, int64_t next, int64_t end) {
    mx_batch batch = {.bands = 0};
    if (next >= end)
        return batch;
    batch.matrix = next / w->bands;
    batch.band = next % w->bands;
    batch.bands = w->bands - batch.band < w->most ? w->bands - batch.band : w->most;
    batch.bands = end - next < batch.bands ? end - next : batch.bands;
    return batch;
}

static dpt_status mx_run(mx_work *w) {
    const dpt_comm *comm = w->task->comm;
    int64_t band = GROUP * w->width, begin, end, batches = 0;
    dpt_status st = mx_allocate_work(w);
    dpt_shard_owned(w->task->shard, comm->rank, w->task->tensor, &begin, &end);
    begin = (begin + band - 1) / band; /* the first that begins there */
    end = (end + band - 1) / band;
    for (int64_t next = begin; next < end; next += mx_next(w, next, end).bands)
        batches++;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_i64(comm, &batches, 1));
    for (int64_t i = 0, next = begin; i < batches && st == DPT_OK; i++) {
        mx_batch batch = mx_next(w, next, end);
        st = mx_run_batch(w, &batch, st);
        next += batch.bands;
    }
    return dpt_agree(comm, st);
}

dpt_status dpt_store_quantise_mxfp4(const dpt_store_mxfp4_task *task) {
    const dpt_tensor_info *info = &dpt_store_catalog(task->like)->tensors[task->tensor];
    const dpt_store_form *form = dpt_store_form_of(task->like, task->tensor);
    mx_work w = {.task = task,
                 .form = form,
                 .dtype = info->dtype,
                 .width = form->rows,
                 .bands = form->cols / GROUP};
    dpt_status st = info->numel > 0 ? mx_run(&w) : DPT_OK;
    dpt_mem_free(w.values);
    dpt_mem_free(w.post);
    dpt_mem_free(w.codes);
    dpt_mem_free(w.scales);
    return st;
}
