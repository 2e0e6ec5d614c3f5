/* ranks: 1 */
/* The law of random edits in a job: what it needs, and what depends on it. */
#include "job_texts.h"

#include <string.h>

#define DATA HEAD "data: [{name: a, file: a.h5, loss: lm}]\n"

static uint64_t hash_of(const dpt_job *job, void (*feed)(const dpt_job *, dpt_hash *)) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    feed(job, &hash);
    return dpt_hash_value(&hash);
}

/* A job without the law has the units that it had before there was one, whatever its seed. */
static void test_law(void **state) {
    (void)state;
#define EDIT "edits: [{name: e, method: drop, p: 0.5}]\n"
    dpt_job plain = parse_good(DATA EDIT, 0, NULL);
    dpt_job off = parse_good(DATA EDIT "law: {seed: 3}\n", 0, NULL);
    dpt_job on = parse_good(DATA EDIT "law: {repeats: 1}\n", 0, NULL);
    assert_int_equal(plain.law.repeats, 0);
    assert_int_equal(on.law.repeats, 1);
    assert_int_equal(on.law.seed, 0);
    assert_true(hash_of(&plain, dpt_job_hash_for_units) == hash_of(&off, dpt_job_hash_for_units));
    assert_true(hash_of(&plain, dpt_job_hash_for_units) != hash_of(&on, dpt_job_hash_for_units));
    assert_true(hash_of(&plain, dpt_job_hash_for_models) == hash_of(&on, dpt_job_hash_for_models));
    dpt_job other = parse_good(DATA EDIT "law: {repeats: 1, seed: 3}\n", 0, NULL);
    dpt_job more = parse_good(DATA EDIT "law: {repeats: 2}\n", 0, NULL);
    assert_true(hash_of(&other, dpt_job_hash_for_units) != hash_of(&on, dpt_job_hash_for_units));
    assert_true(hash_of(&more, dpt_job_hash_for_units) != hash_of(&on, dpt_job_hash_for_units));
#define IMAGES HEAD "data: [{name: digits, file: d.h5, loss: class}]\n"
    dpt_job images = parse_good(IMAGES EDIT "law: {repeats: 1}\n", 0, NULL);
    dpt_job probes = parse_good(IMAGES EDIT "law: {repeats: 1, probes: 8}\n", 0, NULL);
    assert_int_equal(probes.law.probes, 8);
    assert_true(hash_of(&images, dpt_job_hash_for_units) !=
                hash_of(&probes, dpt_job_hash_for_units));
    dpt_job_destroy(&images);
    dpt_job_destroy(&probes);
    expect_bad(IMAGES EDIT "law: {probes: 8}\n", "give law.repeats or law.labels: all");
    expect_bad(DATA EDIT "law: {repeats: 1, probes: 8}\n", "law.probes takes the logits");
#undef IMAGES
    dpt_job_destroy(&other);
    dpt_job_destroy(&more);
    dpt_job_destroy(&plain);
    dpt_job_destroy(&off);
    dpt_job_destroy(&on);
    expect_bad(HEAD "data: [{name: likes, file: d.h5, loss: dpo}]\n" EDIT "law: {repeats: 1}\n",
               "data set 'likes' has loss dpo");
    expect_bad(DATA EDIT "riemann: off\nlaw: {repeats: 1}\n", "law measures a loss");
    expect_bad(HEAD EDIT "law: {repeats: 1}\n", "law measures a loss");
    expect_bad(DATA EDIT "law: {repeats: -1}\n", "repeats");
    expect_bad(DATA EDIT "law: {repeat: 1}\n", "repeats");
#undef EDIT
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_law),
    };
    return test_mpi_main(argc, argv, tests);
}
