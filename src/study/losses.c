#include "losses.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/results/reference_cache.h"
#include "loss_kinds.h"

#include <inttypes.h>

static dpt_loss_limits losses_limits(const dpt_model *model) {
    dpt_loss_limits limits = {.vocabulary = dpt_model_vocabulary(model),
                              .positions = dpt_model_max_positions(model)};
    (void)dpt_model_get_image(model, &limits.image); /* zero where it takes none */
    return limits;
}

double dpt_losses_guess(const dpt_inputs *in, int d, const dpt_model *model) {
    dpt_loss_limits limits = losses_limits(model);
    return dpt_loss_kind_of(in->job->data[d].loss)->guess(&limits);
}

dpt_status dpt_losses_create(const dpt_inputs *in, int d, const dpt_mesh *mesh,
                             const dpt_model *model, int64_t batch_tokens, dpt_loss **out) {
    const dpt_job_data *entry = &in->job->data[d];
    const dpt_dataset *set = &in->data[d];
    const dpt_loss_kind *kind = dpt_loss_kind_of(entry->loss);
    dpt_loss_limits limits = losses_limits(model);
    dpt_status st = kind->create(in, d, &limits, mesh, batch_tokens, out);
    if (st == DPT_OK && set->weights != NULL)
        st = dpt_loss_set_weights(*out, set->weights);
    return dpt_error_locate(st, entry->file);
}

/* A model may have more rows than its tokenizer has tokens, but not fewer. */
static dpt_status check_vocabulary(const dpt_inputs *in, int d, int64_t vocabulary,
                                   const char *path) {
    const char *file = in->job->data[d].file;
    int64_t own = in->data[d].vocabulary;
    if (own <= vocabulary || in->data[d].tokens == NULL)
        return DPT_OK;
    if (!in->job->allow_other_tokenizer)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: was made for a vocabulary of %" PRId64 " tokens, more than the "
                         "%" PRId64 " of %s, so with another tokenizer: make it again with "
                         "tools/prepare_data.py --tokenizer %s, or write `allow: "
                         "[other-tokenizer]`",
                         file, own, vocabulary, path, path);
    dpt_log(DPT_LOG_WARN,
            "%s: was made for a vocabulary of %" PRId64 " tokens, more than the %" PRId64
            " of %s, as the job allows",
            file, own, vocabulary, path);
    return DPT_OK;
}

/* Data set d against the model of a store. */
static dpt_status check_against(const dpt_inputs *in, int d, const dpt_store *model) {
    const char *config = dpt_store_config(model);
    const dpt_catalog *catalog = dpt_store_catalog(model);
    bool is_image;
    dpt_loss_limits limits;
    dpt_status st = dpt_model_config_limits(config, catalog, &limits.vocabulary, &limits.positions);
    if (st == DPT_OK)
        st = dpt_model_config_image(config, catalog, &is_image, &limits.image);
    if (st != DPT_OK)
        return dpt_error_locate(st, dpt_store_path(model));
    st = check_vocabulary(in, d, limits.vocabulary, dpt_store_path(model));
    if (st != DPT_OK)
        return st;
    st = dpt_loss_kind_of(in->job->data[d].loss)->check(in, d, &limits);
    return dpt_error_locate(st, in->job->data[d].file);
}

dpt_status dpt_losses_check(const dpt_inputs *in, int d) {
    dpt_status st = check_against(in, d, in->post);
    if (st == DPT_OK && in->reference[d] != NULL)
        st = check_against(in, d, in->reference[d]);
    return st;
}

static char *cache_path(const dpt_inputs *in, int d) {
    return dpt_mem_format("%s/references/%s.h5", in->job->directory, in->job->data[d].name);
}

static const dpt_loss_reference *reference_of(const dpt_inputs *in, int d) {
    return dpt_loss_kind_of(in->job->data[d].loss)->reference;
}

/* Which numbers these are: of this model on these tokens. */
static uint64_t cache_key(const dpt_inputs *in, int d) {
    const dpt_store *store = in->reference[d] != NULL ? in->reference[d] : in->post;
    uint64_t parts[3] = {dpt_store_fingerprint(store), in->data[d].hash,
                         (uint64_t)in->job->precision};
    bool rounds = in->job->precision != (int)DPT_PRECISION_FP32;
    return dpt_hash_bytes(parts, rounds ? sizeof parts : 2 * sizeof parts[0]);
}

