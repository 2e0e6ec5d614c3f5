/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deltapath/base/mem.h"
#include "deltapath/tensor/part.h"

/* An element of a part of a stored tensor: where it must lie. */
typedef struct want {
    const char *name;
    dpt_role_kind kind;
    int expert;
    int64_t rows, cols;
    int64_t at[3]; /* of element (0, 0), of row 1, of column 1; -1: there is none */
    int64_t last;  /* of the last element */
} want;

static int balances(void **state) {
    (void)state;
    dpt_error_clear();
    dpt_mem_set_budget(0);
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static void add(dpt_catalog *catalog, const char *name, int ndim, int64_t a, int64_t b, int64_t c) {
    int64_t shape[4] = {a, b, c, 1};
    assert_int_equal(dpt_catalog_add(catalog, name, DPT_BF16, ndim, shape), DPT_OK);
}

/* Spans from every element on, and what they say, against the parts that the elements were found in. */
static void check_spans(const dpt_parts *parts, int t, const int *part_of, int64_t numel) {
    for (int64_t ig = 0; ig < numel; ig++) {
        dpt_part_item item = dpt_parts_item(parts, t, ig);
        assert_true(ig >= item.begin && ig < item.end);
        for (int64_t at = item.begin; at < item.end; at++)
            assert_true(part_of[at] >= item.first && part_of[at] < item.first + item.count);
        for (int64_t most = 1; most <= numel - ig; most += most < 3 ? 1 : numel) {
            dpt_part_span span = dpt_parts_span(parts, t, ig, most);
            assert_true(span.n >= 1 && span.n <= most && span.ways >= 1);
            for (int64_t i = 0; i < span.n; i++)
                assert_int_equal(span.part[i % span.ways], part_of[ig + i]);
        }
        /* as long as it can be */
        dpt_part_span span = dpt_parts_span(parts, t, ig, numel);
        if (span.ways == 1 && ig + span.n < item.end)
            assert_int_not_equal(part_of[ig + span.n], part_of[ig]);
        else
            assert_int_equal(ig + span.n, item.end);
    }
}

/* Every element of every tensor is in one part. */
static void check_cover(const dpt_catalog *catalog, const dpt_parts *parts) {
    assert_int_equal(parts->first[0], 0);
    assert_int_equal(parts->first[catalog->count], parts->count);
    for (int t = 0; t < catalog->count; t++) {
        int64_t numel = catalog->tensors[t].numel;
        int *part_of = malloc(((size_t)numel + 1) * sizeof *part_of);
        assert_non_null(part_of);
        for (int64_t i = 0; i < numel; i++)
            part_of[i] = -1;
        assert_true(parts->first[t + 1] > parts->first[t]);
        for (int i = parts->first[t]; i < parts->first[t + 1]; i++) {
            const dpt_part *part = &parts->items[i];
            assert_int_equal(part->tensor, t);
            assert_true(part->layout.run >= 1);
            assert_ptr_equal(dpt_parts_find(parts, t, part->kind, part->expert), part);
            for (int64_t r = 0; r < part->layout.rows; r++)
                for (int64_t c = 0; c < part->layout.cols; c++) {
                    int64_t at = dpt_layout_place(&part->layout, r, c);
                    assert_true(at >= 0 && at < numel);
                    assert_int_equal(part_of[at], -1);
                    part_of[at] = i;
                }
        }
        for (int64_t i = 0; i < numel; i++)
            assert_true(part_of[i] >= 0);
        check_spans(parts, t, part_of, numel);
        free(part_of);
    }
}

static void check(dpt_catalog *catalog, int64_t heads, const want *wants, size_t count) {
    dpt_parts parts;
    assert_int_equal(dpt_catalog_sort(catalog), DPT_OK);
    assert_int_equal(dpt_parts_create(catalog, heads, &parts), DPT_OK);
    check_cover(catalog, &parts);
    int checked = 0;
    for (size_t i = 0; i < count; i++) {
        const want *w = &wants[i];
        int t = dpt_catalog_find(catalog, w->name);
        assert_true(t >= 0);
        const dpt_part *part = dpt_parts_find(&parts, t, w->kind, w->expert);
        assert_non_null(part);
        const dpt_layout *layout = &part->layout;
        assert_int_equal(layout->rows, w->rows);
        assert_int_equal(layout->cols, w->cols);
        assert_int_equal(dpt_layout_place(layout, 0, 0), w->at[0]);
        if (w->at[1] >= 0)
            assert_int_equal(dpt_layout_place(layout, 1, 0), w->at[1]);
        if (w->at[2] >= 0)
            assert_int_equal(dpt_layout_place(layout, 0, 1), w->at[2]);
        assert_int_equal(dpt_layout_place(layout, w->rows - 1, w->cols - 1), w->last);
        checked++;
    }
    for (int t = 0; t < catalog->count; t++) /* the wants name all parts of what they name */
        for (size_t i = 0; i < count; i++)
            if (strcmp(wants[i].name, catalog->tensors[t].name) == 0)
                checked -= parts.first[t + 1] - parts.first[t], i = count;
    assert_int_equal(checked, 0);
    dpt_parts_destroy(&parts);
    dpt_catalog_destroy(catalog);
}

#define CHECK(CATALOG, HEADS, ...)                                                                 \
    do {                                                                                           \
        const want wants[] = {__VA_ARGS__};                                                        \
        check(CATALOG, HEADS, wants, sizeof wants / sizeof *wants);                                \
    } while (0)

static void fused_rows(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "l.self_attn.qkv_proj.weight", 2, 10, 3, 0); /* 6 queries, 2 keys */
    add(&catalog, "l.self_attn.qkv_proj.bias", 1, 10, 0, 0);
    add(&catalog, "l.self_attn.o_proj.weight", 2, 3, 6, 0);
    add(&catalog, "l.mlp.gate_up_proj.weight", 2, 8, 3, 0);
    add(&catalog, "l.mlp.down_proj.weight", 2, 3, 4, 0);
    add(&catalog, "d.mlp.weights_in.weight", 2, 4, 5, 0);
    add(&catalog, "d.mlp.weights_in.bias", 1, 4, 0, 0);
    add(&catalog, "d.mlp.weights_out.weight", 2, 5, 2, 0);
    add(&catalog, "head.attention.in_proj_weight", 2, 6, 2, 0);
    add(&catalog, "head.attention.in_proj_bias", 1, 6, 0, 0);
    CHECK(&catalog, 0, {"l.self_attn.qkv_proj.weight", DPT_ROLE_Q, -1, 6, 3, {0, 3, 1}, 17},
          {"l.self_attn.qkv_proj.weight", DPT_ROLE_K, -1, 2, 3, {18, 21, 19}, 23},
          {"l.self_attn.qkv_proj.weight", DPT_ROLE_V, -1, 2, 3, {24, 27, 25}, 29},
          {"l.self_attn.qkv_proj.bias", DPT_ROLE_Q, -1, 6, 1, {0, 1, -1}, 5},
          {"l.self_attn.qkv_proj.bias", DPT_ROLE_K, -1, 2, 1, {6, 7, -1}, 7},
          {"l.self_attn.qkv_proj.bias", DPT_ROLE_V, -1, 2, 1, {8, 9, -1}, 9},
          {"l.self_attn.o_proj.weight", DPT_ROLE_O, -1, 3, 6, {0, 6, 1}, 17},
          {"l.mlp.gate_up_proj.weight", DPT_ROLE_GATE, -1, 4, 3, {0, 3, 1}, 11},
          {"l.mlp.gate_up_proj.weight", DPT_ROLE_UP, -1, 4, 3, {12, 15, 13}, 23},
          {"d.mlp.weights_in.weight", DPT_ROLE_GATE, -1, 2, 5, {0, 5, 1}, 9},
          {"d.mlp.weights_in.weight", DPT_ROLE_UP, -1, 2, 5, {10, 15, 11}, 19},
          {"d.mlp.weights_in.bias", DPT_ROLE_GATE, -1, 2, 1, {0, 1, -1}, 1},
          {"d.mlp.weights_in.bias", DPT_ROLE_UP, -1, 2, 1, {2, 3, -1}, 3},
          {"head.attention.in_proj_weight", DPT_ROLE_Q, -1, 2, 2, {0, 2, 1}, 3},
          {"head.attention.in_proj_weight", DPT_ROLE_K, -1, 2, 2, {4, 6, 5}, 7},
          {"head.attention.in_proj_weight", DPT_ROLE_V, -1, 2, 2, {8, 10, 9}, 11},
          {"head.attention.in_proj_bias", DPT_ROLE_Q, -1, 2, 1, {0, 1, -1}, 1},
          {"head.attention.in_proj_bias", DPT_ROLE_K, -1, 2, 1, {2, 3, -1}, 3},
          {"head.attention.in_proj_bias", DPT_ROLE_V, -1, 2, 1, {4, 5, -1}, 5});
}

