#include "resources.h"

#include "cell_gradient.h"
#include "hessian.h"
#include "logit_probes.h"
#include "logits.h"
#include "deltapath/model/model.h"

#include "deltapath/base/mem.h"
#include "leave_out.h"
#include "line_join.h"
#include "loss_kinds.h"
#include "path_correlation.h"
#include "plane.h"
#include "significance.h"
#include "spectrum.h"

#include <inttypes.h>
#include <stdio.h>

enum { BATCH_TOKENS = 2048, BYTES_F32 = 4 };

/* Down to here the batch shrinks to make room for the gradients that edits share: a pass then forms W(t) four times
 * as often as with BATCH_TOKENS, some hundredths of its time, and each edit has one pass less of at most five. */
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

static dpt_status measure_data(const dpt_inputs *in, dpt_resources *res, int64_t *most_samples) {
    bool is_image;
    dpt_model_image image;
    dpt_status st =
        dpt_model_config_image(dpt_store_config(in->post), in->catalog, &is_image, &image);
    st = dpt_error_locate(st, in->job->post);
    *most_samples = 0;
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
            res->longest = res->largest = image.positions;
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
        int64_t pixels = data->channels * data->height * data->width;
        res->pixels = pixels > res->pixels ? pixels : res->pixels;
        *most_samples = data->samples > *most_samples ? data->samples : *most_samples;
    }
    return st;
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
static dpt_model_ranks ranks_of(const dpt_resources *res) {
    int replicas = res->ranks / res->tensor_parallel;
    return (dpt_model_ranks){.group = res->tensor_parallel,
                             .replicas = replicas,
                             .machines = replicas < res->machines ? replicas : res->machines};
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
        dpt_model_ranks spread = ranks_of(res);
        st = check_reference(in, d);
        if (st == DPT_OK)
            st = dpt_model_bytes(dpt_store_config(store), dpt_store_catalog(store), &spread, false,
                                 res->batch_tokens, res->longest, &weights, &work);
        st = dpt_error_locate(st, in->job->data[d].reference);
        if (st == DPT_OK && weights + work > res->reference)
            res->reference = weights + work;
    }
    return st;
}

