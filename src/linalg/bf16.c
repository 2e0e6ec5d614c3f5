#include "deltapath/linalg/bf16.h"

#include "deltapath/base/mem.h"

#include <dnnl.h>
#include <inttypes.h>
#include <string.h>

enum {
    BF16_KEPT = 512,  /* shapes: batches of other lengths come and go */
    BF16_UNEVEN = 32, /* rows, where calls of many lengths are cut */
    BF16_PROBE_SIDE = 64,
    /* With AMX oneDNN 2.6 ends in an illegal instruction at this inner size, for some M and N that are no multiples of
     * 16. It is cut in two, of which the first is this long. */
    BF16_BROKEN = 63,
    BF16_BROKEN_CUT = 32
};

/* What oneDNN has made for a shape. */
typedef struct bf16_made {
    dpt_bf16_shape shape;
    int64_t
        row; /* elements from row to row of what has K columns: K, or more of a product that is cut */
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
    int64_t used; /* number of the product that used it last */
} bf16_made;

struct dpt_bf16 {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bf16_made made[BF16_KEPT];
    int count, last;
    int64_t products;
    dpt_status status;
};

/* @param[in] row elements from row to row, of `transposed` from column to column. */
static dnnl_status_t bf16_describe(int64_t rows, int64_t cols, bool transposed, int64_t row,
                                   dnnl_data_type_t type, dnnl_memory_desc_t *out) {
    dnnl_dims_t dims = {rows, cols};
    dnnl_dims_t strides = {transposed ? 1 : row, transposed ? row : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

/* Descriptions of the three matrices, and of the product, which the caller destroys. */
static dnnl_status_t bf16_plan(dnnl_engine_t engine, const dpt_bf16_shape *s, int64_t row,
                               dnnl_memory_desc_t md[3], dnnl_primitive_desc_t *out) {
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_status_t st =
        bf16_describe(s->M, s->K, s->trans_a, s->trans_a ? s->M : row, dnnl_bf16, &md[0]);
    if (st == dnnl_success)
        st = bf16_describe(s->K, s->N, s->trans_b, s->trans_b ? row : s->N, dnnl_bf16, &md[1]);
    if (st == dnnl_success)
        st = bf16_describe(s->M, s->N, false, s->N, dnnl_f32, &md[2]);
    if (st == dnnl_success)
        st = dnnl_matmul_desc_init(&matmul, &md[0], &md[1], NULL, &md[2]);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_create(&attr);
    if (st == dnnl_success && s->add) {
        st = dnnl_post_ops_create(&post);
        if (st == dnnl_success)
            st = dnnl_post_ops_append_sum(post, 1.0F);
        if (st == dnnl_success)
            st = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(out, &matmul, attr, engine, NULL);
    if (post != NULL)
        (void)dnnl_post_ops_destroy(post); /* nothing is to be done about it, here and below */
    if (attr != NULL)
        (void)dnnl_primitive_attr_destroy(attr);
    return st;
}

static void bf16_forget(bf16_made *made) {
    if (made->primitive != NULL)
        (void)dnnl_primitive_destroy(made->primitive);
    if (made->a != NULL)
        (void)dnnl_memory_destroy(made->a);
    if (made->b != NULL)
        (void)dnnl_memory_destroy(made->b);
    if (made->c != NULL)
        (void)dnnl_memory_destroy(made->c);
    *made = (bf16_made){.primitive = NULL};
}

static dnnl_status_t bf16_make(dnnl_engine_t engine, const dpt_bf16_shape *shape, int64_t row,
                               bf16_made *out) {
    dnnl_memory_desc_t md[3];
    dnnl_primitive_desc_t plan = NULL;
    *out = (bf16_made){.shape = *shape, .row = row};
    dnnl_status_t st = bf16_plan(engine, shape, row, md, &plan);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&out->primitive, plan);
    if (plan != NULL)
        (void)dnnl_primitive_desc_destroy(plan);
    dnnl_memory_t *memory[] = {&out->a, &out->b, &out->c};
    for (int i = 0; i < 3 && st == dnnl_success; i++)
        st = dnnl_memory_create(memory[i], &md[i], engine, DNNL_MEMORY_NONE);
    if (st != dnnl_success)
        bf16_forget(out);
    return st;
}

dpt_bf16_speed dpt_bf16_find_speed(void) {
    dpt_bf16_shape shape = {
        .M = BF16_PROBE_SIDE, .N = BF16_PROBE_SIDE, .K = BF16_PROBE_SIDE, .trans_b = true};
    dnnl_engine_t engine = NULL;
    dnnl_memory_desc_t md[3];
    dnnl_primitive_desc_t plan = NULL;
    dpt_bf16_speed speed = DPT_BF16_NONE;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
        bf16_plan(engine, &shape, shape.K, md, &plan) == dnnl_success) {
        const char *name = NULL;
        speed = DPT_BF16_EMULATED;
        /* "brg:avx512_core_amx_bf16", "brg:avx512_core_bf16"; emulated ones name no bf16 */
        if (dnnl_primitive_desc_query(plan, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
            name != NULL && strstr(name, "bf16") != NULL)
            speed = DPT_BF16_FAST;
    }
    if (plan != NULL)
        (void)dnnl_primitive_desc_destroy(plan);
    if (engine != NULL)
        (void)dnnl_engine_destroy(engine);
    return speed;
}

static dpt_status bf16_fail(dnnl_status_t st, const char *what) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "precision bf16: %s fails in oneDNN (status %d): free memory, or take "
                     "`precision: fp32`",
                     what, (int)st);
}

