/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include "deltapath/tensor/field.h"

#include <stdlib.h>
#include <string.h>

/* Element ig of tensor t as a code of its type's size: every element differs from its neighbours. */
static uint64_t code_of(int tensor, int64_t ig) {
    return (uint64_t)(ig + 1) * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)tensor * 977;
}

static void fill(unsigned char *out, int64_t size, int tensor, int64_t ig, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t code = code_of(tensor, ig + i);
        memcpy(out + i * size, &code, (size_t)size);
    }
}

static void expect(const unsigned char *data, int64_t size, int tensor, int64_t ig, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t code = code_of(tensor, ig + i);
        if (memcmp(data + i * size, &code, (size_t)size) != 0)
            fail_msg("tensor %d element %ld", tensor, (long)(ig + i));
    }
}

typedef struct fixture {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_field *field;
    dpt_source source;
    dpt_sink sink;
} fixture;

/* A 1500 x 2003 matrix (three cells), an empty tensor, a vector, a 3-cell f32 tensor, a scalar. */
static void start(fixture *f) {
    static const struct {
        const char *name;
        dpt_dtype dtype;
        int ndim;
        int64_t shape[2];
    } tensors[] = {{"a", DPT_BF16, 2, {1500, 2003}}, {"b", DPT_F32, 1, {0, 0}},
                   {"c", DPT_F16, 1, {77, 0}},       {"d", DPT_F32, 2, {2 * 1024, 1024}},
                   {"e", DPT_F64, 0, {0, 0}},        {"f", DPT_U8, 2, {1025, 1024}}};
    dpt_catalog_init(&f->catalog);
    for (int t = 0; t < 6; t++)
        assert_int_equal(dpt_catalog_add(&f->catalog, tensors[t].name, tensors[t].dtype,
                                         tensors[t].ndim, tensors[t].shape),
                         DPT_OK);
    assert_int_equal(dpt_shard_create(&f->catalog, test_comm.size, &f->shard), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, &f->catalog, &f->shard, &f->field), DPT_OK);
    f->source = dpt_field_source(f->field);
    f->sink = dpt_field_sink(f->field);
    for (int64_t c = 0; c < f->shard.cells; c++) {
        dpt_range cell = dpt_shard_cell(&f->shard, c);
        void *place = dpt_field_cell(f->field, c);
        assert_int_equal(place != NULL, dpt_shard_owner(&f->shard, c) == test_comm.rank);
        if (place != NULL)
            fill(place, dpt_dtype_size(f->catalog.tensors[cell.tensor].dtype), cell.tensor, cell.ig,
                 cell.n);
    }
}

static void stop(fixture *f) {
    dpt_field_destroy(f->field);
    dpt_shard_destroy(&f->shard);
    dpt_catalog_destroy(&f->catalog);
    dpt_error_clear();
}

static int64_t size_of(const fixture *f, int tensor) {
    return dpt_dtype_size(f->catalog.tensors[tensor].dtype);
}

static void runs_are_read_and_written(void **state) {
    (void)state;
    fixture f;
    start(&f);
    assert_true(dpt_field_bytes(&f.catalog, &f.shard) * test_comm.size >=
                dpt_catalog_bytes(&f.catalog));
    for (int t = 0; t < f.catalog.count; t++) {
        int64_t begin;
        int64_t end;
        dpt_shard_owned(&f.shard, test_comm.rank, t, &begin, &end);
        int64_t size = size_of(&f, t);
        unsigned char *data = malloc((size_t)((end - begin) * size + 1));
        assert_int_equal(f.source.read(f.source.ctx, (dpt_range){t, begin, end - begin}, data),
                         DPT_OK);
        expect(data, size, t, begin, end - begin);
        if (end - begin > 10) { /* a ragged run over cell borders, put back shifted by a code */
            dpt_range inner = {t, begin + 3, end - begin - 7};
            fill(data, size, t + 50, inner.ig, inner.n);
            assert_int_equal(f.sink.write(f.sink.ctx, inner, data), DPT_OK);
            const unsigned char *place = f.source.view(f.source.ctx, (dpt_range){t, begin + 3, 1});
            expect(place, size, t + 50, begin + 3, 1);
            assert_ptr_equal(f.sink.view(f.sink.ctx, (dpt_range){t, begin + 3, 1}), place);
            assert_int_equal(f.source.read(f.source.ctx, (dpt_range){t, begin, end - begin}, data),
                             DPT_OK);
            expect(data, size, t, begin, 3);
            expect(data + 3 * size, size, t + 50, inner.ig, inner.n);
            expect(data + (end - begin - 4) * size, size, t, end - 4, 4);
        }
        assert_int_equal(f.source.read(f.source.ctx, (dpt_range){t, begin, end - begin + 1}, data),
                         DPT_ERR_INTERNAL);
        assert_null(f.source.view(f.source.ctx, (dpt_range){t, begin, end - begin + 1}));
        free(data);
    }
    assert_int_equal(f.source.read(f.source.ctx, (dpt_range){-1, 0, 1}, NULL), DPT_ERR_INTERNAL);
    assert_int_equal(f.source.read(f.source.ctx, (dpt_range){0, INT64_MAX, INT64_MAX}, NULL),
                     DPT_ERR_INTERNAL);
    stop(&f);
}

