/* ranks: 1 2 3 4 7 */
/* Low rank and sequences with it against NumPy, in groups of ranks. Tolerances: 1e-5 of |Delta| for
 * products with probe vectors, 1e-5 relative for singular values. */
#include "edit/edit_support.h"

#include "deltapath/linalg/svd.h"

#include <math.h>
#include <stdlib.h>

typedef struct expected {
    char spec[128], name[128];
    int large;
    long rank;
    double residual, s[4], probe[4];
} expected;

static bool read_line(FILE *golden, expected *e) {
    return fscanf(golden, "%127s %127s %d %ld %lf %lf %lf %lf %lf %lf %lf %lf %lf", e->spec,
                  e->name, &e->large, &e->rank, &e->residual, &e->s[0], &e->s[1], &e->s[2],
                  &e->s[3], &e->probe[0], &e->probe[1], &e->probe[2], &e->probe[3]) == 13;
}

static void probe_vector(const char *kind, int j, int64_t n, double *out) {
    char stream[32];
    uint32_t *words = dpt_mem_alloc(n, sizeof *words, "probe");
    snprintf(stream, sizeof stream, "probe/%s/%d", kind, j);
    dpt_rng_words(dpt_rng_make(11, stream, DPT_RNG_MASK), 0, n, words);
    for (int64_t i = 0; i < n; i++)
        out[i] = ((double)(words[i] & 0xffff) - 32768.0) / 32768.0;
    dpt_mem_free(words);
}

/* u^T (out - pre) v */
static double probe_value(pair *p, int t, int j) {
    int64_t rows = p->catalog.tensors[t].shape[0], cols = p->catalog.tensors[t].shape[1], bytes;
    float *pre = whole_tensor(p->pre, t, &bytes);
    float *out = whole_tensor(p->out, t, &bytes);
    double *u = dpt_mem_alloc(rows, sizeof *u, "probe"),
           *v = dpt_mem_alloc(cols, sizeof *v, "probe");
    probe_vector("u", j, rows, u);
    probe_vector("v", j, cols, v);
    double sum = 0.0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            sum += u[r] * ((double)out[r * cols + c] - (double)pre[r * cols + c]) * v[c];
    dpt_mem_free(u);
    dpt_mem_free(v);
    dpt_mem_free(pre);
    dpt_mem_free(out);
    return sum;
}

static void check_tensor(pair *p, const expected *e, const dpt_edit_report *report) {
    int t = dpt_catalog_find(&p->catalog, e->name);
    const dpt_edit_tensor_stats *stats = &report->stats[t];
    int64_t at = 0;
    while (at < report->nspectra && report->spectra[at].tensor != t)
        at++;
    assert_true(at < report->nspectra);
    int64_t first = report->spectra[at].first;
    assert_int_equal(stats->rank, e->rank);
    assert_int_equal(report->spectra[at].rank, e->rank);
    assert_true(fabs(stats->residual - e->residual) < 1e-5);
    for (int i = 0; i < 4 && i < e->rank; i++)
        if (!(fabs(report->singular[first + i] - e->s[i]) < 1e-5 * e->s[0]))
            fail_msg("%s: %s: singular value %d is %.9g, not %.9g", e->spec, e->name, i,
                     report->singular[first + i], e->s[i]);
    for (int j = 0; j < 4; j++) {
        double got = probe_value(p, t, j);
        if (!(fabs(got - e->probe[j]) < 1e-4 * stats->delta_norm))
            fail_msg("%s: %s: probe %d is %.9g, not %.9g (|Delta| %g)", e->spec, e->name, j, got,
                     e->probe[j], stats->delta_norm);
    }
}

static void check_golden(int svd_group) {
    FILE *golden = fopen("tests/golden/edit/lowrank.txt", "r");
    assert_non_null(golden);
    expected e;
    char last[128] = "";
    pair p;
    dpt_edit_report report;
    while (read_line(golden, &e)) {
        if (strcmp(last, e.spec) != 0) {
            if (last[0] != '\0') {
                dpt_edit_report_destroy(&report);
                pair_destroy(&p);
            }
            dpt_edit_spec spec;
            pair_create(&p, DPT_F32, DPT_F32, e.large != 0);
            p.input.svd_group = svd_group;
            assert_int_equal(spec_parse(e.spec, 1, &spec), DPT_OK);
            dpt_status st = dpt_edit_run(&spec, &p.input, p.sink, &report);
            if (st != DPT_OK)
                print_error("%s: %s\n", e.spec, dpt_error_message());
            assert_int_equal(st, DPT_OK);
            strcpy(last, e.spec);
        }
        check_tensor(&p, &e, &report);
    }
    fclose(golden);
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
}

