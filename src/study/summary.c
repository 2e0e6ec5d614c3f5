#include "summary.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/verdict.h"
#include "prediction.h"
#include "seeds.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* An edit that is judged elsewhere has an empty place here. */
static bool is_judged(const dpt_result *result) {
    return result->edit != NULL;
}

static int longest_id(const dpt_result *results, int64_t edits, int64_t units) {
    size_t longest = strlen("edit");
    for (int64_t i = 0; i < edits * units; i++) {
        size_t length = is_judged(&results[i]) ? strlen(results[i].edit) : 0;
        longest = length > longest ? length : longest;
    }
    return (int)longest;
}

/* Any unit of a data set; NULL: none is judged there. */
static const dpt_result *first_judged(const dpt_result *results, int64_t edits, int64_t units,
                                      int64_t u) {
    for (int64_t e = 0; e < edits; e++)
        if (is_judged(&results[e * units + u]))
            return &results[e * units + u];
    return NULL;
}

/* Numbers of a column; a bar where there is none. */
static void summary_print_number(int width, int digits, double x) {
    if (isnan(x))
        printf(" %*s", width, "-");
    else
        printf(" %*.*g", width, digits, x);
}

static void print_percent(double share) {
    if (isnan(share))
        printf(" %8s", "-");
    else
        printf(" %7.1f%%", 100 * share);
}

double dpt_summary_number(double x) {
    return isnan(x) ? (double)NAN : x;
}

static void summary_print_row(const dpt_result *result, int width) {
    const dpt_result_scalars *s = &result->scalars;
    printf("%-*s %11.4g  ", width, result->edit, dpt_summary_number(s->change));
    if (isnan(s->change_low))
        printf("%24s", "no interval");
    else
        printf("[%10.3g, %10.3g]", s->change_low, s->change_high);
    summary_print_number(11, 4, s->estimate);
    summary_print_number(10, 2, s->error);
    print_percent(s->share);
    print_percent(s->accuracy_edit);
    summary_print_number(8, 2, s->p_equivalent_adjusted);
    printf("  %s%s\n", result->verdict,
           s->held_out < 1.0 ? " (chosen on samples that judge it)" : "");
}

/* Of how many edits the samples are few. */
static void summary_print_few(const dpt_result *results, int64_t edits, int64_t units, int64_t u) {
    int64_t few = 0, all = 0;
    double samples = NAN, enough = 0.0;
    for (int64_t e = 0; e < edits; e++) {
        const dpt_result *r = &results[e * units + u];
        if (!is_judged(r))
            continue;
        all++;
        if (!dpt_result_is_few(&r->scalars))
            continue;
        few++;
        samples = r->scalars.effective;
        enough = fmax(enough, r->scalars.change_enough);
    }
    if (few > 0)
        printf("warning: of %" PRId64 " of %" PRId64
               " edits the intervals may cover less than 95 %%: "
               "they stand on %.4g samples, and up to %.0f are enough for changes so skewed "
               "(change_enough)\n",
               few, all, samples, ceil(enough));
}

/* Every verdict of the table stands on the post-training gain, or on one that is none. */
static void print_doubt(const dpt_result_scalars *s) {
    if (!isfinite(s->loss_pre) || !isfinite(s->loss_post))
        printf("warning: a loss of the %s-trained model is not finite: no verdict is given\n",
               isfinite(s->loss_post) ? "pre" : "post");
    else if (s->gain_high < 0.0)
        printf("warning: the post-trained model is worse than the pre-trained one on this data, by "
               "%.3g nats: are pre and post swapped? Nothing is called competitive\n",
               -s->gain);
    else if (s->gain_low <= 0.0)
        printf("warning: the post-training gain, %.3g nats [%.3g, %.3g], cannot be told from zero: "
               "there is no share of it\n",
               s->gain, s->gain_low, s->gain_high);
}

