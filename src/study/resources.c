#include "resources.h"

#include "cell_gradient.h"
#include "decomposed.h"
#include "hessian.h"
#include "logit_probes.h"
#include "logits.h"
#include "deltapath/model/model.h"
#include "deltapath/base/mem.h"
#include "deltapath/tensor/redist.h"
#include "leave_out.h"
#include "line_join.h"
#include "loss_kinds.h"
#include "path_correlation.h"
#include "plan_time.h"
#include "plane.h"
#include "significance.h"
#include "spectrum.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { BATCH_TOKENS = 2048, BYTES_F32 = 4 };

/* Down to here the batch may shrink to make room for the gradients that edits share: products of fewer tokens are slower than
 * their number says. */
enum { SHARE_TOKENS = 512 };

/* Whether the model of config.json can take what the data hold. */
static dpt_status resources_check_kind(const dpt_inputs *in, int d, bool is_image) {
    const dpt_job_data *entry = &in->job->data[d];
    if (dpt_loss_kind_of(entry->loss)->image == is_image)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "data '%s': loss %s needs %s, but config.json of %s describes %s: choose data "
                     "for this model",
                     entry->name, dpt_job_loss_name(entry->loss),
                     is_image ? "a language model" : "an image model", in->job->post,
                     is_image ? "an image model" : "a language model");
}

/* What the head is taken of: tokens after the first of a sequence that are scored, or images. */
static double scored_of(const dpt_dataset *data, bool is_image) {
    double sum = is_image ? (double)data->samples : 0.0;
    for (int64_t s = 0; !is_image && s < data->sequences; s++)
        for (int64_t i = data->offsets[s] + 1; i < data->offsets[s + 1]; i++)
            sum += data->loss_mask[i] != 0;
    return sum;
}

static void measure_sequences(const dpt_dataset *data, dpt_resources *res) {
    int64_t sides = data->sequences / data->samples;
    for (int64_t i = 0; i < data->sequences; i++) {
        int64_t length = data->offsets[i + 1] - data->offsets[i];
        res->longest = length > res->longest ? length : res->longest;
    }
    for (int64_t i = 0; i < data->sequences; i += sides) {
        int64_t length = data->offsets[i + sides] - data->offsets[i];
        res->largest = length > res->largest ? length : res->largest;
    }
}

/* Most tokens, and most sequences, that a batch of a data set has in any of so many replicas: whole samples, as a loss
 * packs them. @param[in] image_tokens  of one image; 0: samples are sequences of tokens.
 * @return most batches of a replica. */
static int64_t pack_batches(const dpt_dataset *data, int replicas, int64_t batch,
                            int64_t image_tokens, int64_t *tokens, int64_t *sequences) {
    int64_t sides = image_tokens > 0 ? 1 : data->sequences / data->samples, most = 0;
    for (int r = 0; r < replicas; r++) {
        int64_t begin, end, batches = 0;
        dpt_shard_split(data->samples, replicas, r, &begin, &end);
        for (int64_t s = begin; s < end; batches++) {
            int64_t first = s, length = 0;
            do {
                s++;
                length = image_tokens > 0 ? (s - first) * image_tokens
                                          : data->offsets[sides * s] - data->offsets[sides * first];
                *tokens = length > *tokens ? length : *tokens;
                int64_t count = sides * (s - first);
                *sequences = count > *sequences ? count : *sequences;
                length += s == end ? 0
                          : image_tokens > 0
                              ? image_tokens
                              : data->offsets[sides * (s + 1)] - data->offsets[sides * s];
            } while (s < end && length <= batch);
        }
        most = batches > most ? batches : most;
    }
    return most;
}

double dpt_resources_batches(const dpt_inputs *in, const dpt_resources *res, int d) {
    int64_t tokens = 0, sequences = 0;
    return (double)pack_batches(&in->data[d], res->ranks / res->tensor_parallel, res->batch_tokens,
                                res->image_tokens, &tokens, &sequences);
}

