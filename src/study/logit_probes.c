#include "logit_probes.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <stdio.h>

/* Of random signs that is s = 1/64, near enough to W_post for derivatives and far enough for their fp32 logits. */
static const double LOGIT_STEP = 0.125;

/* Logits (samples, classes) on both sides of a direction. */
typedef struct probe_sides {
    double *plus, *minus;
} probe_sides;

static dpt_status probe_take(dpt_evaluation *ev, int d, double step, const probe_sides *sides) {
    dpt_status st = dpt_evaluation_logits(ev, d, step, sides->plus);
    return st == DPT_OK ? dpt_evaluation_logits(ev, d, -step, sides->minus) : st;
}

/* Probe r; of the first, half the step shows how good the differences are. */
static dpt_status probe_signs(dpt_evaluation *ev, int d, int r, const probe_sides *sides) {
    dpt_logits *logits = &ev->data[d].logits;
    const dpt_inputs *in = ev->inputs;
    char name[32];
    snprintf(name, sizeof name, "logits %d", r);
    const dpt_model_direction direction = {
        .moves = in->selected, .signs = true, .seed = in->job->law.seed, .name = name};
    dpt_evaluation_direct(ev, &direction);
    dpt_status st = probe_take(ev, d, logits->step, sides);
    if (st == DPT_OK)
        dpt_logits_take_probe(logits, r, sides->plus, sides->minus);
    if (st == DPT_OK && r == 0)
        st = probe_take(ev, d, logits->step / 2.0, sides);
    if (st == DPT_OK && r == 0)
        st = dpt_logits_compare(&ev->mesh.world, logits, sides->plus, sides->minus);
    dpt_evaluation_direct(ev, NULL);
    return st;
}

/* The delta itself, in the tensors that edits touch. */
static dpt_status probe_delta(dpt_evaluation *ev, int d, const probe_sides *sides) {
    const dpt_model_direction direction = {.moves = ev->inputs->selected};
    dpt_evaluation_direct(ev, &direction);
    dpt_status st = probe_take(ev, d, ev->data[d].logits.step, sides);
    if (st == DPT_OK)
        dpt_logits_take_toward(&ev->data[d].logits, sides->plus, sides->minus);
    dpt_evaluation_direct(ev, NULL);
    return st;
}

static dpt_status probe_data(dpt_evaluation *ev, int d) {
    dpt_logits *logits = &ev->data[d].logits;
    const dpt_job *job = ev->inputs->job;
    dpt_model_image image;
    dpt_model_get_image(ev->model, &image);
    *logits = (dpt_logits){.samples = ev->data[d].samples,
                           .classes = image.classes,
                           .labels = ev->inputs->data[d].labels,
                           .correct = ev->data[d].correct_post,
                           .shares = dpt_loss_shares(ev->data[d].loss),
                           .clusters = ev->inputs->data[d].clusters,
                           .effective = ev->inputs->data[d].effective,
                           .step = LOGIT_STEP};
    int64_t n = logits->samples * logits->classes;
    double *both = dpt_mem_alloc(2 * n, sizeof *both, "logits of both sides");
    const probe_sides sides = {.plus = both, .minus = both != NULL ? both + n : NULL};
    dpt_status st = dpt_logits_create(&ev->mesh.world, job->law.probes, logits);
    st = dpt_agree(&ev->mesh.world, both != NULL ? st : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_evaluation_logits(ev, d, 0.0, sides.plus);
    if (st == DPT_OK) {
        dpt_logits_take_post(logits, sides.plus);
        st = probe_delta(ev, d, &sides);
    }
    for (int r = 0; r < job->law.probes && st == DPT_OK; r++)
        st = probe_signs(ev, d, r, &sides);
    if (st == DPT_OK)
        st = dpt_logits_safe_rate(&ev->mesh.world, logits, job->accuracy_margin / 100.0,
                                  &logits->safe_rate);
    dpt_mem_free(both);
    return st;
}

dpt_status dpt_logit_probes_measure(dpt_evaluation *ev) {
    const dpt_job *job = ev->inputs->job;
    dpt_status st = DPT_OK;
    for (int d = 0; d < job->njudged && st == DPT_OK && job->law.probes > 0; d++) {
        st = probe_data(ev, d);
        if (st == DPT_OK)
            dpt_logits_log(job->data[d].name, &ev->data[d].logits);
    }
    return st;
}

/* W_post, both sides of the delta and of each probe, and those of the first at half the step. */
int64_t dpt_logit_probes_passes(const dpt_job *job) {
    return job->law.probes > 0 ? 1 + 2 + 2 * (int64_t)job->law.probes + 2 : 0;
}