static void rows_by_head(void **state) {
    (void)state;
    static const char weight[] = "n.attention.query_key_value.weight";
    static const char bias[] = "n.attention.query_key_value.bias";
    dpt_catalog catalog;
    /* 3 heads of 2: rows q0 q0 k0 k0 v0 v0 q1 ... */
    dpt_catalog_init(&catalog);
    add(&catalog, weight, 2, 18, 6, 0);
    add(&catalog, bias, 1, 18, 0, 0);
    CHECK(&catalog, 3, {weight, DPT_ROLE_Q, -1, 6, 6, {0, 6, 1}, 83},
          {weight, DPT_ROLE_K, -1, 6, 6, {12, 18, 13}, 95},
          {weight, DPT_ROLE_V, -1, 6, 6, {24, 30, 25}, 107},
          {bias, DPT_ROLE_Q, -1, 6, 1, {0, 1, -1}, 13},
          {bias, DPT_ROLE_K, -1, 6, 1, {2, 3, -1}, 15},
          {bias, DPT_ROLE_V, -1, 6, 1, {4, 5, -1}, 17});
    dpt_catalog_init(&catalog); /* heads of one element, and one head */
    add(&catalog, bias, 1, 18, 0, 0);
    CHECK(&catalog, 6, {bias, DPT_ROLE_Q, -1, 6, 1, {0, 3, -1}, 15},
          {bias, DPT_ROLE_K, -1, 6, 1, {1, 4, -1}, 16},
          {bias, DPT_ROLE_V, -1, 6, 1, {2, 5, -1}, 17});
    dpt_catalog_init(&catalog);
    add(&catalog, bias, 1, 18, 0, 0);
    CHECK(&catalog, 1, {bias, DPT_ROLE_Q, -1, 6, 1, {0, 1, -1}, 5},
          {bias, DPT_ROLE_K, -1, 6, 1, {6, 7, -1}, 11},
          {bias, DPT_ROLE_V, -1, 6, 1, {12, 13, -1}, 17});
    dpt_catalog_init(
        &catalog); /* fewer keys than queries, as ChatGLM and Falcon have under this name */
    add(&catalog, bias, 1, 18, 0, 0);
    add(&catalog, weight, 2, 18, 9, 0);
    CHECK(&catalog, 3, {bias, DPT_ROLE_QKV, -1, 18, 1, {0, 1, -1}, 17},
          {weight, DPT_ROLE_QKV, -1, 18, 9, {0, 9, 1}, 161});
    int64_t unknown[] = {0, 4, 7};
    for (int i = 0; i < 3; i++) {
        dpt_catalog_init(&catalog);
        add(&catalog, weight, 2, 18, 6, 0);
        CHECK(&catalog, unknown[i], {weight, DPT_ROLE_QKV, -1, 18, 6, {0, 6, 1}, 107});
    }
}