/* What a mesh and a batch make of all data sets: their largest batch, and the arrays of their samples. */
static void resources_measure_batches(const dpt_inputs *in, int64_t batch, dpt_resources *res) {
    const int64_t number = (int64_t)sizeof(double), columns = in->parts.count + in->catalog->count;
    int64_t samples = 0, most = 0;
    res->packed_tokens = res->packed_sequences = 0;
    for (int d = 0; d < in->job->ndata; d++) {
        const dpt_dataset *data = &in->data[d];
        pack_batches(data, res->ranks / res->tensor_parallel, batch, res->image_tokens,
                     &res->packed_tokens, &res->packed_sequences);
        samples += data->samples;
        most = data->samples > most ? data->samples : most;
    }
    /* Baselines of all; the sums of a pass, and losses and terms of an edit at its points. */
    int64_t points = in->job->points + 2;
    res->losses = samples * (2 * number + 2) +
                  (3 * most + columns + 2 * points * (most + columns)) * number +
                  (int64_t)in->catalog->count * res->packed_sequences * number;
}

static dpt_status measure_data(const dpt_inputs *in, dpt_resources *res) {
    bool is_image;
    dpt_model_image image;
    dpt_status st =
        dpt_model_config_image(dpt_store_config(in->post), in->catalog, &is_image, &image);
    st = dpt_error_locate(st, in->job->post);
    for (int d = 0; d < in->job->ndata && st == DPT_OK; d++) {
        const dpt_dataset *data = &in->data[d];
        st = resources_check_kind(in, d, is_image);
        if (st != DPT_OK)
            break;
        res->law = dpt_law_passes(in->job, image.classes);
        if (st == DPT_OK && in->job->law.labels == DPT_LABELS_ALL && res->law > DPT_LABELS_MOST)
            st = dpt_error(DPT_ERR_USAGE,
                           "law.labels is all, but the model has %" PRId64 " classes, and at most "
                           "%d are taken in turn: leave out labels and give law.repeats",
                           image.classes, DPT_LABELS_MOST);
        if (st == DPT_OK && in->job->law.probes > 0 && image.classes > DPT_LABELS_MOST)
            st = dpt_error(DPT_ERR_USAGE,
                           "law.probes is given, but the model has %" PRId64 " classes, and the "
                           "logits of at most %d are taken: leave out probes",
                           image.classes, DPT_LABELS_MOST);
        if (in->job->law.probes > 0 && !in->job->data[d].chooses) /* with those of both sides */
            res->logits +=
                dpt_logits_bytes(in->job->law.probes, data->samples, image.classes, res->ranks) +
                dpt_logits_bytes(0, data->samples, image.classes, 1);
        if (is_image)
            res->longest = res->largest = res->image_tokens = image.positions;
        else
            measure_sequences(data, res);
        int64_t tokens =
            is_image ? data->samples * image.positions : data->offsets[data->sequences];
        if (in->job->data[d].chooses)
            res->choosing_tokens += tokens;
        else
            res->tokens += tokens;
        if (dpt_loss_kind_of(in->job->data[d].loss)->reference)
            res->reference_tokens += tokens;
        if (!in->job->data[d].chooses)
            res->scored += scored_of(data, is_image);
        int64_t pixels = data->channels * data->height * data->width;
        res->pixels = pixels > res->pixels ? pixels : res->pixels;
    }
    return st;
}

/* Of the data that judge. */
static dpt_status measure_arithmetic(const dpt_inputs *in, dpt_resources *res) {
    int64_t count = 0;
    for (int d = 0; d < in->job->njudged; d++)
        count += res->image_tokens > 0 ? in->data[d].samples : in->data[d].sequences;
    int64_t *lengths = dpt_mem_alloc(count, sizeof *lengths, "lengths of sequences");
    if (lengths == NULL)
        return DPT_ERR_OUTPUT;
    count = 0;
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_dataset *data = &in->data[d];
        int64_t n = res->image_tokens > 0 ? data->samples : data->sequences;
        for (int64_t s = 0; s < n; s++)
            lengths[count++] =
                res->image_tokens > 0 ? res->image_tokens : data->offsets[s + 1] - data->offsets[s];
    }
    dpt_status st =
        dpt_model_count_cost(dpt_store_config(in->post), in->catalog, count, lengths, &res->cost);
    dpt_mem_free(lengths);
    return dpt_error_locate(st, in->job->post);
}

