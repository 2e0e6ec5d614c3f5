/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include "deltapath/linalg/quantile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 6 };

/* How values are drawn: all different, few magnitudes, one magnitude, zeros, special codes; and such
 * that the first 512 of each 32768 values, of which a sample is made, say nothing about the others:
 * larger than all of them, or far below and above. */
enum { SPREAD, TIES, EQUAL, ZEROS, SPECIAL, MISLEADING, APART, KINDS };

static const int64_t numel[TENSORS] = {1000, 0, DPT_CELL + 777, 1, 3 * DPT_CELL / 2, 50000};

static float value_of(int kind, int tensor, int64_t ig) {
    static const float special[] = {0.0F, -0.0F, INFINITY, -INFINITY, NAN, 0x1p-149F, 1.0F, -1.0F};
    uint64_t h = ((uint64_t)ig * 8 + (uint64_t)tensor + 1) * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 29;
    h *= UINT64_C(0xBF58476D1CE4E5B9);
    h ^= h >> 32;
    if (kind == MISLEADING && ig % 32768 < 512)
        return 1e9F + (float)(h % 1000);
    if (kind == APART && ig % 32768 < 512)
        return h & 1 ? 1e-20F : 1e20F;
    switch (kind) {
    case MISLEADING:
    case APART:
    case SPREAD:
        return ldexpf((float)(h & 0xffffff) - 8388608.0F, -30 - (int)(h >> 60));
    case TIES:
        return (float)((int)(h % 15) - 7) * 0.25F;
    case EQUAL:
        return h & 1 ? 0.1F : -0.1F;
    case SPECIAL:
        return special[h % 8];
    default:
        return h & 1 ? 0.0F : -0.0F;
    }
}

typedef struct entry {
    uint32_t bits;
    int tensor;
    int64_t ig;
} entry;

/* Falling magnitude, rising position. */
static int by_order(const void *a, const void *b) {
    const entry *l = a;
    const entry *r = b;
    if (l->bits != r->bits)
        return l->bits > r->bits ? -1 : 1;
    if (l->tensor != r->tensor)
        return l->tensor < r->tensor ? -1 : 1;
    return (l->ig > r->ig) - (l->ig < r->ig);
}

static uint32_t magnitude(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

typedef struct fixture {
    dpt_catalog catalog;
    dpt_shard shard;
    int kind;
    int64_t reads; /* values read by this rank */
    int fail_rank;
    dpt_quantile_source source;
} fixture;

static dpt_status give(void *ctx, dpt_range range, float *values) {
    fixture *f = ctx;
    f->reads += range.n;
    if (f->fail_rank == test_comm.rank)
        return dpt_error(DPT_ERR_INPUT, "NaN in tensor %d", range.tensor);
    for (int64_t i = 0; i < range.n; i++)
        values[i] = value_of(f->kind, range.tensor, range.ig + i);
    return DPT_OK;
}

static void start(fixture *f, int kind) {
    *f = (fixture){.kind = kind, .fail_rank = -1, .source = {.values = give, .ctx = f}};
    dpt_catalog_init(&f->catalog);
    for (int t = 0; t < TENSORS; t++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", t);
        assert_int_equal(dpt_catalog_add(&f->catalog, name, DPT_F32, 1, &numel[t]), DPT_OK);
    }
    assert_int_equal(dpt_shard_create(&f->catalog, test_comm.size, &f->shard), DPT_OK);
}

static void stop(fixture *f) {
    dpt_shard_destroy(&f->shard);
    dpt_catalog_destroy(&f->catalog);
    dpt_error_clear();
}

/* All entries of a group in order, by qsort on every rank. */
static entry *sort_group(int kind, const int *group_of, int group, int64_t *count) {
    int64_t n = 0;
    for (int t = 0; t < TENSORS; t++)
        n += group_of[t] == group ? numel[t] : 0;
    entry *all = malloc((size_t)(n + 1) * sizeof *all);
    int64_t at = 0;
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; group_of[t] == group && i < numel[t]; i++)
            all[at++] = (entry){magnitude(value_of(kind, t, i)), t, i};
    qsort(all, (size_t)n, sizeof *all, by_order);
    *count = n;
    return all;
}

