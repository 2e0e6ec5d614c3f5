/* ranks: 1 */
/* Edits over seeds: a count of them in place of a list. */
#include "job_texts.h"

#include <stdlib.h>
#include <string.h>

/* A count of seeds is the list of them, wherever the first one stands. */
static void test_seeds(void **state) {
    (void)state;
    static const struct {
        const char *text, *ids[3];
    } cases[] = {{HEAD "edits:\n- {name: a, method: dare, seed: 7, p: 0.5, seeds: 3}\n",
                  {"a-seed7", "a-seed8", "a-seed9"}},
                 {HEAD "edits:\n- {name: b, method: dare, seeds: 3, p: 0.5}\n",
                  {"b-seed0", "b-seed1", "b-seed2"}},
                 {HEAD "edits:\n- {name: c, method: dare, p: 0.5, seeds: 3, seed: 1}\n",
                  {"c-seed1", "c-seed2", "c-seed3"}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        dpt_job job = parse_good(cases[k].text, 0, NULL);
        assert_int_equal(job.nedits, 3);
        for (int i = 0; i < 3; i++) {
            assert_string_equal(job.edits[i].id, cases[k].ids[i]);
            assert_int_equal(job.edits[i].spec.seed, atoi(cases[k].ids[i] + strlen("a-seed")));
        }
        if (k == 2)
            assert_string_equal(job.edits[1].params, "p=0.5 seed=2");
        dpt_job_destroy(&job);
    }
#define SEEDED(keys) HEAD "edits:\n- {name: e, method: dare, p: 0.5, " keys "}\n"
    expect_bad(SEEDED("seed: [1, 2], seeds: 3"), "seed is a list");
    expect_bad(SEEDED("seeds: [1, 2]"), "a list of them is a value of seed");
    expect_bad(SEEDED("seeds: 0"), "seeds is '0'");
    expect_bad(SEEDED("seeds: 2.5"), "seeds is '2.5'");
    expect_bad(SEEDED("seed: 18446744073709551615, seeds: 2"), "do not exist");
    expect_bad(SEEDED("seed: x, seeds: 2"), "seed is 'x'");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: 1, seeds: 2}\n", "same edit");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};
    return test_mpi_main(argc, argv, tests);
}
