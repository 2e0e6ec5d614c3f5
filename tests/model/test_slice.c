/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"
#include "support/golden_model.h"

#include "../src/model/transformer.h"

#include <math.h>

/* Rows of fused tensors and of experts: what each rank has of them, and their weights, against the indices that the
 * modelling code of transformers uses. */

enum {
    LAYERS = 2,
    HEADS = 6,
    KV_HEADS = 2,
    HEAD_DIM = 4,
    WIDTH = 10,
    UNITS = 3,
    EXPERTS = 5,
    TOKENS = 7
};
enum { Q = HEADS * HEAD_DIM, KV = KV_HEADS * HEAD_DIM };

#define LAYER "layers.*."

static const dpt_row slice_rows[] = {
    DPT_MATRIX(TOKENS, "embed.weight", VOCABULARY, WIDTH),
    DPT_VECTOR(NORM1, LAYER "norm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, LAYER "self_attn.qkv_proj.weight", HEADS, WIDTH, .part = DPT_ROLE_Q),
    DPT_MATRIX(K, LAYER "self_attn.qkv_proj.weight", KV_HEADS, WIDTH, .part = DPT_ROLE_K,
               .stacked = true),
    DPT_MATRIX(V, LAYER "self_attn.qkv_proj.weight", KV_HEADS, WIDTH, .part = DPT_ROLE_V,
               .stacked = true),
    DPT_VECTOR(SINKS, LAYER "self_attn.sinks", HEAD_COUNT),
    DPT_MATRIX(O, LAYER "self_attn.o_proj.weight", WIDTH, HEADS),
    DPT_MATRIX(ROUTER, LAYER "mlp.router.weight", EXPERTS, WIDTH, .share = DPT_SHARE_SAME),
};

static const dpt_row fused_rows[] = {
    DPT_MATRIX(GATE, LAYER "mlp.experts.gate_up_proj", EXPERT_UNITS, WIDTH, .part = DPT_ROLE_GATE,
               .expert = true),
    DPT_MATRIX(UP, LAYER "mlp.experts.gate_up_proj", EXPERT_UNITS, WIDTH, .part = DPT_ROLE_UP,
               .expert = true, .stacked = true),
    DPT_VECTOR(GATE_BIAS, LAYER "mlp.experts.gate_up_proj_bias", EXPERT_UNITS,
               .part = DPT_ROLE_GATE, .expert = true),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.experts.gate_up_proj_bias", EXPERT_UNITS, .part = DPT_ROLE_UP,
               .expert = true, .stacked = true),
    DPT_MATRIX(DOWN, LAYER "mlp.experts.down_proj", WIDTH, EXPERT_UNITS, .part = DPT_ROLE_DOWN,
               .expert = true),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.experts.down_proj_bias", WIDTH, .part = DPT_ROLE_DOWN,
               .expert = true),
};

static const dpt_row separate_rows[] = {
    DPT_MATRIX(GATE, LAYER "mlp.experts.*.gate_proj.weight", EXPERT_UNITS, WIDTH, .expert = true),
    DPT_MATRIX(UP, LAYER "mlp.experts.*.up_proj.weight", EXPERT_UNITS, WIDTH, .expert = true,
               .stacked = true),
    DPT_MATRIX(DOWN, LAYER "mlp.experts.*.down_proj.weight", WIDTH, EXPERT_UNITS, .expert = true),
};

static bool slice_ignores(const dpt_arch *arch, const char *name) {
    (void)arch;
    (void)name;
    return false;
}

static const dpt_family slice_family = {.ignores = slice_ignores};

typedef struct slice_case {
    memory_model stored; /* every element holds its number */
    dpt_model model;
    bool fused;
} slice_case;

static void slice_add(slice_case *c, const char *name, int64_t a, int64_t b, int64_t d) {
    const int64_t shape[] = {a, b, d};
    int ndim = b == 0 ? 1 : d == 0 ? 2 : 3;
    assert_int_equal(dpt_catalog_add(&c->stored.catalog, name, DPT_F32, ndim, shape), DPT_OK);
}