static void stored_transposes(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "h.0.attn.c_attn.weight", 2, 4, 12, 0);
    add(&catalog, "h.0.attn.c_attn.bias", 1, 12, 0, 0);
    add(&catalog, "h.0.attn.c_proj.weight", 2, 4, 4, 0);
    add(&catalog, "h.0.attn.c_proj.bias", 1, 4, 0, 0);
    add(&catalog, "h.0.mlp.c_fc.weight", 2, 4, 6, 0);
    add(&catalog, "h.0.mlp.c_proj.weight", 2, 6, 4, 0);
    add(&catalog, "q.0.attn.c_attn.weight", 2, 12, 4, 0); /* a linear map of that name */
    add(&catalog, "q.0.attn.c_proj.weight", 2, 4, 4, 0);
    CHECK(&catalog, 2, {"h.0.attn.c_attn.weight", DPT_ROLE_Q, -1, 4, 4, {0, 1, 12}, 39},
          {"h.0.attn.c_attn.weight", DPT_ROLE_K, -1, 4, 4, {4, 5, 16}, 43},
          {"h.0.attn.c_attn.weight", DPT_ROLE_V, -1, 4, 4, {8, 9, 20}, 47},
          {"h.0.attn.c_attn.bias", DPT_ROLE_Q, -1, 4, 1, {0, 1, -1}, 3},
          {"h.0.attn.c_attn.bias", DPT_ROLE_K, -1, 4, 1, {4, 5, -1}, 7},
          {"h.0.attn.c_attn.bias", DPT_ROLE_V, -1, 4, 1, {8, 9, -1}, 11},
          {"h.0.attn.c_proj.weight", DPT_ROLE_O, -1, 4, 4, {0, 1, 4}, 15},
          {"h.0.attn.c_proj.bias", DPT_ROLE_O, -1, 4, 1, {0, 1, -1}, 3},
          {"h.0.mlp.c_fc.weight", DPT_ROLE_UP, -1, 6, 4, {0, 1, 6}, 23},
          {"h.0.mlp.c_proj.weight", DPT_ROLE_DOWN, -1, 4, 6, {0, 1, 4}, 23},
          {"q.0.attn.c_attn.weight", DPT_ROLE_QKV, -1, 12, 4, {0, 4, 1}, 47},
          {"q.0.attn.c_proj.weight", DPT_ROLE_O, -1, 4, 4, {0, 4, 1}, 15});
}