static void summary_print_law(const dpt_result *results, int64_t edits, int64_t units, int64_t u) {
    const dpt_result **of = dpt_mem_alloc(edits, sizeof *of, "predictions");
    int64_t count = 0;
    for (int64_t e = 0; e < edits && of != NULL; e++)
        if (is_judged(&results[e * units + u]))
            of[count++] = &results[e * units + u];
    dpt_summary_print_law(count, of);
    dpt_summary_print_groups(count, of);
    dpt_mem_free(of);
}

static void print_data(const dpt_result *results, int64_t edits, int64_t units, int64_t u) {
    const dpt_result *first = first_judged(results, edits, units, u);
    if (first == NULL || first->samples == 0)
        return;
    const dpt_result_scalars *s = &first->scalars;
    int width = longest_id(results, edits, units);
    printf("\n%s (%s, %lld samples): loss %.5g pre-trained, %.5g post-trained; ", first->data,
           first->loss, (long long)first->samples, dpt_summary_number(s->loss_pre),
           dpt_summary_number(s->loss_post));
    if (!isnan(s->margin) && s->accuracy_margin > 0.0)
        printf("margins %.3g nats and %g points\n", s->margin, 100 * s->accuracy_margin);
    else if (!isnan(s->margin))
        printf("margin %.3g nats\n", s->margin);
    else if (s->gain_high < 0.0)
        printf("no margin: the gain is negative\n");
    else if (!isfinite(s->gain))
        printf("no margin: the gain is no number\n");
    else if (isnan(s->gain_low))
        printf("no margin: the gain has no interval\n");
    else if (s->gain_low > 0.0)
        printf(
            "no margin: the post-trained loss is not clearly below that of one that knows nothing, "
            "give `margin: {absolute: NATS}`\n");
    else
        printf("no margin: the gain cannot be told from zero, give `margin: {absolute: NATS}`\n");
    print_doubt(s);
    if (dpt_result_is_clustered(first))
        printf("%.0f clusters%s: intervals and tests are of these\n", s->clusters,
               s->effective < s->clusters - 0.5 ? " of unequal weight" : "");
    printf("%-*s %11s  %-24s %11s %10s %8s %8s %8s  %s\n", width, "edit", "change",
           "[95 % interval]", "estimate", "error", "of gain", "accuracy", "p equiv.", "verdict");
    for (int64_t e = 0; e < edits; e++)
        if (is_judged(&results[e * units + u]))
            summary_print_row(&results[e * units + u], width);
    summary_print_few(results, edits, units, u);
    summary_print_law(results, edits, units, u);
}

void dpt_summary_print(const dpt_result *results, int64_t edits, int64_t units) {
    for (int64_t u = 0; u < units; u++)
        print_data(results, edits, units, u);
    fflush(stdout);
}

/* An edit is competitive where both tests say so: the larger p is that of the two together. The accuracy is not
 * asked where it is left out, or where no sample's loss changes. */
static double summary_p_equivalent(const dpt_result_scalars *s) {
    bool same = s->change == 0.0 && s->change_se == 0.0;
    if (isnan(s->p_equivalent) || same || !(s->accuracy_margin > 0.0))
        return s->p_equivalent;
    return isnan(s->p_accuracy) ? s->p_accuracy : fmax(s->p_equivalent, s->p_accuracy);
}

static double summary_p_change(const dpt_result_scalars *s) {
    return s->p_change;
}

/* Correct the p-values of each data set for the number of edits compared on it.
 * @param[in] offset of the corrected one in the scalars. @param[in] p (edits) room. */
static dpt_status summary_adjust(dpt_result *results, int edits, int units,
                                 double (*of)(const dpt_result_scalars *), size_t offset,
                                 double *p) {
    dpt_status st = DPT_OK;
    for (int u = 0; u < units && st == DPT_OK; u++) {
        for (int e = 0; e < edits; e++) {
            const dpt_result *r = &results[e * units + u];
            p[e] = is_judged(r) ? of(&r->scalars) : NAN;
        }
        st = dpt_verdict_holm(edits, p, p);
        for (int e = 0; e < edits && st == DPT_OK; e++)
            if (is_judged(&results[e * units + u]))
                memcpy((char *)&results[e * units + u].scalars + offset, &p[e], sizeof p[e]);
    }
    return st;
}