static dpt_status load_cached(dpt_references *refs, const dpt_inputs *in, int d,
                              const dpt_mesh *mesh) {
    int64_t n = reference_of(in, d)->numbers * in->data[d].samples;
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
static dpt_status measure(dpt_references *refs, const dpt_inputs *in, int d, dpt_passes *passes,
                          dpt_model *model, dpt_loss *loss) {
    const dpt_mesh *mesh = &passes->mesh;
    int64_t n = reference_of(in, d)->numbers * in->data[d].samples;
    char *path = cache_path(in, d);
    refs->logp[d] = dpt_mem_alloc(n, sizeof(double), "reference log-probabilities");
    dpt_status st = path != NULL && refs->logp[d] != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&mesh->world, st);
    dpt_passes_watch(passes, cache_key(in, d), in->job->data[d].name, loss);
    if (st == DPT_OK)
        st = reference_of(in, d)->measure(loss, mesh, model, refs->logp[d]);
    passes->counts.forward += st == DPT_OK;
    dpt_loss_set_keeper(loss, NULL);
    if (st == DPT_OK)
        st = dpt_cache_save(&mesh->world, path, cache_key(in, d), n, refs->logp[d]);
    if (st == DPT_OK)
        dpt_passes_forget(passes);
    dpt_mem_free(path);
    return st;
}

/* The reference, whose stored hashes have to be those of the bytes that are read. */
static dpt_status load_reference(const dpt_inputs *in, int d, const dpt_mesh *mesh,
                                 dpt_model **out) {
    dpt_store *store = in->reference[d];
    const dpt_catalog *catalog = dpt_store_catalog(store);
    const dpt_comm *world = &mesh->world;
    dpt_shard shard = {.ranks = 0};
    dpt_status st = dpt_agree(world, dpt_shard_create(catalog, world->size, &shard));
    if (st == DPT_OK)
        st = dpt_agree(world, dpt_store_check_begin(store, world, catalog, &shard, NULL, NULL));
    if (st == DPT_OK)
        st = dpt_agree(world, dpt_model_create(&mesh->model, &mesh->data, dpt_store_config(store),
                                               dpt_store_source(store), out));
    if (st == DPT_OK)
        st = dpt_agree(world, dpt_model_set_precision(*out, (dpt_precision)in->job->precision));
    if (st == DPT_OK)
        st = dpt_store_check_end(store, NULL);
    dpt_shard_destroy(&shard);
    return dpt_error_locate(st, in->job->data[d].reference);
}

static dpt_status measure_by_reference(dpt_references *refs, const dpt_inputs *in,
                                       const dpt_resources *res, int d, dpt_passes *passes) {
    const dpt_mesh *mesh = &passes->mesh;
    dpt_model *model = NULL;
    dpt_loss *loss = NULL;
    dpt_log(DPT_LOG_INFO, "%s: log-probabilities by the reference %s", in->job->data[d].name,
            in->job->data[d].reference);
    dpt_status st = load_reference(in, d, mesh, &model);
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world,
                       dpt_losses_create(in, d, mesh, model, res->batch_tokens, &loss));
    if (st == DPT_OK)
        st = measure(refs, in, d, passes, model, loss);
    dpt_loss_destroy(loss);
    dpt_model_destroy(model);
    return st;
}

dpt_status dpt_references_prepare(const dpt_inputs *in, const dpt_resources *res,
                                  dpt_passes *passes, dpt_references *out) {
    const dpt_mesh *mesh = &passes->mesh;
    *out = (dpt_references){.ndata = in->job->ndata};
    out->logp = dpt_mem_zalloc(out->ndata, sizeof *out->logp, "references");
    dpt_status st = dpt_agree(&mesh->world, out->logp != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int d = 0; d < out->ndata && st == DPT_OK; d++) {
        if (reference_of(in, d) == NULL)
            continue;
        st = load_cached(out, in, d, mesh);
        if (st == DPT_OK && out->logp[d] == NULL && in->reference[d] != NULL)
            st = measure_by_reference(out, in, res, d, passes);
    }
    return st;
}

dpt_status dpt_references_set(dpt_references *refs, const dpt_inputs *in, int d, dpt_passes *passes,
                              dpt_model *model, dpt_loss *loss) {
    dpt_status st = DPT_OK;
    if (refs->logp[d] == NULL)
        st = measure(refs, in, d, passes, model, loss);
    if (st == DPT_OK)
        st = dpt_agree(&passes->mesh.world, reference_of(in, d)->set(loss, refs->logp[d]));
    return dpt_error_locate(st, in->job->data[d].file);
}

void dpt_references_destroy(dpt_references *refs) {
    for (int d = 0; refs->logp != NULL && d < refs->ndata; d++)
        dpt_mem_free(refs->logp[d]);
    dpt_mem_free(refs->logp);
    *refs = (dpt_references){.ndata = 0};
}
