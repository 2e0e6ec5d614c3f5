#ifndef DELTAPATH_TESTS_EDIT_SUPPORT_H
#define DELTAPATH_TESTS_EDIT_SUPPORT_H

/* The pair of models of tools/reference/edit_oracle.py, in memory, and edits from their text form. */

#include "support/test_mpi.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/rng.h"
#include "deltapath/edit/edit.h"

#include <string.h>

enum { PAIR_HEADS = 4 }; /* of GPT-NeoX's fused projections */

typedef struct pair {
    dpt_catalog catalog, out_catalog;
    dpt_shard shard;
    bool *comparable;
    dpt_field *pre, *post, *out;
    dpt_parts parts;
    dpt_edit_input input;
    dpt_sink sink;
} pair;

static inline void pair_values(const char *name, dpt_range cell, float *pre, float *post) {
    char stream[128];
    static uint32_t a[DPT_CELL], b[DPT_CELL];
    snprintf(stream, sizeof stream, "pre/%s", name);
    dpt_rng_words(dpt_rng_make(7, stream, DPT_RNG_MASK), cell.ig, cell.n, a);
    snprintf(stream, sizeof stream, "delta/%s", name);
    dpt_rng_words(dpt_rng_make(7, stream, DPT_RNG_MASK), cell.ig, cell.n, b);
    for (int64_t i = 0; i < cell.n; i++) {
        float delta = (float)((int)(b[i] & 0xffff) - 32768) * 0x1p-21F;
        pre[i] = (float)((int)(a[i] & 0xffff) - 32768) * 0x1p-18F;
        post[i] = pre[i] + ((b[i] >> 16) % 5 == 0 ? 0.0F : delta);
    }
}

static inline void pair_fill(pair *p, dpt_dtype type) {
    static float pre[DPT_CELL], post[DPT_CELL];
    for (int64_t c = 0; c < p->shard.cells; c++) {
        if (dpt_field_cell(p->pre, c) == NULL)
            continue;
        dpt_range cell = dpt_shard_cell(&p->shard, c);
        if (!dpt_dtype_editable(p->catalog.tensors[cell.tensor].dtype)) {
            memset(dpt_field_cell(p->pre, c), 1, (size_t)cell.n);
            memset(dpt_field_cell(p->post, c), 2, (size_t)cell.n);
            continue;
        }
        pair_values(p->catalog.tensors[cell.tensor].name, cell, pre, post);
        dpt_dtype_from_f32(type, pre, dpt_field_cell(p->pre, c), cell.n);
        dpt_dtype_from_f32(type, post, dpt_field_cell(p->post, c), cell.n);
    }
}

typedef struct pair_tensor {
    const char *name;
    int ndim;
    int64_t shape[3];
} pair_tensor;

static inline void pair_catalog(dpt_catalog *catalog, dpt_dtype type, int count,
                                const pair_tensor *tensors) {
    dpt_catalog_init(catalog);
    for (int i = 0; i < count; i++)
        assert_int_equal(dpt_catalog_add(catalog, tensors[i].name,
                                         strcmp(tensors[i].name, "bytes") == 0 ? DPT_U8 : type,
                                         tensors[i].ndim, tensors[i].shape),
                         DPT_OK);
}

/* Collective. A pair of the given tensors, which are in order of name. */
static inline void pair_create_of(pair *p, dpt_dtype in, dpt_dtype out, int count,
                                  const pair_tensor *tensors) {
    memset(p, 0, sizeof *p);
    pair_catalog(&p->catalog, in, count, tensors);
    pair_catalog(&p->out_catalog, out, count, tensors);
    assert_int_equal(dpt_shard_create(&p->catalog, test_comm.size, &p->shard), DPT_OK);
    p->comparable = dpt_mem_alloc(p->catalog.count, sizeof *p->comparable, "pairs");
    for (int t = 0; t < p->catalog.count; t++)
        p->comparable[t] = dpt_dtype_editable(p->catalog.tensors[t].dtype);
    assert_int_equal(dpt_field_create(&test_comm, &p->catalog, &p->shard, &p->pre), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, &p->catalog, &p->shard, &p->post), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, &p->out_catalog, &p->shard, &p->out), DPT_OK);
    pair_fill(p, in);
    assert_int_equal(dpt_parts_create(&p->catalog, PAIR_HEADS, &p->parts), DPT_OK);
    p->input = (dpt_edit_input){.comm = &test_comm,
                                .shard = &p->shard,
                                .pre = dpt_field_source(p->pre),
                                .post = dpt_field_source(p->post),
                                .parts = &p->parts,
                                .comparable = p->comparable};
    p->sink = dpt_field_sink(p->out);
}

