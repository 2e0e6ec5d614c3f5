#include "summary.h"

#include "deltapath/base/mem.h"
#include "deltapath/results/proof.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static void summary_number(const char *name, dpt_proof_number x) {
    printf("%s %.3g", name, x.value);
    if (!isnan(x.low))
        printf(" [%.3g, %.3g]", x.low, x.high);
}

/* @param[in] of what the intervals are over. */
static void summary_numbers(const char *first, const dpt_proof *proof, const char *of) {
    summary_number(first, proof->correlation);
    summary_number(", of ranks", proof->rank_correlation);
    summary_number(", slope", proof->slope);
    if (isnan(proof->correlation.low) && proof->independent >= DPT_PROOF_LEAST)
        printf(", no intervals: without one of the %s all others are alike", of);
    else if (isnan(proof->correlation.low))
        printf(", too few %s for intervals", of);
    else if (proof->few)
        printf(", from few %s in effect", of);
}

static void summary_proof(const char *which, const dpt_proof *proof) {
    if (proof->edits == 0)
        return;
    printf("predicted against true change, %" PRId64 " edits%s: ", proof->edits, which);
    if (isnan(proof->correlation.value)) {
        printf("too few, or all alike, for a correlation\n");
        return;
    }
    summary_numbers("correlation", proof, "edits");
    if (isnan(proof->ratio))
        printf("\n");
    else
        printf(", median true over predicted %.3g\n", proof->ratio);
}

static void summary_groups(const char *which, const dpt_proof *proof) {
    if (isnan(proof->correlation.value))
        return;
    summary_numbers(which, proof, proof->edits > 1 ? "edits" : "groups");
    printf("\n");
}

void dpt_summary_print_groups(int64_t count, const dpt_result *const *units) {
    static const char *const which[] = {"  left out: correlation", "  alone: correlation",
                                        "  middle of both: correlation"};
    for (int k = 0; k < 3; k++) {
        dpt_proof proof;
        if (dpt_proof_measure_groups(count, units, (dpt_proof_of_groups)k, &proof) != DPT_OK)
            return;
        if (k == 0 && proof.groups > 0)
            printf("terms of groups of tensors against what the groups change, %" PRId64
                   " groups of %" PRId64 " edit%s%s:\n",
                   proof.groups, proof.edits, proof.edits == 1 ? "" : "s",
                   isnan(proof.correlation.value) ? ", too few, or all alike, for a correlation"
                                                  : "");
        summary_groups(which[k], &proof);
    }
}

/* Which edits the law can say nothing of, and why. */
static void summary_ranges(int64_t count, const dpt_result *const *units) {
    for (int64_t i = 0; i < count; i++)
        if (isfinite(units[i]->scalars.predicted_change) && units[i]->predicted_range != NULL &&
            units[i]->scalars.predicted_in_range != 1.0)
            printf("  %s: predicted %.3g, %s\n", units[i]->edit, units[i]->scalars.predicted_change,
                   units[i]->predicted_range);
}

/* What the logits predicted of the accuracy. */
static void summary_accuracy(int64_t count, const dpt_result *const *units) {
    double rate = units[0]->scalars.safe_rate_accuracy;
    if (!isnan(rate))
        printf("dare with k = 0 is predicted to keep the accuracy within its margin up to p = "
               "%.3g\n",
               rate);
    for (int k = 0; k < 2; k++) {
        dpt_proof_accuracy proof = dpt_proof_measure_accuracy(count, units, k == 1);
        if (proof.edits > 0)
            printf("predicted against true accuracy, %" PRId64 " edits%s: mean absolute error "
                   "%.3g points, bias %+.3g, %.3g %% within 1.96 standard deviations over masks\n",
                   proof.edits, k == 1 ? " in range" : "", 100.0 * proof.error, 100.0 * proof.bias,
                   100.0 * proof.inside);
    }
}

void dpt_summary_print_law(int64_t count, const dpt_result *const *units) {
    static const char *const which[] = {"", " in range", " in range by the mask that was drawn"};
    if (count == 0 || isnan(units[0]->scalars.curvature))
        return;
    const dpt_result_scalars *s = &units[0]->scalars;
    printf("curvature along the delta %.4g nats", s->curvature);
    if (!isnan(s->safe_rate))
        printf("; dare with k = 0 is predicted to stay within the margin up to p = %.3g, before "
               "rounding to the output type",
               s->safe_rate);
    else if (isnan(s->margin))
        printf("; no safe p of dare is known, for there is no margin");
    else
        printf("; no p of dare is known to stay within the margin");
    printf("\n");
    summary_ranges(count, units);
    for (int k = 0; k < 3; k++) {
        dpt_proof proof;
        if (dpt_proof_measure(count, units, (dpt_proof_kind)k, &proof) == DPT_OK)
            summary_proof(which[k], &proof);
    }
    summary_accuracy(count, units);
}
