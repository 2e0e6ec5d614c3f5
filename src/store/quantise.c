#include "deltapath/store/quantise.h"

#include "dequantise.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 2048 };

/* A block without values of this size is stored as zeros: its scale would have lost digits. */
static const float SMALLEST = 0x1p-100F;

struct dpt_quantiser {
    const dpt_comm *comm;
    dpt_store *like;
    const dpt_store_header *header;
    const dpt_shard *shard; /* of the plain tensors */
    dpt_catalog catalog;    /* (entries of the header) */
    dpt_shard stored_shard;
    bool powers;   /* of two are the scales */
    bool *written; /* (entries) by tensors of the plain catalog */
    char *stored;  /* (DPT_CELL) values of a cell of like */
    char *codes;   /* (DPT_CELL) */
};

/* One tensor at work; blocks are those of the file. */
typedef struct quantise_task {
    const dpt_quantiser *q;
    dpt_field *edited;
    dpt_store_writer *writer;
    const dpt_store_form *form;
    int tensor;
    dpt_dtype plain, code, scale; /* types */
    int64_t blocks;
    float *largest; /* (blocks) magnitude in the edited tensor */
    float *changed; /* (blocks) 1: the edit changes a value of it */
    float *scales;  /* (blocks) */
    char *stored_scales;
} quantise_task;

static float quantise_most(dpt_dtype dtype) {
    return dtype == DPT_F8_E4M3 ? 448.0F : 57344.0F;
}

/* What of f8 has scales from which others of their type can be made, and MXFP4 whose codes its values tell. */
static bool quantise_knows(const dpt_store *like, int tensor) {
    const dpt_store_form *form = dpt_store_form_of(like, tensor);
    const dpt_store_header *header = dpt_store_header_of(like);
    dpt_dtype code = header->entries[form->entry].dtype;
    dpt_dtype scale = header->entries[form->scales].dtype;
    if (form->kind == DPT_STORE_MXFP4)
        return dpt_store_catalog(like)->tensors[tensor].dtype != DPT_F16;
    return (code == DPT_F8_E4M3 || code == DPT_F8_E5M2) && (scale == DPT_F32 || scale == DPT_BF16);
}

dpt_status dpt_quantiser_check(const dpt_store *like) {
    const dpt_catalog *catalog = dpt_store_catalog(like);
    int quantised = 0;
    if (dpt_store_header_of(like)->adapter != NULL)
        return dpt_error(DPT_ERR_USAGE,
                         "%s: a PEFT adapter, whose sum with its base is plain: leave "
                         "output.quantise out",
                         dpt_store_path(like));
    for (int t = 0; t < catalog->count; t++) {
        char text[96];
        int64_t bytes;
        if (!dpt_store_quantised(like, t, text, sizeof text, &bytes))
            continue;
        quantised++;
        if (!quantise_knows(like, t))
            return dpt_error(DPT_ERR_USAGE,
                             "%s: tensor %.300s is %s, which is read but not written: leave "
                             "output.quantise out",
                             dpt_store_path(like), catalog->tensors[t].name, text);
    }
    if (quantised == 0)
        return dpt_error(DPT_ERR_USAGE, "%s: no tensor is quantised: leave output.quantise out",
                         dpt_store_path(like));
    return DPT_OK;
}