static dpt_status summary_adjust_all(dpt_result *results, int edits, int units) {
    double *p = dpt_mem_alloc(edits, sizeof *p, "p-values");
    if (p == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = summary_adjust(results, edits, units, summary_p_change,
                                   offsetof(dpt_result_scalars, p_adjusted), p);
    if (st == DPT_OK)
        st = summary_adjust(results, edits, units, summary_p_equivalent,
                            offsetof(dpt_result_scalars, p_equivalent_adjusted), p);
    dpt_mem_free(p);
    return st;
}

/* Losses that depend on the models and the data alone must be those of the first unit of the data set, but for
 * what ranks and meshes round differently: else the units are of models that changed between them. */
enum { BASELINE_DIGITS_LOST = 1000 };

static bool baseline_differs(const double *a, const double *b, int64_t n) {
    const double tolerance = BASELINE_DIGITS_LOST * (double)FLT_EPSILON;
    for (int64_t i = 0; i < n; i++)
        if (fabs(a[i] - b[i]) > tolerance * (1 + fabs(a[i])))
            return true;
    return false;
}

static dpt_status check_baselines(const dpt_result *results, int edits, int units,
                                  const char *directory) {
    for (int i = 0; i < edits * units; i++) {
        const dpt_result *first = first_judged(results, edits, units, i % units);
        const dpt_result *unit = &results[i];
        if (!is_judged(unit))
            continue;
        if (unit->samples != first->samples ||
            baseline_differs(first->loss_post, unit->loss_post, unit->samples) ||
            baseline_differs(first->loss_pre, unit->loss_pre, unit->samples))
            return dpt_error(
                DPT_ERR_INPUT,
                "%s: %s and %s found other losses of the same models on '%s': a model or "
                "the data changed between them: run the study anew, or delete the older "
                "units and --resume",
                directory, first->edit, unit->edit, unit->data);
    }
    return DPT_OK;
}

/* The units that there are. @param[out] list  borrows what they point to. */
static dpt_status summary_collect(const dpt_result *results, int64_t places, dpt_result **list,
                                  int64_t *count) {
    *list = dpt_mem_alloc(places, sizeof **list, "units");
    for (int64_t i = 0; *list != NULL && i < places; i++)
        if (is_judged(&results[i]))
            (*list)[(*count)++] = results[i];
    return *list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_summary_write(const dpt_comm *comm, const dpt_job *job,
                             const dpt_results_study *study, dpt_result *results, int units) {
    DPT_ASSERT_SAME(comm, job->nedits);
    DPT_ASSERT_SAME(comm, units);
    dpt_results_study header = *study;
    dpt_result_seeds *seeds = NULL;
    dpt_result *written = NULL;
    int64_t count = 0;
    dpt_status st = DPT_OK;
    if (comm->rank == 0)
        st = check_baselines(results, job->nedits, units, study->directory);
    if (st == DPT_OK && comm->rank == 0)
        st = summary_adjust_all(results, job->nedits, units);
    if (st == DPT_OK && comm->rank == 0)
        st = dpt_seeds_collect(job, results, units, &seeds, &header.nseeds);
    header.seeds = seeds;
    if (st == DPT_OK && comm->rank == 0)
        st = summary_collect(results, (int64_t)job->nedits * units, &written, &count);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_results_write(comm, &header, written, count);
    dpt_mem_free(written);
    dpt_seeds_release(seeds, header.nseeds);
    if (st == DPT_OK && comm->rank == 0)
        dpt_summary_print(results, job->nedits, units);
    if (st == DPT_OK && comm->rank == 0)
        st = dpt_prediction_list(study->directory);
    return dpt_agree(comm, st);
}
