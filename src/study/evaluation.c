#include "evaluation.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/phase.h"
#include "deltapath/path/weighted.h"
#include "losses.h"
#include "loss_kinds.h"

#include <math.h>
#include <string.h>

double dpt_evaluation_share(const uint8_t *correct, const dpt_baseline *base) {
    const double *shares = dpt_loss_shares(base->loss);
    double hits = 0.0;
    for (int64_t i = 0; i < base->samples; i++)
        if (correct[i] != 0)
            hits += shares != NULL ? shares[i] : 1.0;
    return shares != NULL ? hits : hits / (double)base->samples;
}

static dpt_status allocate_baseline(dpt_baseline *base) {
    base->loss_pre = dpt_mem_zalloc(base->samples, sizeof(double), "losses");
    base->loss_post = dpt_mem_zalloc(base->samples, sizeof(double), "losses");
    base->correct_pre = dpt_mem_zalloc(base->samples, 1, "hits");
    base->correct_post = dpt_mem_zalloc(base->samples, 1, "hits");
    if (base->loss_pre == NULL || base->loss_post == NULL || base->correct_pre == NULL ||
        base->correct_post == NULL)
        return DPT_ERR_OUTPUT;
    return DPT_OK;
}

/* Rank 0's share of its own samples stands for all. */
static void count_batch(void *ctx, double share) {
    dpt_evaluation *ev = ctx;
    int64_t counted = (int64_t)(share * (double)ev->pass_samples);
    dpt_progress_add(&ev->progress, counted - ev->pass_counted);
    ev->pass_counted = counted;
}

static void begin_pass(dpt_evaluation *ev, const dpt_baseline *base) {
    ev->pass_samples = base->samples;
    ev->pass_counted = 0;
}

static void end_pass(dpt_evaluation *ev) {
    count_batch(ev, 1.0);
}

dpt_status dpt_evaluation_prepare(dpt_evaluation *ev) {
    dpt_status st = DPT_OK;
    if (ev->pre_waits)
        st = dpt_error_locate(dpt_evaluation_bind(ev, &ev->pre, ev->bound), ev->pre_path);
    if (st == DPT_OK && ev->late != NULL)
        st = ev->late(ev->late_ctx);
    if (st == DPT_OK && ev->direction != NULL && !ev->directed) {
        st = dpt_agree(&ev->mesh.world, dpt_model_set_direction(ev->model, ev->direction));
        ev->directed = st == DPT_OK;
    }
    return st;
}

/* W_pre or the lead of a line is bound, and signs are drawn, when the first pass needs it. */
static dpt_status prepare_model(void *ctx) {
    return dpt_evaluation_prepare(ctx);
}

dpt_status dpt_evaluation_pass(dpt_evaluation *ev, const dpt_baseline *base, dpt_pass pass) {
    uint64_t class =
        pass.squares ? dpt_hash_string("squares of a class") + (uint64_t)pass.label : 0;
    uint64_t parts[3] = {base->key, ev->bound,
                         pass.labels != NULL ? pass.labels->key
                         : pass.squares      ? class
                                             : ev->direction_key};
    pass.key = dpt_hash_bytes(parts, parts[2] != 0 ? sizeof parts : 2 * sizeof parts[0]);
    pass.what = base->name;
    pass.loss = base->loss;
    pass.model = ev->model;
    if (pass.prepare == NULL) { /* a place of a plane binds its own model */
        pass.prepare = prepare_model;
        pass.ctx = ev;
    }
    begin_pass(ev, base);
    dpt_status st = dpt_passes_run(&ev->passes, &pass);
    end_pass(ev);
    return st;
}

/* Loss at W_post, with the gradient where it is kept, and at W_pre, which is bound as an edit. */
static dpt_status evaluate_post(dpt_evaluation *ev, dpt_baseline *base) {
    dpt_pass pass = {.t = 0.0,
                     .mode = base->gradient != NULL ? DPT_BACKWARD_GRADIENT : DPT_BACKWARD_NONE,
                     .losses = base->loss_post,
                     .correct = base->correct_post,
                     .gradient = base->gradient};
    dpt_status st = dpt_evaluation_pass(ev, base, pass);
    base->accuracy_post = dpt_evaluation_share(base->correct_post, base);
    return st;
}

