/* ranks: 1 2 3 4 7 */
/* Edits that are made together: bytes and reports of each alone, and one read of the pair. */
#include "edit/edit_support.h"

#include <stdlib.h>

static const char *const edits[] = {"dare:p=0.5",
                                    "dare:p=0.9,k=0.3",
                                    "dare:p=0.5,rescale=l1",
                                    "drop:p=0.3",
                                    "bias:by=sign,k=0.5",
                                    "prune:keep=0.3",
                                    "prune:keep=0.2,scope=model",
                                    "bitdelta",
                                    "bitdelta:granularity=row",
                                    "multibit:bits=2",
                                    "della:p=0.5,epsilon=0.2",
                                    "expo:alpha=0.5",
                                    "lowrank:rank=5,svd=exact",
                                    "prune:keep=0.4;dare:p=0.5;bitdelta"};
enum { BIG = 5 }; /* the tensor of more than one cell */
enum { EDITS = sizeof edits / sizeof edits[0] };

/* Sources that are read as files are: own cells, into a buffer; and how much of them is. */
typedef struct counted {
    dpt_source from;
    int64_t elements;
} counted;

static dpt_status counted_read(void *ctx, dpt_range range, void *out) {
    counted *c = ctx;
    c->elements += range.n;
    return c->from.read(c->from.ctx, range, out);
}

static dpt_status counted_fetch(void *ctx, int64_t count, const dpt_block *wants,
                                void *const *outs) {
    counted *c = ctx;
    return c->from.fetch(c->from.ctx, count, wants, outs);
}

static dpt_source counted_source(counted *c, dpt_source from) {
    *c = (counted){.from = from};
    return (dpt_source){
        .ctx = c, .catalog = from.catalog, .read = counted_read, .fetch = counted_fetch};
}

/* A group of edits of a pair, each into a field of its own. */
typedef struct group {
    pair p;
    counted pre, post;
    dpt_edit_spec specs[EDITS];
    dpt_field *outs[EDITS];
    dpt_edit_task tasks[EDITS];
    dpt_edit_report reports[EDITS];
} group;

static void group_create(group *g, dpt_dtype in, dpt_dtype out, int count,
                         const char *const *texts) {
    pair_create(&g->p, in, out, true);
    g->p.input.pre = counted_source(&g->pre, g->p.input.pre);
    g->p.input.post = counted_source(&g->post, g->p.input.post);
    for (int i = 0; i < count; i++) {
        assert_int_equal(spec_parse(texts[i], 1 + (uint64_t)i, &g->specs[i]), DPT_OK);
        assert_int_equal(dpt_field_create(&test_comm, &g->p.out_catalog, &g->p.shard, &g->outs[i]),
                         DPT_OK);
        dpt_sink sink = dpt_field_sink(g->outs[i]);
        sink.view = NULL;
        g->tasks[i] = (dpt_edit_task){
            .name = texts[i], .spec = &g->specs[i], .sink = sink, .report = &g->reports[i]};
    }
}

static void group_destroy(group *g, int count) {
    for (int i = 0; i < count; i++) {
        dpt_field_destroy(g->outs[i]);
        dpt_edit_report_destroy(&g->reports[i]);
    }
    pair_destroy(&g->p);
}

static void same_number(double a, double b) {
    if (memcmp(&a, &b, sizeof a) != 0 && !(a != a && b != b))
        fail_msg("%a is not %a", a, b);
}

static void same_report(const dpt_edit_report *a, const dpt_edit_report *b) {
    assert_int_equal(a->ntensors, b->ntensors);
    for (int t = 0; t < a->ntensors; t++) {
        const dpt_edit_tensor_stats *x = &a->stats[t], *y = &b->stats[t];
        assert_int_equal(x->changed, y->changed);
        same_number(x->delta_norm, y->delta_norm);
        same_number(x->edit_norm, y->edit_norm);
        same_number(x->size, y->size);
        same_number(x->kept, y->kept);
        same_number(x->scale, y->scale);
        same_number(x->zeros, y->zeros);
        same_number(x->residual, y->residual);
        assert_int_equal(x->rank, y->rank);
    }
    assert_int_equal(a->nspectra, b->nspectra);
    for (int64_t i = 0; i < a->nspectra; i++)
        for (int64_t j = 0; j < a->spectra[i].rank; j++) {
            int64_t at = a->spectra[i].first + j;
            same_number(a->singular[at], b->singular[at]);
            same_number(a->singular_error[at], b->singular_error[at]);
        }
}

