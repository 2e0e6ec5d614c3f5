#include "resources.h"

#include "deltapath/base/mem.h"
#include "lines.h"
#include "passes.h"
#include "path_correlation.h"
#include "plane.h"
#include "significance.h"
#include "spectrum.h"
#include "sweep.h"
#include "zero_delta.h"

#include <math.h>

/* Bytes that all ranks of a study read and write. */

enum {
    SAMPLE_BYTES = 4 * 4096, /* of a tensor that its model is known by (dpt_store_fingerprint) */
    TENSOR_HEADER = 160,     /* of a model's file */
    UNIT_BYTES = 32 << 10,   /* of a unit's file without its arrays */
    RESULT_BYTES = 24 << 10, /* of a unit in the tables of the results */
    PASS_BYTES = 256         /* of a kept pass without its numbers */
};

static double bytes_of_samples(const dpt_catalog *catalog) {
    double sum = 0.0;
    for (int t = 0; t < catalog->count; t++) {
        double bytes =
            (double)catalog->tensors[t].numel * (double)dpt_dtype_size(catalog->tensors[t].dtype);
        sum += fmin(bytes, SAMPLE_BYTES) + TENSOR_HEADER;
    }
    return sum;
}

/* Bytes that a tensor takes in the files of its model, quantised or plain. */
static double bytes_of_tensor(const dpt_store *store, int t) {
    const dpt_tensor_info *info = &dpt_store_catalog(store)->tensors[t];
    char text[64];
    int64_t bytes;
    if (!dpt_store_quantised(store, t, text, sizeof text, &bytes))
        return (double)info->numel * (double)dpt_dtype_size(info->dtype);
    return (double)bytes;
}

static double bytes_of_model(const dpt_store *store) {
    double sum = 0.0;
    for (int t = 0; t < dpt_store_catalog(store)->count; t++)
        sum += bytes_of_tensor(store, t);
    return sum;
}

/* What edits read: catalogs, and the bytes of their tensors in files. */
typedef struct bytes_work {
    const dpt_inputs *in;
    dpt_edit_input input;
    double *tensors;   /* (2, tensors): pre, post */
    double post, pair; /* of all tensors; those of pre that have a partner among them */
    double whole;      /* the same of both, whether they are read together or not */
    double left[2]; /* of both models: of those that nothing reads, not for their hashes either */
    double held;    /* of both, what is read together: once, and then from memory */
} bytes_work;

/* A tensor that nothing reads. */
static void bytes_leave(bytes_work *w, int t) {
    int count = w->in->catalog->count;
    for (int i = 0; i < 2; i++)
        w->left[i] += dpt_inputs_hashes(w->in, i == 1, t) ? 0.0 : w->tensors[i * count + t];
}

/* What is read together is read once. */
static void bytes_hold(bytes_work *w, int t) {
    int count = w->in->catalog->count;
    for (int i = 0; i < 2; i++) {
        double *bytes = &w->tensors[i * count + t];
        if (*bytes <= 0.0 || !dpt_inputs_holds(w->in, i == 1, t))
            continue;
        w->held += *bytes;
        w->post -= i == 1 ? *bytes : 0.0;
        w->pair -= i == 1 ? *bytes : 0.0;
        *bytes = 0.0;
    }
}

/* Without memory they are those of the types, and what follows finds none either. */
static bytes_work bytes_open(const dpt_inputs *in) {
    int count = in->catalog->count;
    bytes_work w = {.in = in, .post = bytes_of_model(in->post)};
    w.input = (dpt_edit_input){.pre = {.catalog = &in->pair.catalog},
                               .post = {.catalog = in->catalog},
                               .parts = &in->parts,
                               .comparable = in->pair.comparable,
                               .selected = in->selected};
    w.tensors = dpt_mem_zalloc(2 * (int64_t)count, sizeof *w.tensors, "bytes of tensors");
    w.whole = w.pair = w.post + (double)dpt_catalog_bytes(&in->pair.catalog);
    if (w.tensors == NULL) {
        dpt_error_clear();
        return w;
    }
    w.whole = w.pair = w.post;
    for (int t = 0; t < count; t++) {
        int partner = dpt_pair_partner(&in->pair, t);
        w.tensors[t] = partner >= 0 ? bytes_of_tensor(in->pre, partner) : 0.0;
        w.tensors[count + t] = bytes_of_tensor(in->post, t);
        w.whole += w.tensors[t];
        bytes_hold(&w, t);
        w.pair += w.tensors[t];
        bytes_leave(&w, t);
    }
    w.input.pre_bytes = w.tensors;
    w.input.post_bytes = w.tensors + count;
    return w;
}