/* The cut parts the sorted entries exactly at `count`. */
static void expect_cut(const dpt_cut *cut, const entry *all, int64_t n, int64_t count) {
    if (n > 0)
        assert_int_equal(cut->bits, all[count > 0 ? count - 1 : 0].bits);
    if (count == 0)
        assert_int_equal(cut->ig, -1);
    int64_t near[] = {0, count - 2, count - 1, count, count + 1, n - 1};
    for (int i = 0; i < 6; i++)
        if (near[i] >= 0 && near[i] < n) {
            const entry *e = &all[near[i]];
            assert_int_equal(dpt_cut_keeps(cut, e->bits, e->tensor, e->ig), near[i] < count);
        }
    for (int64_t i = 0; i < n; i += 1 + n / 5000)
        if (dpt_cut_keeps(cut, all[i].bits, all[i].tensor, all[i].ig) != (i < count))
            fail_msg("entry %ld of %ld at a cut of %ld", (long)i, (long)n, (long)count);
}

static void same_everywhere(const dpt_cut *cuts, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        test_same_on_all(cuts[i].bits);
        test_same_on_all((uint64_t)cuts[i].tensor);
        test_same_on_all((uint64_t)cuts[i].ig);
    }
}

static void cuts_equal_a_sort(void **state) {
    (void)state;
    static const int group_of[TENSORS] = {7, 7, 7, 2, 2, -1};
    enum { PER_GROUP = 9 };
    for (int kind = 0; kind < KINDS; kind++) {
        fixture f;
        start(&f, kind);
        entry *sorted[2];
        int64_t n[2];
        sorted[0] = sort_group(kind, group_of, 7, &n[0]);
        sorted[1] = sort_group(kind, group_of, 2, &n[1]);
        dpt_quantile_target targets[2 * PER_GROUP];
        for (int g = 0; g < 2; g++) {
            int64_t counts[PER_GROUP] = {
                n[g] / 2, 0, n[g], 1, n[g] - 1, n[g] / 10, n[g] / 2 + 1, n[g] / 2, 3 * n[g] / 4};
            for (int i = 0; i < PER_GROUP; i++) /* groups interleaved, counts in no order */
                targets[2 * i + g] =
                    (dpt_quantile_target){.group = g == 0 ? 7 : 2, .count = counts[i]};
        }
        dpt_cut cuts[2 * PER_GROUP];
        assert_int_equal(dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, 2 * PER_GROUP,
                                             targets, &f.source, cuts),
                         DPT_OK);
        for (int i = 0; i < 2 * PER_GROUP; i++)
            expect_cut(&cuts[i], sorted[i % 2], n[i % 2], targets[i].count);
        same_everywhere(cuts, 2 * PER_GROUP);
        free(sorted[0]);
        free(sorted[1]);
        stop(&f);
    }
}

static int64_t own_values(const fixture *f) {
    int64_t n = 0;
    for (int64_t c = f->shard.rank_first[test_comm.rank];
         c < f->shard.rank_first[test_comm.rank + 1]; c++)
        n += dpt_shard_cell(&f->shard, c).n;
    return n;
}

/* One target reads the values once, a sample of them, and the cell of the cut once more; three times
 * more where the sample misleads. */
static void reads_are_few(void **state) {
    (void)state;
    static const int group_of[TENSORS] = {0, 0, 0, 0, 0, 0};
    for (int kind = 0; kind < KINDS; kind++) {
        fixture f;
        start(&f, kind);
        dpt_quantile_target target = {.group = 0, .count = 1234567};
        dpt_cut cut;
        assert_int_equal(
            dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, 1, &target, &f.source, &cut),
            DPT_OK);
        int64_t own = own_values(&f), passes = kind == MISLEADING || kind == APART ? 4 : 1;
        if (kind != APART) /* given up on the way */
            assert_true(f.reads >= passes * own);
        assert_true(f.reads <= passes * own + own / 32 + DPT_CELL);
        stop(&f);
    }
}

