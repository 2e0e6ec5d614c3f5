#include "inputs.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/model/model.h"
#include "deltapath/store/quantise.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/tokenizer.h"
#include "tied_head.h"
#include "loss_kinds.h"

#include <inttypes.h>
#include <string.h>

static void log_lines(const char *report) {
    while (report != NULL && *report != '\0') {
        size_t length = strcspn(report, "\n");
        dpt_log(DPT_LOG_WARN, "%.*s", (int)length, report);
        report += length + (report[length] == '\n');
    }
}

/* Names of the post-trained model; others may have them too. */
static dpt_status inputs_rename(const dpt_job *job, dpt_store *store, bool all) {
    int idle;
    dpt_status st = dpt_store_rename(store, job->nrenames, job->renames, &idle);
    if (st == DPT_OK && all && idle >= 0)
        st = dpt_error(DPT_ERR_INPUT,
                       "models.rename: '%s' maps no name of the post-trained model: "
                       "`deltapath inspect` lists them",
                       job->renames[idle].from);
    return st;
}

static dpt_status inputs_pair(dpt_inputs *in) {
    char *report = NULL;
    dpt_pair_side pre = {.source = dpt_store_source(in->pre), .name = in->job->pre};
    dpt_pair_side post = {.source = dpt_store_source(in->post), .name = in->job->post};
    if (in->job->on_mismatch == DPT_MISMATCH_ROWS)
        post.tokens = &in->tokens;
    dpt_status st = dpt_model_config_head(dpt_store_config(in->pre), pre.source.catalog, &pre.head);
    if (st == DPT_OK)
        st = dpt_model_config_head(dpt_store_config(in->post), post.source.catalog, &post.head);
    if (st == DPT_OK)
        st = dpt_store_check_head(in->pre, &pre.head);
    if (st == DPT_OK)
        st = dpt_store_check_head(in->post, &post.head);
    if (st == DPT_OK)
        st = dpt_pair_create(&pre, &post, in->job->on_mismatch, &in->pair, &report);
    log_lines(report);
    dpt_mem_free(report);
    return st;
}

static dpt_status derive_output(dpt_inputs *in) {
    dpt_status st = dpt_catalog_copy(in->catalog, &in->out_catalog);
    for (int t = 0; t < in->catalog->count && st == DPT_OK; t++)
        if (!in->job->same_dtype && dpt_dtype_editable(in->catalog->tensors[t].dtype))
            in->out_catalog.tensors[t].dtype = in->job->dtype;
    return st;
}

bool dpt_inputs_keeps(const dpt_inputs *in, int tensor) {
    int t = tensor == in->copy.head ? in->copy.embedding : tensor;
    return in->job->content == DPT_STORE_MODEL || (in->selected[t] && in->pair.comparable[t]);
}

int64_t dpt_inputs_output_bytes(const dpt_inputs *in) {
    bool delta = in->job->content == DPT_STORE_DELTA;
    int64_t sum = 0;
    for (int t = 0; t < in->out_catalog.count; t++) {
        const dpt_tensor_info *info = &in->out_catalog.tensors[t];
        if (dpt_inputs_keeps(in, t))
            sum += info->numel * dpt_dtype_size(delta ? DPT_F32 : info->dtype);
    }
    return sum;
}

static dpt_status select_tensors(dpt_inputs *in) {
    in->selected = dpt_mem_zalloc(in->catalog->count, sizeof *in->selected, "selection");
    if (in->selected == NULL)
        return DPT_ERR_OUTPUT;
    return dpt_job_select(in->job, in->catalog, in->selected);
}

static dpt_status open_reference(const dpt_comm *comm, dpt_inputs *in, int d) {
    const char *path = in->job->data[d].reference;
    if (path == NULL || strcmp(path, in->job->post) == 0)
        return DPT_OK;
    dpt_status st = dpt_store_open_on(comm, path, in->job->pre, &in->reference[d]);
    if (st == DPT_OK)
        st = inputs_rename(in->job, in->reference[d], false);
    if (st == DPT_OK)
        st = dpt_store_check_usable(in->reference[d]);
    if (st == DPT_OK && dpt_store_config(in->reference[d]) == NULL)
        st = dpt_error(DPT_ERR_INPUT, "%s: has no config.json, which a reference needs: add it",
                       path);
    return st;
}