static void fused_experts(void **state) {
    (void)state;
    static const char up[] = "m.mlp.experts.gate_up_proj", down[] = "m.mlp.experts.down_proj";
    static const char up_bias[] = "m.mlp.experts.gate_up_proj_bias";
    static const char down_bias[] = "m.mlp.experts.down_proj_bias";
    dpt_catalog catalog;
    /* Mixtral, Qwen3-MoE: 2 experts, I = 2, C = 3. */
    dpt_catalog_init(&catalog);
    add(&catalog, up, 3, 2, 4, 3);
    add(&catalog, down, 3, 2, 3, 2);
    CHECK(&catalog, 0, {up, DPT_ROLE_GATE, 0, 2, 3, {0, 3, 1}, 5},
          {up, DPT_ROLE_UP, 0, 2, 3, {6, 9, 7}, 11}, {up, DPT_ROLE_GATE, 1, 2, 3, {12, 15, 13}, 17},
          {up, DPT_ROLE_UP, 1, 2, 3, {18, 21, 19}, 23},
          {down, DPT_ROLE_DOWN, 0, 3, 2, {0, 2, 1}, 5},
          {down, DPT_ROLE_DOWN, 1, 3, 2, {6, 8, 7}, 11});
    /* gpt-oss, of such sides that gate_up_proj alone could be either: 2 I = C = 4. */
    dpt_catalog_init(&catalog);
    add(&catalog, up, 3, 2, 4, 4);
    add(&catalog, up_bias, 2, 2, 4, 0);
    add(&catalog, down, 3, 2, 2, 4);
    add(&catalog, down_bias, 2, 2, 4, 0);
    CHECK(&catalog, 0, {up, DPT_ROLE_GATE, 0, 2, 4, {0, 2, 4}, 14},
          {up, DPT_ROLE_UP, 0, 2, 4, {1, 3, 5}, 15}, {up, DPT_ROLE_GATE, 1, 2, 4, {16, 18, 20}, 30},
          {up, DPT_ROLE_UP, 1, 2, 4, {17, 19, 21}, 31},
          {up_bias, DPT_ROLE_GATE, 0, 2, 1, {0, 2, -1}, 2},
          {up_bias, DPT_ROLE_UP, 0, 2, 1, {1, 3, -1}, 3},
          {up_bias, DPT_ROLE_GATE, 1, 2, 1, {4, 6, -1}, 6},
          {up_bias, DPT_ROLE_UP, 1, 2, 1, {5, 7, -1}, 7},
          {down, DPT_ROLE_DOWN, 0, 4, 2, {0, 1, 4}, 7},
          {down, DPT_ROLE_DOWN, 1, 4, 2, {8, 9, 12}, 15},
          {down_bias, DPT_ROLE_DOWN, 0, 4, 1, {0, 1, -1}, 3},
          {down_bias, DPT_ROLE_DOWN, 1, 4, 1, {4, 5, -1}, 7});
    /* Llama 4: the same sides, no biases, halves. */
    dpt_catalog_init(&catalog);
    add(&catalog, up, 3, 1, 3, 4);
    add(&catalog, down, 3, 1, 2, 3);
    CHECK(&catalog, 0, {up, DPT_ROLE_GATE, 0, 2, 3, {0, 1, 4}, 9},
          {up, DPT_ROLE_UP, 0, 2, 3, {2, 3, 6}, 11}, {down, DPT_ROLE_DOWN, 0, 3, 2, {0, 1, 3}, 5});
}