static void matches_numpy(void **state) {
    (void)state;
    check_golden(0);
}

static void matches_numpy_in_groups(void **state) {
    (void)state;
    for (int group = 1; group <= 2 && group <= test_comm.size; group++)
        check_golden(group);
}

/* All singular values of a tensor's delta in double, or what the edit asks for. */
static void decompose(pair *p, int t, dpt_svd_method method, int64_t rank, dpt_svd *svd) {
    const dpt_tensor_info *info = &p->catalog.tensors[t];
    int64_t rows = info->shape[0], cols = info->shape[1], bytes;
    float *pre = whole_tensor(p->pre, t, &bytes), *delta = whole_tensor(p->post, t, &bytes);
    dpt_comm self;
    for (int64_t i = 0; i < rows * cols; i++)
        delta[i] -= pre[i];
    assert_int_equal(dpt_comm_split(&test_comm, test_comm.rank, 0, &self), DPT_OK);
    dpt_svd_options options = {
        .method = method, .rank = rank, .tolerance = 1e-3, .seed = 1, .name = info->name};
    assert_int_equal(dpt_svd_compute(&self, rows, cols, rows, delta, &options, svd), DPT_OK);
    dpt_comm_destroy(&self);
    dpt_mem_free(pre);
    dpt_mem_free(delta);
}

/* The report's errors of a tensor: as dpt_svd_compute gives them, and one of `all` is no farther away. */
static void check_errors(pair *p, const dpt_edit_report *report, int at, const dpt_svd *all,
                         dpt_svd_method method, bool alone) {
    const dpt_edit_spectrum *of = &report->spectra[at];
    const double *s = report->singular + of->first, *error = report->singular_error + of->first;
    dpt_svd same;
    decompose(p, of->tensor, method, of->rank, &same);
    size_t bytes = (size_t)of->rank * sizeof *s;
    assert_true(!alone || memcmp(s, same.s, bytes) == 0);
    assert_true(!alone || memcmp(error, same.s_error, bytes) == 0);
    for (int64_t i = 0; i < of->rank; i++) {
        double nearest = INFINITY;
        for (int64_t j = 0; j < all->rank; j++)
            nearest = fmin(nearest, fabs(s[i] - all->s[j]));
        if (!(nearest <= error[i] + 1e-6 * s[0]))
            fail_msg("s[%d] is off by %.3e, not by %.3e", (int)i, nearest, error[i]);
        assert_true(error[i] > 0.0 && error[i] < (same.used == DPT_SVD_RANDOM ? 0.2 : 2e-5) * s[0]);
    }
    dpt_svd_destroy(&same);
}

static void singular_values_have_errors(void **state) {
    (void)state;
    static const pair_tensor tensors[] = {{"model.layers.0.self_attn.q_proj.weight", 2, {300, 280}},
                                          {"model.layers.1.mlp.up_proj.weight", 2, {7, 300}}};
    static const int64_t sides[] = {280, 7};
    static const char *const texts[] = {"lowrank:rank=6,svd=random", "lowrank:rank=6,svd=exact"};
    pair p;
    dpt_svd all[2];
    pair_create_of(&p, DPT_F32, DPT_F32, 2, tensors);
    for (int t = 0; t < 2; t++)
        decompose(&p, t, DPT_SVD_REFERENCE, sides[t], &all[t]);
    for (int i = 0; i < 4; i++) {
        dpt_edit_spec spec;
        dpt_edit_report report;
        bool alone = i < 2;
        p.input.svd_group = alone ? 1 : test_comm.size;
        assert_int_equal(spec_parse(texts[i % 2], 1, &spec), DPT_OK);
        assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, &report), DPT_OK);
        assert_int_equal(report.nspectra, 2);
        for (int t = 0; t < 2; t++)
            check_errors(&p, &report, t, &all[t], i % 2 == 0 ? DPT_SVD_RANDOM : DPT_SVD_EXACT,
                         alone);
        dpt_edit_report_destroy(&report);
    }
    for (int t = 0; t < 2; t++)
        dpt_svd_destroy(&all[t]);
    pair_destroy(&p);
}