static dpt_status count_repeats(dpt_inputs *in, int d) {
    dpt_dataset *data = &in->data[d];
    dpt_status st = dpt_dataset_count_repeats(data);
    if (st == DPT_OK && data->repeats > 0)
        dpt_log(DPT_LOG_WARN,
                "%s: %" PRId64 " of %" PRId64
                " samples repeat others: intervals take them as independent",
                in->job->data[d].name, data->repeats, data->samples);
    return st;
}

/* Whether two data sets are the same samples under the same loss. */
static bool is_same_data(const dpt_inputs *in, int a, int b) {
    const dpt_job_data *x = &in->job->data[a], *y = &in->job->data[b];
    if (in->data[a].whole != in->data[b].whole || !dpt_job_same_loss(x, y))
        return false;
    if (dpt_loss_kind_of(x->loss)->reference == NULL)
        return true;
    const dpt_store *by_x = in->reference[a] != NULL ? in->reference[a] : in->post;
    const dpt_store *by_y = in->reference[b] != NULL ? in->reference[b] : in->post;
    return dpt_store_fingerprint(by_x) == dpt_store_fingerprint(by_y);
}

static dpt_status refuse_twice(const dpt_inputs *in) {
    const dpt_job_data *data = in->job->data;
    for (int b = 1; b < in->job->njudged; b++)
        for (int a = 0; a < b; a++)
            if (is_same_data(in, a, b))
                return dpt_error(DPT_ERR_INPUT,
                                 "data sets '%s' (%s) and '%s' (%s) are the same samples under the "
                                 "same loss, which would count twice in tables: leave one out",
                                 data[a].name, data[a].file, data[b].name, data[b].file);
    return DPT_OK;
}

/* Part the samples of an entry that choose from those that judge. */
static dpt_status split_data(dpt_inputs *in, int d) {
    const dpt_job_data *entry = &in->job->data[d];
    if (entry->other < 0)
        return DPT_OK;
    dpt_dataset *chosen = &in->data[entry->other];
    dpt_status st =
        dpt_dataset_split(&in->data[d], entry->choose, entry->choose_seed, entry->file, chosen);
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "%s: %" PRId64 " samples only choose, %" PRId64 " judge", entry->name,
                chosen->samples, in->data[d].samples);
    return st == DPT_OK ? count_repeats(in, entry->other) : st;
}

static dpt_status open_data(const dpt_comm *comm, dpt_inputs *in) {
    if (in->job->ndata == 0)
        return DPT_OK;
    in->data = dpt_mem_zalloc(in->job->ndata, sizeof *in->data, "data sets");
    in->reference = dpt_mem_zalloc(in->job->ndata, sizeof *in->reference, "reference models");
    bool complete = in->data != NULL && in->reference != NULL;
    dpt_status st = dpt_agree(comm, complete ? DPT_OK : DPT_ERR_OUTPUT);
    for (int d = 0; d < in->job->njudged && st == DPT_OK; d++) {
        st = dpt_dataset_read(comm, in->job->data[d].file,
                              dpt_loss_kind_of(in->job->data[d].loss)->data, &in->data[d]);
        if (st == DPT_OK && in->job->data[d].samples > 0)
            st = dpt_dataset_keep_first(&in->data[d], in->job->data[d].samples,
                                        in->job->data[d].file);
        if (st == DPT_OK)
            st = split_data(in, d);
        st = dpt_agree(comm, st);
        if (st == DPT_OK)
            st = dpt_agree(comm, count_repeats(in, d));
        if (st == DPT_OK)
            st = open_reference(comm, in, d);
        if (in->job->data[d].other >= 0)
            in->reference[in->job->data[d].other] = in->reference[d];
    }
    return st == DPT_OK ? refuse_twice(in) : st;
}