dpt_status dpt_bf16_create(dpt_bf16 **out) {
    *out = NULL;
    dpt_bf16 *bf16 = dpt_mem_zalloc(1, sizeof *bf16, "shapes of products");
    if (bf16 == NULL)
        return DPT_ERR_OUTPUT;
    bf16->status = DPT_OK;
    dnnl_status_t st = dnnl_engine_create(&bf16->engine, dnnl_cpu, 0);
    if (st == dnnl_success)
        st = dnnl_stream_create(&bf16->stream, bf16->engine, dnnl_stream_default_flags);
    if (st != dnnl_success) {
        dpt_bf16_destroy(bf16);
        return bf16_fail(st, "the start");
    }
    *out = bf16;
    return DPT_OK;
}

void dpt_bf16_destroy(dpt_bf16 *bf16) {
    if (bf16 == NULL)
        return;
    for (int i = 0; i < bf16->count; i++)
        bf16_forget(&bf16->made[i]);
    if (bf16->stream != NULL)
        (void)dnnl_stream_destroy(bf16->stream);
    if (bf16->engine != NULL)
        (void)dnnl_engine_destroy(bf16->engine);
    dpt_mem_free(bf16);
}

static bool bf16_is_same(const dpt_bf16_shape *a, const dpt_bf16_shape *b) {
    return a->M == b->M && a->N == b->N && a->K == b->K && a->trans_a == b->trans_a &&
           a->trans_b == b->trans_b && a->add == b->add;
}

/* What is made for a shape; NULL where oneDNN fails. */
static bf16_made *bf16_find(dpt_bf16 *bf16, const dpt_bf16_shape *shape, int64_t row) {
    int oldest = 0;
    for (int i = 0; i < bf16->count; i++) {
        if (bf16->made[i].row == row && bf16_is_same(&bf16->made[i].shape, shape))
            return &bf16->made[i];
        if (bf16->made[i].used < bf16->made[oldest].used)
            oldest = i;
    }
    bool room = bf16->count < BF16_KEPT;
    bf16_made *made = &bf16->made[room ? bf16->count : oldest];
    if (!room)
        bf16_forget(made);
    dnnl_status_t st = bf16_make(bf16->engine, shape, row, made);
    if (st != dnnl_success) {
        bf16->status = bf16_fail(st, "a product");
        return NULL;
    }
    bf16->count += room;
    return made;
}