static void check_group(dpt_dtype in, dpt_dtype out) {
    group *g = malloc(sizeof *g);
    group_create(g, in, out, EDITS, edits);
    assert_int_equal(dpt_edit_run_many(EDITS, g->tasks, &g->p.input), DPT_OK);
    for (int i = 0; i < EDITS; i++) {
        dpt_edit_report alone, none;
        assert_int_equal(dpt_edit_run(&g->specs[i], &g->p.input, g->p.sink, &alone), DPT_OK);
        same_report(&g->reports[i], &alone);
        for (int t = 0; t < g->p.catalog.count; t++)
            if (tensor_hash(g->outs[i], t) != tensor_hash(g->p.out, t))
                fail_msg("%s: %s differs", edits[i], g->p.catalog.tensors[t].name);
        assert_int_equal(
            dpt_edit_run(&g->specs[i], &g->p.input, dpt_edit_sink_none(&g->p.out_catalog), &none),
            DPT_OK);
        same_report(&alone, &none);
        dpt_edit_report_destroy(&alone);
        dpt_edit_report_destroy(&none);
    }
    /* The same without a place for the models: pieces of a cell take turns. */
    for (int i = 0; i < EDITS; i++)
        g->tasks[i].sink = dpt_edit_sink_none(&g->p.out_catalog);
    dpt_edit_report kept[EDITS];
    memcpy(kept, g->reports, sizeof kept);
    assert_int_equal(dpt_edit_run_many(EDITS, g->tasks, &g->p.input), DPT_OK);
    for (int i = 0; i < EDITS; i++) {
        same_report(&g->reports[i], &kept[i]);
        dpt_edit_report_destroy(&kept[i]);
    }
    group_destroy(g, EDITS);
    free(g);
}

static void bf16_is_as_alone(void **state) {
    (void)state;
    check_group(DPT_BF16, DPT_BF16);
}

static void f32_is_as_alone(void **state) {
    (void)state;
    check_group(DPT_F32, DPT_F32);
}

static void other_types_are_as_alone(void **state) {
    (void)state;
    check_group(DPT_BF16, DPT_F32);
}

/* Masks of which nothing is kept, some of one stream and some not, have the sums of each alone that is written. */
static void masks_of_one_seed_are_as_alone(void **state) {
    (void)state;
    static const char *const masks[] = {"dare:p=0.1",         "dare:p=0.5", "drop:p=0.3",
                                        "dare:p=0.9,k=-0.25", "drop:p=1",   "dare:p=0.7",
                                        "dare:p=0.25,k=2",    "dare:p=0.5"};
    static const uint64_t seeds[] = {1, 1, 2, 1, 1, 2, 2, 3};
    enum { MASKS = sizeof masks / sizeof masks[0] };
    group *g = malloc(sizeof *g);
    group_create(g, DPT_BF16, DPT_BF16, MASKS, masks);
    for (int count = 1; count <= MASKS; count++) {
        for (int i = 0; i < count; i++) {
            g->specs[i].seed = seeds[i];
            g->tasks[i].sink = dpt_edit_sink_none(&g->p.out_catalog);
        }
        assert_int_equal(dpt_edit_run_many(count, g->tasks, &g->p.input), DPT_OK);
        for (int i = 0; i < count; i++) {
            dpt_edit_report alone;
            assert_int_equal(dpt_edit_run(&g->specs[i], &g->p.input, g->p.sink, &alone), DPT_OK);
            same_report(&g->reports[i], &alone);
            dpt_edit_report_destroy(&alone);
            if (count < MASKS)
                dpt_edit_report_destroy(&g->reports[i]);
        }
    }
    group_destroy(g, MASKS);
    free(g);
}

