#include "resources.h"

#include "passes.h"
#include "significance.h"
#include "spectrum.h"

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

/* Reads of edits: each pass over the deltas, and what is written. */
static double bytes_of_edits(const dpt_inputs *in, const dpt_resources *res) {
    const dpt_edit_input input = {.pre = {.catalog = &in->pair.catalog},
                                  .post = {.catalog = in->catalog},
                                  .parts = &in->parts,
                                  .comparable = in->pair.comparable,
                                  .selected = in->selected};
    double sum = 0.0;
    for (int e = 0; e < in->job->nedits; e++) {
        const dpt_job_edit *edit = &in->job->edits[e];
        bool gradient = res->cell_gradient && edit->gradient_data >= 0;
        double once = dpt_edit_bytes_read(&edit->spec, &input, gradient);
        sum += once * (dpt_significance_is_wanted(&edit->spec) ? 2.0 : 1.0);
    }
    double pair =
        (double)dpt_catalog_bytes(in->catalog) + (double)dpt_catalog_bytes(&in->pair.catalog);
    /* The first edit hashes what it reads, and then again what it did not read in order. */
    if (in->job->nedits > 0 && !dpt_edit_reads_in_order(&in->job->edits[0].spec))
        sum += pair;
    return sum + (double)res->extra_edits * pair;
}

static double bytes_of_references(const dpt_inputs *in) {
    double sum = 0.0;
    for (int d = 0; d < in->job->njudged; d++)
        if (in->reference[d] != NULL)
            sum += (double)dpt_catalog_bytes(dpt_store_catalog(in->reference[d]));
    return sum;
}

/* Passes that are kept, the largest of which are gradients. */
static double bytes_of_progress(const dpt_inputs *in, const dpt_resources *res) {
    double tensors = in->catalog->count, sum = 0.0;
    for (int d = 0; d < in->job->ndata; d++) {
        double numbers = 17.0 * (double)in->data[d].samples + 8.0 * tensors + PASS_BYTES;
        sum += numbers * (res->loss_evaluations + res->slope_evaluations) / in->job->ndata;
        double gradient = 4.0 * (double)dpt_catalog_elements(in->catalog);
        double count = dpt_resources_keeps_gradient_of(in, res, d);
        if (d < in->job->njudged) /* each slope of Lanczos's method too */
            count += (double)dpt_spectrum_passes(in->job);
        if (dpt_passes_keeps_gradient(res->pass_seconds, gradient / res->ranks))
            sum += count * gradient;
    }
    return sum;
}

/* Images are read again in each pass, by the ranks that take them. */
static double bytes_of_images(const dpt_inputs *in, const dpt_resources *res) {
    double sum = 0.0;
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_dataset *data = &in->data[d];
        double image = 4.0 * (double)(data->channels * data->height * data->width);
        sum += image * (double)data->samples *
               (dpt_resources_passes(res, false) + dpt_resources_passes(res, true));
    }
    return sum * (res->image_tokens > 0 ? res->tensor_parallel : 0.0);
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

void dpt_resources_move(const dpt_inputs *in, dpt_resources *res) {
    bool model = dpt_inputs_needs_model(in);
    const dpt_catalog *pre = dpt_store_catalog(in->pre);
    /* The headers again at the end. */
    res->bytes_read = 2.0 * (bytes_of_samples(in->catalog) + bytes_of_samples(pre));
    res->bytes_edits = bytes_of_edits(in, res);
    res->bytes_read += res->bytes_edits;
    res->bytes_written = bytes_of_results(in, model);
    res->bytes_read += res->bytes_written / 2.0; /* units, for the tables */
    if (in->job->checkpoint != DPT_STORE_NONE)
        res->bytes_written +=
            (double)in->job->nedits * ((double)dpt_catalog_bytes(&in->out_catalog) +
                                       (double)in->catalog->count * TENSOR_HEADER);
    res->bytes_loaded = 0.0;
    if (!model)
        return;
    res->bytes_loaded = (double)dpt_catalog_bytes(in->catalog) +
                        (double)dpt_catalog_bytes(&in->pair.catalog) + bytes_of_references(in);
    res->bytes_read += res->bytes_loaded + bytes_of_images(in, res);
    res->bytes_written += bytes_of_progress(in, res);
}