static void fetch_and_expect(fixture *f, int64_t count, const dpt_block *wants) {
    void **outs = calloc((size_t)count + 1, sizeof *outs);
    for (int64_t i = 0; i < count; i++) {
        size_t bytes = (size_t)(wants[i].rows * wants[i].cols * size_of(f, wants[i].tensor));
        outs[i] = malloc(bytes + 1);
        memset(outs[i], 0x77, bytes + 1);
    }
    assert_int_equal(f->source.fetch(f->source.ctx, count, wants, outs), DPT_OK);
    for (int64_t i = 0; i < count; i++) {
        dpt_block b = wants[i];
        int64_t size = size_of(f, b.tensor);
        unsigned char *out = outs[i];
        for (int64_t r = 0; r < b.rows; r++)
            expect(out + r * b.cols * size, size, b.tensor, b.ig + r * b.stride, b.cols);
        assert_int_equal(out[b.rows * b.cols * size], 0x77);
        free(out);
    }
    free(outs);
}

static void blocks_are_fetched(void **state) {
    (void)state;
    fixture f;
    start(&f);
    int size = test_comm.size;
    int rank = test_comm.rank;
    int64_t row_begin, row_end, col_begin, col_end;
    dpt_shard_split(1500, size, rank, &row_begin, &row_end);
    dpt_shard_split(2003, size, size - 1 - rank, &col_begin, &col_end);
    const dpt_block wants[] = {
        {0, row_begin * 2003, row_end - row_begin, 2003, 2003}, /* rows */
        {0, col_begin, 1500, col_end - col_begin, 2003},        /* columns */
        {0, 2002, 1500, 1, 2003},                               /* last column */
        {0, 1048570, 1, 12, 12},                                /* over a cell border */
        {1, 0, 0, 0, 0},                                        /* of an empty tensor */
        {2, 70, 1, 7, 7},
        {4, 0, 1, 1, 1},
        {5, 1023, 1025, 1, 1024},
        {5, 5, 0, 9, 9},
        {3, 0, 1, 2 * 1024 * 1024, 0}, /* a whole tensor on every rank; one row needs no stride */
    };
    fetch_and_expect(&f, 10, wants);
    fetch_and_expect(&f, rank == 0 ? 10 : 0, wants);       /* others want nothing */
    fetch_and_expect(&f, rank == size - 1 ? 3 : 1, wants); /* lists differ */
    fetch_and_expect(&f, 0, wants);
    dpt_block all[6];
    for (int t = 0; t < 6; t++)
        all[t] = dpt_block_of_range((dpt_range){t, 0, f.catalog.tensors[t].numel});
    fetch_and_expect(&f, 6, all);
    stop(&f);
}

static void blocks_outside_fail_everywhere(void **state) {
    (void)state;
    fixture f;
    start(&f);
    static const dpt_block bad[] = {
        {6, 0, 1, 1, 1},
        {-1, 0, 1, 1, 1},
        {2, 71, 1, 7, 7},
        {0, -1, 1, 4, 4},
        {0, 0, 1501, 2003, 2003},
        {0, 0, 2, 2003, 2002},
        {2, 0, -1, 1, 1},
        {0, 0, INT64_MAX, 3, INT64_MAX / 2},
        {0, INT64_MAX, 1, INT64_MAX, 1},
        {1, 0, 1, 1, 1},
    };
    static unsigned char room[8 * 4096];
    void *outs[] = {room};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (int culprit = 0; culprit < test_comm.size; culprit += 1 + (test_comm.size > 2)) {
            dpt_block want = test_comm.rank == culprit ? bad[i] : (dpt_block){2, 0, 1, 7, 7};
            assert_int_equal(f.source.fetch(f.source.ctx, 1, &want, outs), DPT_ERR_INTERNAL);
            char expected[64];
            snprintf(expected, sizeof expected, "[rank %d] block", culprit);
            assert_non_null(strstr(dpt_error_message(), expected));
            dpt_error_clear();
        }
    stop(&f);
}

