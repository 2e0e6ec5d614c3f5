/* ranks: 1 2 */
/* Edits that run as one rule from bf16 to bf16 give the bytes of the general way through fp32 deltas,
 * which a second stage that changes nothing enforces. */
#include "edit/edit_support.h"
#include "../src/edit/stage.h"

#include "deltapath/linalg/reduce.h"

#include <math.h>

enum { BIG = 5 }; /* the tensor of more than one cell */

/* Zeros of both signs, subnormals, ties of rounding, and runs of numbers whose squares a float cannot
 * hold. */
static void add_special_values(pair *p) {
    static const uint16_t codes[] = {0x0000, 0x8000, 0x0001, 0x8001,
                                     0x3f80, 0xbf80, 0x007f, 0x0080};
    for (int64_t c = 0; c < p->shard.cells; c++) {
        dpt_range cell = dpt_shard_cell(&p->shard, c);
        uint16_t *pre = dpt_field_cell(p->pre, c), *post = dpt_field_cell(p->post, c);
        if (pre == NULL || cell.tensor != BIG)
            continue;
        for (int64_t i = 0; i + 64 <= cell.n && i < 8192; i += 97)
            for (int j = 0; j < 64; j++) {
                pre[i + j] = codes[j % 8];
                post[i + j] = codes[j / 8];
            }
        for (int64_t i = 20000; i < 20400 && i < cell.n; i++) {
            pre[i] = 0x6080;
            post[i] = (uint16_t)(0x6000 + i % 3);
        }
    }
}

static void check(pair *p, const char *text) {
    uint64_t hashes[16];
    char both[256];
    dpt_edit_spec spec;
    dpt_edit_report fused, general;
    assert_int_equal(spec_parse(text, 3, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p->input, p->sink, &fused), DPT_OK);
    for (int t = 0; t < p->catalog.count; t++)
        hashes[t] = tensor_hash(p->out, t);
    snprintf(both, sizeof both, "%s;expo:alpha=0", text);
    assert_int_equal(spec_parse(both, 3, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p->input, p->sink, &general), DPT_OK);
    for (int t = 0; t < p->catalog.count; t++) {
        const dpt_edit_tensor_stats *a = &fused.stats[t], *b = &general.stats[t];
        uint64_t hash = tensor_hash(p->out, t);
        if (a->delta_norm == 0.0) /* the second stage reaches what the first does not */
            continue;
        if (hash != hashes[t])
            fail_msg("%s: tensor %s", text, p->catalog.tensors[t].name);
        assert_int_equal(a->changed, b->changed);
        assert_true(fabs(a->delta_norm - b->delta_norm) <= 1e-6 * b->delta_norm);
        assert_true(fabs(a->edit_norm - b->edit_norm) <= 1e-6 * b->edit_norm);
    }
    dpt_edit_report_destroy(&fused);
    dpt_edit_report_destroy(&general);
}

static void rules_agree_with_stages(void **state) {
    (void)state;
    static const char *const edits[] = {"expo:alpha=0.37",
                                        "expo:alpha=-1.5",
                                        "dare:p=0.5",
                                        "dare:p=0.37",
                                        "dare:p=0.9,k=-0.5",
                                        "dare:p=0",
                                        "drop:p=0.3",
                                        "drop:p=1",
                                        "bias:k=0.7",
                                        "bias:k=-1,p=0.4",
                                        "bitdelta:tensors=all",
                                        "bitdelta",
                                        "bitdelta:multiple=-2",
                                        "bitdelta:granularity=row",
                                        "bitdelta:convention=code",
                                        "bitdelta:sample=uniform",
                                        "prune:keep=0.3",
                                        "prune:keep=0",
                                        "prune:keep=1",
                                        "prune:keep=0.95",
                                        "prune:keep=0.6,scope=model"};
    for (int m = 0; m < dpt_edit_method_count(); m++) {
        const char *name = dpt_edit_method_name(m);
        bool listed = dpt_edit_method_get(m)->fused == NULL;
        size_t n = strlen(name);
        for (size_t e = 0; e < sizeof edits / sizeof edits[0]; e++)
            listed = listed || (strncmp(edits[e], name, n) == 0 &&
                                (edits[e][n] == ':' || edits[e][n] == '\0'));
        if (!listed)
            fail_msg("no case of %s, which has a rule of its own", name);
    }
    pair p;
    pair_create(&p, DPT_BF16, DPT_BF16, true);
    for (size_t e = 0; e < sizeof edits / sizeof edits[0]; e++)
        check(&p, edits[e]);
    add_special_values(&p);
    for (size_t e = 0; e < sizeof edits / sizeof edits[0]; e++)
        check(&p, edits[e]);
    pair_destroy(&p);
}

/* The mean magnitude is that of dpt_reduce_abs over pieces and cells, to the bit. */
static void means_have_their_bits(void **state) {
    (void)state;
    enum { PIECE = 4096 };
    pair p;
    dpt_edit_spec spec;
    dpt_edit_report report;
    pair_create(&p, DPT_BF16, DPT_BF16, true);
    assert_int_equal(spec_parse("bitdelta:tensors=all", 0, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, &report), DPT_OK);
    for (int t = 0; t < p.catalog.count; t++) {
        int64_t n = p.catalog.tensors[t].numel, bytes;
        if (report.stats[t].delta_norm == 0.0)
            continue;
        void *pre = whole_tensor(p.pre, t, &bytes), *post = whole_tensor(p.post, t, &bytes);
        float *delta = dpt_mem_alloc(2 * n, sizeof *delta, "deltas");
        dpt_dtype_to_f32(DPT_BF16, post, delta, n);
        dpt_dtype_to_f32(DPT_BF16, pre, delta + n, n);
        double total = 0.0, cell = 0.0;
        for (int64_t i = 0; i < n; i++)
            delta[i] -= delta[n + i];
        for (int64_t i = 0; i < n; i += PIECE) {
            cell += dpt_reduce_abs(delta + i, n - i < PIECE ? n - i : PIECE);
            if ((i + PIECE) % DPT_CELL == 0 || i + PIECE >= n) {
                total += cell;
                cell = 0.0;
            }
        }
        assert_true(report.stats[t].scale == total / (double)n);
        dpt_mem_free(pre);
        dpt_mem_free(post);
        dpt_mem_free(delta);
    }
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules_agree_with_stages),
                                       cmocka_unit_test(means_have_their_bits)};
    return test_mpi_main(argc, argv, tests);
}