static dpt_status check_reference(const dpt_inputs *in, int d) {
    bool is_image = false;
    dpt_model_image image;
    dpt_status st = dpt_model_config_image(dpt_store_config(in->reference[d]),
                                           dpt_store_catalog(in->reference[d]), &is_image, &image);
    if (st == DPT_OK && is_image)
        st = dpt_error(DPT_ERR_INPUT,
                       "data '%s': the reference is an image model: give a language "
                       "model",
                       in->job->data[d].name);
    return st;
}

/* What a model is spread over in a mesh: ranks with the same place are on as many machines as there are, or each on its
 * own. */
dpt_model_ranks dpt_resources_ranks(const dpt_inputs *in, const dpt_resources *res) {
    int replicas = res->ranks / res->tensor_parallel;
    return (dpt_model_ranks){.precision = (dpt_precision)in->job->precision,
                             .group = res->tensor_parallel,
                             .replicas = replicas,
                             .machines = replicas < res->machines ? replicas : res->machines,
                             .held = res->held,
                             .edited = &in->out_catalog};
}

/* The reference models, one at a time and without an edit, in the mesh and batch of the study. */
static dpt_status measure_references(const dpt_inputs *in, dpt_resources *res) {
    dpt_status st = DPT_OK;
    res->reference = 0;
    for (int d = 0; d < in->job->ndata && st == DPT_OK; d++) {
        dpt_store *store = in->reference[d];
        int64_t weights, work;
        if (store == NULL)
            continue;
        dpt_model_ranks spread = dpt_resources_ranks(in, res);
        spread.edited = NULL; /* none is bound */
        st = check_reference(in, d);
        if (st == DPT_OK)
            st = dpt_model_bytes(dpt_store_config(store), dpt_store_catalog(store), &spread, false,
                                 res->packed_tokens, res->longest, &weights, &work);
        st = dpt_error_locate(st, in->job->data[d].reference);
        if (st == DPT_OK && weights + work > res->reference)
            res->reference = weights + work;
    }
    return st;
}

bool dpt_resources_keeps_gradient(const dpt_resources *res) {
    return res->shared_gradient || res->cell_gradient;
}

/* Whether data set d has one where any is kept. */
static bool has_gradient(const dpt_inputs *in, int d) {
    return !in->job->data[d].chooses || dpt_job_takes_gradient(in->job, d);
}

bool dpt_resources_keeps_gradient_of(const dpt_inputs *in, const dpt_resources *res, int d) {
    return dpt_resources_keeps_gradient(res) && has_gradient(in, d);
}

/* Bytes of all of them. */
static int64_t gradient_bytes(const dpt_inputs *in, const dpt_resources *res) {
    int64_t count = 0;
    for (int d = 0; d < in->job->ndata; d++)
        count += has_gradient(in, d);
    return res->gradient * count;
}

/* Whether an edit cannot do without the gradient, or could measure the correlation of its mask. */
static bool any_edit(const dpt_inputs *in, bool (*property)(const dpt_edit_spec *spec)) {
    for (int e = 0; e < in->job->nedits; e++)
        if (property(&in->job->edits[e].spec))
            return true;
    return false;
}

/* Whether the gradient at W_post is kept whatever it takes, also in cells. */
static bool needs_gradient(const dpt_inputs *in) {
    return any_edit(in, dpt_edit_needs_gradient) || dpt_resources_count_correlated(in) > 0;
}

static int64_t resources_larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t dpt_resources_edit_bytes(const dpt_resources *res) {
    return res->field + resources_larger(res->edit, dpt_redist_bytes(res->ranks));
}