static void slice_add_layer(slice_case *c, int layer) {
    static const struct {
        const char *name;
        int64_t shape[3];
    } tensors[] = {
        {"norm.weight", {WIDTH}},
        {"self_attn.qkv_proj.weight", {Q + 2 * KV, WIDTH}},
        {"self_attn.sinks", {HEADS}},
        {"self_attn.o_proj.weight", {WIDTH, Q}},
        {"mlp.router.weight", {EXPERTS, WIDTH}},
        {"mlp.experts.gate_up_proj", {EXPERTS, WIDTH, 2 * UNITS}},
        {"mlp.experts.gate_up_proj_bias", {EXPERTS, 2 * UNITS}},
        {"mlp.experts.down_proj", {EXPERTS, UNITS, WIDTH}},
        {"mlp.experts.down_proj_bias", {EXPERTS, WIDTH}},
    };
    static const char *const separate[] = {"gate_proj", "up_proj", "down_proj"};
    char name[96];
    for (int i = 0; i < (c->fused ? 9 : 5); i++) {
        snprintf(name, sizeof name, "layers.%d.%s", layer, tensors[i].name);
        slice_add(c, name, tensors[i].shape[0], tensors[i].shape[1], tensors[i].shape[2]);
    }
    for (int i = 0; i < 3 * EXPERTS && !c->fused; i++) {
        snprintf(name, sizeof name, "layers.%d.mlp.experts.%d.%s.weight", layer, i / 3,
                 separate[i % 3]);
        slice_add(c, name, i % 3 < 2 ? UNITS : WIDTH, i % 3 < 2 ? WIDTH : UNITS, 0);
    }
}

static void slice_describe(slice_case *c) {
    dpt_arch *arch = &c->model.arch;
    *arch = (dpt_arch){.family = &slice_family,
                       .layers = LAYERS,
                       .heads = HEADS,
                       .kv_heads = KV_HEADS,
                       .head_dim = HEAD_DIM,
                       .norm = DPT_NORM_RMS_UNIT,
                       .tied = true,
                       .experts = {.count = EXPERTS},
                       .length = {[DPT_AXIS_WIDTH] = WIDTH,
                                  [DPT_AXIS_HEADS] = Q,
                                  [DPT_AXIS_KV_HEADS] = KV,
                                  [DPT_AXIS_HEAD_COUNT] = HEADS,
                                  [DPT_AXIS_EXPERT_UNITS] = UNITS,
                                  [DPT_AXIS_EXPERTS] = EXPERTS,
                                  [DPT_AXIS_VOCABULARY] = TOKENS}};
    dpt_arch_add(arch, slice_rows, sizeof slice_rows / sizeof slice_rows[0], 0);
    if (c->fused)
        dpt_arch_add(arch, fused_rows, sizeof fused_rows / sizeof fused_rows[0], 0);
    else
        dpt_arch_add(arch, separate_rows, sizeof separate_rows / sizeof separate_rows[0], 0);
    assert_int_equal(dpt_arch_number(arch), DPT_OK);
}

static void slice_case_open(slice_case *c, bool fused) {
    *c = (slice_case){.fused = fused, .model = {.group = test_comm}};
    slice_add(c, "embed.weight", TOKENS, WIDTH, 0);
    for (int layer = 0; layer < LAYERS; layer++)
        slice_add_layer(c, layer);
    assert_int_equal(dpt_catalog_sort(&c->stored.catalog), DPT_OK);
    memory_allocate(&c->stored);
    for (int k = 0; k < c->stored.catalog.count; k++)
        for (int64_t ig = 0; ig < c->stored.catalog.tensors[k].numel; ig++)
            ((float *)c->stored.values[k])[ig] = (float)ig;
    c->model.catalog = c->stored.catalog;
    slice_describe(c);
    dpt_slice_find(&c->model.arch, test_comm.rank, test_comm.size, &c->model.slice);
}