static bool quantise_in_powers(const char *config) {
    json_t *root = config != NULL ? json_loads(config, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *own = json_object_get(root, "quantization_config");
    const char *format = json_string_value(json_object_get(own, "scale_fmt"));
    bool powers = format != NULL && strcmp(format, "ue8m0") == 0;
    json_decref(root);
    return powers;
}

static dpt_status quantise_prepare(dpt_quantiser *q) {
    const dpt_store_header *header = q->header;
    dpt_status st = dpt_quantiser_check(q->like);
    dpt_catalog_init(&q->catalog);
    for (int64_t i = 0; i < header->count && st == DPT_OK; i++)
        st = dpt_catalog_add(&q->catalog, header->entries[i].name, header->entries[i].dtype,
                             header->entries[i].ndim, header->entries[i].shape);
    if (st == DPT_OK)
        st = dpt_shard_create(&q->catalog, q->comm->size, &q->stored_shard);
    if (st == DPT_OK)
        st = DPT_STORE_NEW(q->written, header->count, "tensors of a model");
    q->powers = quantise_in_powers(header->config);
    q->stored = st == DPT_OK ? dpt_mem_alloc(DPT_CELL, sizeof(double), "cell") : NULL;
    q->codes = st == DPT_OK ? dpt_mem_alloc(DPT_CELL, 1, "codes of a cell") : NULL;
    return st == DPT_OK && (q->stored == NULL || q->codes == NULL) ? DPT_ERR_OUTPUT : st;
}

dpt_status dpt_quantiser_create(const dpt_comm *comm, dpt_store *like, const dpt_shard *shard,
                                dpt_quantiser **out) {
    DPT_ASSERT_SAME(comm, dpt_store_fingerprint(like));
    dpt_quantiser *q = NULL;
    dpt_status st = DPT_STORE_NEW(q, 1, "quantised form");
    if (st == DPT_OK) {
        *q = (dpt_quantiser){
            .comm = comm, .like = like, .header = dpt_store_header_of(like), .shard = shard};
        st = quantise_prepare(q);
    }
    st = dpt_agree(comm, st);
    if (st != DPT_OK) {
        dpt_quantiser_destroy(q);
        q = NULL;
    }
    *out = q;
    return st;
}

void dpt_quantiser_destroy(dpt_quantiser *q) {
    if (q == NULL)
        return;
    dpt_mem_free(q->stored);
    dpt_mem_free(q->codes);
    dpt_mem_free(q->written);
    dpt_shard_destroy(&q->stored_shard);
    dpt_catalog_destroy(&q->catalog);
    dpt_mem_free(q);
}

const dpt_catalog *dpt_quantiser_catalog(const dpt_quantiser *q) {
    return &q->catalog;
}

const dpt_shard *dpt_quantiser_shard(const dpt_quantiser *q) {
    return &q->stored_shard;
}

const char *dpt_quantiser_config(const dpt_quantiser *q) {
    return q->header->config;
}

bool dpt_quantiser_takes(const dpt_quantiser *q, int tensor) {
    return dpt_store_form_of(q->like, tensor)->kind != DPT_STORE_PLAIN;
}

/* Elements of an entry, to the writer of the task; nothing without one. */
static dpt_status quantise_write(const quantise_task *task, int64_t entry, int64_t ig, int64_t n,
                                 const void *data) {
    if (task->writer == NULL)
        return DPT_OK;
    dpt_sink sink = dpt_store_writer_sink(task->writer);
    return sink.write(sink.ctx, (dpt_range){.tensor = (int)entry, .ig = ig, .n = n}, data);
}

/* For each own cell of the tensor: its range, and its values in the edited model. */
typedef dpt_status (*quantise_cell_fn)(quantise_task *task, dpt_range cell, char *values);

static dpt_status quantise_cells(quantise_task *task, quantise_cell_fn visit) {
    const dpt_shard *shard = task->q->shard;
    int rank = task->q->comm->rank;
    int64_t begin = shard->rank_first[rank], end = shard->rank_first[rank + 1];
    const int64_t *cells = shard->first_cell + task->tensor;
    dpt_status st = DPT_OK;
    begin = begin > cells[0] ? begin : cells[0];
    end = end < cells[1] ? end : cells[1];
    for (int64_t c = begin; c < end && st == DPT_OK; c++)
        st = visit(task, dpt_shard_cell(shard, c), dpt_field_cell(task->edited, c));
    return st;
}

static dpt_status quantise_measure(quantise_task *task, dpt_range cell, char *values) {
    dpt_source post = dpt_store_source(task->q->like);
    int64_t size = dpt_dtype_size(task->plain);
    float wide[CHUNK];
    dpt_status st = post.read(post.ctx, cell, task->q->stored);
    for (int64_t at = 0; at < cell.n && st == DPT_OK;) {
        int64_t block, rest = cell.n - at < CHUNK ? cell.n - at : CHUNK;
        int64_t n = dpt_store_form_piece(task->form, cell.ig + at, rest, &block);
        float most = task->largest[block];
        dpt_dtype_to_f32(task->plain, values + at * size, wide, n);
        for (int64_t i = 0; i < n; i++)
            most = fabsf(wide[i]) > most ? fabsf(wide[i]) : most;
        task->largest[block] = most;
        if (memcmp(values + at * size, task->q->stored + at * size, (size_t)(n * size)) != 0)
            task->changed[block] = 1.0F;
        at += n;
    }
    return st;
}

/* Those of like, and new ones for what is changed; stored_scales has both. */
static dpt_status quantise_choose_scales(quantise_task *task) {
    int64_t size = dpt_dtype_size(task->scale);
    dpt_status st = dpt_store_read_entry(task->q->like, task->form->scales, 0, task->blocks,
                                         task->stored_scales);
    for (int64_t i = 0; i < task->blocks && st == DPT_OK; i++) {
        char *stored = task->stored_scales + i * size;
        float scale = task->largest[i] / quantise_most(task->code);
        int power = 0;
        if (task->largest[i] < SMALLEST)
            scale = 1.0F;
        else if (task->q->powers && frexpf(scale, &power) > 0.5F)
            scale = ldexpf(1.0F, power);
        if (task->changed[i] != 0.0F)
            dpt_dtype_from_f32(task->scale, &scale, stored, 1);
        dpt_dtype_to_f32(task->scale, stored, &task->scales[i], 1);
    }
    return st;
}

/* Codes of like stay where nothing is changed. */
static dpt_status quantise_round(quantise_task *task, dpt_range cell, char *values) {
    int64_t size = dpt_dtype_size(task->plain);
    char *codes = task->q->codes;
    float wide[CHUNK];
    dpt_status st = dpt_store_read_entry(task->q->like, task->form->entry, cell.ig, cell.n, codes);
    for (int64_t at = 0; at < cell.n && st == DPT_OK;) {
        int64_t block, rest = cell.n - at < CHUNK ? cell.n - at : CHUNK;
        int64_t n = dpt_store_form_piece(task->form, cell.ig + at, rest, &block);
        float scale = task->scales[block];
        if (task->changed[block] != 0.0F) {
            dpt_dtype_to_f32(task->plain, values + at * size, wide, n);
            for (int64_t i = 0; i < n; i++)
                wide[i] /= scale;
            dpt_dtype_from_f32(task->code, wide, codes + at, n);
            dpt_dtype_to_f32(task->code, codes + at, wide, n);
            for (int64_t i = 0; i < n; i++)
                wide[i] *= scale;
            dpt_dtype_from_f32(task->plain, wide, values + at * size, n);
        }
        at += n;
    }
    return st == DPT_OK ? quantise_write(task, task->form->entry, cell.ig, cell.n, codes) : st;
}

static dpt_status quantise_plain(quantise_task *task, dpt_range cell, char *values) {
    return quantise_write(task, task->form->entry, cell.ig, cell.n, values);
}

static dpt_status quantise_allocate(quantise_task *task) {
    const dpt_store_header *header = task->q->header;
    const dpt_store_entry *scales = &header->entries[task->form->scales];
    task->plain = dpt_store_catalog(task->q->like)->tensors[task->tensor].dtype;
    task->code = header->entries[task->form->entry].dtype;
    task->scale = scales->dtype;
    task->blocks = scales->bytes / dpt_dtype_size(scales->dtype);
    task->largest = dpt_mem_zalloc(2 * task->blocks, sizeof *task->largest, "scales of a tensor");
    task->scales = dpt_mem_alloc(task->blocks, sizeof *task->scales, "scales of a tensor");
    task->stored_scales = dpt_mem_alloc(scales->bytes, 1, "scales of a tensor");
    if (task->largest == NULL || task->scales == NULL || task->stored_scales == NULL)
        return DPT_ERR_OUTPUT;
    task->changed = task->largest + task->blocks;
    return DPT_OK;
}

/* One tensor. Collective. */
static dpt_status quantise_tensor(quantise_task *task) {
    const dpt_comm *comm = task->q->comm;
    dpt_status st = dpt_agree(comm, quantise_allocate(task));
    if (st == DPT_OK)
        st = dpt_agree(comm, quantise_cells(task, quantise_measure));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_f32(comm, task->largest, 2 * task->blocks));
    if (st == DPT_OK)
        st = quantise_choose_scales(task);
    if (st == DPT_OK)
        st = quantise_cells(task, quantise_round);
    if (st == DPT_OK && comm->rank == 0)
        st = quantise_write(task, task->form->scales, 0, task->blocks, task->stored_scales);
    dpt_mem_free(task->largest);
    dpt_mem_free(task->scales);
    dpt_mem_free(task->stored_scales);
    return dpt_agree(comm, st);
}