/* A value that is none is found although nothing is written. */
static void masks_name_a_bad_value(void **state) {
    (void)state;
    static const char *const masks[] = {"dare:p=0.5", "dare:p=0.9"};
    group *g = malloc(sizeof *g);
    group_create(g, DPT_BF16, DPT_BF16, 2, masks);
    for (int64_t c = 0; c < g->p.shard.cells; c++) {
        uint16_t *post = dpt_field_cell(g->p.post, c);
        dpt_range cell = dpt_shard_cell(&g->p.shard, c);
        if (post != NULL && cell.tensor == BIG && cell.ig == 0)
            post[5000] = 0x7f80;
    }
    for (int i = 0; i < 2; i++)
        g->tasks[i].sink = dpt_edit_sink_none(&g->p.out_catalog);
    dpt_error_clear();
    assert_int_equal(dpt_edit_run_many(2, g->tasks, &g->p.input), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "index 5000 is NaN or infinite"));
    dpt_error_clear();
    group_destroy(g, 2);
    free(g);
}

/* Own elements, of all tensors and of those that dare covers. */
static int64_t own_elements(const pair *p, bool covered) {
    int64_t sum = 0;
    for (int64_t c = p->shard.rank_first[test_comm.rank];
         c < p->shard.rank_first[test_comm.rank + 1]; c++) {
        dpt_range cell = dpt_shard_cell(&p->shard, c);
        sum += !covered || p->comparable[cell.tensor] ? cell.n : 0;
    }
    return sum;
}

static void a_pair_is_read_once(void **state) {
    (void)state;
    static const char *const masks[] = {"dare:p=0.5", "dare:p=0.9", "drop:p=0.3", "expo:alpha=2"};
    enum { MASKS = sizeof masks / sizeof masks[0] };
    group *g = malloc(sizeof *g);
    group_create(g, DPT_BF16, DPT_BF16, MASKS, masks);
    assert_int_equal(dpt_edit_run_many(MASKS, g->tasks, &g->p.input), DPT_OK);
    assert_int_equal(g->pre.elements, own_elements(&g->p, true));
    assert_int_equal(g->post.elements, own_elements(&g->p, false));
    /* Kept nowhere, what is not touched is not read either. */
    g->pre.elements = g->post.elements = 0;
    for (int i = 0; i < MASKS; i++) {
        dpt_edit_report_destroy(&g->reports[i]);
        g->tasks[i].sink = dpt_edit_sink_none(&g->p.out_catalog);
    }
    assert_int_equal(dpt_edit_run_many(MASKS, g->tasks, &g->p.input), DPT_OK);
    assert_int_equal(g->pre.elements, own_elements(&g->p, true));
    assert_int_equal(g->post.elements, own_elements(&g->p, true));
    group_destroy(g, MASKS);
    free(g);
}

/* The edit that fails is named, on all ranks, and nothing is left of the others. */
static void a_failing_edit_is_named(void **state) {
    (void)state;
    static const char *const some[] = {"dare:p=0.5", "expo:alpha=999999;expo:alpha=999999",
                                       "drop:p=0.3"};
    group *g = malloc(sizeof *g);
    group_create(g, DPT_F32, DPT_F16, 3, some);
    dpt_error_clear();
    assert_int_equal(dpt_edit_run_many(3, g->tasks, &g->p.input), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "expo:alpha=999999;expo"));
    assert_non_null(strstr(dpt_error_message(), "beyond the range"));
    dpt_error_clear();
    setenv("DPT_FAULT", "edit.prepare:last:2", 1);
    assert_int_equal(dpt_edit_run_many(3, g->tasks, &g->p.input), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "expo:alpha=999999;expo"));
    unsetenv("DPT_FAULT");
    dpt_error_clear();
    group_destroy(g, 3);
    free(g);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_is_as_alone),
                                       cmocka_unit_test(f32_is_as_alone),
                                       cmocka_unit_test(other_types_are_as_alone),
                                       cmocka_unit_test(masks_of_one_seed_are_as_alone),
                                       cmocka_unit_test(a_pair_is_read_once),
                                       cmocka_unit_test(masks_name_a_bad_value),
                                       cmocka_unit_test(a_failing_edit_is_named)};
    return test_mpi_main(argc, argv, tests);
}