/* The group of each tensor is the tensor: empty ones have a cut that keeps nothing. */
static void a_group_for_each_tensor(void **state) {
    (void)state;
    int group_of[TENSORS];
    dpt_quantile_target targets[TENSORS];
    dpt_cut cuts[TENSORS];
    fixture f;
    start(&f, TIES);
    for (int t = 0; t < TENSORS; t++) {
        group_of[t] = t;
        targets[t] = (dpt_quantile_target){.group = t, .count = (numel[t] * 3 + 5) / 10};
    }
    assert_int_equal(dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, TENSORS, targets,
                                         &f.source, cuts),
                     DPT_OK);
    for (int t = 0; t < TENSORS; t++) {
        int64_t n;
        entry *sorted = sort_group(TIES, group_of, t, &n);
        expect_cut(&cuts[t], sorted, n, targets[t].count);
        free(sorted);
    }
    same_everywhere(cuts, TENSORS);
    assert_int_equal(
        dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, 0, NULL, &f.source, NULL),
        DPT_OK);
    stop(&f);
}

/* More targets than one batch of histograms takes. */
static void many_targets(void **state) {
    (void)state;
    enum { MANY = 5000 };
    static const int group_of[TENSORS] = {1, -1, -1, 4, -1, 3};
    fixture f;
    start(&f, SPREAD);
    dpt_quantile_target *targets = malloc(MANY * sizeof *targets);
    dpt_cut *cuts = malloc(MANY * sizeof *cuts);
    for (int i = 0; i < MANY; i++)
        targets[i] =
            i % 2 ? (dpt_quantile_target){3, (int64_t)i * 10} : (dpt_quantile_target){1, i / 5};
    assert_int_equal(
        dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, MANY, targets, &f.source, cuts),
        DPT_OK);
    int64_t n[2];
    entry *sorted[2] = {sort_group(SPREAD, group_of, 1, &n[0]),
                        sort_group(SPREAD, group_of, 3, &n[1])};
    for (int i = 0; i < MANY; i++) {
        int64_t count = targets[i].count;
        const entry *all = sorted[i % 2];
        if (count == 0)
            continue;
        assert_int_equal(cuts[i].bits, all[count - 1].bits);
        assert_true(
            dpt_cut_keeps(&cuts[i], all[count - 1].bits, all[count - 1].tensor, all[count - 1].ig));
        if (count < n[i % 2])
            assert_false(
                dpt_cut_keeps(&cuts[i], all[count].bits, all[count].tensor, all[count].ig));
    }
    free(sorted[0]);
    free(sorted[1]);
    free(targets);
    free(cuts);
    stop(&f);
}

static void errors_are_agreed(void **state) {
    (void)state;
    static const int group_of[TENSORS] = {0, 0, 0, 0, 0, 0};
    fixture f;
    start(&f, TIES);
    dpt_cut cut;
    static const dpt_quantile_target bad[] = {{0, -1}, {0, INT64_MAX}, {1, 1}, {-1, 0}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(
            dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, 1, &bad[i], &f.source, &cut),
            DPT_ERR_INTERNAL);
        dpt_error_clear();
    }
    dpt_quantile_target target = {.group = 0, .count = 5};
    for (int culprit = 0; culprit < test_comm.size; culprit++) {
        if (f.shard.rank_first[culprit] == f.shard.rank_first[culprit + 1])
            continue; /* a rank without cells reads nothing */
        f.fail_rank = culprit;
        assert_int_equal(
            dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, 1, &target, &f.source, &cut),
            DPT_ERR_INPUT);
        char expected[64];
        snprintf(expected, sizeof expected, "[rank %d] NaN in tensor", culprit);
        assert_non_null(strstr(dpt_error_message(), expected));
        dpt_error_clear();
    }
    stop(&f);
}