static dpt_status evaluate_pre(dpt_evaluation *ev, dpt_baseline *base) {
    dpt_pass pass = {.t = 1.0,
                     .mode = DPT_BACKWARD_NONE,
                     .losses = base->loss_pre,
                     .correct = base->correct_pre};
    dpt_status st = dpt_evaluation_pass(ev, base, pass);
    base->accuracy_pre = dpt_evaluation_share(base->correct_pre, base);
    return st;
}

/* Sums of E^2 G^2 of one draw of labels, along the delta: what the pass keeps of a scratch gradient is a number for each
 * tensor. */
static dpt_status evaluate_draw(dpt_evaluation *ev, dpt_baseline *base, dpt_rng labels,
                                double *squares) {
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    dpt_model_gradient *gradient = NULL;
    dpt_status st = dpt_agree(&ev->mesh.world, losses != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_model_gradient_create(ev->model, &gradient);
    dpt_pass pass = {.t = 0.0,
                     .mode = DPT_BACKWARD_GRADIENT,
                     .losses = losses,
                     .terms = squares,
                     .gradient = gradient,
                     .labels = &labels};
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    dpt_model_gradient_destroy(gradient);
    dpt_mem_free(losses);
    return st;
}

/* Sums of E^2 g^2 over images and classes, a class at a time. */
static dpt_status evaluate_labels(dpt_evaluation *ev, dpt_baseline *base, double *squares) {
    int tensors = dpt_model_catalog(ev->model)->count;
    double *losses = dpt_mem_zalloc(2 * base->samples, sizeof *losses, "losses");
    double *one = dpt_mem_zalloc(tensors, sizeof *one, "squares of a class");
    dpt_status st = losses != NULL && one != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_model_image image;
    dpt_model_get_image(ev->model, &image);
    st = dpt_agree(&ev->mesh.world, st);
    for (int32_t y = 0; y < image.classes && st == DPT_OK; y++) {
        dpt_pass pass = {.t = 0.0,
                         .mode = DPT_BACKWARD_TERMS,
                         .losses = losses,
                         .terms = one,
                         .sample_terms = losses + base->samples,
                         .squares = true,
                         .label = y};
        st = dpt_evaluation_pass(ev, base, pass);
        for (int k = 0; k < tensors && st == DPT_OK; k++)
            squares[k] += one[k];
    }
    dpt_mem_free(losses);
    dpt_mem_free(one);
    return st;
}

static dpt_status evaluate_law(dpt_evaluation *ev, dpt_baseline *base) {
    const dpt_job *job = ev->inputs->job;
    int tensors = dpt_model_catalog(ev->model)->count;
    bool all = job->law.labels == DPT_LABELS_ALL;
    int draws = dpt_job_law_draws(job, (int)(base - ev->data));
    if (draws == 0)
        return DPT_OK;
    dpt_status st = dpt_law_create(tensors, draws, &base->law);
    base->law.exact = all;
    st = dpt_agree(&ev->mesh.world, st);
    for (int r = 0; r < draws && st == DPT_OK; r++)
        st = all ? evaluate_labels(ev, base, dpt_law_draw(&base->law, r))
                 : evaluate_draw(ev, base, dpt_law_labels(job, base->name, r),
                                 dpt_law_draw(&base->law, r));
    if (st == DPT_OK)
        dpt_law_finish(&base->law, ev->inputs->selected);
    return st;
}

static dpt_status for_each_data(dpt_evaluation *ev, int count,
                                dpt_status (*evaluate)(dpt_evaluation *, dpt_baseline *)) {
    dpt_status st = DPT_OK;
    for (int d = 0; d < count && st == DPT_OK; d++)
        st = evaluate(ev, &ev->data[d]);
    return st;
}

static dpt_status create_loss(dpt_evaluation *ev, const dpt_inputs *in, const dpt_resources *res,
                              int d) {
    ev->data[d].samples = in->data[d].samples;
    ev->data[d].name = in->job->data[d].name;
    uint64_t parts[4] = {dpt_inputs_data_key(in, d), (uint64_t)in->data[d].samples,
                         (uint64_t)res->batch_tokens, (uint64_t)in->job->precision};
    ev->data[d].key = dpt_hash_bytes(parts, sizeof parts);
    dpt_status st =
        dpt_losses_create(in, d, &ev->mesh, ev->model, res->batch_tokens, &ev->data[d].loss);
    if (st != DPT_OK)
        return st;
    ev->data[d].guess = dpt_losses_guess(in, d, ev->model);
    dpt_loss_set_progress(ev->data[d].loss, count_batch, ev);
    return allocate_baseline(&ev->data[d]);
}

static dpt_status create_losses(dpt_evaluation *ev, const dpt_inputs *in, const dpt_resources *res,
                                dpt_references *references) {
    ev->ndata = in->job->ndata;
    ev->shares = res->shared_gradient;
    ev->data = dpt_mem_zalloc(ev->ndata, sizeof *ev->data, "data sets");
    dpt_status st = dpt_agree(&ev->mesh.world, ev->data != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int d = 0; d < ev->ndata && st == DPT_OK; d++) {
        st = dpt_agree(&ev->mesh.world, create_loss(ev, in, res, d));
        if (st == DPT_OK && dpt_resources_keeps_gradient_of(in, res, d))
            st = dpt_model_gradient_create(ev->model, &ev->data[d].gradient);
        if (st == DPT_OK && dpt_loss_kind_of(in->job->data[d].loss)->reference)
            st = dpt_references_set(references, in, d, &ev->passes, ev->model, ev->data[d].loss);
    }
    return st;
}

/* Of all passes to come. */
static int64_t samples_of(const dpt_inputs *in, const dpt_resources *res, int edits) {
    int64_t samples = 0, judges = res->edit_passes * edits + 2;
    for (int d = 0; d < in->job->ndata; d++)
        samples += in->data[d].samples * ((dpt_job_law_draws(in->job, d) > 0 ? res->law : 0) +
                                          (in->job->data[d].chooses ? edits + 1 : judges));
    return samples;
}

dpt_status dpt_evaluation_create(const dpt_comm *comm, dpt_inputs *inputs,
                                 const dpt_resources *resources, int edits, bool resumes,
                                 dpt_evaluation *out) {
    dpt_comm_phase("load");
    /* W_post and W_pre are bound under keys of their own: both models, and how they are paired. */
    uint64_t ends[2] = {inputs->fingerprint, (uint64_t)inputs->job->on_mismatch};
    *out = (dpt_evaluation){.ndata = 0,
                            .line = {.factor = 1.0},
                            .inputs = inputs,
                            .bound = dpt_hash_bytes(ends, sizeof ends)};
    dpt_status st = dpt_agree(comm, dpt_mesh_create(comm, resources->tensor_parallel, &out->mesh));
    if (st != DPT_OK)
        return st;
    dpt_references references = {.ndata = 0};
    st = dpt_passes_open(inputs->job->directory, resumes, &out->mesh, &out->passes);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_references_prepare(inputs, resources, &out->passes, &references);
    if (st != DPT_OK)
        goto done;
    st = dpt_model_create(&out->mesh.model, &out->mesh.data, dpt_store_config(inputs->post),
                          dpt_store_source(inputs->post), &out->model);
    st = dpt_error_locate(dpt_agree(comm, st), inputs->job->post);
    if (st == DPT_OK)
        st = dpt_agree(comm,
                       dpt_model_set_precision(out->model, (dpt_precision)inputs->job->precision));
    if (st == DPT_OK)
        dpt_model_hold_layers(out->model, resources->held);
    if (st == DPT_OK)
        st = create_losses(out, inputs, resources, &references);
    dpt_progress_begin(&out->progress, "evaluating", "samples",
                       samples_of(inputs, resources, edits));
    if (st == DPT_OK)
        st = for_each_data(out, out->ndata, evaluate_post);
    out->pre = dpt_pair_source(&inputs->pair);
    out->pre_path = inputs->job->pre;
    out->pre_waits = true;
    if (st == DPT_OK)
        st = for_each_data(out, inputs->job->njudged, evaluate_pre);
    if (st == DPT_OK && resources->law > 0)
        st = for_each_data(out, out->ndata, evaluate_law);
done:
    dpt_references_destroy(&references);
    if (st != DPT_OK)
        dpt_evaluation_destroy(out);
    return st;
}

void dpt_evaluation_destroy(dpt_evaluation *ev) {
    dpt_progress_end(&ev->progress);
    for (int d = 0; ev->data != NULL && d < ev->ndata; d++) {
        dpt_model_gradient_destroy(ev->data[d].gradient);
        dpt_mem_free(ev->data[d].loss_pre);
        dpt_mem_free(ev->data[d].loss_post);
        dpt_mem_free(ev->data[d].correct_pre);
        dpt_mem_free(ev->data[d].correct_post);
        dpt_law_destroy(&ev->data[d].law);
        dpt_signs_destroy(&ev->data[d].signs);
        dpt_logits_destroy(&ev->data[d].logits);
        dpt_lanczos_destroy(&ev->data[d].spectrum.top[0]);
        dpt_lanczos_destroy(&ev->data[d].spectrum.top[1]);
        dpt_loss_destroy(ev->data[d].loss);
    }
    dpt_mem_free(ev->data);
    dpt_model_destroy(ev->model);
    dpt_passes_close(&ev->passes);
    dpt_mesh_destroy(&ev->mesh);
    *ev = (dpt_evaluation){.ndata = 0};
}

static void begin_bind(dpt_evaluation *ev, uint64_t key) {
    dpt_comm_phase("bind");
    ev->bound = ev->loaded = key;
    ev->pre_waits = false;
    ev->late = NULL;
    ev->directed = false;
}

dpt_status dpt_evaluation_bind(dpt_evaluation *ev, const dpt_source *edited, uint64_t key) {
    begin_bind(ev, key);
    return dpt_agree(&ev->mesh.world, dpt_model_bind_edit(ev->model, edited));
}

dpt_status dpt_evaluation_bind_late(dpt_evaluation *ev, uint64_t key, dpt_status (*bind)(void *ctx),
                                    void *ctx) {
    ev->bound = key;
    ev->pre_waits = false;
    ev->late = ev->loaded == key ? NULL : bind;
    ev->late_ctx = ctx;
    return DPT_OK;
}

dpt_status dpt_evaluation_bind_direction(dpt_evaluation *ev, const dpt_source *direction,
                                         uint64_t key) {
    begin_bind(ev, key);
    return dpt_agree(&ev->mesh.world, dpt_model_bind_direction(ev->model, direction));
}

/* Of all that a direction says; 0 without one. */
static uint64_t direction_key(const dpt_evaluation *ev, const dpt_model_direction *direction) {
    if (direction == NULL)
        return 0;
    const uint64_t key[] = {
        direction->signs, direction->signs ? direction->seed : 0,
        direction->signs ? dpt_hash_string(direction->name) : 0,
        dpt_hash_bytes(direction->moves,
                       (size_t)dpt_model_catalog(ev->model)->count * sizeof *direction->moves)};
    return dpt_hash_bytes(key, sizeof key);
}

void dpt_evaluation_direct(dpt_evaluation *ev, const dpt_model_direction *direction) {
    if (ev->directed)
        (void)dpt_model_set_direction(ev->model, NULL); /* to have none takes no memory */
    ev->direction = direction;
    ev->direction_key = direction_key(ev, direction);
    ev->directed = false;
}

dpt_status dpt_evaluation_gradient(dpt_evaluation *ev, int d, double t,
                                   dpt_model_gradient *gradient, double *loss) {
    const dpt_baseline *base = &ev->data[d];
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    dpt_status st = dpt_agree(&ev->mesh.world, losses != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    dpt_pass pass = {.t = t, .mode = DPT_BACKWARD_GRADIENT, .losses = losses, .gradient = gradient};
    ev->progress.total += base->samples;
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    if (st == DPT_OK)
        *loss = dpt_weighted_mean(dpt_loss_shares(base->loss), base->samples, losses);
    dpt_mem_free(losses);
    return dpt_agree(&ev->mesh.world, st);
}

dpt_status dpt_evaluation_squares(dpt_evaluation *ev, int d, double *squares) {
    const dpt_baseline *base = &ev->data[d];
    dpt_model_gradient *scratch = NULL;
    dpt_status st = DPT_OK;
    double loss;
    if (base->gradient == NULL) {
        st = dpt_model_gradient_create(ev->model, &scratch);
        if (st == DPT_OK)
            st = dpt_evaluation_gradient(ev, d, 0.0, scratch, &loss);
    }
    if (st == DPT_OK)
        st = dpt_evaluation_prepare(ev);
    if (st == DPT_OK) {
        const dpt_model_gradient *gradient = base->gradient != NULL ? base->gradient : scratch;
        st = dpt_model_gradient_squares(ev->model, gradient, squares);
    }
    dpt_model_gradient_destroy(scratch);
    return st;
}

dpt_status dpt_evaluation_slope(dpt_evaluation *ev, int d, double t, double *loss, double *terms,
                                double *sample_terms) {
    const dpt_baseline *base = &ev->data[d];
    ev->progress.total += base->samples; /* how many a search takes is not known before */
    dpt_pass pass = {.t = t,
                     .mode = DPT_BACKWARD_TERMS,
                     .losses = loss,
                     .terms = terms,
                     .sample_terms = sample_terms};
    return dpt_agree(&ev->mesh.world, dpt_evaluation_pass(ev, base, pass));
}

dpt_status dpt_evaluation_tensor_slopes(dpt_evaluation *ev, int d, double t, double *slopes) {
    const dpt_baseline *base = &ev->data[d];
    int64_t tensors = dpt_model_catalog(ev->model)->count;
    double *sums = dpt_mem_zalloc(2 * base->samples + tensors, sizeof *sums, "losses and slopes");
    dpt_status st = dpt_agree(&ev->mesh.world, sums != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    ev->progress.total += base->samples;
    dpt_pass pass = {.t = t,
                     .mode = DPT_BACKWARD_TERMS,
                     .losses = sums,
                     .sample_terms = sums + base->samples,
                     .terms = sums + 2 * base->samples,
                     .tensor_terms = slopes};
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    dpt_mem_free(sums);
    return dpt_agree(&ev->mesh.world, st);
}

dpt_status dpt_evaluation_losses(dpt_evaluation *ev, int d, double t, double *losses) {
    const dpt_baseline *base = &ev->data[d];
    ev->progress.total += base->samples; /* groups that an edit does not touch take no pass */
    dpt_pass pass = {.t = t, .mode = DPT_BACKWARD_NONE, .losses = losses};
    return dpt_agree(&ev->mesh.world, dpt_evaluation_pass(ev, base, pass));
}

dpt_status dpt_evaluation_logits(dpt_evaluation *ev, int d, double t, double *logits) {
    const dpt_baseline *base = &ev->data[d];
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    uint8_t *correct = dpt_mem_zalloc(base->samples, 1, "hits");
    dpt_status st = losses != NULL && correct != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&ev->mesh.world, st);
    dpt_pass pass = {
        .t = t, .mode = DPT_BACKWARD_NONE, .losses = losses, .correct = correct, .logits = logits};
    ev->progress.total += base->samples;
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    dpt_mem_free(correct);
    dpt_mem_free(losses);
    return st;
}

dpt_status dpt_evaluation_reduce(dpt_evaluation *ev, int d, double t,
                                 dpt_status (*reduce)(void *ctx, dpt_model_gradient *gradient,
                                                      double *kept),
                                 void *ctx, double *kept, int64_t nkept) {
    const dpt_baseline *base = &ev->data[d];
    if (t == 0.0 && base->gradient != NULL)
        return reduce(ctx, base->gradient, kept);
    dpt_model_gradient *gradient = NULL;
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    dpt_status st = dpt_agree(&ev->mesh.world, losses != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_model_gradient_create(ev->model, &gradient);
    ev->progress.total += base->samples; /* which edits are correlated is not known before */
    dpt_pass pass = {.t = t,
                     .mode = DPT_BACKWARD_GRADIENT,
                     .losses = losses,
                     .gradient = gradient,
                     .reduce = reduce,
                     .reduce_ctx = ctx,
                     .kept = kept,
                     .nkept = nkept};
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    dpt_model_gradient_destroy(gradient);
    dpt_mem_free(losses);
    return st;
}

dpt_status dpt_evaluation_place(dpt_evaluation *ev, int d, uint64_t key,
                                dpt_status (*bind)(void *ctx), void *ctx, double *loss,
                                double *accuracy) {
    dpt_baseline *base = &ev->data[d];
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    uint8_t *correct = dpt_mem_zalloc(base->samples, 1, "hits");
    dpt_status st = losses != NULL && correct != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&ev->mesh.world, st);
    ev->bound = key;
    ev->loaded = 0;                      /* bound by the plane itself */
    ev->progress.total += base->samples; /* whether a place is known is not known before */
    dpt_pass pass = {.t = 1.0,
                     .mode = DPT_BACKWARD_NONE,
                     .losses = losses,
                     .correct = correct,
                     .prepare = bind,
                     .ctx = ctx};
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    if (st == DPT_OK) {
        *loss = dpt_weighted_mean(dpt_loss_shares(base->loss), base->samples, losses);
        *accuracy = dpt_evaluation_share(correct, base);
    }
    dpt_mem_free(losses);
    dpt_mem_free(correct);
    return st;
}