/* Quantised tensors of W_post, which an edit that takes their form again is compared with to find new scales, then for
 * its codes, and for the sums of its report. */
static double bytes_of_form(const dpt_inputs *in) {
    double sum = 0.0;
    for (int t = 0; in->job->requantises && t < in->catalog->count; t++) {
        char text[64];
        int64_t bytes;
        if (dpt_store_quantised(in->post, t, text, sizeof text, &bytes))
            sum += 3.0 * (double)bytes;
    }
    return sum;
}

/* One edit alone, and what is measured of it over its deltas. */
static double bytes_of_edit(const bytes_work *w, const dpt_resources *res, int e) {
    const dpt_job *job = w->in->job;
    const dpt_job_edit *edit = &job->edits[e];
    dpt_edit_spec plain = edit->spec;
    plain.calibrate = DPT_CALIBRATE_NONE;
    bool gradient = res->cell_gradient && edit->gradient_data >= 0;
    double sum = dpt_edit_bytes_read(&edit->spec, &w->input, gradient) + bytes_of_form(w->in);
    if (dpt_significance_is_wanted(&edit->spec)) /* F of the plain edit, from W_pre */
        sum += dpt_edit_bytes_read(&plain, &w->input, false) + w->pair - w->post;
    if (dpt_path_correlation_wanted(job, edit))
        for (int d = 0; d < job->njudged; d++)
            sum += dpt_job_judges(edit, d)
                       ? job->points * dpt_edit_correlation_bytes(&edit->spec, &w->input)
                       : 0.0;
    return sum;
}

/* Both edits of the plane again, and W_post at each of its points. */
static double bytes_of_plane(const bytes_work *w, const dpt_resources *res) {
    const dpt_job *job = w->in->job;
    double points = job->njudged > 0 ? (double)dpt_plane_passes(job) / job->njudged : 0.0;
    double sum = points * w->post;
    for (int e = 0; e < job->nedits && points > 0.0; e++)
        sum += dpt_plane_has(job, e) ? bytes_of_edit(w, res, e) : 0.0;
    return sum;
}

/* Each edit of a line is compared with its lead, which is made for that, and again where its weights are not bound. */
static double bytes_of_lines(const bytes_work *w, const dpt_resources *res,
                             const dpt_lines *lines) {
    double sum = 0.0;
    for (int e = 0; e < w->in->job->nedits; e++) {
        int lead = lines->edits[e].lead;
        if (lead == e)
            continue;
        bool bound = !res->lines_hold || (e > 0 && lines->edits[e - 1].lead == lead);
        const dpt_edit_spec *spec = &w->in->job->edits[lead].spec;
        sum += w->post + (bound ? 1.0 : 2.0) * dpt_edit_bytes_read(spec, &w->input, false);
    }
    return sum;
}

void dpt_resources_move_lines(const dpt_inputs *in, dpt_resources *res, const dpt_lines *lines) {
    bytes_work w = bytes_open(in);
    res->bytes_lines = bytes_of_lines(&w, res, lines);
    dpt_mem_free(w.tensors);
}

double dpt_resources_decomposed_bytes(const dpt_inputs *in, const dpt_edit_spec *spec) {
    bytes_work w = bytes_open(in);
    double bytes = dpt_edit_bytes_decomposed(spec, &w.input);
    dpt_mem_free(w.tensors);
    return bytes;
}