/* Tokens mean what the model's vocabulary says, and that of the references. */
static dpt_status compare_tokenizer(const dpt_inputs *in, int d, const dpt_tokenizer *model,
                                    const char *path) {
    const dpt_tokenizer *data = &in->data[d].tokenizer;
    const char *file = in->job->data[d].file;
    if (!data->known && model->known) {
        dpt_log(DPT_LOG_WARN,
                "%s: records no tokenizer: whether its tokens are those of %s is not checked: "
                "tools/prepare_data.py --tokenizer %s makes data that record it",
                file, path, path);
        return DPT_OK;
    }
    if (!data->known || !model->known) {
        dpt_log(DPT_LOG_INFO, "%s: %s: whether its tokens are those of %s is not checked", file,
                !data->known ? "records no tokenizer" : "the model has no tokenizer.json", path);
        return DPT_OK;
    }
    if (data->hash == model->hash)
        return DPT_OK;
    if (!in->job->allow_other_tokenizer)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: was made with another tokenizer (vocabulary %016" PRIx64
                         ") than that of %s (%016" PRIx64
                         "): make it again with tools/prepare_data.py --tokenizer %s, or write "
                         "`allow: [other-tokenizer]`",
                         file, data->hash, path, model->hash, path);
    dpt_log(DPT_LOG_WARN, "%s: was made with another tokenizer than that of %s, as the job allows",
            file, path);
    return DPT_OK;
}

/* A tokenizer of the same vocabulary may set other marks and split otherwise. A base model and one that was
 * trained from it may have rules of their own: those of either will do. */
static dpt_status compare_rules(const dpt_inputs *in, int d, const dpt_tokenizer *pre,
                                const dpt_tokenizer *post) {
    const dpt_tokenizer *data = &in->data[d].tokenizer;
    const char *file = in->job->data[d].file;
    if (!data->known || !post->known || data->hash != post->hash)
        return DPT_OK;
    if (!data->rules_known || (!pre->rules_known && !post->rules_known)) {
        dpt_log(DPT_LOG_INFO, "%s: %s: only the vocabulary of its tokenizer is checked", file,
                !data->rules_known ? "records no rules of its tokenizer"
                                   : "the rules of the models' tokenizers cannot be read");
        return DPT_OK;
    }
    if ((pre->rules_known && pre->rules == data->rules) ||
        (post->rules_known && post->rules == data->rules))
        return DPT_OK;
    if (!in->job->allow_other_tokenizer)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: was made with a tokenizer of the same vocabulary and other rules "
                         "(marks at the start and end, normalizer, pre-tokenizer, post-processor, "
                         "added tokens) than those of %s and %s: make it again with "
                         "tools/prepare_data.py --tokenizer %s, or write `allow: "
                         "[other-tokenizer]`",
                         file, in->job->pre, in->job->post, in->job->post);
    dpt_log(DPT_LOG_WARN,
            "%s: was made with a tokenizer of other rules than those of %s and %s, as the job "
            "allows",
            file, in->job->pre, in->job->post);
    return DPT_OK;
}

static dpt_status check_tokenizers(const dpt_comm *comm, const dpt_inputs *in) {
    dpt_tokenizer pre, post, reference;
    bool tokens = false;
    for (int d = 0; d < in->job->ndata; d++)
        tokens = tokens || in->data[d].tokens != NULL;
    if (!tokens || !dpt_inputs_needs_model(in))
        return DPT_OK;
    dpt_status st = dpt_tokenizer_of_store(comm, in->pre, &pre);
    if (st == DPT_OK)
        st = dpt_tokenizer_of_store(comm, in->post, &post);
    if (st == DPT_OK && pre.known && post.known && pre.hash != post.hash)
        dpt_log(
            DPT_LOG_WARN,
            "%s and %s have different tokenizers: the losses of both are taken on the tokens of "
            "the data, as the post-trained model reads them",
            in->job->pre, in->job->post);
    for (int d = 0; d < in->job->njudged && st == DPT_OK; d++) {
        if (in->data[d].tokens == NULL)
            continue;
        st = compare_tokenizer(in, d, &post, in->job->post);
        if (st == DPT_OK)
            st = compare_rules(in, d, &pre, &post);
        if (st == DPT_OK && in->reference[d] != NULL)
            st = dpt_tokenizer_of_store(comm, in->reference[d], &reference);
        if (st == DPT_OK && in->reference[d] != NULL)
            st = compare_tokenizer(in, d, &reference, in->job->data[d].reference);
    }
    return st;
}