/* Most that a rank holds at a time. Weights, gradients and losses stay for the whole study; passes and edits take turns, for
 * an edit is made in room that passes give, and its cells go when it is bound. A reference is gone before all of these. */
int64_t dpt_resources_peak(const dpt_inputs *in, const dpt_resources *res, bool gradients,
                           bool cells) {
    const int64_t cell = (int64_t)DPT_CELL * BYTES_F32, exchange = dpt_redist_bytes(res->ranks);
    int64_t stays =
        res->models.kept + res->weights + res->losses + res->logits + (cells ? res->cells : 0);
    stays += gradients ? gradient_bytes(in, res) : 0;
    int64_t correlated = dpt_resources_count_correlated(in) > 0 ? res->edit + exchange : 0;
    int64_t adding = gradients || res->draw > 0 ? res->adding : 0;
    int64_t measured = res->draw + res->signs + res->vectors + resources_larger(adding, correlated);
    bool scratch = measured > adding || res->slopes > 0; /* which goes from blocks to cells */
    measured = resources_larger(measured, resources_larger(scratch ? exchange : 0, res->slopes));
    int64_t passes = res->work + res->images + resources_larger(measured, gradients ? cell : 0);
    int64_t edit = stays + dpt_resources_edit_bytes(res) + res->slopes;
    if (edit > res->budget) /* then the edit that is bound goes first */
        edit -= res->weights - res->unbound;
    int64_t both = stays + res->field + exchange;
    if (res->plane > 0) /* its edits are made before its points are evaluated */
        both +=
            res->plane_cells +
            resources_larger(res->work + res->images + res->plane - res->plane_cells, res->edit);
    int64_t most = resources_larger(stays + passes, resources_larger(edit, both));
    most = resources_larger(most, res->models.kept + res->models.besides);
    return resources_larger(most, res->reference);
}

/* With the gradients that edits need alone. */
static int64_t least_bytes(const dpt_inputs *in, const dpt_resources *res) {
    bool needs = needs_gradient(in);
    return dpt_resources_peak(in, res, needs, needs);
}

static bool resources_fit(const dpt_resources *res, int64_t bytes) {
    return bytes <= res->budget;
}

/* Whether the gradients at t = 0 could serve the paths of edits. */
static bool can_share(const dpt_inputs *in) {
    return dpt_quadrature_has_start(in->job->rule) && !in->job->per_sample;
}

/* Memory that is left for gradients; a reference is gone before they are there. Negative: what they lack. */
static int64_t gradient_room(const dpt_inputs *in, const dpt_resources *res) {
    return res->budget - dpt_resources_peak(in, res, true, needs_gradient(in));
}

/* Which gradients are kept. */
static void choose_gradients(const dpt_inputs *in, dpt_resources *res) {
    bool needs = needs_gradient(in), draws = any_edit(in, dpt_edit_draws_mask);
    int64_t room = gradient_room(in, res);
    res->shared_gradient = can_share(in) && room >= 0;
    res->gradient_lack = can_share(in) && !res->shared_gradient ? -room : 0;
    res->cell_gradient = needs || (res->shared_gradient && draws &&
                                   resources_fit(res, dpt_resources_peak(in, res, true, true)));
    res->gradients = dpt_resources_keeps_gradient(res) ? gradient_bytes(in, res) : 0;
    res->peak = dpt_resources_peak(in, res, dpt_resources_keeps_gradient(res), res->cell_gradient);
}

/* A budget of a message: whole MiB, or bytes where these would be 0. */
static const char *grant_text(int64_t bytes, char text[32]) {
    if (bytes < 1 << 20)
        snprintf(text, 32, "%" PRId64 " bytes", bytes);
    else
        snprintf(text, 32, "%" PRId64 " MiB", bytes >> 20);
    return text;
}