/* Collective. `large`: with the tensor of more than one cell. */
static inline void pair_create(pair *p, dpt_dtype in, dpt_dtype out, bool large) {
    static const pair_tensor all[] = {{"bytes", 1, {10}},
                                      {"empty", 2, {0, 5}},
                                      {"lm_head.weight", 2, {50, 24}},
                                      {"model.embed_tokens.weight", 2, {64, 24}},
                                      {"model.layers.0.input_layernorm.weight", 1, {80}},
                                      {"model.layers.0.mlp.down_proj.weight", 2, {1100, 1200}},
                                      {"model.layers.0.self_attn.q_proj.weight", 2, {96, 80}},
                                      {"model.layers.1.mlp.up_proj.weight", 2, {7, 300}},
                                      {"model.norm.weight", 1, {33}},
                                      {"scalar", 0, {0}}};
    pair_tensor some[sizeof all / sizeof all[0]];
    int count = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (large || all[i].shape[0] != 1100)
            some[count++] = all[i];
    pair_create_of(p, in, out, count, some);
}

static inline void pair_destroy(pair *p) {
    dpt_field_destroy(p->pre);
    dpt_field_destroy(p->post);
    dpt_field_destroy(p->out);
    dpt_mem_free(p->comparable);
    dpt_shard_destroy(&p->shard);
    dpt_parts_destroy(&p->parts);
    dpt_catalog_destroy(&p->catalog);
    dpt_catalog_destroy(&p->out_catalog);
}

/* "dare:p=0.5,k=1;bitdelta" */
static inline dpt_status spec_parse(const char *text, uint64_t seed, dpt_edit_spec *spec) {
    char copy[256], *stage_at = NULL;
    memset(spec, 0, sizeof *spec);
    spec->seed = seed;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *stage = strtok_r(copy, ";", &stage_at); stage != NULL;
         stage = strtok_r(NULL, ";", &stage_at)) {
        char *at = NULL;
        char *name = strtok_r(stage, ":", &at);
        dpt_edit_stage_spec *to = &spec->stages[spec->nstages++];
        int method = dpt_edit_method_find(name);
        assert_true(method >= 0);
        dpt_edit_stage_init(to, method);
        for (char *item = strtok_r(NULL, ",", &at); item != NULL; item = strtok_r(NULL, ",", &at)) {
            char *value = strchr(item, '=');
            *value++ = '\0';
            dpt_status st = dpt_edit_stage_set(to, item, value);
            if (st != DPT_OK)
                return st;
        }
    }
    return dpt_edit_spec_check(spec);
}

/* A whole tensor of a field on every rank; dpt_mem_free releases it. Collective. */
static inline void *whole_tensor(dpt_field *field, int tensor, int64_t *bytes) {
    dpt_source source = dpt_field_source(field);
    const dpt_tensor_info *info = &source.catalog->tensors[tensor];
    *bytes = info->numel * dpt_dtype_size(info->dtype);
    void *data = dpt_mem_alloc(*bytes, 1, "whole tensor");
    dpt_block want = dpt_block_of_range((dpt_range){tensor, 0, info->numel});
    assert_int_equal(source.fetch(source.ctx, 1, &want, &data), DPT_OK);
    return data;
}

static inline uint64_t tensor_hash(dpt_field *field, int tensor) {
    int64_t bytes;
    void *data = whole_tensor(field, tensor, &bytes);
    uint64_t hash = dpt_hash_bytes(data, (size_t)bytes);
    dpt_mem_free(data);
    return hash;
}

#endif