/* Hash of all edited tensors. */
static uint64_t run_hash(const char *text, int svd_group) {
    pair p;
    dpt_edit_spec spec;
    uint64_t hash = 0;
    pair_create(&p, DPT_BF16, DPT_BF16, false);
    p.input.svd_group = svd_group;
    assert_int_equal(spec_parse(text, 1, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, NULL), DPT_OK);
    for (int t = 0; t < p.catalog.count; t++)
        hash = hash * 31 + tensor_hash(p.out, t);
    pair_destroy(&p);
    return hash;
}

/* With one rank to a matrix, the bits of one rank alone come out at any number of ranks. */
static void pinned_group_gives_the_same_bits(void **state) {
    (void)state;
    uint64_t alone = 0;
    dpt_comm world = test_comm, self;
    assert_int_equal(dpt_comm_split(&world, world.rank, 0, &self), DPT_OK);
    test_comm = self;
    alone = run_hash("lowrank:rank=5;dare:p=0.5", 1);
    test_comm = world;
    dpt_comm_destroy(&self);
    assert_true(run_hash("lowrank:rank=5;dare:p=0.5", 1) == alone);
}

/* Edits of a sweep, the values of one key apart. */
enum { SWEEP = 3 };

typedef struct sweep_made {
    uint64_t hash;
    double residual, first; /* of the last tensor: over |Delta|, and its largest singular value */
    int64_t rank;
} sweep_made;

static sweep_made sweep_make(pair *p, const dpt_edit_spec *spec) {
    sweep_made made = {.hash = 0};
    dpt_edit_report report;
    dpt_status st = dpt_edit_run(spec, &p->input, p->sink, &report);
    if (st != DPT_OK)
        print_error("%s\n", dpt_error_message());
    assert_int_equal(st, DPT_OK);
    for (int t = 0; t < p->catalog.count; t++)
        made.hash = made.hash * 31 + tensor_hash(p->out, t);
    made.residual = report.nspectra > 0 ? report.spectra[report.nspectra - 1].residual : 0.0;
    made.first = report.nspectra > 0 ? report.singular[0] : 0.0;
    for (int64_t i = 0; i < report.nspectra; i++)
        made.rank += report.spectra[i].rank;
    dpt_edit_report_destroy(&report);
    return made;
}

static dpt_edit_decomposed sweep_count(const dpt_edit_factors *factors) {
    dpt_edit_decomposed done = dpt_edit_factors_count(factors);
    int64_t counts[2] = {done.made, done.taken};
    assert_int_equal(dpt_comm_sum_i64(&test_comm, counts, 2), DPT_OK);
    done.made = counts[0];
    done.taken = counts[1];
    return done;
}

/* All edits in an order, with so much room for what they share. @return how many matrices were decomposed. */
static dpt_edit_decomposed sweep_run(pair *p, const dpt_edit_spec *specs, const int *order,
                                     int64_t room, sweep_made *made) {
    const dpt_edit_spec *expected[SWEEP];
    p->input.factors = dpt_edit_factors_create(room, p->parts.count);
    assert_non_null(p->input.factors);
    for (int i = 0; i < SWEEP; i++) {
        for (int j = i; j < SWEEP; j++)
            expected[j - i] = &specs[order[j]];
        dpt_edit_factors_expect(p->input.factors, SWEEP - i, expected);
        made[order[i]] = sweep_make(p, &specs[order[i]]);
    }
    dpt_edit_decomposed done = sweep_count(p->input.factors);
    dpt_edit_factors_expect(p->input.factors, 0, NULL); /* which releases all */
    dpt_edit_factors_destroy(p->input.factors);
    p->input.factors = NULL;
    return done;
}

/* What a plan says of the same edits. */
static dpt_edit_decomposed sweep_foresee(pair *p, const dpt_edit_spec *specs, int64_t room) {
    const dpt_edit_spec *expected[SWEEP];
    dpt_edit_factors *factors = dpt_edit_factors_create(room, p->parts.count);
    assert_non_null(factors);
    for (int i = 0; i < SWEEP; i++) {
        for (int j = i; j < SWEEP; j++)
            expected[j - i] = &specs[j];
        dpt_edit_factors_expect(factors, SWEEP - i, expected);
        assert_int_equal(dpt_edit_factors_foresee(factors, &specs[i], &p->input, test_comm.size),
                         DPT_OK);
    }
    dpt_edit_decomposed done = dpt_edit_factors_count(factors);
    dpt_edit_factors_destroy(factors);
    return done;
}

