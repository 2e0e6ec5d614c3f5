#include "guards.h"

#include "deltapath/base/log.h"
#include "deltapath/results/results.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const reasons[] = {
    [DPT_CALIBRATED_LEAST] = "factor held at its lower limit",
    [DPT_CALIBRATED_MOST] = "factor held at its upper limit",
    [DPT_CALIBRATED_SIGN] = "plain scale, as no positive factor helps",
    [DPT_CALIBRATED_LOST] = "plain scale, as the product with the gradient is rounding",
    [DPT_CALIBRATED_CHANCE] =
        "plain scale, as samples do not tell the product with the gradient from 0"};

static void guards_append(dpt_guards *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void guards_append(dpt_guards *out, const char *format, ...) {
    size_t used = strlen(out->held);
    va_list args;
    va_start(args, format);
    vsnprintf(out->held + used, sizeof out->held - used, format, args);
    va_end(args);
}

static void add_reason(const dpt_catalog *catalog, const dpt_edit_report *report,
                       dpt_edit_calibrated reason, dpt_guards *out) {
    int count = 0, named = 0;
    for (int t = 0; t < report->ntensors; t++)
        count += report->stats[t].calibrated == reason;
    if (count == 0)
        return;
    guards_append(out, "%s%s (%d): ", out->held[0] != '\0' ? "; " : "", reasons[reason], count);
    for (int t = 0; t < report->ntensors && named < DPT_GUARDS_NAMES; t++)
        if (report->stats[t].calibrated == reason)
            guards_append(out, "%s%.120s", named++ > 0 ? ", " : "", catalog->tensors[t].name);
    if (count > named)
        guards_append(out, " and %d more", count - named);
}

void dpt_guards_collect(const dpt_catalog *catalog, const dpt_edit_report *report,
                        dpt_guards *out) {
    *out = (dpt_guards){.tensors = 0};
    for (int t = 0; t < report->ntensors; t++) {
        out->tensors += report->stats[t].calibrated != DPT_CALIBRATED_NOT;
        out->zero += report->stats[t].calibrated == DPT_CALIBRATED_ZERO;
    }
    for (int reason = DPT_CALIBRATED_LEAST; reason <= DPT_CALIBRATED_CHANCE; reason++)
        add_reason(catalog, report, (dpt_edit_calibrated)reason, out);
}

/* Edits whose size is this share of the delta's are rounding themselves, as low rank at full rank. */
static const double GUARDS_LEAST = 1e-4;

double dpt_guards_rounding(const dpt_catalog *catalog, const dpt_edit_report *report) {
    double size = 0.0, kept = 0.0, delta = 0.0;
    for (int t = 0; t < report->ntensors; t++) {
        const dpt_edit_tensor_stats *stats = &report->stats[t];
        size += stats->size;
        kept += stats->kept;
        delta += stats->delta_norm * sqrt((double)catalog->tensors[t].numel);
    }
    return size > GUARDS_LEAST * delta ? 1.0 - kept / size : NAN;
}

static void guards_warn_of_rounding(const dpt_inputs *in, const char *edit,
                                    const dpt_edit_report *report) {
    double share = dpt_guards_rounding(in->catalog, report);
    int t = 0;
    if (!dpt_result_is_rounded(share))
        return;
    while (report->stats[t].size == 0.0)
        t++;
    dpt_log(DPT_LOG_WARN,
            "%s: rounding to %s %s %.0f %% of the edit (of sum |E|), and may cost more than the "
            "edit: give output.dtype=f32 to see the edit without it",
            edit, dpt_dtype_name(in->out_catalog.tensors[t].dtype),
            share > 0.0 ? "takes back" : "adds", 100.0 * fabs(share));
}

/* A loss that is as a rule meant, and yet no silent one. */
static void guards_warn_of_lost(const dpt_inputs *in, const char *edit,
                                const dpt_edit_report *report) {
    int64_t lost = 0;
    for (int t = 0; t < report->ntensors; t++)
        lost += report->stats[t].lost;
    if (lost > 0)
        dpt_log(DPT_LOG_WARN, "%s: %" PRId64 " values are too small for %s and become 0", edit,
                lost, dpt_dtype_name(in->job->dtype));
}

void dpt_guards_warn(const dpt_inputs *in, const char *edit, const dpt_edit_report *report) {
    dpt_guards guards;
    dpt_guards_collect(in->catalog, report, &guards);
    if (guards.held[0] != '\0')
        dpt_log(DPT_LOG_WARN, "%s: calibration leaves a term at W_post in %d of %d tensors: %s",
                edit, guards.tensors - guards.zero, guards.tensors, guards.held);
    guards_warn_of_rounding(in, edit, report);
    guards_warn_of_lost(in, edit, report);
}
