/* ranks: 1 2 3 4 7 */
/* BitDelta and pruning against what the public code of their peers gives for the same pair
 * (tools/reference/edit_peers.py).
 *
 * BitDelta's code takes the difference in the type of the pair, we in fp32: the signs are equal, the
 * scales differ by the rounding of the differences. With `convention: code` weights are equal to the
 * bit, and so is the scale but for torch's sum, which is in fp32 and changes in the last two places with
 * the number of threads; ours is the exact sum, rounded to fp32 and divided in fp32. mergekit's `magnitude` keeps the same entries at equal count, but for those
 * that equal the least magnitude kept, of which it keeps as many: its sort is not stable. */
#include "edit/edit_support.h"

#include <math.h>

static void run(pair *p, const char *text, dpt_edit_report *report) {
    dpt_edit_spec spec;
    assert_int_equal(spec_parse(text, 0, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p->input, p->sink, report), DPT_OK);
}

/* F = out - pre in fp32: exact for the deltas of the pair and for signs. */
static float *edited_delta(const pair *p, int t, int64_t *n) {
    int64_t bytes, pre_bytes;
    float *out = whole_tensor(p->out, t, &bytes);
    void *pre = whole_tensor(p->pre, t, &pre_bytes);
    *n = p->catalog.tensors[t].numel;
    float *wide = dpt_mem_alloc(*n, sizeof *wide, "pre");
    dpt_dtype_to_f32(p->catalog.tensors[t].dtype, pre, wide, *n);
    for (int64_t i = 0; i < *n; i++)
        out[i] -= wide[i];
    dpt_mem_free(pre);
    dpt_mem_free(wide);
    return out;
}

static uint64_t hash_signs(const float *f, int64_t n) {
    uint8_t *packed = dpt_mem_zalloc((n + 7) / 8, 1, "signs");
    for (int64_t i = 0; i < n; i++)
        packed[i / 8] |= (uint8_t)((f[i] >= 0.0f) << (7 - i % 8));
    uint64_t hash = dpt_hash_bytes(packed, (size_t)((n + 7) / 8));
    dpt_mem_free(packed);
    return hash;
}

/* A line of the golden file on a tensor as BitDelta's code makes it. */
typedef struct bitdelta_golden {
    char type[8], name[128];
    double scale, wide;
    unsigned long signs, weights;
} bitdelta_golden;

/* Calls `agrees` for each of the lines of a type. */
static void each_bitdelta(dpt_dtype type, const pair *p, const dpt_edit_report *report,
                          void (*agrees)(const pair *, const bitdelta_golden *, int t,
                                         double scale)) {
    FILE *golden = fopen("tests/golden/edit/peers.txt", "r");
    assert_non_null(golden);
    bitdelta_golden g;
    int checked = 0;
    while (fscanf(golden, " bitdelta %7s %127s %la %la %lx %lx", g.type, g.name, &g.scale, &g.wide,
                  &g.signs, &g.weights) == 6) {
        if (strcmp(g.type, type == DPT_BF16 ? "bf16" : "f16") != 0)
            continue;
        int t = dpt_catalog_find(&p->catalog, g.name);
        agrees(p, &g, t, report->stats[t].scale);
        checked++;
    }
    assert_int_equal(checked, 3);
    fclose(golden);
}

static void scale_and_signs_agree(const pair *p, const bitdelta_golden *g, int t, double scale) {
    int64_t n;
    float *f = edited_delta(p, t, &n);
    assert_true(hash_signs(f, n) == g->signs);
    assert_true(fabs(scale - g->wide) <= 1e-6 * g->wide);
    assert_true(fabs(scale - g->scale) <= 0x1p-9 * g->scale);
    dpt_mem_free(f);
}

static void bitdelta_agrees(void **state) {
    (void)state;
    pair p;
    dpt_edit_report report;
    pair_create(&p, DPT_BF16, DPT_F32, true);
    run(&p, "bitdelta", &report);
    each_bitdelta(DPT_BF16, &p, &report, scale_and_signs_agree);
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
}

static void weights_are_equal(const pair *p, const bitdelta_golden *g, int t, double scale) {
    assert_true(tensor_hash(p->out, t) == g->weights);
    assert_true(scale == (double)(float)scale);
    assert_true(fabs(scale - g->scale) <= 0x1p-22 * g->scale);
    /* torch adds up to some thousand fp32 numbers in an order that loses nothing here. */
    if (p->catalog.tensors[t].numel < 10000)
        assert_true(scale == g->scale);
}

static void bitdelta_equals_its_code(void **state) {
    (void)state;
    static const dpt_dtype types[] = {DPT_BF16, DPT_F16};
    for (int i = 0; i < 2; i++) {
        pair p;
        dpt_edit_report report;
        pair_create(&p, types[i], types[i], true);
        run(&p, "bitdelta:convention=code", &report);
        each_bitdelta(types[i], &p, &report, weights_are_equal);
        dpt_edit_report_destroy(&report);
        pair_destroy(&p);
    }
}

static void pruning_agrees(void **state) {
    (void)state;
    FILE *golden = fopen("tests/golden/edit/peers.txt", "r");
    assert_non_null(golden);
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, true);
    char line[256], name[128], text[64];
    double minimum;
    long count, equal;
    unsigned long above;
    int checked = 0;
    while (fgets(line, sizeof line, golden) != NULL) {
        if (sscanf(line, "prune %127s %ld %la %ld %lx", name, &count, &minimum, &equal, &above) !=
            5)
            continue;
        int t = dpt_catalog_find(&p.catalog, name);
        snprintf(text, sizeof text, "prune:keep=%.17g",
                 (double)count / (double)p.catalog.tensors[t].numel);
        run(&p, text, NULL);
        int64_t n;
        long equals = 0;
        float *f = edited_delta(&p, t, &n);
        for (int64_t i = 0; i < n; i++) {
            equals += fabsf(f[i]) == (float)minimum;
            f[i] = fabsf(f[i]) > (float)minimum ? f[i] : 0.0f;
        }
        assert_int_equal(equals, equal);
        assert_true(dpt_hash_bytes(f, (size_t)n * sizeof *f) == above);
        dpt_mem_free(f);
        checked++;
    }
    assert_int_equal(checked, 8);
    fclose(golden);
    pair_destroy(&p);
}

/* One block of magnitudes is BitDelta, to the bit, per tensor. */
static void no_bits_are_bitdelta(void **state) {
    (void)state;
    pair p;
    pair_create(&p, DPT_BF16, DPT_BF16, true);
    uint64_t hashes[16];
    run(&p, "bitdelta", NULL);
    for (int t = 0; t < p.catalog.count; t++)
        hashes[t] = tensor_hash(p.out, t);
    run(&p, "multibit:bits=0", NULL);
    for (int t = 0; t < p.catalog.count; t++)
        assert_true(tensor_hash(p.out, t) == hashes[t]);
    pair_destroy(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitdelta_agrees), cmocka_unit_test(bitdelta_equals_its_code),
        cmocka_unit_test(pruning_agrees), cmocka_unit_test(no_bits_are_bitdelta)};
    return test_mpi_main(argc, argv, tests);
}