/* @param[in] format  of an edit, with a %s for a value. @param[in] tolerance  of its residual, by itself. */
static void check_sweep(const char *format, const char *const values[SWEEP], int svd_group,
                        double tolerance) {
    static const int order[] = {2, 0, 1};
    const int64_t plenty = 1 << 30;
    dpt_edit_spec specs[SWEEP], *all[SWEEP];
    sweep_made alone[SWEEP], apart[SWEEP], made[SWEEP];
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, false);
    p.input.svd_group = svd_group <= test_comm.size ? svd_group : test_comm.size;
    for (int i = 0; i < SWEEP; i++) {
        char text[128];
        snprintf(text, sizeof text, format, values[i]);
        assert_int_equal(spec_parse(text, 1, &specs[i]), DPT_OK);
        all[i] = &specs[i];
        alone[i] = sweep_make(&p, &specs[i]);
    }
    dpt_edit_share_decompositions(SWEEP, all);
    for (int i = 0; i < SWEEP; i++) {
        apart[i] = sweep_make(&p, &specs[i]); /* each decomposes for itself */
        assert_int_equal(apart[i].rank, alone[i].rank);
        assert_true(fabs(apart[i].residual - alone[i].residual) <= tolerance);
        assert_true(fabs(apart[i].first - alone[i].first) <= 1e-4 * alone[i].first);
        bool own =
            isnan(dpt_edit_cut_from(&specs[i])); /* the one that keeps the most is as alone */
        assert_true(own == (i == 1));
        assert_true(!own ||
                    (apart[i].hash == alone[i].hash && apart[i].residual == alone[i].residual));
    }
    const int64_t matrices = 4;
    dpt_edit_decomposed done = sweep_run(&p, specs, order, plenty, made);
    assert_true(done.made == matrices && done.taken == 2 * matrices && done.bytes > 0);
    for (int i = 0; i < SWEEP; i++)
        assert_true(made[i].hash == apart[i].hash && made[i].residual == apart[i].residual);
    done = sweep_foresee(&p, specs, plenty);
    assert_true(done.made == matrices && done.taken == 2 * matrices);
    done = sweep_foresee(&p, specs, 100);
    assert_true(done.made == SWEEP * matrices && done.taken == 0 && done.bytes == 0);
    if (svd_group == 0) {
        done = sweep_run(&p, specs, order, 100, made);
        assert_true(done.made == SWEEP * matrices && done.taken == 0 && done.bytes == 0);
        for (int i = 0; i < SWEEP; i++)
            assert_true(made[i].hash == apart[i].hash);
    }
    pair_destroy(&p);
}

static void sweeps_share_one_decomposition(void **state) {
    (void)state;
    static const char *const ranks[] = {"2", "7", "4"}, *const shares[] = {"0.8", "0.2", "0.5"},
                             *const energies[] = {"0.3", "0.9", "0.6"};
    for (int group = 0; group <= 2; group += 2) {
        check_sweep("lowrank:rank=%s,svd=exact", ranks, group, 1e-5);
        check_sweep("lowrank:rank=%s,svd=random", ranks, group, 1e-2);
        check_sweep("lowrank:sparsity=%s", shares, group, 1e-5);
        check_sweep("lowrank:energy=%s", energies, group, 1e-5);
        check_sweep("expo:alpha=1;lowrank:rank=%s", ranks, group, 1e-5);
        check_sweep("prune:keep=0.5;lowrank:energy=%s;expo:alpha=-0.5", energies, group, 1e-5);
    }
}

/* Of an energy the ranks are not known before: as many decompositions as there is room for are kept. */
static void energies_keep_what_has_room(void **state) {
    (void)state;
    static const char *const texts[] = {"lowrank:energy=0.2", "lowrank:energy=0.3",
                                        "lowrank:energy=0.1"};
    static const int order[] = {0, 1, 2};
    dpt_edit_spec specs[SWEEP], *all[SWEEP];
    sweep_made apart[SWEEP], made[SWEEP];
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, false);
    p.input.svd_group = 1;
    for (int i = 0; i < SWEEP; i++) {
        assert_int_equal(spec_parse(texts[i], 1, &specs[i]), DPT_OK);
        all[i] = &specs[i];
    }
    dpt_edit_share_decompositions(SWEEP, all);
    for (int i = 0; i < SWEEP; i++)
        apart[i] = sweep_make(&p, &specs[i]);
    dpt_edit_decomposed done = sweep_run(&p, specs, order, 6000, made);
    assert_true(done.taken > 0 && done.taken % 2 == 0 && done.bytes <= 6000);
    assert_int_equal(done.made + done.taken, SWEEP * 4);
    assert_true(test_comm.size > 1 || done.taken < 2 * 4);
    for (int i = 0; i < SWEEP; i++)
        assert_true(made[i].hash == apart[i].hash && made[i].residual == apart[i].residual);
    pair_destroy(&p);
}

