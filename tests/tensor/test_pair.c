/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "deltapath/base/mem.h"
#include "deltapath/tensor/pair.h"

static int balances(void **state) {
    (void)state;
    dpt_error_clear();
    dpt_mem_set_budget(0);
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static void add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim, int64_t a,
                int64_t b, int64_t c) {
    int64_t shape[3] = {a, b, c};
    assert_int_equal(dpt_catalog_add(catalog, name, dtype, ndim, shape), DPT_OK);
}

static const char EMBED[] = "model.embed_tokens.weight";
static const char HEAD[] = "lm_head.weight";
static const char NORM[] = "model.norm.weight";

typedef struct pair_case {
    dpt_catalog pre, post;
    dpt_pair pair;
    char *report;
    dpt_status status;
    const dpt_rename *renames;
    int nrenames;
} pair_case;

static void start(pair_case *p) {
    memset(p, 0, sizeof *p);
    dpt_catalog_init(&p->pre);
    dpt_catalog_init(&p->post);
}

/* Names as LLaMA's. */
static dpt_tied_head head_of(const dpt_catalog *catalog, bool tied) {
    return (dpt_tied_head){.tied = tied,
                           .head = dpt_catalog_find(catalog, HEAD),
                           .embedding = dpt_catalog_find(catalog, EMBED)};
}

static void pair(pair_case *p, bool tied_pre, bool tied_post, dpt_mismatch_policy policy) {
    assert_int_equal(dpt_catalog_sort(&p->pre), DPT_OK);
    assert_int_equal(dpt_catalog_sort(&p->post), DPT_OK);
    dpt_pair_side pre = {
        .source = {.catalog = &p->pre}, .name = "pre", .head = head_of(&p->pre, tied_pre)};
    dpt_pair_side post = {
        .source = {.catalog = &p->post}, .name = "post", .head = head_of(&p->post, tied_post)};
    int idle;
    assert_int_equal(dpt_catalog_rename(&p->post, p->nrenames, p->renames, &idle), DPT_OK);
    p->status = dpt_pair_create(&pre, &post, policy, &p->pair, &p->report);
}

static void stop(pair_case *p) {
    dpt_pair_destroy(&p->pair);
    dpt_mem_free(p->report);
    dpt_catalog_destroy(&p->pre);
    dpt_catalog_destroy(&p->post);
}

static int lines_of(const char *text) {
    int lines = 0;
    for (; text != NULL && *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

static void equal_models_pair(void **state) {
    (void)state;
    pair_case p;
    start(&p);
    add(&p.pre, EMBED, DPT_BF16, 2, 32, 8, 0);
    add(&p.pre, NORM, DPT_BF16, 1, 8, 0, 0);
    add(&p.post, NORM, DPT_BF16, 1, 8, 0, 0);
    add(&p.post, EMBED, DPT_BF16, 2, 32, 8, 0);
    add(&p.pre, "rotary", DPT_I64, 1, 8, 0, 0);
    add(&p.post, "rotary", DPT_I64, 1, 8, 0, 0);
    pair(&p, false, false, DPT_MISMATCH_ERROR);
    assert_int_equal(p.status, DPT_OK);
    assert_null(p.report);
    assert_int_equal(p.pair.catalog.count, 3);
    assert_int_equal(dpt_pair_partner(&p.pair, 0), 0);
    assert_int_equal(dpt_pair_partner(&p.pair, 1), 1);
    assert_int_equal(dpt_pair_partner(&p.pair, 2), 2);
    assert_true(p.pair.comparable[0] && p.pair.comparable[1]);
    assert_false(p.pair.comparable[2]); /* indices: there is nothing to compute */
    stop(&p);
}

static void fill_mismatched(pair_case *p) {
    start(p);
    add(&p->pre, EMBED, DPT_F32, 2, 32000, 8, 0);
    add(&p->pre, HEAD, DPT_F32, 2, 32000, 8, 0);
    add(&p->pre, "only.pre", DPT_F32, 1, 8, 0, 0);
    add(&p->pre, "rotary", DPT_I64, 1, 8, 0, 0);
    add(&p->pre, "shape", DPT_F32, 2, 8, 9, 0);
    add(&p->pre, NORM, DPT_F32, 1, 8, 0, 0);
    add(&p->post, EMBED, DPT_BF16, 2, 32064, 8, 0);
    add(&p->post, HEAD, DPT_F32, 2, 32000, 8, 0);
    add(&p->post, "only.post", DPT_F32, 1, 8, 0, 0);
    add(&p->post, "rotary", DPT_I32, 1, 8, 0, 0);
    add(&p->post, "shape", DPT_F32, 2, 9, 8, 0);
    add(&p->post, NORM, DPT_BF16, 1, 8, 0, 0);
}

static void many_of_a_kind_are_one_line(void **state) {
    (void)state;
    pair_case p;
    char name[32];
    start(&p);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "pre.%d", i);
        add(&p.pre, name, DPT_F32, 1, 8, 0, 0);
    }
    for (int i = 0; i < 47; i++) {
        snprintf(name, sizeof name, "post.%02d", i);
        add(&p.post, name, DPT_F32, 1, 8, 0, 0);
    }
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    assert_int_equal(p.pair.mismatches, 52);
    assert_int_equal(lines_of(p.report), 1 + 5);
    assert_non_null(strstr(p.report, "47 tensors are missing in the pre-trained model: 'post.00', "
                                     "'post.01', 'post.02' and 44 more\n"));
    assert_non_null(strstr(p.report, "tensor 'pre.4': missing in the post-trained model\n"));
    stop(&p);
}