static void slice_case_close(slice_case *c) {
    dpt_params_destroy(&c->model.params);
    memory_free(&c->stored);
}

/* Elements of weights [begin, end) (rows, cols) of a slot, row by row: number first + row * by_row + col * by_col, and
 * what is added to it. */
static void slice_expect(const float *w, int64_t begin, int64_t end, int64_t cols, int64_t first,
                         int64_t by_row, int64_t by_col, float plus) {
    assert_true(w != NULL || begin == end);
    for (int64_t row = begin; row < end; row++)
        for (int64_t col = 0; col < cols; col++)
            assert_true(w[(row - begin) * cols + col] ==
                        (float)(first + row * by_row + col * by_col) + plus);
}

/* A matrix of a product, whose rows are formed where they are used. */
static void slice_expect_formed(const slice_case *c, int layer, dpt_slot slot, int64_t begin,
                                int64_t end, int64_t cols, int64_t first, int64_t by_row) {
    const dpt_param *param = &c->model.params.items[dpt_arch_index(&c->model.arch, layer, slot)];
    float w[WIDTH * Q];
    assert_int_equal(dpt_param_numel(param), (end - begin) * cols);
    for (int64_t row = 0; row < param->rows; row += 2) /* some at a time */
        dpt_param_weights(param, 0.0, row, row + 2 < param->rows ? 2 : param->rows - row,
                          w + row * cols);
    slice_expect(w, begin, end, cols, first, by_row, 1, 0.0F);
}

static void slice_check_attention(const slice_case *c, int layer, float *const *w) {
    const dpt_slice *slice = &c->model.slice;
    int64_t kv = slice->begin[DPT_AXIS_KV_HEADS], kv_end = slice->end[DPT_AXIS_KV_HEADS];
    slice_expect(w[DPT_SLOT_NORM1], 0, 1, WIDTH, 0, 0, 1, 1.0F);
    slice_expect_formed(c, layer, DPT_SLOT_Q, slice->begin[DPT_AXIS_HEADS],
                        slice->end[DPT_AXIS_HEADS], WIDTH, 0, WIDTH);
    slice_expect_formed(c, layer, DPT_SLOT_K, kv, kv_end, WIDTH, Q * WIDTH, WIDTH);
    slice_expect_formed(c, layer, DPT_SLOT_V, kv, kv_end, WIDTH, (Q + KV) * WIDTH, WIDTH);
    slice_expect(w[DPT_SLOT_SINKS], slice->first_head, slice->first_head + slice->heads, 1, 0, 1, 1,
                 0.0F);
    assert_int_equal(slice->end[DPT_AXIS_HEADS] - slice->begin[DPT_AXIS_HEADS],
                     slice->heads * HEAD_DIM);
    slice_expect_formed(c, layer, DPT_SLOT_O, 0, WIDTH, slice->q, slice->begin[DPT_AXIS_HEADS], Q);
    slice_expect(w[DPT_SLOT_ROUTER], 0, EXPERTS, WIDTH, 0, WIDTH, 1, 0.0F);
    for (int slot = DPT_SLOT_Q; slot <= DPT_SLOT_V; slot++)
        assert_null(w[slot]); /* no room */
}

/* A matrix of an expert, whose rows are formed where they are used. */
static void slice_expect_matrix(const slice_case *c, int layer, dpt_slot slot, int64_t e,
                                int64_t first, int64_t by_row, int64_t by_col) {
    const dpt_param *param =
        &c->model.params.items[dpt_arch_index_expert(&c->model.arch, layer, slot, e)];
    float w[UNITS * WIDTH];
    assert_int_equal(dpt_param_numel(param), UNITS * WIDTH);
    dpt_param_weights(param, 0.0, 0, param->rows, w);
    slice_expect(w, 0, param->rows, param->cols, first, by_row, by_col, 0.0F);
}