static void labels(void **state) {
    (void)state;
    static const char *const names[] = {"0",    "1", "",  "0.gate", "0.up", "1.gate",
                                        "1.up", "",  "q", "k",      "v"};
    dpt_catalog catalog;
    dpt_parts parts;
    char label[DPT_PART_LABEL];
    dpt_catalog_init(&catalog);
    add(&catalog, "a.mlp.experts.down_proj", 3, 2, 3, 2);
    add(&catalog, "a.mlp.experts.7.w1.weight", 2, 2, 3, 0);
    add(&catalog, "a.mlp.experts.gate_up_proj", 3, 2, 4, 3);
    add(&catalog, "b.self_attn.o_proj.weight", 2, 3, 6, 0);
    add(&catalog, "b.self_attn.qkv_proj.weight", 2, 10, 3, 0);
    assert_int_equal(dpt_catalog_sort(&catalog), DPT_OK);
    assert_int_equal(dpt_parts_create(&catalog, 0, &parts), DPT_OK);
    const int order[] = {2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10}; /* by name: experts.7 comes first */
    assert_int_equal(parts.count, 11);
    for (int i = 0; i < parts.count; i++) {
        dpt_part_label(&parts, i, label);
        assert_string_equal(label, names[order[i]]);
    }
    dpt_parts_destroy(&parts);
    dpt_catalog_destroy(&catalog);
}