static void all_mismatches_are_listed(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    pair(&p, false, false, DPT_MISMATCH_ERROR);
    assert_int_equal(p.status, DPT_ERR_INPUT);
    assert_int_equal(lines_of(p.report), 6);
    assert_non_null(strstr(p.report, "padded vocabulary: [32000, 8]"));
    assert_non_null(strstr(p.report, "'only.post': missing in the pre-trained"));
    assert_non_null(strstr(p.report, "'only.pre': missing in the post-trained"));
    assert_non_null(strstr(p.report, "types differ: I64"));
    assert_non_null(strstr(p.report, "shapes differ: [8, 9]"));
    assert_non_null(strstr(p.report, "1 tensors are F32"));
    assert_non_null(strstr(dpt_error_message(), "first of 5 mismatches"));
    assert_non_null(strstr(dpt_error_message(), "keep-post"));
    assert_null(p.pair.pre_of);
    stop(&p);
}

static void keep_post_pairs_the_rest(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    assert_int_equal(p.pair.mismatches, 5);
    for (int i = 0; i < p.post.count; i++) {
        const char *name = p.post.tensors[i].name;
        bool pairs = strcmp(name, HEAD) == 0 || strcmp(name, NORM) == 0;
        int partner = pairs ? dpt_catalog_find(&p.pre, name) : -1;
        assert_int_equal(dpt_pair_partner(&p.pair, i), partner);
        assert_int_equal(p.pair.comparable[i], pairs);
        assert_int_equal(p.pair.catalog.tensors[i].dtype,
                         pairs ? p.pre.tensors[partner].dtype : p.post.tensors[i].dtype);
    }
    stop(&p);
}