/* Differences of two bf16 numbers; with a few infinities and NaN when the kind is SPECIAL. */
static uint16_t stored_of(int kind, int tensor, int64_t ig, bool after) {
    static const uint16_t odd[] = {0x7f80, 0xff80, 0x7fc0};
    uint32_t h = ((uint32_t)ig * 8 + (uint32_t)tensor) * UINT32_C(2654435761);
    if (kind == SPECIAL && after && ig % 9973 == 17)
        return odd[ig % 3];
    uint16_t before = (uint16_t)(0x3c00 + (h >> 22) + ((h & 1) << 15));
    return (uint16_t)(before + (after ? h >> 28 : 0));
}

static float widen(uint16_t stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static dpt_status give_difference(void *ctx, dpt_range range, float *values) {
    fixture *f = ctx;
    f->reads += range.n;
    for (int64_t i = 0; i < range.n; i++)
        values[i] = widen(stored_of(f->kind, range.tensor, range.ig + i, true)) -
                    widen(stored_of(f->kind, range.tensor, range.ig + i, false));
    return DPT_OK;
}

static dpt_status give_pair(void *ctx, dpt_range range, const uint16_t **before,
                            const uint16_t **after) {
    static uint16_t room[2][DPT_CELL];
    const fixture *f = ctx;
    for (int64_t i = 0; i < range.n; i++)
        for (int side = 0; side < 2; side++)
            room[side][i] = stored_of(f->kind, range.tensor, range.ig + i, side == 1);
    *before = room[0];
    *after = range.tensor == 5 ? NULL : room[1]; /* one of the tensors has no pair */
    return DPT_OK;
}

/* From pairs come the cuts of their differences, and few of these are asked for where they are finite. */
static void pairs_give_the_same_cuts(void **state) {
    (void)state;
    static const int group_of[TENSORS] = {0, 0, 1, -1, 1, 2};
    static const int tenths[] = {0, 3, 7, 10};
    enum { TARGETS = 4 }; /* the last group has two */
    for (int kind = SPREAD; kind <= SPECIAL; kind += SPECIAL - SPREAD)
        for (int part = 0; part < 4; part++) {
            int64_t elements[] = {numel[0], numel[2] + numel[4], numel[5], numel[5]};
            dpt_quantile_target targets[TARGETS];
            dpt_cut cuts[2][TARGETS];
            int64_t reads[2];
            for (int i = 0; i < TARGETS; i++)
                targets[i] = (dpt_quantile_target){.group = i < 3 ? i : 2,
                                                   .count = elements[i] * tenths[part] / 10};
            for (int pairs = 0; pairs < 2; pairs++) {
                fixture f;
                start(&f, kind);
                f.source.values = give_difference;
                f.source.pair = pairs ? give_pair : NULL;
                assert_int_equal(dpt_quantile_select(&test_comm, &f.shard, NULL, group_of, TARGETS,
                                                     targets, &f.source, cuts[pairs]),
                                 DPT_OK);
                reads[pairs] = f.reads;
                stop(&f);
            }
            for (int i = 0; i < TARGETS; i++) {
                assert_int_equal(cuts[0][i].bits, cuts[1][i].bits);
                assert_int_equal(cuts[0][i].tensor, cuts[1][i].tensor);
                assert_int_equal(cuts[0][i].ig, cuts[1][i].ig);
            }
            same_everywhere(cuts[1], TARGETS);
            if (kind == SPREAD && test_comm.size == 1)
                assert_true(reads[1] + numel[2] + numel[4] <= reads[0]);
        }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_give_the_same_cuts),
        cmocka_unit_test(cuts_equal_a_sort),
        cmocka_unit_test(reads_are_few),
        cmocka_unit_test(a_group_for_each_tensor),
        cmocka_unit_test(many_targets),
        cmocka_unit_test(errors_are_agreed),
    };
    return test_mpi_main(argc, argv, tests);
}
