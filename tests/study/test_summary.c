/* ranks: 1 */
/* What a study prints at its end, where numbers are not known and where samples are few. */
#include "support/test_mpi.h"

#include "../src/study/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAMPLES = 2, TENSORS = 1 };

/* What is printed on stdout by a call, allocated. */
static char *printed(const dpt_result *results, int64_t edits) {
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
    dpt_summary_print(results, edits, 1);
    fflush(stdout);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    close(kept);
    long size = ftell(file);
    char *text = calloc((size_t)size + 1, 1);
    assert_non_null(text);
    rewind(file);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    fclose(file);
    return text;
}

/* An edit of which all is known. */
static dpt_result known(const char *edit) {
    dpt_result r;
    assert_int_equal(dpt_result_create(TENSORS, 0, SAMPLES, &r), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.edit, "%s", edit), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.data, "task"), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.loss, "lm"), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.verdict, "decreased"), DPT_OK);
    dpt_result_scalars *s = &r.scalars;
    s->loss_pre = 3.0;
    s->loss_post = 1.0;
    s->gain = 2.0;
    s->gain_low = 1.9;
    s->gain_high = 2.1;
    s->margin = 0.1;
    s->accuracy_margin = 0.0;
    s->accuracy_edit = 0.5;
    s->change = 0.5;
    s->change_low = 0.4;
    s->change_high = 0.6;
    s->estimate = 0.51;
    s->error = 0.01;
    s->share = 0.25;
    s->p_equivalent_adjusted = 1.0;
    s->effective = s->clusters = 100.0;
    s->change_enough = 28.0;
    return r;
}

static void a_single_sample_has_no_numbers_that_are_none(void **state) {
    (void)state;
    dpt_result r = known("dare");
    char *whole = printed(&r, 1);
    assert_non_null(strstr(whole, "[       0.4,        0.6]"));
    assert_null(strstr(whole, "no interval"));
    r.scalars.change_low = r.scalars.change_high = r.scalars.gain_low = r.scalars.gain_high = NAN;
    r.scalars.margin = r.scalars.share = r.scalars.p_equivalent_adjusted = r.scalars.estimate =
        r.scalars.error = NAN;
    char *text = printed(&r, 1);
    assert_null(strstr(text, "nan"));
    assert_non_null(strstr(text, "no margin: the gain has no interval\n"));
    assert_non_null(strstr(text, "no interval "));
    /* Columns stay where they were. */
    assert_int_equal(strlen(strstr(text, "dare ")), strlen(strstr(whole, "dare ")));
    free(text);
    free(whole);
    dpt_result_destroy(&r);
}

/* So few samples are few also for changes without skewness. */
static void few_samples_are_counted(void **state) {
    (void)state;
    dpt_result r = known("dare");
    r.scalars.effective = 20.0;
    char *text = printed(&r, 1);
    assert_non_null(strstr(text,
                           "of 1 of 1 edits the intervals may cover less than 95 %: they stand "
                           "on 20 samples, and up to 28 are enough"));
    free(text);
    dpt_result_destroy(&r);
}

static void a_safe_rate_says_what_it_is_of(void **state) {
    (void)state;
    dpt_result r = known("dare");
    r.scalars.curvature = 0.3;
    r.scalars.safe_rate = 0.09;
    char *text = printed(&r, 1);
    assert_non_null(strstr(text, "up to p = 0.09, before rounding to the output type\n"));
    free(text);
    r.scalars.safe_rate = NAN;
    text = printed(&r, 1);
    assert_non_null(strstr(text, "; no p of dare is known to stay within the margin\n"));
    free(text);
    r.scalars.margin = NAN;
    text = printed(&r, 1);
    assert_non_null(strstr(text, "; no safe p of dare is known, for there is no margin\n"));
    free(text);
    dpt_result_destroy(&r);
}

/* Ten edits of which one alone is predicted to differ are many, and have no intervals all the same. */
static void many_edits_without_intervals_are_not_called_few(void **state) {
    (void)state;
    enum { EDITS = 10 };
    dpt_result r[EDITS];
    for (int i = 0; i < EDITS; i++) {
        char name[16];
        snprintf(name, sizeof name, "e%d", i);
        r[i] = known(name);
        r[i].scalars.curvature = 0.3;
        r[i].scalars.change = 0.1 * i;
        for (int s = 0; s < SAMPLES; s++)
            r[i].loss_edit[s] = 1.0 + 0.1 * i + s;
        r[i].scalars.predicted_change = i == 0 ? 0.9 : 0.5;
    }
    char *text = printed(r, EDITS);
    assert_non_null(strstr(text, "10 edits: correlation"));
    assert_non_null(strstr(text, "no intervals: without one of the edits all others are alike"));
    free(text);
    text = printed(r, 3);
    assert_non_null(strstr(text, "3 edits: too few, or all alike, for a correlation"));
    free(text);
    for (int i = 0; i < EDITS; i++)
        dpt_result_destroy(&r[i]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_sample_has_no_numbers_that_are_none),
        cmocka_unit_test(few_samples_are_counted),
        cmocka_unit_test(a_safe_rate_says_what_it_is_of),
        cmocka_unit_test(many_edits_without_intervals_are_not_called_few),
    };
    return test_mpi_main(argc, argv, tests);
}