uint64_t dpt_inputs_data_key(const dpt_inputs *in, int d) {
    uint64_t reference = in->reference[d] != NULL ? dpt_store_fingerprint(in->reference[d]) : 0;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, &in->data[d].hash, sizeof in->data[d].hash);
    dpt_hash_update(&hash, &reference, sizeof reference);
    dpt_job_hash_data(&in->job->data[d], &hash);
    return dpt_hash_value(&hash);
}

/* Of both models, and of which names pair where a job says so. */
static uint64_t inputs_fingerprint(const dpt_inputs *in) {
    uint64_t both[2] = {dpt_store_fingerprint(in->pre), dpt_store_fingerprint(in->post)};
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, both, sizeof both);
    for (int r = 0; r < in->job->nrenames; r++) {
        const dpt_rename *rename = &in->job->renames[r];
        dpt_hash_update(&hash, rename->from, strlen(rename->from) + 1);
        dpt_hash_update(&hash, rename->to, strlen(rename->to) + 1);
    }
    if (in->tokens.post > 0)
        dpt_hash_update(&hash, in->tokens.pre_of,
                        (size_t)in->tokens.post * sizeof *in->tokens.pre_of);
    return dpt_hash_value(&hash);
}

dpt_status dpt_inputs_open(const dpt_comm *comm, const dpt_job *job, dpt_inputs *out) {
    DPT_ASSERT_SAME_TEXT(comm, job->text);
    *out = (dpt_inputs){.job = job, .copy = {.head = -1, .embedding = -1}};
    dpt_status st = dpt_store_open(comm, job->pre, &out->pre);
    if (st == DPT_OK)
        st = dpt_store_open_on(comm, job->post, job->pre, &out->post);
    if (st == DPT_OK && job->on_mismatch == DPT_MISMATCH_ROWS)
        st = dpt_tokenizer_pair_rows(comm, out->pre, out->post, &out->tokens);
    if (st == DPT_OK) {
        out->catalog = dpt_store_catalog(out->post);
        st = inputs_rename(job, out->post, true);
        if (st == DPT_OK)
            st = inputs_rename(job, out->pre, false);
        if (st == DPT_OK)
            st = dpt_store_check_usable(out->pre);
        if (st == DPT_OK)
            st = dpt_store_check_usable(out->post);
        if (st == DPT_OK && job->requantises)
            st = dpt_quantiser_check(out->post);
        if (st == DPT_OK)
            st = inputs_pair(out);
        if (st == DPT_OK)
            st = select_tensors(out);
        if (st == DPT_OK)
            st = derive_output(out);
        if (st == DPT_OK)
            st = dpt_parts_create(out->catalog, dpt_store_heads(out->post), &out->parts);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK)
        st = open_data(comm, out);
    if (st == DPT_OK)
        st = check_tokenizers(comm, out);
    if (st == DPT_OK && dpt_inputs_needs_model(out) && dpt_store_config(out->post) == NULL)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: has no config.json, which gradients need: add it, or write `riemann: "
                       "off` to edit alone",
                       job->post);
    if (st == DPT_OK)
        st = dpt_tied_head_check(comm, out);
    if (st != DPT_OK) {
        dpt_inputs_close(out);
        return st;
    }
    out->fingerprint = inputs_fingerprint(out);
    return DPT_OK;
}

