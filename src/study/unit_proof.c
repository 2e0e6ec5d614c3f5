#include "unit_proof.h"

#include "deltapath/base/mem.h"
#include "deltapath/results/proof.h"

#include <math.h>

/* NaN stays of a group that the edit does not touch. */
static void unit_proof_terms(const dpt_leave_out *left, dpt_result *out) {
    for (int64_t t = 0; t < out->tensors; t++) {
        int g = left->groups.group_of[t];
        if (g >= 0 && left->touched[g])
            out->proof_term[g] =
                (isnan(out->proof_term[g]) ? 0.0 : out->proof_term[g]) + out->integrated[t];
    }
}

/* Mean of a - b over the values of the samples, losses both, and its interval: none where a verdict would have none. */
static dpt_status unit_proof_interval(int64_t n, const double *a, const double *b,
                                      const dpt_verdict_options *options, double *mean, double *low,
                                      double *high) {
    bool spread = dpt_verdict_has_spread(n, a, b, options->paired.effective);
    dpt_paired paired;
    dpt_status st = dpt_paired_create(n, a, b, &options->paired, &paired);
    if (st != DPT_OK)
        return st;
    dpt_interval interval = dpt_paired_interval(&paired, options->confidence);
    *mean = interval.mean;
    *low = spread ? interval.low : NAN;
    *high = spread ? interval.high : NAN;
    dpt_paired_destroy(&paired);
    return DPT_OK;
}

/* @param[in] work (2, samples) scratch: the values without a group, and the loss of an edit whose groups add up, as far above
 * that of this one as they are beyond the change. */
static dpt_status unit_proof_changes(const dpt_leave_out *left, const dpt_weighted *weighted,
                                     const dpt_verdict_samples *samples,
                                     const dpt_verdict_options *options, double *work,
                                     dpt_result *out) {
    double *without = work, *sum = work + out->samples;
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < samples->n; i++)
        sum[i] = samples->post[i];
    for (int64_t g = 0; g < out->nproof && st == DPT_OK; g++) {
        out->proof_alone[g] = left->alone[g];
        if (!left->touched[g])
            continue;
        dpt_weighted_apply(weighted, left->without + g * out->samples, without);
        st = unit_proof_interval(samples->n, samples->edit, without, options, &out->proof_change[g],
                                 &out->proof_change_low[g], &out->proof_change_high[g]);
        for (int64_t i = 0; i < samples->n; i++)
            sum[i] += samples->edit[i] - without[i];
    }
    dpt_result_scalars *s = &out->scalars;
    if (st == DPT_OK)
        st = unit_proof_interval(samples->n, sum, samples->edit, options, &s->proof_interaction,
                                 &s->proof_interaction_low, &s->proof_interaction_high);
    return st;
}

static void unit_proof_number(dpt_proof_number from, double *value, double *low, double *high) {
    *value = from.value;
    *low = from.low;
    *high = from.high;
}

dpt_status dpt_unit_set_proof(const dpt_leave_out *left, const dpt_weighted *weighted,
                              const dpt_verdict_samples *samples,
                              const dpt_verdict_options *options, dpt_result *out) {
    dpt_result_scalars *s = &out->scalars;
    const dpt_result *units[] = {out};
    dpt_proof proof;
    if (left->groups.count == 0)
        return DPT_OK;
    double *work = dpt_mem_zalloc(2 * out->samples, sizeof *work, "losses without a group");
    dpt_status st = work != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_result_set_string(&out->proof_groups, "%s", left->groups.names);
    unit_proof_terms(left, out);
    if (st == DPT_OK)
        st = unit_proof_changes(left, weighted, samples, options, work, out);
    if (st == DPT_OK)
        st = dpt_proof_measure_groups(1, units, DPT_PROOF_LEFT_OUT, &proof);
    if (st == DPT_OK) {
        unit_proof_number(proof.correlation, &s->proof_correlation, &s->proof_correlation_low,
                          &s->proof_correlation_high);
        unit_proof_number(proof.rank_correlation, &s->proof_rank_correlation,
                          &s->proof_rank_correlation_low, &s->proof_rank_correlation_high);
        unit_proof_number(proof.slope, &s->proof_slope, &s->proof_slope_low, &s->proof_slope_high);
        s->proof_few = isnan(proof.correlation.low) ? NAN : proof.few;
    }
    dpt_mem_free(work);
    return st;
}