/* Needs of one batch in the mesh. */
static dpt_status measure_batch(const dpt_inputs *in, int64_t batch, dpt_resources *res) {
    dpt_model_ranks spread = dpt_resources_ranks(in, res);
    resources_measure_batches(in, batch, res);
    dpt_status st = dpt_model_bytes(dpt_store_config(in->post), in->catalog, &spread, true,
                                    res->packed_tokens, res->longest, &res->weights, &res->work);
    if (st != DPT_OK)
        return dpt_error_locate(st, in->job->post);
    res->batch_tokens = batch;
    res->images = res->packed_sequences * res->pixels * BYTES_F32;
    return measure_references(in, res);
}

/* A smaller batch where that lets several edits share the gradients, unless the job says how large it is. @param[out] made
 * there is one. */
static dpt_status make_room(const dpt_inputs *in, dpt_resources *res, bool *made) {
    bool gains = can_share(in) && in->job->nedits > 1 && in->job->batch_tokens == 0;
    int64_t least = resources_larger(SHARE_TOKENS, res->largest);
    dpt_status st = DPT_OK;
    while (st == DPT_OK && gains && gradient_room(in, res) < 0 && res->batch_tokens / 2 >= least)
        st = measure_batch(in, res->batch_tokens / 2, res);
    *made = st == DPT_OK && gains && gradient_room(in, res) >= 0;
    if (*made)
        choose_gradients(in, res);
    return st;
}

/* A point of the plane lies in the rows of all ranks; several machines gather two of its units. */
static int64_t plane_share(const dpt_resources *res) {
    int64_t unit = resources_larger(BYTES_F32 * res->cost.width * res->cost.vocabulary,
                                    res->plane_blocks / (res->cost.layers + 1));
    unit *= res->machines > 1 && res->plane_blocks > 0 ? 2 * res->machines : 0;
    return (res->plane_blocks + unit) / res->ranks;
}

/* Needs of one mesh, with the batch shrunk until the work fits besides the weights. */
static dpt_status try_mesh(const dpt_inputs *in, int tensor_parallel, dpt_resources *res,
                           bool *fits) {
    res->tensor_parallel = tensor_parallel;
    dpt_model_ranks spread = dpt_resources_ranks(in, res);
    dpt_status st = dpt_model_gradient_bytes(dpt_store_config(in->post), in->catalog, &spread,
                                             &res->gradient, &res->adding);
    if (st == DPT_OK)
        st = dpt_model_unbound_bytes(dpt_store_config(in->post), in->catalog, &spread,
                                     &res->unbound);
    if (st != DPT_OK)
        return dpt_error_locate(st, in->job->post);
    const dpt_job_hessian *hessian = &in->job->hessian;
    bool draws = res->law > 0 && in->job->law.labels != DPT_LABELS_ALL;
    bool scratch = draws || dpt_resources_count_correlated(in) > 0 || hessian->probes > 0 ||
                   hessian->lanczos > 0;
    res->draw = scratch ? res->gradient : 0;
    res->draw += draws || hessian->probes > 0 ? dpt_model_squares_bytes() : 0;
    /* A direction is bound in fp32 in the place of an edit. */
    res->vectors =
        dpt_spectrum_bytes(in->job, res->cells) + (hessian->lanczos > 0 ? res->gradient : 0);
    res->slopes = dpt_significance_bytes(in, res->cells, res->gradient);
    int64_t elements = dpt_catalog_elements(in->catalog) / tensor_parallel;
    res->signs = hessian->probes > 0 || in->job->law.probes > 0 ? elements / 8 : 0;
    res->plane = res->plane_cells + plane_share(res);
    int64_t batch = in->job->batch_tokens > 0 ? in->job->batch_tokens : BATCH_TOKENS;
    if (batch < res->largest)
        batch = res->largest;
    for (;;) {
        st = measure_batch(in, batch, res);
        if (st != DPT_OK)
            return st;
        int64_t least = least_bytes(in, res);
        *fits = resources_fit(res, least);
        if (*fits || batch == res->largest)
            break;
        /* Weights that do not fit by themselves do so with no batch: the least one says what is needed. */
        dpt_resources none = *res;
        none.work = none.images = 0;
        bool hopeless = !resources_fit(res, least_bytes(in, &none));
        batch = hopeless || batch / 2 < res->largest ? res->largest : batch / 2;
    }
    choose_gradients(in, res);
    return st;
}