void dpt_inputs_close(dpt_inputs *inputs) {
    for (int d = 0; inputs->data != NULL && d < inputs->job->ndata; d++)
        dpt_dataset_destroy(&inputs->data[d]);
    for (int d = 0; inputs->reference != NULL && d < inputs->job->njudged; d++)
        if (inputs->reference[d] != NULL)
            dpt_store_close(inputs->reference[d]);
    dpt_mem_free(inputs->reference);
    dpt_mem_free(inputs->data);
    dpt_mem_free(inputs->selected);
    dpt_pair_destroy(&inputs->pair);
    dpt_token_rows_destroy(&inputs->tokens);
    dpt_parts_destroy(&inputs->parts);
    dpt_catalog_destroy(&inputs->out_catalog);
    if (inputs->post != NULL)
        dpt_store_close(inputs->post);
    if (inputs->pre != NULL)
        dpt_store_close(inputs->pre);
    *inputs = (dpt_inputs){.job = NULL};
}

bool dpt_inputs_needs_model(const dpt_inputs *inputs) {
    return inputs->job->riemann && inputs->job->ndata > 0;
}

dpt_status dpt_inputs_check_unchanged(const dpt_comm *comm, const dpt_inputs *in, bool headers) {
    dpt_status st = dpt_store_check_unchanged(comm, in->pre, headers);
    if (st == DPT_OK)
        st = dpt_store_check_unchanged(comm, in->post, headers);
    for (int d = 0; d < in->job->ndata && st == DPT_OK; d++) {
        st = dpt_dataset_check_unchanged(comm, &in->data[d], in->job->data[d].file);
        if (st == DPT_OK && in->reference[d] != NULL)
            st = dpt_store_check_unchanged(comm, in->reference[d], headers);
    }
    return st;
}

/* What a study reads of a model besides what an edit leaves alone: losses take all of it, an edited model has
 * all of post, and edits alone look at what is selected of pre. */
static bool is_read(const dpt_inputs *in, bool post, int t) {
    return post ||
           ((in->selected[t] || dpt_inputs_needs_model(in)) && dpt_pair_partner(&in->pair, t) >= 0);
}

bool dpt_inputs_leaves(const dpt_inputs *in, int tensor) {
    bool whole = dpt_inputs_needs_model(in) || in->job->requantises;
    bool kept = in->job->checkpoint != DPT_STORE_NONE && dpt_inputs_keeps(in, tensor);
    return !whole && !kept && !in->selected[tensor];
}

static bool is_held(const dpt_inputs *in, bool post, int tensor) {
    return is_read(in, post, tensor) && !dpt_inputs_leaves(in, tensor);
}

/* What edits go over in cells of one of the models, whose cells are those of a shard. @param[out] cut  of its catalog. */
static dpt_store_holding inputs_holding(const dpt_inputs *in, bool post, const dpt_shard *shard,
                                        dpt_shard *cut, bool *wanted) {
    *cut = *shard;
    cut->catalog = post ? in->catalog : &in->pair.catalog;
    for (int t = 0; t < in->catalog->count; t++)
        wanted[t] = is_held(in, post, t);
    return (dpt_store_holding){
        .how = in->job->reading, .shard = cut, .pair = post ? NULL : &in->pair, .wanted = wanted};
}

dpt_status dpt_inputs_hold_needs(const dpt_inputs *in, const dpt_shard *shard,
                                 dpt_store_hold_needs *out) {
    bool *wanted = dpt_mem_alloc(in->catalog->count, sizeof *wanted, "tensors to hold");
    dpt_status st = wanted != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    *out = (dpt_store_hold_needs){.kept = 0};
    for (int i = 0; i < 2 && st == DPT_OK; i++) {
        dpt_store_hold_needs one;
        dpt_shard cut;
        dpt_store_holding what = inputs_holding(in, i == 1, shard, &cut, wanted);
        st = dpt_store_hold_bytes(i == 1 ? in->post : in->pre, &what, &one);
        out->kept += one.kept;
        out->besides = one.besides > out->besides ? one.besides : out->besides;
        out->read += one.read;
    }
    dpt_mem_free(wanted);
    return st;
}

dpt_status dpt_inputs_hold(const dpt_comm *comm, const dpt_inputs *in, const dpt_shard *shard) {
    bool *wanted = dpt_mem_alloc(in->catalog->count, sizeof *wanted, "tensors to hold");
    dpt_status st = dpt_agree(comm, wanted != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int i = 0; i < 2 && st == DPT_OK; i++) {
        dpt_shard cut;
        dpt_store_holding what = inputs_holding(in, i == 1, shard, &cut, wanted);
        st = dpt_store_hold(i == 1 ? in->post : in->pre, comm, &what);
    }
    dpt_mem_free(wanted);
    return st;
}