/* The study's model at work. */
static int64_t model_bytes(const dpt_resources *res) {
    return res->weights + res->work + res->images + res->draw + res->signs + res->vectors +
           res->slopes;
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

/* Edits whose masks are correlated along their paths. */
static int count_correlated(const dpt_inputs *in) {
    int count = 0;
    for (int e = 0; e < in->job->nedits; e++)
        count += dpt_path_correlation_wanted(in->job, &in->job->edits[e]);
    return count;
}

/* Whether the gradient at W_post is kept whatever it takes, also in cells. */
static bool needs_gradient(const dpt_inputs *in) {
    return any_edit(in, dpt_edit_needs_gradient) || count_correlated(in) > 0;
}

/* What the mesh leaves alone: the edited model, an edit, and the gradients that edits need. */
static int64_t fixed_bytes(const dpt_inputs *in, const dpt_resources *res) {
    int64_t fixed = res->field + res->edit + res->plane + res->logits;
    if (needs_gradient(in))
        fixed += gradient_bytes(in, res) + res->cells;
    return fixed;
}

/* Whether the gradients at t = 0 could serve the paths of edits. */
static bool can_share(const dpt_inputs *in) {
    return dpt_quadrature_has_start(in->job->rule) && !in->job->per_sample;
}

/* Memory that is left for gradients; a reference is gone before they are there. Negative: what they lack. */
static int64_t gradient_room(const dpt_inputs *in, const dpt_resources *res) {
    int64_t all = needs_gradient(in) ? 0 : gradient_bytes(in, res);
    return res->budget - fixed_bytes(in, res) - model_bytes(res) - all;
}

/* Which gradients are kept. */
static void choose_gradients(const dpt_inputs *in, dpt_resources *res) {
    bool needs = needs_gradient(in);
    int64_t room = gradient_room(in, res);
    res->shared_gradient = can_share(in) && (needs || room >= 0);
    res->gradient_lack = can_share(in) && !res->shared_gradient ? -room : 0;
    res->cell_gradient =
        needs || (res->shared_gradient && any_edit(in, dpt_edit_draws_mask) && res->cells <= room);
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
    dpt_model_ranks spread = ranks_of(res);
    dpt_status st = dpt_model_bytes(dpt_store_config(in->post), in->catalog, &spread, true, batch,
                                    res->longest, &res->weights, &res->work);
    if (st != DPT_OK)
        return dpt_error_locate(st, in->job->post);
    res->batch_tokens = batch;
    res->images = batch / res->longest * res->pixels * BYTES_F32;
    return measure_references(in, res);
}

/* With what is kept of gradients, or before it with a reference, which is gone by then. @param[in] gradients bytes. */
static int64_t peak_bytes(const dpt_resources *res, int64_t gradients) {
    int64_t always = res->field + res->edit + res->plane + res->logits;
    int64_t own = model_bytes(res) + gradients;
    return always + (own > res->reference ? own : res->reference);
}

/* The least that the mesh needs. */
static int64_t needed_bytes(const dpt_inputs *in, const dpt_resources *res) {
    return peak_bytes(res, needs_gradient(in) ? gradient_bytes(in, res) + res->cells : 0);
}

/* A smaller batch where that lets several edits share the gradients, unless the job says how large it is. */
static dpt_status make_room(const dpt_inputs *in, dpt_resources *res) {
    int64_t whole = res->batch_tokens, least = SHARE_TOKENS;
    bool gains = can_share(in) && in->job->nedits > 1 && in->job->batch_tokens == 0;
    dpt_status st = DPT_OK;
    least = least > res->largest ? least : res->largest;
    while (st == DPT_OK && gains && gradient_room(in, res) < 0 && res->batch_tokens / 2 >= least)
        st = measure_batch(in, res->batch_tokens / 2, res);
    if (st == DPT_OK && gradient_room(in, res) < 0 && res->batch_tokens < whole)
        st = measure_batch(in, whole, res);
    return st;
}

/* Needs of one mesh, with the batch shrunk until the work fits besides the weights. */
static dpt_status try_mesh(const dpt_inputs *in, int tensor_parallel, dpt_resources *res,
                           bool *fits) {
    res->tensor_parallel = tensor_parallel;
    dpt_model_ranks spread = ranks_of(res);
    dpt_status st =
        dpt_model_gradient_bytes(dpt_store_config(in->post), in->catalog, &spread, &res->gradient);
    if (st != DPT_OK)
        return dpt_error_locate(st, in->job->post);
    const dpt_job_hessian *hessian = &in->job->hessian;
    bool scratch =
        res->law > 0 || count_correlated(in) > 0 || hessian->probes > 0 || hessian->lanczos > 0;
    res->draw = scratch ? res->gradient : 0;
    /* A direction is bound in fp32 in the place of an edit. */
    res->vectors =
        dpt_spectrum_bytes(in->job, res->cells) + (hessian->lanczos > 0 ? res->gradient : 0);
    res->slopes = dpt_significance_bytes(in, res->cells, res->gradient);
    res->signs =
        hessian->probes > 0 || in->job->law.probes > 0 ? res->gradient / (BYTES_F32 * 8) : 0;
    res->plane = res->plane_cells + (res->plane_blocks + tensor_parallel - 1) / tensor_parallel;
    int64_t fixed = fixed_bytes(in, res);
    int64_t batch = in->job->batch_tokens > 0 ? in->job->batch_tokens : BATCH_TOKENS;
    if (batch < res->largest)
        batch = res->largest;
    for (;;) {
        st = measure_batch(in, batch, res);
        if (st != DPT_OK)
            return st;
        *fits = needed_bytes(in, res) <= res->budget;
        if (*fits || batch == res->largest)
            break;
        /* Weights that do not fit by themselves do so with no batch: the least one says what is needed. */
        bool hopeless = fixed + res->weights > res->budget;
        batch = hopeless || batch / 2 < res->largest ? res->largest : batch / 2;
    }
    if (*fits)
        st = make_room(in, res);
    choose_gradients(in, res);
    return st;
}

static dpt_status choose_mesh(const dpt_inputs *in, int64_t most_samples, dpt_resources *res) {
    bool fits = false;
    int wanted = in->job->tensor_parallel;
    if (wanted > 0 && res->ranks % wanted != 0)
        return dpt_error(DPT_ERR_USAGE,
                         "tensor_parallel is %d, which does not divide %d ranks: choose a divisor",
                         wanted, res->ranks);
    for (int size = 1; size <= res->ranks && !fits; size++) {
        if (res->ranks % size != 0 || (wanted > 0 && size != wanted))
            continue;
        /* Replicas without samples would idle: share them more widely instead. */
        if (wanted == 0 && res->ranks / size > most_samples && size < res->ranks)
            continue;
        dpt_status st = try_mesh(in, size, res, &fits);
        if (st != DPT_OK)
            return st;
    }
    if (fits)
        return DPT_OK;
    int64_t need = needed_bytes(in, res);
    char granted[32];
    return dpt_error(DPT_ERR_OUTPUT,
                     "the study needs %" PRId64 " MiB per rank with %d tensor-parallel ranks, but "
                     "--memory grants %s: use more ranks or raise it",
                     (need >> 20) + 1, res->tensor_parallel, grant_text(res->budget, granted));
}

/* Weights that take part in matrix products for each token; the kernel of patches has four sides. */
static double matrix_elements(const dpt_catalog *catalog) {
    double sum = 0;
    for (int t = 0; t < catalog->count; t++)
        if (catalog->tensors[t].ndim == 2 || catalog->tensors[t].ndim == 4)
            sum += (double)catalog->tensors[t].numel;
    return sum;
}

/* Slopes that an edit takes at most, and how many rule auto takes of them on average: that share of the edits
 * of jobs/paper/fig3.yaml is refined on the shipped pairs (tools/rule_error.py). */
static int count_slopes(const dpt_inputs *in, const dpt_resources *res, double *expected) {
    const double refined = 0.7;
    int most = in->job->points, least = most;
    for (int step = 0; in->job->rule == DPT_RULE_AUTO; step++) {
        int points = dpt_quadrature_refined(step, in->job->points);
        if (points == 0)
            break;
        least = step == 0 ? points : least;
        most = points;
    }
    int shared = res->shared_gradient && dpt_quadrature_has_start(in->job->rule);
    *expected = least + refined * (most - least) - shared;
    return most - shared;
}

/* A pass each, on the data set that chooses. */
static void count_slopes_of_samples(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    for (int e = 0; e < job->nedits; e++) {
        if (!dpt_significance_is_wanted(&job->edits[e].spec))
            continue;
        bool chooses = job->data[job->edits[e].gradient_data].chooses;
        double tokens = chooses ? (double)res->choosing_tokens / (job->ndata - job->njudged)
                                : (double)res->tokens / job->njudged;
        res->flops += matrix_elements(in->catalog) * tokens * 8.0;
        res->evaluations++;
    }
}

/* A pass forward costs 2 flops per weight and token; one with slopes 8: forward, the recomputed
 * forward, the gradient of the input, and the term or the gradient of the weight. */
static void count_flops(const dpt_inputs *in, dpt_resources *res) {
    double per_token = matrix_elements(in->catalog);
    double tokens = (double)res->tokens;
    int edits = in->job->nedits;
    double expected;
    int slopes = count_slopes(in, res, &expected);
    bool kept = dpt_resources_keeps_gradient(res);
    double baseline = kept ? 2 + 8 : 2 + 2;
    double ends = dpt_quadrature_has_end(in->job->rule) ? 0 : 2;
    res->flops = per_token * tokens * (baseline + edits * (8.0 * slopes + ends));
    res->saved_flops = per_token * tokens * edits * 8.0 * (slopes - expected);
    res->saved_evaluations = (double)in->job->ndata * edits * (slopes - expected);
    /* The reference of dpo, and the slopes of its loss before the gradient that edits share. */
    res->flops += per_token * (double)res->reference_tokens * (kept ? 4 : 2);
    res->flops += per_token * tokens * 8.0 * (double)res->law;
    res->flops += per_token * (double)res->choosing_tokens * (2 + 2.0 * edits);
    int parts = in->job->ndata - in->job->njudged, correlated = count_correlated(in);
    int nodes = in->job->points - dpt_quadrature_has_start(in->job->rule);
    res->flops += per_token * tokens * 8.0 * nodes * correlated;
    res->edit_passes = slopes + (ends > 0);
    res->evaluations = (int64_t)in->job->njudged *
                           (2 + res->law + edits * res->edit_passes + (int64_t)nodes * correlated) +
                       (int64_t)parts * (1 + edits);
    for (int d = in->job->njudged; d < in->job->ndata; d++)
        res->evaluations += dpt_job_law_draws(in->job, d) > 0 ? res->law : 0;
    /* The squares of the gradient are of one that is kept, or take a pass of their own. */
    res->hessian = (int64_t)edits * dpt_hessian_edit_passes(in) + dpt_hessian_passes(in->job) +
                   dpt_spectrum_passes(in->job) + (in->job->hessian.probes > 0 && !kept);
    res->flops += per_token * tokens * 8.0 * (double)res->hessian;
    int64_t logits = dpt_logit_probes_passes(in->job);
    res->flops += per_token * tokens * 2.0 * (double)logits;
    res->hessian = (res->hessian + logits) * in->job->njudged;
    int64_t places = dpt_plane_passes(in->job);
    res->flops += per_token * tokens * 2.0 * (double)places / in->job->njudged;
    count_slopes_of_samples(in, res);
    int64_t left_out = dpt_leave_out_passes(in);
    res->flops += per_token * tokens * 2.0 * (double)left_out;
    res->evaluations += places + in->job->njudged * left_out;
}

dpt_status dpt_resources_plan(const dpt_inputs *in, int ranks, int machines, int64_t budget,
                              dpt_resources *out) {
    *out = (dpt_resources){
        .ranks = ranks, .machines = machines, .tensor_parallel = 1, .budget = budget};
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
    dpt_shard_destroy(&shard);
    for (int e = 0; e < in->job->nedits && st == DPT_OK; e++) {
        int64_t need = dpt_edit_bytes(&in->job->edits[e].spec, in->catalog, &in->parts,
                                      in->selected, ranks, in->job->svd_group);
        out->edit = need > out->edit ? need : out->edit;
    }
    if (model)
        out->edit += dpt_line_bytes(in);
    out->edit += dpt_store_adapter_bytes(in->pre) + dpt_store_adapter_bytes(in->post);
    double pair_bytes =
        (double)dpt_catalog_bytes(in->catalog) + (double)dpt_catalog_bytes(&in->pair.catalog);
    out->bytes_read = pair_bytes * in->job->nedits;
    if (in->job->checkpoint != DPT_STORE_NONE)
        out->bytes_written = (double)dpt_catalog_bytes(&in->out_catalog) * in->job->nedits;
    if (!model) {
        char granted[32];
        if (out->edit + out->field > budget)
            return dpt_error(DPT_ERR_OUTPUT,
                             "the edits need %" PRId64 " MiB per rank, but --memory grants %s: use "
                             "more ranks or raise it",
                             ((out->edit + out->field) >> 20) + 1, grant_text(budget, granted));
        return DPT_OK;
    }
    int64_t most_samples;
    if (st == DPT_OK)
        st = measure_data(in, out, &most_samples);
    if (st == DPT_OK)
        st = choose_mesh(in, most_samples, out);
    dpt_lines lines;
    if (st == DPT_OK)
        st = dpt_lines_create(in, out->shared_gradient, &lines);
    if (st != DPT_OK)
        return st;
    out->shared_passes = lines.spared * in->job->njudged;
    dpt_lines_destroy(&lines);
    count_flops(in, out);
    return DPT_OK;
}

static void resources_print_row(const char *name, double value, const char *unit) {
    printf("  %-34s %12.1f %s\n", name, value, unit);
}

static const char *plural(int count) {
    return count == 1 ? "" : "s";
}

/* How many samples of each data set only choose. */
static void print_parts(const dpt_inputs *in) {
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_job_data *entry = &in->job->data[d];
        int64_t chosen = entry->other >= 0 ? in->data[entry->other].samples : 0;
        char label[128];
        snprintf(label, sizeof label, "%.80s: samples that only choose", entry->name);
        if (chosen > 0)
            printf("  %-34s %12" PRId64 " of %" PRId64 "\n", label, chosen,
                   chosen + in->data[d].samples);
    }
}