/* Edits that do not decompose the same share nothing. */
static void others_share_nothing(void **state) {
    (void)state;
    static const int order[] = {0, 1, 2};
    dpt_edit_spec specs[SWEEP], *all[SWEEP];
    sweep_made made[SWEEP];
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, false);
    for (int i = 0; i < SWEEP; i++) {
        assert_int_equal(spec_parse(i == 1   ? "lowrank:rank=3,svd=exact"
                                    : i == 2 ? "lowrank:rank=4"
                                             : "lowrank:rank=2",
                                    i == 2 ? 2 : 1, &specs[i]),
                         DPT_OK);
        all[i] = &specs[i];
    }
    dpt_edit_share_decompositions(SWEEP, all); /* seeds and svd may be swept too */
    dpt_edit_decomposed done = sweep_run(&p, specs, order, 1 << 30, made);
    assert_true(done.made == SWEEP * 4 && done.taken == 0 && done.bytes == 0);
    assert_int_equal(sweep_foresee(&p, specs, 1 << 30).made, done.made);
    pair_destroy(&p);
}

/* Refused by a run, and, where the tensors alone say it, by the check that a job makes before. */
static void refuse(const char *text, int svd_group, const char *words) {
    pair p;
    dpt_edit_spec spec;
    pair_create(&p, DPT_F32, DPT_F32, false);
    p.input.svd_group = svd_group;
    dpt_error_clear();
    assert_int_equal(spec_parse(text, 1, &spec), DPT_OK);
    assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, NULL), DPT_ERR_USAGE);
    if (strstr(dpt_error_message(), words) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", text, dpt_error_message(), words);
    dpt_error_clear();
    dpt_status checked = svd_group > 0 ? DPT_OK : DPT_ERR_USAGE;
    assert_int_equal(dpt_edit_check(&spec, &p.input), checked);
    assert_true(checked == DPT_OK || strstr(dpt_error_message(), words) != NULL);
    dpt_error_clear();
    pair_destroy(&p);
}

static void bad_ranks_are_named(void **state) {
    (void)state;
    refuse("lowrank:rank=25", 0, "25 is above 24, the limit of tensor 'lm_head.weight'");
    refuse("lowrank:sparsity=0.9", 0, "leaves rank 0 of 7 for tensor 'model.layers.1.mlp.up_proj");
    refuse("lowrank:rank=5", 100, "svd_group");
    dpt_edit_spec spec;
    assert_int_equal(spec_parse("lowrank", 1, &spec), DPT_ERR_USAGE);
    assert_int_equal(spec_parse("lowrank:rank=5,energy=0.5", 1, &spec), DPT_ERR_USAGE);
    assert_int_equal(spec_parse("lowrank:rank=0", 1, &spec), DPT_ERR_USAGE);
    assert_int_equal(spec_parse("lowrank:rank=1.5", 1, &spec), DPT_ERR_USAGE);
    assert_int_equal(spec_parse("lowrank:energy=0", 1, &spec), DPT_ERR_USAGE);
    assert_int_equal(spec_parse("lowrank:rank=5,svd=lapack", 1, &spec), DPT_ERR_USAGE);
    dpt_error_clear();
}

static void faults_reach_all_ranks(void **state) {
    (void)state;
    static const char *const faults[] = {"edit.lowrank:0", "edit.lowrank:last"};
    for (int i = 0; i < 2; i++) {
        pair p;
        dpt_edit_spec spec;
        pair_create(&p, DPT_F32, DPT_F32, false);
        assert_int_equal(spec_parse("lowrank:rank=3", 1, &spec), DPT_OK);
        setenv("DPT_FAULT", faults[i], 1);
        assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, NULL), DPT_ERR_OUTPUT);
        unsetenv("DPT_FAULT");
        dpt_error_clear();
        pair_destroy(&p);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_numpy),
                                       cmocka_unit_test(matches_numpy_in_groups),
                                       cmocka_unit_test(singular_values_have_errors),
                                       cmocka_unit_test(pinned_group_gives_the_same_bits),
                                       cmocka_unit_test(sweeps_share_one_decomposition),
                                       cmocka_unit_test(energies_keep_what_has_room),
                                       cmocka_unit_test(others_share_nothing),
                                       cmocka_unit_test(bad_ranks_are_named),
                                       cmocka_unit_test(faults_reach_all_ranks)};
    return test_mpi_main(argc, argv, tests);
}