/* Tokens of the replica with the most, over the mean. */
static double uneven_share(const dpt_inputs *in, const dpt_resources *res) {
    int replicas = res->ranks / res->tensor_parallel;
    double most = 0.0, all = 0.0;
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_dataset *data = &in->data[d];
        double largest = 0.0;
        int64_t sides = res->image_tokens > 0 ? 1 : data->sequences / data->samples;
        for (int r = 0; r < replicas; r++) {
            int64_t begin, end;
            dpt_shard_split(data->samples, replicas, r, &begin, &end);
            double own = res->image_tokens > 0
                             ? (double)((end - begin) * res->image_tokens)
                             : (double)(data->offsets[sides * end] - data->offsets[sides * begin]);
            largest = own > largest ? own : largest;
            all += own;
        }
        most += largest;
    }
    return all > 0.0 ? most * replicas / all : 1.0;
}

/* Rates by which the mesh is chosen. What is measured in passing differs from run to run, and the last bits of losses
 * and terms depend on the mesh. */
static dpt_machine steady_machine(const dpt_plan_case *of) {
    dpt_machine machine = of->machine;
    if (of->glanced) {
        machine = dpt_machine_defaults();
        machine.cores = of->machine.cores;
        machine.memory_gib = of->machine.memory_gib;
    }
    return machine;
}

/* Keep a mesh and a batch that fit where they take less time than the best so far. */
static dpt_status weigh_mesh(const dpt_inputs *in, const dpt_resources *res, dpt_resources *best) {
    dpt_resources with = *res;
    dpt_status st = DPT_OK;
    with.uneven = uneven_share(in, &with);
    dpt_resources_count(in, &with);
    if (dpt_resources_passes(&with, true) > 0.0) {
        st = dpt_resources_hold_layers(in, &with);
        dpt_resources_count(in, &with);
    }
    dpt_plan_time(in, &with);
    if (st == DPT_OK && (best->ranks == 0 || with.seconds < 0.98 * best->seconds))
        *best = with;
    return st;
}

/* Whether groups of this many ranks lie on several nodes, whose network then carries every all-reduce of a pass. */
static bool mesh_crosses(const dpt_resources *res, int size) {
    return res->ranks > res->ranks_per_node && res->ranks_per_node % size != 0;
}

