/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/job/job.h"

#include <stdio.h>
#include <string.h>

static dpt_status parse(const char *set, dpt_job *job) {
    static const char text[] = "models: {pre: a, post: b}\noutput: {directory: out}\n"
                               "edits: [{name: e, method: dare, p: 0.1}]\n";
    dpt_error_clear();
    return dpt_job_parse(text, "job.yaml", 1, &set, job);
}

static dpt_status parse_overwrite(const char *word, dpt_job *job) {
    static char set[64]; /* the job borrows it */
    snprintf(set, sizeof set, "output.overwrite=%s", word);
    return parse(set, job);
}

static void words_of_yaml_1_2(void **state) {
    (void)state;
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        dpt_job job;
        assert_int_equal(parse_overwrite(words[i], &job), DPT_OK);
        assert_int_equal(job.overwrite, i < 3);
        dpt_job_destroy(&job);
    }
}

static void no_others(void **state) {
    (void)state;
    static const char *const others[] = {"yes", "on", "no", "off", "tRue", "1", "true True", "''"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        dpt_job job;
        assert_int_equal(parse_overwrite(others[i], &job), DPT_ERR_USAGE);
        assert_non_null(strstr(dpt_error_message(), "write true or false"));
    }
    dpt_error_clear();
}

static void an_entry_of_a_list(void **state) {
    (void)state;
    dpt_job job;
    assert_int_equal(parse("edits.0={name: f, method: drop, p: 0.5}", &job), DPT_ERR_USAGE);
    assert_non_null(strstr(dpt_error_message(), "set its keys, as in edits.0.p=0.3"));
    dpt_error_clear();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_yaml_1_2),
        cmocka_unit_test(no_others),
        cmocka_unit_test(an_entry_of_a_list),
    };
    return test_mpi_main(argc, argv, tests);
}