/* Whether the first pass over the pair begins each tensor at its begin: the hashes of a group are of that. */
static bool bytes_in_order(const bytes_work *w, const dpt_sweep_group *group) {
    for (int i = 0; i < group->count; i++) {
        const dpt_edit_spec *spec = &w->in->job->edits[group->edits[i]].spec;
        if (dpt_edit_bytes_prepared(spec, &w->input) > 0.0)
            return dpt_edit_reads_in_order(spec, &w->input);
    }
    return true;
}

/* Edits that are made together, straight from the files: what each prepares by itself, and then all at once. The first
 * group hashes what it reads, and then what it did not read in order, or not at all. */
static double bytes_of_groups(const bytes_work *w, dpt_resources *res) {
    const dpt_job *job = w->in->job;
    bool written = job->checkpoint != DPT_STORE_NONE && job->content == DPT_STORE_MODEL;
    double sum = 0.0;
    res->bytes_made = 0.0;
    for (int e = 0; e < job->nedits;) {
        dpt_sweep_group group;
        const dpt_edit_spec *specs[DPT_SWEEP_MOST];
        bool first = e == 0;
        e = dpt_sweep_group_at(job, res->together, NULL, e, &group);
        for (int i = 0; i < group.count; i++) {
            specs[i] = &job->edits[group.edits[i]].spec;
            double prepared = dpt_edit_bytes_prepared(specs[i], &w->input);
            sum += prepared;
            res->bytes_made += prepared + dpt_edit_bytes_made(1, &specs[i], &w->input, written);
        }
        double made = dpt_edit_bytes_made(group.count, specs, &w->input, written);
        sum += made;
        if (first && !bytes_in_order(w, &group))
            sum += w->pair - w->left[0] - w->left[1];
        else if (first && !written)
            sum += fmax(
                dpt_edit_bytes_made(group.count, specs, &w->input, true) - made - w->left[1], 0.0);
    }
    return sum;
}

/* Of which the deltas are those that are written: what is stored of pre is read once more for each edit. */
static double bytes_of_deltas(const bytes_work *w) {
    double sum = 0.0;
    bool deltas =
        w->in->job->checkpoint != DPT_STORE_NONE && w->in->job->content == DPT_STORE_DELTA;
    for (int t = 0; deltas && w->tensors != NULL && t < w->in->catalog->count; t++)
        sum += dpt_inputs_keeps(w->in, t) ? w->tensors[t] : 0.0;
    return w->in->job->nedits * sum;
}

/* Reads of edits: each pass over the deltas, and what is written. */
static double bytes_of_edits(const dpt_inputs *in, dpt_resources *res) {
    bytes_work w = bytes_open(in);
    if (!dpt_resources_in_cells(in)) {
        double groups = w.held + bytes_of_groups(&w, res) + bytes_of_deltas(&w);
        dpt_mem_free(w.tensors);
        return groups;
    }
    double sum =
        w.held + res->bytes_lines + bytes_of_plane(&w, res) + (double)res->extra_edits * w.pair;
    sum += bytes_of_deltas(&w);
    for (int e = 0; e < in->job->nedits; e++)
        sum += bytes_of_edit(&w, res, e);
    /* The first edit hashes what it reads, and then again what it did not read in order. */
    if (in->job->nedits > 0 && !dpt_edit_reads_in_order(&in->job->edits[0].spec, &w.input))
        sum += w.pair - w.left[0] - w.left[1];
    if (in->job->hessian.lanczos > 0) /* its delta */
        sum += in->job->njudged * w.pair;
    dpt_mem_free(w.tensors);
    res->bytes_made = sum;
    return sum;
}

/* The part of a data set that only chooses loads its own. */
static double bytes_of_references(const dpt_inputs *in) {
    double sum = 0.0;
    for (int d = 0; d < in->job->ndata; d++)
        if (in->reference[d] != NULL)
            sum += bytes_of_model(in->reference[d]);
    return sum;
}

/* Both models, for the mesh. */
static double bytes_of_pair(const dpt_inputs *in) {
    bytes_work w = bytes_open(in);
    dpt_mem_free(w.tensors);
    return w.whole;
}

