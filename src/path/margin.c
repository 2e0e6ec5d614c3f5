#include "margin.h"

#include "deltapath/base/mem.h"

#include <math.h>

static double margin_mean(int64_t n, const double *x) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

/* The loss that post-training removed from each sample, counted from that of one that knows nothing where the
 * pre-trained model is worse still. */
static void margin_room(const dpt_verdict_samples *s, double guess, double *room) {
    bool worse = margin_mean(s->n, s->pre) > guess;
    for (int64_t i = 0; i < s->n; i++)
        room[i] = (worse ? guess : s->pre[i]) - s->post[i];
}

/* What the margin of the accuracy costs, room / accuracy gained for each share of it. @param[in,out] each the room of
 * the samples; each one's part of that cost where it is the smaller margin, to first order in what it is measured by. */
static double margin_of_accuracy(const dpt_verdict_samples *s, const dpt_verdict_options *options,
                                 double room, double least, double *each) {
    if (!(options->margins.accuracy > 0.0) || s->gained == NULL)
        return NAN;
    dpt_accuracy gained = dpt_accuracy_judge(s->gained, NAN, options->confidence, options->alpha);
    if (!(gained.low > 0.0))
        return NAN;
    double scale = options->margins.accuracy / gained.change;
    double cost = scale * room;
    for (int64_t i = 0; i < s->n && cost < least; i++)
        each[i] = scale * each[i] -
                  cost * (s->right_post[i] - s->right_pre[i] - gained.change) / gained.change;
    return cost;
}

static dpt_status margin_measure(const dpt_verdict_samples *s, const dpt_verdict_options *options,
                                 dpt_margin *out) {
    margin_room(s, options->margins.guess, out->each);
    dpt_paired room;
    dpt_status st = dpt_paired_create(s->n, out->each, NULL, &options->paired, &room);
    if (st != DPT_OK)
        return st;
    bool clear = dpt_paired_interval(&room, options->confidence).low > 0.0;
    double share = options->margins.share * room.mean;
    out->value = clear ? share : NAN;
    if (clear)
        out->accuracy = margin_of_accuracy(s, options, room.mean, share, out->each);
    if (out->accuracy < share)
        out->value = out->accuracy;
    else
        for (int64_t i = 0; i < s->n; i++)
            out->each[i] *= options->margins.share;
    dpt_paired_destroy(&room);
    return DPT_OK;
}

dpt_status dpt_margin_create(const dpt_verdict_samples *s, const dpt_verdict_options *options,
                             bool gain_clear, dpt_margin *out) {
    bool given = options->margins.absolute > 0.0;
    *out = (dpt_margin){.value = NAN, .accuracy = NAN};
    if (!given && !gain_clear)
        return DPT_OK;
    out->each = dpt_mem_alloc(s->n, sizeof *out->each, "margins of samples");
    dpt_status st = out->each != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && gain_clear)
        st = margin_measure(s, options, out);
    if (st == DPT_OK && given) {
        out->value = options->margins.absolute;
        for (int64_t i = 0; i < s->n; i++)
            out->each[i] = out->value;
    }
    if (st != DPT_OK)
        dpt_margin_destroy(out);
    return st;
}

void dpt_margin_destroy(dpt_margin *margin) {
    dpt_mem_free(margin->each);
    *margin = (dpt_margin){.value = NAN};
}
