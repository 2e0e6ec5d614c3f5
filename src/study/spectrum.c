#include "spectrum.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/reduce.h"
#include "deltapath/path/weighted.h"
#include "cell_gradient.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The first step along a vector of the length of Delta. Steep directions, which are what is sought, take shorter ones:
 * from then on every step is so short that the loss bends by no more than this [nats]. Its bend is that of logits
 * whose mean square moves by twice as much, of which the differences miss some thousandths. */
static const double SPECTRUM_STEP = 1.0 / 32, SPECTRUM_BEND = 2e-4;
enum { SPECTRUM_TRIES = 20 };

/* Vectors of own elements, end to end in order of cells, and what a product with them takes. */
typedef struct spectrum_space {
    dpt_evaluation *evaluation;
    int d;
    const dpt_shard *shard;
    dpt_cell_gradient cells; /* the direction that is bound, then the gradient that comes back */
    int64_t n;               /* own elements */
    float *delta;            /* (n) 0 where edits do not touch */
    float *along;            /* (n) the direction */
    double size;             /* |Delta| */
    bool scaled;             /* D H D */
    double step;
    double loss; /* at W_post */
    int64_t calls;
} spectrum_space;

/* Own cells in order: each with its place in a vector. */
typedef dpt_status (*spectrum_cell_fn)(spectrum_space *space, dpt_range cell, int64_t number,
                                       int64_t at, void *ctx);

static dpt_status spectrum_each_cell(spectrum_space *space, spectrum_cell_fn take, void *ctx) {
    const int64_t *own = space->shard->rank_first + space->evaluation->mesh.world.rank;
    dpt_status st = DPT_OK;
    int64_t at = 0;
    for (int64_t c = own[0]; c < own[1] && st == DPT_OK; c++) {
        dpt_range cell = dpt_shard_cell(space->shard, c);
        st = take(space, cell, c, at, ctx);
        at += cell.n;
    }
    return st;
}

static bool spectrum_is_selected(const spectrum_space *space, int tensor) {
    return space->evaluation->inputs->selected[tensor];
}

static dpt_status spectrum_count(spectrum_space *space, dpt_range cell, int64_t number, int64_t at,
                                 void *ctx) {
    (void)number;
    (void)at;
    (void)ctx;
    space->n += cell.n;
    return DPT_OK;
}

/* Stored values of a cell in fp32. @param[in] room for a cell of the widest type. */
static dpt_status spectrum_read(const dpt_source *source, dpt_range cell, void *room, float *out) {
    dpt_dtype type = source->catalog->tensors[cell.tensor].dtype;
    dpt_status st = source->read(source->ctx, cell, room);
    if (st == DPT_OK)
        dpt_dtype_to_f32(type, room, out, cell.n);
    return st;
}

static dpt_status spectrum_load_delta(spectrum_space *space, dpt_range cell, int64_t number,
                                      int64_t at, void *ctx) {
    const dpt_inputs *in = space->evaluation->inputs;
    dpt_source post = dpt_store_source(in->post), pre = space->evaluation->pre;
    float *to = space->delta + at, *room = ctx;
    (void)number;
    if (!spectrum_is_selected(space, cell.tensor) || !in->pair.comparable[cell.tensor])
        return DPT_OK;
    dpt_status st = spectrum_read(&post, cell, room, to);
    if (st == DPT_OK)
        st = spectrum_read(&pre, cell, room, space->along + at);
    for (int64_t i = 0; i < cell.n && st == DPT_OK; i++)
        to[i] -= space->along[at + i];
    return st;
}

static dpt_status spectrum_start(spectrum_space *space, dpt_range cell, int64_t number, int64_t at,
                                 void *ctx) {
    const dpt_inputs *in = space->evaluation->inputs;
    float *start = (float *)ctx + at;
    (void)number;
    memset(start, 0, (size_t)cell.n * sizeof *start);
    if (!spectrum_is_selected(space, cell.tensor))
        return DPT_OK;
    char *name = dpt_mem_format("start of %s", in->catalog->tensors[cell.tensor].name);
    if (name == NULL)
        return DPT_ERR_OUTPUT;
    dpt_rng stream = dpt_rng_make(in->job->hessian.seed, name, DPT_RNG_SIGN);
    dpt_rng_normal(stream, cell.ig, cell.n, start);
    dpt_mem_free(name);
    for (int64_t i = 0; i < cell.n && space->scaled; i++)
        start[i] *= space->delta[at + i];
    return DPT_OK;
}

