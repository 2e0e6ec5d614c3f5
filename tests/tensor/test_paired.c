/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/tensor/paired.h"

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
static void test_blocks_stay_whole(void **state) {
    (void)state;
    counter pre, post;
    dpt_catalog catalog = {.count = 2};
    int pre_of[] = {7, -1};
    dpt_paired paired = {.catalog = &catalog,
                         .pre_of = pre_of,
                         .pre = counter_source(&pre, 1),
                         .post = counter_source(&post, 2)};
    dpt_source source = dpt_paired_source(&paired);
    unsigned char a[40], b[6];
    dpt_block wants[] = {{.tensor = 0, .ig = 3, .rows = 10, .cols = 4, .stride = 9},
                         {.tensor = 1, .rows = 3, .cols = 2, .stride = 2}};
    void *outs[] = {a, b};
    assert_ptr_equal(source.catalog, &catalog);
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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks_stay_whole)};
    return test_mpi_main(argc, argv, tests);
}