/* Rank r sends the pieces p of a tensor with p % size == r; nothing overlaps. */
static void runs_are_scattered(void **state) {
    (void)state;
    enum { PIECES = 7 };
    fixture f;
    start(&f);
    dpt_range ranges[6 * PIECES];
    void *data[6 * PIECES];
    int count = 0;
    for (int t = 0; t < 6; t++)
        for (int p = 0; p < PIECES; p++) {
            int64_t begin;
            int64_t end;
            dpt_shard_split(f.catalog.tensors[t].numel, PIECES, p, &begin, &end);
            if (p % test_comm.size != test_comm.rank)
                continue;
            ranges[count] = (dpt_range){t, begin, end - begin};
            data[count] = malloc((size_t)((end - begin) * size_of(&f, t) + 1));
            fill(data[count++], size_of(&f, t), t + 9, begin, end - begin);
        }
    assert_int_equal(f.sink.scatter(f.sink.ctx, count, ranges, (const void *const *)data), DPT_OK);
    for (int64_t c = 0; c < f.shard.cells; c++) {
        dpt_range cell = dpt_shard_cell(&f.shard, c);
        const void *place = dpt_field_cell(f.field, c);
        if (place != NULL)
            expect(place, size_of(&f, cell.tensor), cell.tensor + 9, cell.ig, cell.n);
    }
    while (count > 0)
        free(data[--count]);
    stop(&f);
}

/* Every rank sends all of a tensor, the higher ones less: the highest that sent an element stays. */
static void highest_rank_stays(void **state) {
    (void)state;
    fixture f;
    start(&f);
    int64_t numel = f.catalog.tensors[3].numel;
    int64_t n = numel / (test_comm.rank + 1);
    unsigned char *own = malloc((size_t)(4 * n));
    fill(own, 4, 100 + test_comm.rank, 0, n);
    dpt_range range = {3, 0, n};
    const void *data[] = {own};
    assert_int_equal(f.sink.scatter(f.sink.ctx, 1, &range, data), DPT_OK);
    free(own);
    for (int64_t c = 0; c < f.shard.cells; c++) {
        dpt_range cell = dpt_shard_cell(&f.shard, c);
        const unsigned char *place = dpt_field_cell(f.field, c);
        if (cell.tensor != 3 || place == NULL)
            continue;
        for (int64_t i = 0; i < cell.n; i++) {
            int rank = test_comm.size - 1;
            while (cell.ig + i >= numel / (rank + 1))
                rank--;
            expect(place + 4 * i, 4, 100 + rank, cell.ig + i, 1);
        }
    }
    stop(&f);
}

/* A field in other types than the catalog that the shard was made from. */
static void types_are_those_of_the_field(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dpt_catalog wide;
    assert_int_equal(dpt_catalog_copy(&f.catalog, &wide), DPT_OK);
    for (int t = 0; t < 4; t++)
        wide.tensors[t].dtype = DPT_F64;
    dpt_field *field;
    assert_int_equal(dpt_field_create(&test_comm, &wide, &f.shard, &field), DPT_OK);
    dpt_sink sink = dpt_field_sink(field);
    dpt_source source = dpt_field_source(field);
    int64_t numel = test_comm.rank == 0 ? wide.tensors[0].numel : 0;
    unsigned char *data = malloc((size_t)(8 * wide.tensors[0].numel));
    fill(data, 8, 0, 0, numel);
    dpt_range range = {0, 0, numel};
    const void *sent[] = {data};
    assert_int_equal(sink.scatter(sink.ctx, 1, &range, sent), DPT_OK);
    memset(data, 0, (size_t)(8 * wide.tensors[0].numel));
    dpt_block want = dpt_block_of_range((dpt_range){0, 0, wide.tensors[0].numel});
    void *outs[] = {data};
    assert_int_equal(source.fetch(source.ctx, 1, &want, outs), DPT_OK);
    expect(data, 8, 0, 0, wide.tensors[0].numel);
    free(data);
    dpt_field_destroy(field);
    dpt_catalog_destroy(&wide);
    stop(&f);
}

static void budget_fails_everywhere(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dpt_field *field = NULL;
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 1);
    assert_int_equal(dpt_field_create(&test_comm, &f.catalog, &f.shard, &field), DPT_ERR_OUTPUT);
    assert_null(field);
    assert_non_null(strstr(dpt_error_message(), "raise --memory"));
    dpt_mem_set_budget(0);
    stop(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_are_read_and_written),
        cmocka_unit_test(blocks_are_fetched),
        cmocka_unit_test(blocks_outside_fail_everywhere),
        cmocka_unit_test(runs_are_scattered),
        cmocka_unit_test(highest_rank_stays),
        cmocka_unit_test(types_are_those_of_the_field),
        cmocka_unit_test(budget_fails_everywhere),
    };
    return test_mpi_main(argc, argv, tests);
}