static dpt_status spectrum_put(spectrum_space *space, dpt_range cell, int64_t number, int64_t at,
                               void *ctx) {
    (void)ctx;
    memcpy(dpt_field_cell(space->cells.field, number), space->along + at,
           (size_t)cell.n * sizeof(float));
    return DPT_OK;
}

/* y -= or = the gradient in cells. */
typedef struct spectrum_sum {
    float *y;
    bool subtract;
    double scale;
} spectrum_sum;

static dpt_status spectrum_get(spectrum_space *space, dpt_range cell, int64_t number, int64_t at,
                               void *ctx) {
    const spectrum_sum *sum = ctx;
    const float *from = dpt_field_cell(space->cells.field, number);
    float *y = sum->y + at;
    bool selected = spectrum_is_selected(space, cell.tensor);
    for (int64_t i = 0; i < cell.n; i++) {
        double value = sum->subtract ? ((double)y[i] - (double)from[i]) * sum->scale : from[i];
        if (sum->subtract && space->scaled)
            value *= (double)space->delta[at + i];
        y[i] = selected ? (float)value : 0.0F;
    }
    return DPT_OK;
}

/* The gradient at t along the bound direction, into or out of y, and the mean loss there. */
static dpt_status spectrum_side(spectrum_space *space, double t, spectrum_sum sum, double *loss) {
    dpt_evaluation *ev = space->evaluation;
    dpt_model_gradient *gradient = NULL;
    dpt_status st = dpt_model_gradient_create(ev->model, &gradient);
    if (st == DPT_OK)
        st = dpt_evaluation_gradient(ev, space->d, t, gradient, loss);
    if (st == DPT_OK)
        st = dpt_cell_gradient_take(&space->cells, ev, gradient);
    dpt_model_gradient_destroy(gradient);
    if (st == DPT_OK)
        st = spectrum_each_cell(space, spectrum_get, &sum);
    return st;
}

/* All that the numbers of a product depend on, besides models and data: the vectors before it made it. */
static uint64_t spectrum_key(const spectrum_space *space) {
    const dpt_inputs *in = space->evaluation->inputs;
    uint64_t parts[] = {
        in->fingerprint,
        (uint64_t)in->job->on_mismatch,
        dpt_hash_bytes(in->selected, (size_t)in->catalog->count * sizeof *in->selected),
        in->job->hessian.seed,
        (uint64_t)in->job->hessian.lanczos,
        (uint64_t)in->job->hessian.steps,
        space->scaled,
        (uint64_t)space->calls};
    return dpt_hash_bytes(parts, sizeof parts);
}

/* y = the difference of the gradients on both sides, with a step that is short enough. @param[in] scale of E. */
static dpt_status spectrum_difference(spectrum_space *space, double scale, float *y) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < SPECTRUM_TRIES && st == DPT_OK; i++) {
        double loss[2] = {0.0, 0.0}, t = space->step;
        st = spectrum_side(space, t, (spectrum_sum){.y = y}, &loss[0]);
        if (st == DPT_OK)
            st = spectrum_side(
                space, -t,
                (spectrum_sum){.y = y, .subtract = true, .scale = 1.0 / (2.0 * t * scale)},
                &loss[1]);
        double bend = fabs(loss[0] + loss[1] - 2.0 * space->loss) / 2.0;
        if (!(bend > SPECTRUM_BEND))
            break;
        space->step *= fmin(0.8 * sqrt(SPECTRUM_BEND / bend), 0.5);
    }
    return st;
}

/* y = H x or D H D x: E is the vector, or D times it, at the length of Delta. */
static dpt_status spectrum_product(void *ctx, const float *x, float *y) {
    spectrum_space *space = ctx;
    dpt_evaluation *ev = space->evaluation;
    for (int64_t i = 0; i < space->n; i++)
        space->along[i] = space->scaled ? x[i] * space->delta[i] : x[i];
    double square = dpt_reduce_square(space->along, space->n);
    dpt_status st = dpt_agree(&ev->mesh.world, dpt_comm_sum_f64(&ev->mesh.world, &square, 1));
    double length = sqrt(square), scale = length > 0.0 ? space->size / length : 0.0;
    space->calls++;
    if (st != DPT_OK || !(scale > 0.0)) {
        memset(y, 0, (size_t)space->n * sizeof *y);
        return st;
    }
    for (int64_t i = 0; i < space->n; i++)
        space->along[i] = (float)((double)space->along[i] * scale);
    st = spectrum_each_cell(space, spectrum_put, NULL);
    if (st == DPT_OK)
        st = dpt_evaluation_bind_direction(ev, &space->cells.source, spectrum_key(space));
    if (st == DPT_OK)
        st = spectrum_difference(space, scale, y);
    return dpt_agree(&ev->mesh.world, st);
}