static dpt_status quantise_codes4(const quantise_task *task) {
    const dpt_store_mxfp4_task codes = {.comm = task->q->comm,
                                        .like = task->q->like,
                                        .shard = task->q->shard,
                                        .tensor = task->tensor,
                                        .edited = task->edited,
                                        .writer = task->writer};
    return dpt_store_quantise_mxfp4(&codes);
}

/* What the plain catalog leaves out besides scales of weights, as it is. Rank 0. */
static dpt_status quantise_copy_others(const quantise_task *task) {
    const dpt_quantiser *q = task->q;
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < q->header->count && st == DPT_OK && task->writer != NULL; i++) {
        char value[sizeof(double)];
        if (q->written[i])
            continue;
        st = dpt_store_read_entry(q->like, i, 0, 1, value); /* one element each */
        if (st == DPT_OK)
            st = quantise_write(task, i, 0, 1, value);
    }
    return st;
}

dpt_status dpt_quantiser_apply(dpt_quantiser *q, dpt_field *edited, dpt_store_writer *writer) {
    dpt_status st = DPT_OK;
    DPT_ASSERT_SAME(q->comm, writer == NULL);
    for (int t = 0; t < dpt_store_catalog(q->like)->count && st == DPT_OK; t++) {
        quantise_task task = {.q = q, .edited = edited, .writer = writer, .tensor = t};
        task.form = dpt_store_form_of(q->like, t);
        q->written[task.form->entry] = true;
        if (task.form->kind == DPT_STORE_PLAIN) {
            st =
                dpt_agree(q->comm, writer != NULL ? quantise_cells(&task, quantise_plain) : DPT_OK);
        } else {
            q->written[task.form->scales] = true;
            st = task.form->kind == DPT_STORE_MXFP4 ? quantise_codes4(&task)
                                                    : quantise_tensor(&task);
        }
    }
    quantise_task others = {.q = q, .writer = writer};
    return dpt_agree(q->comm,
                     st == DPT_OK && q->comm->rank == 0 ? quantise_copy_others(&others) : st);
}