static dnnl_status_t bf16_execute(dpt_bf16 *bf16, const bf16_made *made, const uint16_t *a,
                                  const uint16_t *b, float *c) {
    dnnl_status_t st = dnnl_memory_set_data_handle(made->a, (void *)(uintptr_t)a);
    if (st == dnnl_success)
        st = dnnl_memory_set_data_handle(made->b, (void *)(uintptr_t)b);
    if (st == dnnl_success)
        st = dnnl_memory_set_data_handle(made->c, c);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, made->a}, {DNNL_ARG_WEIGHTS, made->b}, {DNNL_ARG_DST, made->c}};
    if (st == dnnl_success)
        st = dnnl_primitive_execute(made->primitive, bf16->stream, 3, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(bf16->stream);
    return st;
}

/* The first rows of a, as many as there are whole pieces of them, and then the rest. */
static void bf16_multiply_uneven(dpt_bf16 *bf16, const dpt_bf16_shape *shape, const uint16_t *a,
                                 const uint16_t *b, float *c) {
    int64_t rows = shape->trans_a ? shape->K : shape->M, even = rows - rows % BF16_UNEVEN;
    dpt_bf16_shape first = *shape, rest = *shape;
    first.uneven = rest.uneven = false;
    *(shape->trans_a ? &first.K : &first.M) = even;
    *(shape->trans_a ? &rest.K : &rest.M) = rows - even;
    if (even > 0)
        dpt_bf16_multiply(bf16, &first, a, b, c);
    if (shape->trans_a)
        rest.add = rest.add || even > 0;
    if (rows > even)
        dpt_bf16_multiply(bf16, &rest, a + even * (shape->trans_a ? shape->M : shape->K),
                          b + (shape->trans_a ? even * shape->N : 0),
                          c + (shape->trans_a ? 0 : even * shape->N));
}

/* A product that oneDNN takes whole. */
static void bf16_multiply_part(dpt_bf16 *bf16, const dpt_bf16_shape *shape, int64_t row,
                               const uint16_t *a, const uint16_t *b, float *c) {
    bf16_made *made = bf16_find(bf16, shape, row);
    if (made == NULL)
        return;
    made->used = ++bf16->products;
    dnnl_status_t st = bf16_execute(bf16, made, a, b, c);
    if (st != dnnl_success)
        bf16->status = bf16_fail(st, "a product");
}

void dpt_bf16_multiply(dpt_bf16 *bf16, const dpt_bf16_shape *shape, const uint16_t *a,
                       const uint16_t *b, float *c) {
    bool cut = shape->trans_a ? !shape->trans_b && shape->K > 0 : shape->M > 0;
    if (shape->uneven && cut) {
        bf16_multiply_uneven(bf16, shape, a, b, c);
        return;
    }
    if (bf16->status != DPT_OK || shape->M <= 0 || shape->N <= 0)
        return;
    if (shape->K <= 0) {
        if (!shape->add)
            memset(c, 0, (size_t)(shape->M * shape->N) * sizeof *c);
        return;
    }
    dpt_bf16_shape part = *shape;
    bool broken = shape->K == BF16_BROKEN;
    if (broken)
        part.K = BF16_BROKEN_CUT;
    bf16_multiply_part(bf16, &part, shape->K, a, b, c);
    if (!broken)
        return;
    part.K = BF16_BROKEN - BF16_BROKEN_CUT;
    part.add = true;
    bf16_multiply_part(bf16, &part, shape->K, a + BF16_BROKEN_CUT * (shape->trans_a ? shape->M : 1),
                       b + BF16_BROKEN_CUT * (shape->trans_b ? 1 : shape->N), c);
}

dpt_status dpt_bf16_get_status(const dpt_bf16 *bf16) {
    return bf16->status;
}

int64_t dpt_bf16_count(const dpt_bf16 *bf16) {
    return bf16->products;
}