static dpt_status spectrum_open(spectrum_space *space) {
    const dpt_comm *world = &space->evaluation->mesh.world;
    dpt_status st = spectrum_each_cell(space, spectrum_count, NULL);
    space->delta = dpt_mem_zalloc(space->n, sizeof *space->delta, "delta in cells");
    space->along = dpt_mem_zalloc(space->n, sizeof *space->along, "direction in cells");
    float *room = dpt_mem_alloc(DPT_CELL, sizeof *room, "cell of a model");
    if (space->delta == NULL || space->along == NULL || room == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = spectrum_each_cell(space, spectrum_load_delta, room);
    dpt_mem_free(room);
    st = dpt_agree(world, st);
    double square = st == DPT_OK ? dpt_reduce_square(space->delta, space->n) : 0.0;
    if (st == DPT_OK)
        st = dpt_agree(world, dpt_comm_sum_f64(world, &square, 1));
    space->size = sqrt(square);
    if (st == DPT_OK)
        st = dpt_cell_gradient_create(world, space->evaluation->inputs->catalog, space->shard,
                                      &space->cells);
    return st;
}

static dpt_status spectrum_top(spectrum_space *space, dpt_lanczos *out) {
    const dpt_comm *world = &space->evaluation->mesh.world;
    const dpt_job *job = space->evaluation->inputs->job;
    float *start = dpt_mem_alloc(space->n, sizeof *start, "start of Lanczos's method");
    dpt_status st = start != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = spectrum_each_cell(space, spectrum_start, start);
    st = dpt_agree(world, st);
    space->calls = 0;
    space->step = SPECTRUM_STEP;
    if (st == DPT_OK)
        st = dpt_lanczos_run(world, space->n, start, job->hessian.steps, job->hessian.lanczos,
                             spectrum_product, space, out);
    dpt_mem_free(start);
    return st;
}

dpt_status dpt_spectrum_measure(dpt_evaluation *ev, const dpt_shard *shard, int d) {
    spectrum_space space = {.evaluation = ev, .d = d, .shard = shard};
    const dpt_baseline *base = &ev->data[d];
    dpt_spectrum *out = &ev->data[d].spectrum;
    dpt_status st = spectrum_open(&space);
    space.loss = dpt_weighted_mean(dpt_loss_shares(base->loss), base->samples, base->loss_post);
    for (int k = 0; k < 2 && st == DPT_OK && space.size > 0.0; k++) {
        space.scaled = k == 1;
        st = spectrum_top(&space, &out->top[k]);
    }
    dpt_cell_gradient_destroy(&space.cells);
    dpt_mem_free(space.delta);
    dpt_mem_free(space.along);
    return st;
}

static void spectrum_log_one(const char *data, const char *what, const dpt_lanczos *top) {
    char text[256];
    size_t used = 0;
    for (int i = 0; i < top->count && i < 4; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.4g (%.1g)",
                                 i > 0 ? ", " : "", top->values[i], top->residuals[i]);
    if (top->count > 0)
        dpt_log(DPT_LOG_INFO, "%s: greatest eigenvalues of %s, with residuals: %s%s", data, what,
                text, top->count > 4 ? ", ..." : "");
}

void dpt_spectrum_log(const char *data, const dpt_spectrum *spectrum) {
    spectrum_log_one(data, "the Hessian", &spectrum->top[0]);
    spectrum_log_one(data, "D H D", &spectrum->top[1]);
}

/* A step and a residual take a product each, of two gradients. */
int64_t dpt_spectrum_passes(const dpt_job *job) {
    return job->hessian.lanczos > 0 ? 2 * 2 * ((int64_t)job->hessian.steps + job->hessian.lanczos)
                                    : 0;
}

/* Vectors of the method, its start, the delta, the direction and the cells. */
int64_t dpt_spectrum_bytes(const dpt_job *job, int64_t cells) {
    return job->hessian.lanczos > 0
               ? dpt_lanczos_bytes(cells / (int64_t)sizeof(float) + 1, job->hessian.steps) +
                     4 * cells
               : 0;
}