/* An edited model: quantised, it takes the room of the post-trained one. */
static double bytes_of_output(const dpt_inputs *in) {
    double headers = (double)in->catalog->count * TENSOR_HEADER;
    return headers +
           (in->job->requantises ? bytes_of_model(in->post) : (double)dpt_inputs_output_bytes(in));
}

/* All of both models and of the references, and what they are opened by. */
static double bytes_of_check(const dpt_inputs *in, const dpt_resources *res) {
    double sum = bytes_of_model(in->pre) + bytes_of_model(in->post) +
                 bytes_of_samples(in->catalog) + bytes_of_samples(dpt_store_catalog(in->pre));
    for (int d = 0; d < in->job->njudged; d++)
        if (in->reference[d] != NULL)
            sum += bytes_of_model(in->reference[d]) +
                   bytes_of_samples(dpt_store_catalog(in->reference[d]));
    return res->verifies ? sum : 0.0;
}

/* What each rank saves of its sums once in a while: of its samples, and of all tensors. */
static double bytes_of_saves(const dpt_inputs *in, const dpt_resources *res, int d) {
    double passes = res->loss_evaluations + res->slope_evaluations;
    double saves = passes > 0.0 ? floor(res->all_seconds / passes / DPT_PASSES_SECONDS) : 0.0;
    double columns = in->parts.count + in->catalog->count;
    return saves * (24.0 * (double)in->data[d].samples * res->tensor_parallel +
                    res->ranks * (8.0 * columns + PASS_BYTES));
}

/* Passes that are kept, the largest of which are gradients, and states of those that take long. */
static double bytes_of_progress(const dpt_inputs *in, const dpt_resources *res) {
    double tensors = in->catalog->count, sum = 0.0;
    double states = floor(res->pass_seconds / DPT_PASSES_GRADIENT_SECONDS);
    for (int d = 0; d < in->job->ndata; d++) {
        double numbers = 17.0 * (double)in->data[d].samples + 8.0 * tensors + PASS_BYTES +
                         bytes_of_saves(in, res, d);
        sum += numbers * (res->loss_evaluations + res->slope_evaluations) / in->job->ndata;
        double gradient = 4.0 * (double)dpt_catalog_elements(in->catalog);
        double count = dpt_resources_keeps_gradient_of(in, res, d);
        if (d < in->job->njudged) /* each slope of Lanczos's method too */
            count += (double)dpt_spectrum_passes(in->job);
        if (dpt_passes_keeps_gradient(res->pass_seconds, gradient / res->ranks))
            sum += count * gradient;
        sum += count * states * gradient;
    }
    return sum;
}

/* Images are read once to be hashed, and again in each pass, by the ranks that take them. */
static double bytes_of_images(const dpt_inputs *in, const dpt_resources *res) {
    double sum = 0.0, once = 0.0;
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_dataset *data = &in->data[d];
        double image = 4.0 * (double)(data->channels * data->height * data->width);
        sum += image * (double)data->samples *
               (dpt_resources_passes(res, false) + dpt_resources_passes(res, true));
    }
    for (int d = 0; d < in->job->ndata; d++) {
        const dpt_dataset *data = &in->data[d];
        once += 4.0 * (double)(data->channels * data->height * data->width * data->samples);
    }
    return res->image_tokens > 0 ? once + sum * res->tensor_parallel : 0.0;
}

static double bytes_of_results(const dpt_inputs *in, bool model) {
    double sum = 0.0, tensors = in->catalog->count;
    for (int d = 0; d < (model ? in->job->njudged : 1); d++) {
        double samples = model ? (double)in->data[d].samples : 0.0;
        double numbers = 8.0 * (tensors * (in->job->points + 12.0) + 8.0 * samples);
        sum += in->job->nedits * (2.0 * numbers + UNIT_BYTES + RESULT_BYTES);
    }
    return sum;
}