bool dpt_inputs_holds(const dpt_inputs *in, bool post, int tensor) {
    const dpt_catalog *catalog = post ? in->catalog : &in->pair.catalog;
    return is_held(in, post, tensor) && dpt_store_holds(post ? in->post : in->pre, in->job->reading,
                                                        catalog, post ? NULL : &in->pair, tensor);
}

bool dpt_inputs_hashes(const dpt_inputs *in, bool post, int t) {
    uint64_t hash;
    return is_read(in, post, t) &&
           !(dpt_inputs_leaves(in, t) && dpt_store_stored_hash(in->post, t, &hash));
}

/* Of a tensor of one of the models. */
static dpt_store_hashing hashing_of(const dpt_inputs *in, bool post, int t) {
    int partner = post ? t : dpt_pair_partner(&in->pair, t);
    uint64_t hash;
    if (partner >= 0 && (dpt_inputs_leaves(in, t) || !is_read(in, post, t)) &&
        dpt_store_stored_hash(post ? in->post : in->pre, partner, &hash))
        return DPT_STORE_TRUSTED; /* of pre it is in no digest either */
    return is_read(in, post, t) ? DPT_STORE_MADE : DPT_STORE_COMPARED;
}

dpt_status dpt_inputs_check_begin(const dpt_comm *comm, dpt_inputs *in, const dpt_shard *shard) {
    dpt_store_hashing *how = dpt_mem_alloc(in->catalog->count, sizeof *how, "tensors to hash");
    dpt_status st = how != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int t = 0; t < in->catalog->count && st == DPT_OK; t++)
        how[t] = hashing_of(in, false, t);
    if (st == DPT_OK)
        st = dpt_store_check_begin(in->pre, comm, &in->pair.catalog, shard, &in->pair, how);
    for (int t = 0; t < in->catalog->count && st == DPT_OK; t++)
        how[t] = hashing_of(in, true, t);
    if (st == DPT_OK)
        st = dpt_store_check_begin(in->post, comm, in->catalog, shard, NULL, how);
    dpt_mem_free(how);
    return dpt_agree(comm, st);
}

/* hashes: (tensors of post). */
static uint64_t inputs_digest_of(const dpt_inputs *in, bool post, const uint64_t *hashes) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int t = 0; t < in->catalog->count; t++) {
        const char *name = in->catalog->tensors[t].name;
        if (!is_read(in, post, t))
            continue;
        dpt_hash_update(&hash, name, strlen(name) + 1);
        dpt_hash_update(&hash, &hashes[t], sizeof hashes[t]);
    }
    return dpt_hash_value(&hash);
}

dpt_status dpt_inputs_check_end(const dpt_comm *comm, dpt_inputs *in) {
    dpt_store *const stores[] = {in->pre, in->post};
    uint64_t *hashes = dpt_mem_zalloc(in->catalog->count, sizeof *hashes, "hashes of a model");
    dpt_status st = dpt_agree(comm, hashes != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int i = 0; i < 2 && st == DPT_OK; i++) {
        st = dpt_store_check_end(stores[i], hashes);
        in->digest[i] = st == DPT_OK ? inputs_digest_of(in, i == 1, hashes) : 0;
    }
    dpt_mem_free(hashes);
    return st;
}

dpt_status dpt_inputs_set_digest(dpt_inputs *in, const uint64_t *pre, const uint64_t *post) {
    uint64_t *paired = dpt_mem_zalloc(in->catalog->count, sizeof *paired, "hashes of a model");
    if (paired == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < in->catalog->count; t++)
        if (dpt_pair_partner(&in->pair, t) >= 0)
            paired[t] = pre[dpt_pair_partner(&in->pair, t)];
    in->digest[0] = inputs_digest_of(in, false, paired);
    in->digest[1] = inputs_digest_of(in, true, post);
    dpt_mem_free(paired);
    return DPT_OK;
}