static void slice_check_expert(const slice_case *c, int layer, int64_t e, float *const *w) {
    if (!c->fused) {
        slice_expect_matrix(c, layer, DPT_SLOT_GATE, e, 0, WIDTH, 1);
        slice_expect_matrix(c, layer, DPT_SLOT_DOWN, e, 0, UNITS, 1);
        return;
    }
    int64_t first = e * WIDTH * 2 * UNITS; /* gate_up_proj[e, col, 2 row] and [.., 2 row + 1] */
    slice_expect_matrix(c, layer, DPT_SLOT_GATE, e, first, 2, (int64_t)2 * UNITS);
    slice_expect_matrix(c, layer, DPT_SLOT_UP, e, first + 1, 2, (int64_t)2 * UNITS);
    slice_expect_matrix(c, layer, DPT_SLOT_DOWN, e, e * UNITS * WIDTH, 1, WIDTH);
    slice_expect(w[DPT_SLOT_GATE_BIAS], 0, UNITS, 1, e * 2 * UNITS, 2, 1, 0.0F);
    slice_expect(w[DPT_SLOT_UP_BIAS], 0, UNITS, 1, e * 2 * UNITS + 1, 2, 1, 0.0F);
    slice_expect(w[DPT_SLOT_DOWN_BIAS], 0, WIDTH, 1, e * WIDTH, 1, 1, 0.0F);
    assert_true(w[DPT_SLOT_UP_BIAS] == w[DPT_SLOT_GATE_BIAS] + UNITS);
}

/* Every element of a tensor of experts is counted on one rank. */
static void slice_check_counted(const slice_case *c) {
    int count = c->stored.catalog.count;
    int64_t *counted = calloc((size_t)count, sizeof *counted);
    for (int i = 0; i < c->model.params.count; i++)
        if (c->model.params.items[i].counted)
            counted[c->model.params.items[i].tensor] += dpt_param_numel(&c->model.params.items[i]);
    assert_int_equal(dpt_comm_sum_i64(&test_comm, counted, count), DPT_OK);
    for (int k = 0; k < count; k++)
        assert_true(counted[k] == c->stored.catalog.tensors[k].numel ||
                    (counted[k] > c->stored.catalog.tensors[k].numel &&
                     strstr(c->stored.catalog.tensors[k].name, "qkv") != NULL));
    free(counted);
}

static void test_weights(void **state) {
    (void)state;
    for (int fused = 0; fused < 2; fused++)
        for (int together = 0; together < 2; together++) {
            slice_case c;
            dpt_work work = {.base = NULL};
            dpt_model_call call = {.t = 0.0};
            slice_case_open(&c, fused);
            c.stored.together = together;
            dpt_source source = memory_source(&c.stored);
            assert_int_equal(dpt_slice_claim(&c.model), DPT_OK);
            dpt_comm alone = {.mpi = MPI_COMM_SELF, .rank = 0, .size = 1};
            assert_int_equal(dpt_slice_share(&c.model, &alone), DPT_OK);
            assert_int_equal(dpt_params_load(&c.model.params, &test_comm, &source, DPT_PARAMS_POST),
                             DPT_OK);
            int64_t floats = dpt_weights_floats(&c.model);
            float *arena = malloc((size_t)(floats + 1) * sizeof *arena);
            dpt_weights_place(&c.model, arena, work.w);
            dpt_pass pass = {.model = &c.model,
                             .params = &c.model.params,
                             .arch = &c.model.arch,
                             .slice = &c.model.slice,
                             .work = &work,
                             .call = &call};
            const dpt_slice *slice = &c.model.slice;
            for (int layer = 0; layer < LAYERS; layer++) {
                memset(arena, 0xff, (size_t)floats * sizeof *arena);
                dpt_weights_form(&pass, layer, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD);
                slice_check_attention(&c, layer, work.w);
                bool biases = fused && slice->expert_begin < slice->expert_end;
                assert_true(biases == (work.w[DPT_SLOT_DOWN_BIAS] != NULL));
                assert_true(!biases || isnan(work.w[DPT_SLOT_DOWN_BIAS][0])); /* not yet formed */
                assert_null(work.w[DPT_SLOT_DOWN]);                           /* of no expert */
                for (int64_t e = slice->expert_begin; e < slice->expert_end; e++) {
                    dpt_weights_form_expert(&pass, layer, e);
                    slice_check_expert(&c, layer, e, work.w);
                }
                slice_check_attention(&c, layer, work.w);
            }
            slice_check_counted(&c);
            free(arena);
            slice_case_close(&c);
        }
}