/* Edited models; of those that go to a temporary file first every byte moves twice. */
static void move_output(const dpt_inputs *in, dpt_resources *res) {
    const dpt_store_layout layout = dpt_job_layout(in->job);
    double sum = (double)in->job->nedits * bytes_of_output(in);
    bool stages = dpt_store_layout_stages(&layout);
    res->bytes_written += stages ? 2.0 * sum : sum;
    res->bytes_read += stages ? sum : 0.0;
}

/* Share of a tensor. A hash runs from the first element to the last: ranks that have a later part of a tensor read it once more for that. */
static double bytes_share_again(const dpt_shard *shard, int t) {
    int64_t begin, end, numel = shard->catalog->tensors[t].numel;
    if (numel == 0)
        return 0.0;
    dpt_shard_owned(shard, dpt_shard_owner(shard, shard->first_cell[t]), t, &begin, &end);
    return 1.0 - (double)(end - begin) / (double)numel;
}

/* Of the models, where the first pass feeds their hashes, and of what is written. */
static double bytes_of_hashes(const dpt_inputs *in, int ranks) {
    bytes_work w = bytes_open(in);
    dpt_shard shard;
    int count = in->catalog->count;
    double sum = 0.0;
    bool delta = in->job->content == DPT_STORE_DELTA;
    bool kept = in->job->checkpoint != DPT_STORE_NONE, order = in->job->nedits > 0;
    if (w.tensors == NULL || dpt_shard_create(in->catalog, ranks, &shard) != DPT_OK) {
        dpt_error_clear();
        dpt_mem_free(w.tensors);
        return 0.0;
    }
    order = order && dpt_edit_reads_in_order(&in->job->edits[0].spec, &w.input);
    for (int t = 0; t < count; t++) {
        const dpt_tensor_info *info = &in->out_catalog.tensors[t];
        double share = bytes_share_again(&shard, t), bytes = 0.0;
        for (int i = 0; i < 2 && order && !dpt_inputs_leaves(in, t); i++)
            bytes += dpt_inputs_hashes(in, i == 1, t) ? w.tensors[i * count + t] : 0.0;
        if (kept && dpt_inputs_keeps(in, t))
            bytes += (double)in->job->nedits * (double)info->numel *
                     (double)dpt_dtype_size(delta ? DPT_F32 : info->dtype);
        sum += share * bytes;
    }
    dpt_shard_destroy(&shard);
    dpt_mem_free(w.tensors);
    return sum;
}

/* Tensors of post that are read for nothing but their hashes. */
static double bytes_of_digest(const dpt_inputs *in) {
    double sum = 0.0;
    for (int t = 0; t < in->catalog->count; t++)
        if (dpt_inputs_leaves(in, t) && dpt_inputs_hashes(in, true, t))
            sum += bytes_of_tensor(in->post, t);
    return in->job->nedits > 0 ? sum : 0.0;
}

void dpt_resources_move(const dpt_inputs *in, dpt_resources *res) {
    bool model = dpt_inputs_needs_model(in);
    const dpt_catalog *pre = dpt_store_catalog(in->pre);
    /* The headers again at the end. */
    res->bytes_read = 2.0 * (bytes_of_samples(in->catalog) + bytes_of_samples(pre));
    res->bytes_read += dpt_zero_delta_bytes(in, res->ranks);
    res->bytes_verified = bytes_of_check(in, res);
    res->bytes_read += res->bytes_verified;
    res->bytes_edits = bytes_of_edits(in, res) - res->bytes_shared;
    res->bytes_read += res->bytes_edits + bytes_of_hashes(in, res->ranks);
    res->bytes_digest = bytes_of_digest(in);
    res->bytes_written = bytes_of_results(in, model);
    res->bytes_read += res->bytes_written / 2.0; /* units, for the tables */
    if (in->job->checkpoint != DPT_STORE_NONE)
        move_output(in, res);
    res->bytes_loaded = 0.0;
    if (!model)
        return;
    res->bytes_loaded = bytes_of_pair(in) + bytes_of_references(in);
    res->bytes_read += res->bytes_loaded + bytes_of_images(in, res);
    res->bytes_written += bytes_of_progress(in, res);
}