/* What no form fits is one part, or one an expert. */
static void other_tensors(void **state) {
    (void)state;
    static const char up[] = "m.mlp.experts.gate_up_proj", down[] = "m.mlp.experts.down_proj";
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "scale", 0, 0, 0, 0);
    add(&catalog, "model.norm.weight", 1, 5, 0, 0);
    add(&catalog, "model.layers.0.self_attn.q_norm.weight", 1, 0, 0, 0);
    add(&catalog, "lm_head.weight", 2, 5, 3, 0);
    add(&catalog, "empty.weight", 2, 0, 3, 0);
    add(&catalog, "vit.embeddings.position_embeddings", 3, 1, 4, 2);
    add(&catalog, "patch.weight", 4, 2, 3, 4);
    add(&catalog, "a.mlp.experts.11.w1.weight", 2, 2, 3, 0);
    add(&catalog, "a.mlp.experts.11.w2.weight", 2, 3, 2, 0);
    add(&catalog, "a.mlp.experts.0.down_proj.bias", 1, 3, 0, 0);
    add(&catalog, "a.mlp.shared_experts.down_proj", 3, 2, 3, 2);
    add(&catalog, "p.self_attn.qkv_proj.weight", 2, 9, 3, 0); /* no o_proj */
    add(&catalog, "p.mlp.gate_up_proj.weight", 2, 8, 3, 0);   /* a down_proj that does not fit */
    add(&catalog, "p.mlp.down_proj.weight", 2, 3, 8, 0);
    add(&catalog, "w.attention.in_proj_weight", 2, 6, 3, 0);
    add(&catalog, up, 3, 2, 4, 3);
    add(&catalog, down, 3, 2, 3, 5);
    CHECK(&catalog, 0, {"model.norm.weight", DPT_ROLE_NORM, -1, 5, 1, {0, 1, -1}, 4},
          {"scale", DPT_ROLE_OTHER, -1, 1, 1, {0, -1, -1}, 0},
          {"lm_head.weight", DPT_ROLE_HEAD, -1, 5, 3, {0, 3, 1}, 14},
          {"vit.embeddings.position_embeddings", DPT_ROLE_EMBED, -1, 8, 1, {0, 1, -1}, 7},
          {"patch.weight", DPT_ROLE_OTHER, -1, 24, 1, {0, 1, -1}, 23},
          {"a.mlp.experts.11.w1.weight", DPT_ROLE_GATE, 11, 2, 3, {0, 3, 1}, 5},
          {"a.mlp.experts.11.w2.weight", DPT_ROLE_DOWN, 11, 3, 2, {0, 2, 1}, 5},
          {"a.mlp.experts.0.down_proj.bias", DPT_ROLE_DOWN, 0, 3, 1, {0, 1, -1}, 2},
          {"a.mlp.shared_experts.down_proj", DPT_ROLE_DOWN, -1, 12, 1, {0, 1, -1}, 11},
          {"p.self_attn.qkv_proj.weight", DPT_ROLE_QKV, -1, 9, 3, {0, 3, 1}, 26},
          {"p.mlp.gate_up_proj.weight", DPT_ROLE_GATE_UP, -1, 8, 3, {0, 3, 1}, 23},
          {"w.attention.in_proj_weight", DPT_ROLE_QKV, -1, 6, 3, {0, 3, 1}, 17},
          {up, DPT_ROLE_GATE_UP, 0, 4, 3, {0, 3, 1}, 11},
          {up, DPT_ROLE_GATE_UP, 1, 4, 3, {12, 15, 13}, 23},
          {down, DPT_ROLE_DOWN, 0, 3, 5, {0, 5, 1}, 14},
          {down, DPT_ROLE_DOWN, 1, 3, 5, {15, 20, 16}, 29});
}

static void no_memory(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_parts parts;
    dpt_catalog_init(&catalog);
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%02d", i);
        add(&catalog, name, 2, 2, 2, 0);
    }
    assert_int_equal(dpt_catalog_sort(&catalog), DPT_OK);
    for (int64_t extra = 0; extra < 1000; extra += 500) {
        dpt_mem_set_budget(dpt_mem_in_use() + extra);
        assert_int_equal(dpt_parts_create(&catalog, 0, &parts), DPT_ERR_OUTPUT);
        assert_null(parts.first);
        assert_null(parts.items);
    }
    dpt_catalog_destroy(&catalog);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(fused_rows, balances),
        cmocka_unit_test_teardown(rows_by_head, balances),
        cmocka_unit_test_teardown(stored_transposes, balances),
        cmocka_unit_test_teardown(fused_experts, balances),
        cmocka_unit_test_teardown(labels, balances),
        cmocka_unit_test_teardown(other_tensors, balances),
        cmocka_unit_test_teardown(no_memory, balances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