/* Room for experts is that of one. */
static void test_room(void **state) {
    (void)state;
    int64_t floats[2];
    for (int more = 0; more < 2; more++) {
        slice_case c;
        slice_case_open(&c, true);
        dpt_slice *slice = &c.model.slice;
        slice->expert_begin = more ? 1 : 3; /* as if other ranks had fewer */
        slice->expert_end = 4;
        assert_int_equal(dpt_slice_claim(&c.model), DPT_OK);
        floats[more] = dpt_weights_floats(&c.model);
        slice_case_close(&c);
    }
    assert_int_equal(floats[0], floats[1]);
}

/* What does not fit is named with the part that was looked for. */
static void test_refusals(void **state) {
    (void)state;
    static const struct {
        bool fused;
        const char *tensor;
        int side;
        int64_t length; /* 0: the tensor has another name */
        const char *named;
    } cases[] = {
        {true, "layers.1.self_attn.qkv_proj.weight", 0, Q + 2 * KV + 2,
         "tensor layers.1.self_attn.qkv_proj.weight has the shape [42, 10], which does not hold k "
         "of "
         "the shape [8, 10]"},
        {true, "layers.0.self_attn.qkv_proj.weight", 1, WIDTH + 1, "does not hold q of the shape"},
        {true, "layers.0.mlp.experts.gate_up_proj_bias", 0, EXPERTS - 1,
         "gate_up_proj_bias has the shape [4, 6], which does not hold gate of the shape [3] for "
         "each "
         "expert"},
        {true, "layers.1.mlp.experts.down_proj", 0, 0, "down_proj is missing"},
        {false, "layers.1.mlp.experts.4.up_proj.weight", 0, UNITS + 1,
         "experts.4.up_proj.weight has the shape [4, 10] in place of [3, 10]"},
        {false, "layers.0.mlp.experts.3.gate_proj.weight", 0, 0,
         "tensor layers.0.mlp.experts.3.gate_proj.weight is missing (2 tensors in all"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        slice_case c;
        slice_case_open(&c, cases[i].fused);
        int k = dpt_catalog_find(&c.stored.catalog, cases[i].tensor);
        dpt_tensor_info *info = &c.stored.catalog.tensors[k];
        if (cases[i].length == 0)
            info->name[strlen(info->name) - 1]--; /* keeps the order */
        else
            info->shape[cases[i].side] = cases[i].length;
        info->numel = 1;
        for (int d = 0; d < info->ndim; d++)
            info->numel *= info->shape[d];
        assert_int_equal(dpt_slice_claim(&c.model), DPT_ERR_INPUT);
        test_error_says(cases[i].named);
        slice_case_close(&c);
    }
}

/* Experts beyond what can be numbered. */
static void test_many(void **state) {
    (void)state;
    slice_case c;
    slice_case_open(&c, false);
    c.model.arch.layers = 1 << 16;
    c.model.arch.experts.count = 1 << 14;
    assert_int_equal(dpt_arch_number(&c.model.arch), DPT_ERR_INPUT);
    test_error_says("65536 layers of 16384 experts");
    slice_case_close(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_weights), cmocka_unit_test(test_room),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_many)};
    return test_mpi_main(argc, argv, tests);
}