/* The best of the meshes that lie inside nodes, or of those that cross them. */
static dpt_status weigh_meshes(const dpt_inputs *in, bool crossing, dpt_resources *res,
                               dpt_resources *best) {
    int wanted = in->job->tensor_parallel;
    for (int size = 1; size <= res->ranks; size++) {
        bool fits = false;
        if (res->ranks % size != 0 || (wanted > 0 && size != wanted) ||
            mesh_crosses(res, size) != crossing)
            continue;
        dpt_status st = try_mesh(in, size, res, &fits);
        if (st != DPT_OK)
            return st;
        if (!fits)
            continue;
        st = weigh_mesh(in, res, best);
        bool smaller = false;
        if (st == DPT_OK && !res->shared_gradient)
            st = make_room(in, res, &smaller);
        if (st == DPT_OK && smaller)
            st = weigh_mesh(in, res, best);
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

/* Of the meshes and batches that fit, those that take the least time; of such that do not differ, the one with the smallest
 * groups and the largest batch. Groups lie inside a node, unless only larger ones fit. */
static dpt_status choose_mesh(const dpt_inputs *in, const dpt_plan_case *of, dpt_resources *res) {
    int wanted = in->job->tensor_parallel;
    res->machine = steady_machine(of);
    if (wanted > 0 && res->ranks % wanted != 0)
        return dpt_error(DPT_ERR_USAGE,
                         "tensor_parallel is %d, which does not divide %d ranks: choose a divisor",
                         wanted, res->ranks);
    dpt_resources best = {.ranks = 0};
    dpt_status st = weigh_meshes(in, false, res, &best);
    if (st == DPT_OK && best.ranks == 0)
        st = weigh_meshes(in, true, res, &best);
    if (st != DPT_OK)
        return st;
    if (best.ranks > 0)
        *res = best;
    res->machine = of->machine;
    if (best.ranks > 0)
        return DPT_OK;
    int64_t need = least_bytes(in, res);
    char granted[32];
    return dpt_error(DPT_ERR_OUTPUT,
                     "the study needs %" PRId64 " MiB per rank with %d tensor-parallel ranks, but "
                     "--memory grants %s: use more ranks or raise it",
                     (need >> 20) + 1, res->tensor_parallel, grant_text(res->budget, granted));
}

/* Of what is left half may keep decompositions; the plan leaves things out. */
static dpt_status keep_decompositions(const dpt_inputs *in, dpt_resources *res) {
    res->svd_kept = res->peak < res->budget ? (res->budget - res->peak) / 2 : 0;
    dpt_status st = dpt_decomposed_plan(in, res->svd_kept, res);
    res->peak += res->decomposed.bytes;
    return st;
}

dpt_status dpt_resources_plan(const dpt_inputs *in, const dpt_plan_case *of, dpt_resources *out) {
    int ranks = of->ranks, threads = of->threads > 0 ? of->threads : 1;
    int fill = (int)(of->machine.cores / threads);
    *out = (dpt_resources){.ranks = ranks,
                           .tensor_parallel = 1,
                           .machine = of->machine,
                           .threads = threads,
                           .verifies = of->verifies,
                           .uneven = 1.0};
    out->ranks_per_node = of->ranks_per_node > 0 ? of->ranks_per_node : fill > 0 ? fill : 1;
    int nodes = (ranks + out->ranks_per_node - 1) / out->ranks_per_node;
    int here = ranks < out->ranks_per_node ? ranks : out->ranks_per_node;
    out->budget = of->budget > 0 ? of->budget : of->granted / here;
    out->machines = of->machines > 0 ? of->machines : nodes;
    dpt_shard shard;
    dpt_status st = dpt_shard_create(in->catalog, ranks, &shard);
    if (st != DPT_OK)
        return st;
    bool model = dpt_inputs_needs_model(in);
    if (model || in->job->requantises)
        out->field = dpt_field_bytes(&in->out_catalog, &shard);
    if (model)
        st = dpt_cell_gradient_bytes(in->catalog, &shard, &out->cells);
    if (model && st == DPT_OK)
        st = dpt_plane_bytes(in, &shard, &out->plane_cells, &out->plane_blocks);
    if (st == DPT_OK)
        st = dpt_inputs_hold_needs(in, &shard, &out->models);
    if (st == DPT_OK)
        st = dpt_resources_measure_edits(in, &shard, out);
    dpt_shard_destroy(&shard);
    if (st != DPT_OK)
        return st;
    out->peak = out->models.kept + resources_larger(out->edit + out->field, out->models.besides);
    if (!model) {
        char granted[32];
        st = keep_decompositions(in, out);
        dpt_plan_time(in, out);
        if (st == DPT_OK && out->peak > out->budget)
            return dpt_error(DPT_ERR_OUTPUT,
                             "the edits need %" PRId64 " MiB per rank, but --memory grants %s: use "
                             "more ranks or raise it",
                             (out->peak >> 20) + 1, grant_text(out->budget, granted));
        return st;
    }
    st = measure_data(in, out);
    if (st == DPT_OK) /* a mesh is weighed as if nothing were kept */
        st = dpt_decomposed_plan(in, 0, out);
    if (st == DPT_OK)
        st = measure_arithmetic(in, out);
    if (st == DPT_OK)
        st = choose_mesh(in, of, out);
    if (st == DPT_OK)
        st = dpt_resources_share_lines(in, out);
    if (st == DPT_OK)
        st = keep_decompositions(in, out);
    if (st == DPT_OK)
        dpt_plan_time(in, out);
    return st;
}
