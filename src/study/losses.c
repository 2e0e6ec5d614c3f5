#include "losses.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/cache.h"

static dpt_status read_images(void *ctx, int64_t first, int64_t n, float *out) {
    return dpt_dataset_read_images(ctx, first, n, out);
}

static dpt_status create_class(dpt_dataset *set, const dpt_mesh *mesh, const dpt_model *model,
                               int64_t batch_tokens, dpt_loss **out) {
    dpt_model_image image;
    dpt_class_data view = {.samples = set->samples,
                           .channels = set->channels,
                           .height = set->height,
                           .width = set->width,
                           .labels = set->labels,
                           .ctx = set,
                           .read = read_images};
    dpt_model_get_image(model, &image);
    return dpt_loss_class_create(&view, &image, mesh, batch_tokens, out);
}

dpt_status dpt_losses_create(const dpt_inputs *in, int d, const dpt_mesh *mesh,
                             const dpt_model *model, int64_t batch_tokens, dpt_loss **out) {
    const dpt_job_data *entry = &in->job->data[d];
    dpt_dataset *set = &in->data[d];
    dpt_lm_data view = {set->sequences, set->offsets, set->tokens, set->loss_mask};
    int64_t vocabulary = dpt_model_vocabulary(model), positions = dpt_model_max_positions(model);
    dpt_status st;
    if (entry->loss == DPT_LOSS_CLASS) {
        st = create_class(set, mesh, model, batch_tokens, out);
    } else if (entry->loss == DPT_LOSS_DPO) {
        dpt_dpo_data pairs = {.pairs = view, .beta = entry->beta};
        st = dpt_loss_dpo_create(&pairs, vocabulary, positions, mesh, batch_tokens, out);
    } else {
        st = dpt_loss_lm_create(&view, vocabulary, positions, mesh, batch_tokens, out);
    }
    if (st == DPT_OK && set->weights != NULL)
        st = dpt_loss_set_weights(*out, set->weights);
    return dpt_error_locate(st, entry->file);
}

static char *cache_path(const dpt_inputs *in, int d) {
    return dpt_mem_format("%s/references/%s.h5", in->job->directory, in->job->data[d].name);
}

/* Which numbers these are: of this model on these tokens. */
static uint64_t cache_key(const dpt_inputs *in, int d) {
    const dpt_store *store = in->reference[d] != NULL ? in->reference[d] : in->post;
    uint64_t parts[2] = {dpt_store_fingerprint(store), in->data[d].hash};
    return dpt_hash_bytes(parts, sizeof parts);
}

static dpt_status load_cached(dpt_references *refs, const dpt_inputs *in, int d,
                              const dpt_mesh *mesh) {
    int64_t n = 2 * in->data[d].samples;
    bool found = false;
    char *path = cache_path(in, d);
    refs->logp[d] = dpt_mem_alloc(n, sizeof(double), "reference log-probabilities");
    dpt_status st = path != NULL && refs->logp[d] != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK)
        st = dpt_cache_load(&mesh->world, path, cache_key(in, d), n, refs->logp[d], &found);
    if (!found) {
        dpt_mem_free(refs->logp[d]);
        refs->logp[d] = NULL;
    }
    dpt_mem_free(path);
    return st;
}

/* Measure with a model that is loaded, and keep the numbers for a later run. */
static dpt_status measure(dpt_references *refs, const dpt_inputs *in, int d, const dpt_mesh *mesh,
                          dpt_model *model, const dpt_loss *loss) {
    int64_t n = 2 * in->data[d].samples;
    char *path = cache_path(in, d);
    refs->logp[d] = dpt_mem_alloc(n, sizeof(double), "reference log-probabilities");
    dpt_status st = path != NULL && refs->logp[d] != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK)
        st = dpt_loss_dpo_measure(loss, mesh, model, refs->logp[d]);
    if (st == DPT_OK)
        st = dpt_cache_save(&mesh->world, path, cache_key(in, d), n, refs->logp[d]);
    dpt_mem_free(path);
    return st;
}

static dpt_status measure_by_reference(dpt_references *refs, const dpt_inputs *in,
                                       const dpt_resources *res, int d, const dpt_mesh *mesh) {
    dpt_model *model = NULL;
    dpt_loss *loss = NULL;
    dpt_log(DPT_LOG_INFO, "%s: log-probabilities by the reference %s", in->job->data[d].name,
            in->job->data[d].reference);
    dpt_status st = dpt_model_create(&mesh->model, dpt_store_config(in->reference[d]),
                                     dpt_store_source(in->reference[d]), &model);
    st = dpt_error_locate(dpt_agree(&mesh->world, st), in->job->data[d].reference);
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world,
                       dpt_losses_create(in, d, mesh, model, res->batch_tokens, &loss));
    if (st == DPT_OK)
        st = measure(refs, in, d, mesh, model, loss);
    dpt_loss_destroy(loss);
    dpt_model_destroy(model);
    return st;
}

dpt_status dpt_references_prepare(const dpt_inputs *in, const dpt_resources *res,
                                  const dpt_mesh *mesh, dpt_references *out) {
    *out = (dpt_references){.ndata = in->job->ndata};
    out->logp = dpt_mem_zalloc(out->ndata, sizeof *out->logp, "references");
    dpt_status st = dpt_agree(&mesh->world, out->logp != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int d = 0; d < out->ndata && st == DPT_OK; d++) {
        if (in->job->data[d].loss != DPT_LOSS_DPO)
            continue;
        st = load_cached(out, in, d, mesh);
        if (st == DPT_OK && out->logp[d] == NULL && in->reference[d] != NULL)
            st = measure_by_reference(out, in, res, d, mesh);
    }
    return st;
}

dpt_status dpt_references_set(dpt_references *refs, const dpt_inputs *in, int d,
                              const dpt_mesh *mesh, dpt_model *model, dpt_loss *loss) {
    dpt_status st = DPT_OK;
    if (refs->logp[d] == NULL)
        st = measure(refs, in, d, mesh, model, loss);
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world, dpt_loss_dpo_set_reference(loss, refs->logp[d]));
    return dpt_error_locate(st, in->job->data[d].file);
}

void dpt_references_destroy(dpt_references *refs) {
    for (int d = 0; refs->logp != NULL && d < refs->ndata; d++)
        dpt_mem_free(refs->logp[d]);
    dpt_mem_free(refs->logp);
    *refs = (dpt_references){.ndata = 0};
}
