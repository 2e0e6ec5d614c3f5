/* ranks: 1
 * Which samples choose an edit and which judge it: parts of data sets, and the keys of edits that name them. */
#include "job/job_texts.h"

#define TWO                                                                                        \
    "data:\n- {name: a, file: a.h5, loss: lm, choose: 0.25}\n- {name: b, file: b.h5, loss: lm}\n"

static void test_parts(void **state) {
    (void)state;
    dpt_job job = parse_good(HEAD "data:\n- {name: a, file: a.h5, loss: lm, choose: 0.25}\n"
                                  "- {name: b, file: b.h5, loss: dpo, choose: 0}\n"
                                  "- {name: c, file: c.h5, loss: dpo, beta: 2, choose: 0.5, "
                                  "choose_seed: 3}\n"
                                  "edits:\n- {name: e, method: drop, p: 0.5}\n",
                             0, NULL);
    static const char *const names[] = {"a", "b", "c", "a~choose", "c~choose"};
    static const int others[] = {3, -1, 4, 0, 2};
    assert_true(job.njudged == 3 && job.ndata == 5);
    for (int d = 0; d < 5; d++) {
        assert_string_equal(job.data[d].name, names[d]);
        assert_int_equal(job.data[d].other, others[d]);
        assert_int_equal(job.data[d].chooses, d >= 3);
    }
    assert_true(job.data[4].beta == 2.0 && job.data[4].choose_seed == 3);
    assert_string_equal(job.data[4].file, "c.h5");
    dpt_job_destroy(&job);
}

typedef struct expected_edit {
    const char *id;
    int gradient, sought, judge, chosen;
} expected_edit;

static void check_edits(const dpt_job *job, int count, const expected_edit *want) {
    assert_int_equal(job->nedits, count);
    for (int e = 0; e < count; e++) {
        const dpt_job_edit *edit = &job->edits[e];
        assert_string_equal(edit->id, want[e].id);
        if (edit->gradient_data != want[e].gradient || edit->auto_data != want[e].sought ||
            edit->judge_data != want[e].judge || dpt_job_chosen_on(edit) != want[e].chosen)
            fail_msg("%s: gradient of %d, sought on %d, judged on %d, chosen on %d", edit->id,
                     edit->gradient_data, edit->auto_data, edit->judge_data,
                     dpt_job_chosen_on(edit));
        for (int d = -1; d < job->njudged; d++)
            assert_int_equal(dpt_job_judges(edit, d),
                             d < 0 || want[e].judge < 0 || d == want[e].judge);
    }
}

/* What chooses takes the part that only chooses; what is measured, as the correlation of a mask, does not. */
static void test_edits(void **state) {
    (void)state;
    dpt_job job = parse_good(
        HEAD TWO "edits:\n"
                 "- {name: auto, method: expo, alpha: auto}\n"
                 "- {name: on, method: expo, alpha: auto, groups: layers, data: b}\n"
                 "- {name: sweep, method: expo, alpha: auto, reach: 2, choose: [b, a]}\n"
                 "- {name: term, method: bitdelta, calibrate: term, judge: b}\n"
                 "- {name: sign, method: bias, k: 1, by: gradient, choose: b, judge: a}\n"
                 "- {name: mask, method: drop, p: 0.5}\n"
                 "- {name: maskb, method: drop, p: 0.25, data: b}\n"
                 "- {name: fit, method: drop, p: 0.5, calibrate: term}\n"
                 "- {name: plain, method: bitdelta}\n",
        0, NULL);
    static const expected_edit want[] = {
        {"auto-on-a", -1, 2, -1, 2},     {"auto-on-b", -1, 1, -1, 1},     {"on", -1, 1, -1, 1},
        {"sweep-chooseb", -1, 1, -1, 1}, {"sweep-choosea", -1, 2, -1, 2}, {"term", 2, -1, 1, 2},
        {"sign", 1, -1, 0, 1},           {"mask", 0, -1, -1, -1},         {"maskb", 1, -1, -1, -1},
        {"fit", 2, -1, -1, 2},           {"plain", -1, -1, -1, -1}};
    check_edits(&job, sizeof want / sizeof want[0], want);
    assert_true(dpt_job_takes_gradient(&job, 1) && dpt_job_takes_gradient(&job, 2));
    assert_false(dpt_job_takes_gradient(&job, 0));
    dpt_job_destroy(&job);
}

static void test_refused(void **state) {
    (void)state;
    expect_bad(HEAD "data: [{name: a, file: a.h5, loss: lm, choose: 1}]\n"
                    "edits:\n- {name: e, method: drop, p: 0.5}\n",
               "choose is '1'");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: bitdelta, choose: a}\n",
               "chooses nothing from data");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: drop, p: 0.5, choose: a}\n",
               "chooses nothing from data");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: expo, alpha: auto, choose: a, data: a}\n",
               "leave data out");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: expo, alpha: auto, choose: c}\n",
               "choose is 'c'");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: drop, p: 0.5, judge: a~choose}\n",
               "judge is 'a~choose'");
    expect_bad(HEAD TWO "edits:\n- {name: e, method: expo, alpha: auto, choose: a}\n"
                        "- {name: f, method: expo, alpha: auto, data: a}\n",
               "the same edit");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_edits),
        cmocka_unit_test(test_refused),
    };
    return test_mpi_main(argc, argv, tests);
}