/* Whether edits share the gradients, or how much memory that lacks. */
static void print_sharing(const dpt_resources *res) {
    char lack[64] = "";
    if (res->gradient_lack > 0)
        snprintf(lack, sizeof lack, ": it lacks %" PRId64 " MiB a rank",
                 (res->gradient_lack >> 20) + 1);
    printf("  %-34s %12s%s\n", "gradient at t = 0 kept for all edits",
           dpt_resources_keeps_gradient(res) ? "yes" : "no", lack);
}

void dpt_resources_print(const dpt_inputs *in, const dpt_resources *res) {
    const double mib = 1048576.0;
    printf("study %s: %d edit%s, %d data set%s, %d rank%s\n", in->job->name, in->job->nedits,
           plural(in->job->nedits), in->job->njudged, plural(in->job->njudged), res->ranks,
           plural(res->ranks));
    printf("  %-34s %12" PRId64 "\n", "elements of the model", dpt_catalog_elements(in->catalog));
    if (dpt_inputs_needs_model(in)) {
        printf("  %-34s %6d data x %d tensor-parallel\n", "mesh", res->ranks / res->tensor_parallel,
               res->tensor_parallel);
        print_parts(in);
        printf("  %-34s %12" PRId64 "\n", "tokens packed into one pass", res->batch_tokens);
        bool nested = res->saved_evaluations > 0.0;
        printf("  %-34s %12" PRId64 "\n",
               nested ? "passes over a data set, at most" : "passes over a data set",
               res->evaluations + res->hessian);
        if (nested)
            printf("  %-34s %12.0f\n", "passes to be expected",
                   (double)(res->evaluations + res->hessian) - res->saved_evaluations);
        if (res->shared_passes > 0)
            printf("  %-34s %12" PRId64 "\n", "of these shared on a line, at most",
                   res->shared_passes);
        print_sharing(res);
    }
    printf("memory per rank\n");
    resources_print_row("weights", (double)res->weights / mib, "MiB");
    resources_print_row("activations and buffers", (double)(res->work + res->images) / mib, "MiB");
    if (res->reference > 0)
        resources_print_row("reference, before these", (double)res->reference / mib, "MiB");
    int64_t gradients = dpt_resources_keeps_gradient(res) ? gradient_bytes(in, res) : 0;
    int64_t cells = res->cell_gradient ? res->cells : 0;
    if (gradients > 0)
        resources_print_row("gradients", (double)gradients / mib, "MiB");
    if (res->draw > 0)
        resources_print_row("scratch gradient", (double)res->draw / mib, "MiB");
    if (res->signs > 0)
        resources_print_row("random signs", (double)res->signs / mib, "MiB");
    if (res->logits > 0)
        resources_print_row("logits along random signs", (double)res->logits / mib, "MiB");
    if (res->vectors > 0)
        resources_print_row("vectors of Lanczos's method", (double)res->vectors / mib, "MiB");
    if (res->slopes > 0)
        resources_print_row("slopes of samples", (double)res->slopes / mib, "MiB");
    if (cells > 0)
        resources_print_row("gradient in cells", (double)cells / mib, "MiB");
    resources_print_row("edited model in cells", (double)res->field / mib, "MiB");
    resources_print_row("edit", (double)res->edit / mib, "MiB");
    if (res->plane > 0)
        resources_print_row("plane of two edits", (double)res->plane / mib, "MiB");
    resources_print_row("sum", (double)peak_bytes(res, gradients + cells) / mib, "MiB");
    resources_print_row("budget", (double)res->budget / mib, "MiB");
    printf("whole study\n");
    bool nested = res->saved_flops > 0.0;
    if (res->flops > 0)
        resources_print_row(nested ? "arithmetic, at most" : "arithmetic", res->flops / 1e12,
                            "Tflop");
    if (nested)
        resources_print_row("arithmetic to be expected", (res->flops - res->saved_flops) / 1e12,
                            "Tflop");
    resources_print_row("read", res->bytes_read / 1e9, "GB");
    resources_print_row("written", res->bytes_written / 1e9, "GB");
}