/* Heads stored or not on either side, tied or not. */
static void tied_heads(void **state) {
    (void)state;
    static const struct {
        bool pre_head, post_head, tied_pre, tied_post, pairs;
    } cases[] = {
        {true, true, false, false, true},   {false, false, true, true, true},
        {false, true, true, false, true},   {false, true, true, true, true},
        {false, true, false, false, false}, {true, false, true, true, true},
        {true, false, false, true, false},  {true, false, true, false, false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        pair_case p;
        start(&p);
        add(&p.pre, EMBED, DPT_F32, 2, 32, 8, 0);
        add(&p.post, EMBED, DPT_F32, 2, 32, 8, 0);
        if (cases[c].pre_head)
            add(&p.pre, HEAD, DPT_F32, 2, 32, 8, 0);
        if (cases[c].post_head)
            add(&p.post, HEAD, DPT_F32, 2, 32, 8, 0);
        pair(&p, cases[c].tied_pre, cases[c].tied_post, DPT_MISMATCH_ERROR);
        assert_int_equal(p.status, cases[c].pairs ? DPT_OK : DPT_ERR_INPUT);
        if (cases[c].pairs && cases[c].post_head)
            assert_int_equal(dpt_pair_partner(&p.pair, dpt_catalog_find(&p.post, HEAD)),
                             dpt_catalog_find(&p.pre, cases[c].pre_head ? HEAD : EMBED));
        stop(&p);
    }
}

static void expect_partner(const pair_case *p, const char *post, const char *pre) {
    int tensor = dpt_catalog_find(&p->post, post);
    assert_true(tensor >= 0);
    int partner = dpt_pair_partner(&p->pair, tensor);
    assert_string_equal(partner >= 0 ? p->pre.tensors[partner].name : "none", pre);
}

/* Names that wrap differently on both sides; one that has its own partner; two that only prefixes tell apart. */
static void prefixes_are_recognised(void **state) {
    (void)state;
    pair_case p;
    start(&p);
    add(&p.pre, "language_model.model.norm.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "language_model.lm_head.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "same.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "transformer.h.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "model.twice", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "model.", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "base_model.model.model.norm.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "base_model.model.lm_head.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "same.weight", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "h.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "twice", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "language_model.twice", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "model.model.", DPT_F32, 1, 8, 0, 0);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    expect_partner(&p, "base_model.model.model.norm.weight", "language_model.model.norm.weight");
    expect_partner(&p, "base_model.model.lm_head.weight", "language_model.lm_head.weight");
    expect_partner(&p, "same.weight", "same.weight");
    expect_partner(&p, "h.0.w", "transformer.h.0.w");
    expect_partner(&p, "model.model.", "model.");
    expect_partner(&p, "twice", "none");
    expect_partner(&p, "language_model.twice", "none");
    assert_int_equal(p.pair.mismatches, 3); /* and that of pre has no partner */
    assert_non_null(
        strstr(p.report, "4 tensors are paired although prefixes of their names differ"));
    stop(&p);
}

/* What wraps a tower of images; its tensors are never those of the language model. */
static void towers_are_recognised(void **state) {
    (void)state;
    pair_case p;
    start(&p);
    add(&p.pre, "vision_tower.vision_model.layers.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "language_model.model.layers.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "vision_tower.vision_model.norm.w", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "vision_model.probe", DPT_F32, 1, 8, 0, 0);
    add(&p.pre, "text_model.encoder.w", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "model.vision_tower.layers.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "model.language_model.layers.0.w", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "norm.w", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "probe", DPT_F32, 1, 8, 0, 0);
    add(&p.post, "vision_model.encoder.w", DPT_F32, 1, 8, 0, 0);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    expect_partner(&p, "model.vision_tower.layers.0.w", "vision_tower.vision_model.layers.0.w");
    expect_partner(&p, "model.language_model.layers.0.w", "language_model.model.layers.0.w");
    expect_partner(&p, "norm.w", "none");
    expect_partner(&p, "probe", "vision_model.probe");
    expect_partner(&p, "vision_model.encoder.w", "none");
    stop(&p);
}

static void renames_map_names_of_post(void **state) {
    (void)state;
    static const dpt_rename longest[] = {{"x.", "model."}, {"x.b", "model.c"}, {"", "y."}};
    static const dpt_rename both[] = {{"x.a", "model.a"}, {"x.b", "model.a"}};
    static const struct {
        const dpt_rename *renames;
        int count;
        dpt_status status;
        const char *says;
    } cases[] = {{longest, 3, DPT_OK, ""},
                 {both, 2, DPT_ERR_INPUT, "would both pair with 'model.a'"}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        pair_case p;
        start(&p);
        p.renames = cases[c].renames;
        p.nrenames = cases[c].count;
        add(&p.pre, "model.a", DPT_F32, 1, 8, 0, 0);
        add(&p.pre, "model.c", DPT_F32, 1, 8, 0, 0);
        add(&p.pre, "y.other", DPT_F32, 1, 8, 0, 0);
        add(&p.post, "x.a", DPT_F32, 1, 8, 0, 0);
        add(&p.post, "x.b", DPT_F32, 1, 8, 0, 0);
        add(&p.post, "other", DPT_F32, 1, 8, 0, 0);
        dpt_error_clear();
        pair(&p, false, false, c == 0 ? DPT_MISMATCH_ERROR : DPT_MISMATCH_KEEP_POST);
        assert_int_equal(p.status, cases[c].status);
        assert_non_null(strstr(dpt_error_message(), cases[c].says));
        if (c == 0) {
            expect_partner(&p, "x.a", "model.a");
            expect_partner(&p, "x.b", "model.c");
            expect_partner(&p, "other", "y.other");
        }
        stop(&p);
    }
}

static void no_memory_is_an_error(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    dpt_mem_set_budget(dpt_mem_in_use() + 64);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_ERR_OUTPUT);
    assert_null(p.report);
    stop(&p);
}

/* A source that gives its own number and counts what is asked of it. */
typedef struct counter {
    dpt_catalog catalog;
    unsigned char value;
    int reads, fetches;
    int tensor; /* the last that was asked for */
} counter;

static dpt_status counter_read(void *ctx, dpt_range range, void *out) {
    counter *c = ctx;
    c->reads++;
    c->tensor = range.tensor;
    memset(out, c->value, (size_t)range.n);
    return DPT_OK;
}

static dpt_status counter_fetch(void *ctx, int64_t count, const dpt_block *wants,
                                void *const *outs) {
    counter *c = ctx;
    c->fetches++;
    for (int64_t i = 0; i < count; i++) {
        c->tensor = wants[i].tensor;
        memset(outs[i], c->value, (size_t)(wants[i].rows * wants[i].cols));
    }
    return DPT_OK;
}

static dpt_source counter_source(counter *c, unsigned char value) {
    *c = (counter){.value = value, .tensor = -1};
    return (dpt_source){
        .ctx = c, .catalog = &c->catalog, .read = counter_read, .fetch = counter_fetch};
}

/* A block is one request to its model, however many rows it has: what follows reads whole blocks at
 * once, where a read a row took forty times the calls. */
static void blocks_stay_whole(void **state) {
    (void)state;
    counter pre, post;
    dpt_catalog catalog = {.count = 2};
    int pre_of[] = {7, -1};
    dpt_pair pair = {.catalog = catalog,
                     .pre_of = pre_of,
                     .pre = {.source = counter_source(&pre, 1)},
                     .post = {.source = counter_source(&post, 2)}};
    dpt_source source = dpt_pair_source(&pair);
    unsigned char a[40], b[6];
    dpt_block wants[] = {{.tensor = 0, .ig = 3, .rows = 10, .cols = 4, .stride = 9},
                         {.tensor = 1, .rows = 3, .cols = 2, .stride = 2}};
    void *outs[] = {a, b};
    assert_ptr_equal(source.catalog, &pair.catalog);
    assert_int_equal(source.fetch(source.ctx, 2, wants, outs), DPT_OK);
    assert_int_equal(pre.fetches + post.fetches, 2);
    assert_int_equal(pre.reads + post.reads, 0);
    assert_true(pre.tensor == 7 && post.tensor == 1);
    assert_true(a[0] == 1 && a[39] == 1 && b[0] == 2 && b[5] == 2);
    dpt_range run = {.tensor = 0, .ig = 2, .n = 5};
    assert_int_equal(source.read(source.ctx, run, a), DPT_OK);
    run.tensor = 1;
    assert_int_equal(source.read(source.ctx, run, b), DPT_OK);
    assert_true(pre.reads == 1 && post.reads == 1);
}

/* Models of one tensor each, of three values. */
static dpt_status values_read(void *ctx, dpt_range range, void *out) {
    memcpy(out, (const float *)ctx + range.ig, (size_t)range.n * sizeof(float));
    return DPT_OK;
}

static void deltas_are_post_less_pre(void **state) {
    (void)state;
    float a[] = {1, 2, 4}, b[] = {8, 5, 7}, stored[3], pre[3], post[3];
    dpt_pair pair;
    char *report;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, NORM, DPT_F32, 1, 3, 0, 0);
    dpt_pair_side sides[] = {
        {.source = {.ctx = a, .catalog = &catalog, .read = values_read}, .name = "before"},
        {.source = {.ctx = b, .catalog = &catalog, .read = values_read}, .name = "after"}};
    dpt_range range = {.tensor = 0, .ig = 1, .n = 2};
    assert_int_equal(dpt_pair_create(&sides[0], &sides[1], DPT_MISMATCH_ERROR, &pair, &report),
                     DPT_OK);
    assert_int_equal(dpt_pair_values(&pair, range, stored, pre, post), DPT_OK);
    assert_true(pre[0] == 2 && pre[1] == 4 && post[0] == 5 && post[1] == 7);
    assert_int_equal(dpt_pair_delta(&pair, range, stored, pre, post), DPT_OK);
    assert_true(post[0] == 3 && post[1] == 3);
    b[2] = INFINITY;
    assert_int_equal(dpt_pair_delta(&pair, range, stored, pre, post), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "after: tensor model.norm.weight"));
    assert_non_null(strstr(dpt_error_message(), "element 2"));
    dpt_pair_destroy(&pair);
    dpt_catalog_destroy(&catalog);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(equal_models_pair, balances),
        cmocka_unit_test_teardown(all_mismatches_are_listed, balances),
        cmocka_unit_test_teardown(many_of_a_kind_are_one_line, balances),
        cmocka_unit_test_teardown(keep_post_pairs_the_rest, balances),
        cmocka_unit_test_teardown(tied_heads, balances),
        cmocka_unit_test_teardown(prefixes_are_recognised, balances),
        cmocka_unit_test_teardown(towers_are_recognised, balances),
        cmocka_unit_test_teardown(renames_map_names_of_post, balances),
        cmocka_unit_test_teardown(no_memory_is_an_error, balances),
        cmocka_unit_test_teardown(blocks_stay_whole, balances),
        cmocka_unit_test_teardown(deltas_are_post_less_pre, balances),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
