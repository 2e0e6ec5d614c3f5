#include "outputs.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/owned.h"
#include "deltapath/study/directory_lock.h"
#include "existing.h"
#include "recipe.h"
#include "shared.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static json_t *hex(uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_string(text);
}

/* JSON has no unsigned numbers: a seed beyond the signed ones is given as text. */
static json_t *seed_of(const dpt_job_edit *edit) {
    char text[24];
    if (edit->spec.seed <= INT64_MAX)
        return json_integer((json_int_t)edit->spec.seed);
    snprintf(text, sizeof text, "%" PRIu64, edit->spec.seed);
    return json_string(text);
}

static json_t *describe_inputs(const dpt_inputs *in) {
    json_t *inputs = json_object();
    json_t *data = json_object();
    json_object_set_new(inputs, "pre", json_string(in->job->pre));
    json_object_set_new(inputs, "pre_fingerprint", hex(dpt_store_fingerprint(in->pre)));
    json_object_set_new(inputs, "post", json_string(in->job->post));
    json_object_set_new(inputs, "post_fingerprint", hex(dpt_store_fingerprint(in->post)));
    for (int d = 0; d < in->job->ndata; d++)
        json_object_set_new(data, in->job->data[d].name, hex(in->data[d].hash));
    json_object_set_new(inputs, "data_xxh3", data);
    json_t *references = json_object();
    for (int d = 0; d < in->job->njudged; d++)
        if (in->reference[d] != NULL)
            json_object_set_new(references, in->job->data[d].name,
                                hex(dpt_store_fingerprint(in->reference[d])));
    if (json_object_size(references) > 0)
        json_object_set(inputs, "reference_fingerprints", references);
    json_decref(references);
    return inputs;
}

static char *outputs_print_json(json_t *object) {
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    char *copy = dpt_mem_strdup(text, "provenance");
    free(text);
    json_decref(object);
    return copy;
}

static char *study_provenance(const dpt_inputs *in, const dpt_resources *res) {
    char started[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_t *object = json_object();
    json_object_set_new(object, "program", json_string("deltapath " DPT_VERSION));
    json_object_set_new(object, "started", json_string(started));
    json_object_set_new(object, "ranks", json_integer(res->ranks));
    json_object_set_new(object, "tensor_parallel", json_integer(res->tensor_parallel));
    json_object_set_new(object, "inputs", describe_inputs(in));
    json_t *seeds = json_object();
    for (int e = 0; e < in->job->nedits; e++)
        json_object_set_new(seeds, in->job->edits[e].id, seed_of(&in->job->edits[e]));
    json_object_set_new(object, "seeds", seeds);
    json_object_set_new(object, "job", json_string(in->job->text));
    return outputs_print_json(object);
}

/* Values that a study found for the tensors of a model, null where one keeps its delta. */
static json_t *outputs_values(const dpt_inputs *in, const double *values) {
    json_t *object = json_object();
    for (int t = 0; t < in->catalog->count; t++)
        json_object_set_new(object, in->catalog->tensors[t].name,
                            isnan(values[t]) ? json_null() : json_real(values[t]));
    return object;
}

static char *model_provenance(const dpt_inputs *in, const dpt_job_edit *edit,
                              const dpt_edit_spec *spec) {
    json_t *object = json_object();
    json_object_set_new(object, "program", json_string("deltapath " DPT_VERSION));
    json_object_set_new(object, "study", json_string(in->job->name));
    json_object_set_new(object, "edit", json_string(edit->id));
    json_object_set_new(object, "method", json_string(edit->method));
    json_object_set_new(object, "parameters", json_string(edit->params));
    json_object_set_new(object, "seed", seed_of(edit));
    if (spec->stages[0].tensor_values != NULL)
        json_object_set_new(object, "values", outputs_values(in, spec->stages[0].tensor_values));
    json_object_set_new(object, "inputs", describe_inputs(in));
    json_object_set_new(object, "recipe", hex(dpt_recipe_of(in, edit)));
    json_object_set_new(object, "job", json_string(in->job->recipe));
    return outputs_print_json(object);
}

dpt_status dpt_outputs_make_directory(const char *path) {
    char *copy = dpt_mem_strdup(path, "directory name");
    if (copy == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = DPT_OK;
    for (char *slash = copy + 1; st == DPT_OK; slash++) {
        slash += strcspn(slash, "/");
        bool last = *slash == '\0';
        *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: cannot be made: %s: check the permissions of the folder above",
                           copy, strerror(errno));
        if (last)
            break;
        *slash = '/';
    }
    if (st == DPT_OK && access(path, W_OK | X_OK) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: %s: choose another directory", path,
                       strerror(errno));
    dpt_mem_free(copy);
    return st;
}

/* @param[in] left  what an output.overwrite that was killed left of it, or NULL. */
static dpt_status refuse_study(const dpt_job *job, const char *left) {
    if (left != NULL)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: is of a study that an output.overwrite moved aside and was killed "
                         "before it replaced it: give --resume or output.overwrite=true to go on, "
                         "both bring it back first, or choose another directory",
                         left);
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: holds a study already: give --resume to go on with it, set "
                     "output.overwrite=true to replace it, or choose another directory",
                     job->directory);
}

/* The folder that there is already on the way to a path. Allocated; NULL without memory. */
static char *find_folder(const char *path) {
    char *folder = dpt_mem_strdup(path[0] != '\0' ? path : ".", "directory name");
    while (folder != NULL && access(folder, F_OK) != 0) {
        char *slash = strrchr(folder, '/');
        if (slash == NULL || slash == folder)
            memcpy(folder, slash == NULL ? "." : "/", 2);
        else
            *slash = '\0';
    }
    return folder;
}

/* Bytes of the edited models that are still to be written; of those that are replaced, the first `together` come
 * before the old ones go. */
static double bytes_to_come(const dpt_inputs *in, bool replaces, int together) {
    double each = (double)dpt_inputs_output_bytes(in), first = each * together, sum = 0;
    const dpt_store_layout layout = dpt_job_layout(in->job);
    double stage = dpt_store_layout_stages(&layout) ? first : 0;
    for (int e = 0; in->job->checkpoint != DPT_STORE_NONE && e < in->job->nedits; e++) {
        char *path = dpt_outputs_model_path(in->job, &in->job->edits[e]);
        sum += path != NULL && access(path, F_OK) == 0 ? 0 : each;
        dpt_mem_free(path);
    }
    if (replaces && sum < first && in->job->checkpoint != DPT_STORE_NONE)
        sum = first;
    return sum > 0 ? sum + stage : sum;
}

/* The directory is no place among the files of others, nor are the folders in it, which may be links. */
static dpt_status outputs_check_places(const char *directory) {
    static const char *const folders[] = {"units", "models", "references", "progress"};
    dpt_status st = dpt_owned_check_place(directory);
    for (size_t i = 0; i < sizeof folders / sizeof *folders && st == DPT_OK; i++) {
        char *path = dpt_mem_format("%s/%s", directory, folders[i]);
        st = path != NULL ? dpt_owned_check_part(path) : DPT_ERR_OUTPUT;
        dpt_mem_free(path);
    }
    return st;
}

dpt_status dpt_outputs_check(const dpt_inputs *in, const dpt_resources *resources,
                             const dpt_study_options *options) {
    const dpt_job *job = in->job;
    struct statvfs space;
    dpt_status st = DPT_OK;
    bool other_run = options->dry_run && options->plan_ranks > 0;
    bool occupied = false;
    char *left = NULL;
    dpt_guard_leave(job->directory); /* this run begins */
    st = dpt_existing_check(job, job->overwrite && !options->resume, &occupied, &left);
    if (st == DPT_OK)
        st = outputs_check_places(job->directory);
    if (st == DPT_OK && occupied && !options->resume && !job->overwrite && !other_run)
        st = refuse_study(job, left);
    dpt_mem_free(left);
    if (st != DPT_OK)
        return st;
    char *folder = find_folder(job->directory);
    if (folder == NULL)
        return DPT_ERR_OUTPUT;
    bool replaces = occupied && job->overwrite && !options->resume;
    double need = bytes_to_come(in, replaces, resources->together);
    struct stat info;
    if (stat(folder, &info) == 0 && !S_ISDIR(info.st_mode))
        st = dpt_error(DPT_ERR_OUTPUT, "%s: is no directory: choose another one", folder);
    else if (access(folder, W_OK | X_OK) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: %s: choose another directory",
                       folder, strerror(errno));
    else if (statvfs(folder, &space) == 0 && need > (double)space.f_bavail * (double)space.f_frsize)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: the edited models need %.3f GB but %s has %.3f GB left: make room, "
                       "choose another directory, or keep fewer checkpoints",
                       job->directory, need / 1e9, folder,
                       (double)space.f_bavail * (double)space.f_frsize / 1e9);
    dpt_mem_free(folder);
    return st;
}

static dpt_status prepare_directory(const dpt_job *job, bool resume, dpt_existing **replaced) {
    dpt_status st = dpt_outputs_make_directory(job->directory);
    if (st == DPT_OK)
        st = dpt_directory_lock(job->directory);
    char *models = dpt_mem_format("%s/models", job->directory);
    if (st == DPT_OK)
        st = models != NULL ? dpt_directory_lock_models(models) : DPT_ERR_OUTPUT;
    bool occupied = false;
    char *left = NULL;
    if (st == DPT_OK)
        st = dpt_existing_check(job, job->overwrite && !resume, &occupied, &left);
    if (st == DPT_OK && occupied && !resume)
        st = job->overwrite ? dpt_existing_remember(job, replaced) : refuse_study(job, left);
    dpt_mem_free(left);
    if (st == DPT_OK && job->checkpoint != DPT_STORE_NONE) {
        st = dpt_outputs_make_directory(models);
        if (st == DPT_OK)
            st = dpt_directory_lock_models(models); /* it was made just now */
    }
    dpt_mem_free(models);
    return st;
}

/* A model of an edit of this job, at a place to which this run does not write. */
static void warn_if_stale(const dpt_inputs *in, const dpt_job_edit *edit, const char *path) {
    dpt_store_origin origin;
    char recipe[17];
    bool ours = access(path, F_OK) == 0 &&
                dpt_owned_check_model(path, edit->id, in->job->name) == DPT_OK &&
                dpt_store_get_origin(path, &origin) == DPT_OK;
    dpt_error_clear();
    if (!ours)
        return;
    dpt_hash_format(dpt_recipe_of(in, edit), recipe);
    if (strcmp(origin.recipe, recipe) != 0)
        dpt_log(DPT_LOG_WARN,
                "%s: is not the model that the results of %s will be about, and this job does not "
                "write it again: remove it, or set output.checkpoint",
                path, edit->id);
}

static void warn_of_stale_models(const dpt_inputs *in) {
    for (int e = 0; e < in->job->nedits; e++)
        for (int format = DPT_STORE_WRITTEN - 1; format > DPT_STORE_NONE; format--) {
            const dpt_job_edit *edit = &in->job->edits[e];
            char *path = dpt_mem_format("%s/models/%s%s", in->job->directory, edit->id,
                                        dpt_store_format_ending((dpt_store_format)format));
            if (path != NULL && (int)in->job->checkpoint != format)
                warn_if_stale(in, edit, path);
            dpt_mem_free(path);
        }
}

dpt_status dpt_outputs_open(const dpt_comm *comm, const dpt_inputs *inputs,
                            const dpt_resources *resources, const dpt_study_options *options,
                            dpt_outputs *out) {
    const dpt_catalog *catalog = inputs->catalog;
    *out =
        (dpt_outputs){.job = inputs->job, .replaces = inputs->job->overwrite && !options->resume};
    dpt_status st = DPT_OK;
    if (comm->rank == 0)
        st = prepare_directory(inputs->job, options->resume, &out->replaced);
    if (comm->rank == 0 && st == DPT_OK && options->resume)
        warn_of_stale_models(inputs);
    out->tensor_names = dpt_mem_zalloc(catalog->count, sizeof *out->tensor_names, "tensor names");
    out->tensor_numel = dpt_mem_zalloc(catalog->count, sizeof *out->tensor_numel, "tensor sizes");
    out->provenance = study_provenance(inputs, resources);
    dpt_results_matrices matrices;
    st = dpt_status_worse(st, dpt_results_matrices_create(catalog, &inputs->parts, &matrices));
    out->study.matrices = matrices;
    if (out->tensor_names == NULL || out->tensor_numel == NULL || out->provenance == NULL)
        st = dpt_status_worse(st, DPT_ERR_OUTPUT);
    st = dpt_agree(comm, st);
    /* All ranks write their parts of passes into it. */
    if (st == DPT_OK && comm->rank != 0) {
        dpt_guard_leave(inputs->job->directory);
        st = dpt_guard_enter(inputs->job->directory);
    }
    st = dpt_agree(comm, st);
    if (st != DPT_OK) {
        dpt_outputs_close(out);
        return st;
    }
    for (int t = 0; t < catalog->count; t++) {
        out->tensor_names[t] = catalog->tensors[t].name;
        out->tensor_numel[t] = catalog->tensors[t].numel;
    }
    out->study = (dpt_results_study){.matrices = matrices,
                                     .name = inputs->job->name,
                                     .directory = inputs->job->directory,
                                     .tensors = catalog->count,
                                     .tensor_names = out->tensor_names,
                                     .tensor_numel = out->tensor_numel,
                                     .provenance = out->provenance,
                                     .job = inputs->job->text};
    return DPT_OK;
}

dpt_status dpt_outputs_check_moved(const dpt_comm *comm, const dpt_outputs *outputs) {
    return dpt_agree(comm,
                     comm->rank == 0 ? dpt_guard_check_moved(outputs->job->directory) : DPT_OK);
}

dpt_status dpt_outputs_replace(const dpt_comm *comm, dpt_outputs *outputs) {
    dpt_status st = dpt_outputs_check_moved(comm, outputs);
    if (st != DPT_OK || !outputs->replaces)
        return st;
    return dpt_agree(comm, outputs->replaced != NULL
                               ? dpt_existing_move(outputs->job, outputs->replaced)
                               : DPT_OK);
}

void dpt_outputs_conclude(dpt_outputs *outputs, dpt_status agreed) {
    if (!outputs->replaces || agreed != DPT_OK)
        return; /* the earlier study comes back when the outputs are closed */
    outputs->replaces = false;
    if (outputs->replaced != NULL)
        dpt_existing_remove(outputs->job, outputs->replaced);
}

void dpt_outputs_close(dpt_outputs *outputs) {
    dpt_existing_forget(outputs->replaced);
    dpt_results_matrices_destroy(&outputs->study.matrices);
    dpt_mem_free(outputs->tensor_names);
    dpt_mem_free(outputs->tensor_numel);
    dpt_mem_free(outputs->provenance);
    *outputs = (dpt_outputs){.job = NULL};
}

dpt_status dpt_outputs_set_digests(dpt_outputs *outputs, const uint64_t digests[2]) {
    static const char *const keys[] = {"pre_digest", "post_digest"};
    json_t *object = json_loads(outputs->provenance, 0, NULL);
    for (int i = 0; i < 2; i++)
        if (digests[i] != 0)
            json_object_set_new(json_object_get(object, "inputs"), keys[i], hex(digests[i]));
    char *text = object != NULL ? outputs_print_json(object) : NULL;
    if (text == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "no memory for the provenance: " DPT_MEM_REMEDY);
    dpt_mem_free(outputs->provenance);
    outputs->study.provenance = outputs->provenance = text;
    return DPT_OK;
}

int dpt_outputs_unit_data(const dpt_inputs *in, int unit) {
    return dpt_inputs_needs_model(in) ? unit : -1;
}

const char *dpt_outputs_data_name(const dpt_job *job, int d) {
    return d >= 0 ? job->data[d].name : "";
}

dpt_results_study dpt_outputs_unit_study(const dpt_outputs *outputs, const dpt_inputs *in,
                                         const dpt_job_edit *edit, int d) {
    const dpt_job *job = in->job;
    uint64_t data = 0;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, DPT_VERSION, sizeof DPT_VERSION);
    dpt_hash_update(&hash, &in->fingerprint, sizeof in->fingerprint);
    dpt_hash_update(&hash, in->selected, (size_t)in->catalog->count * sizeof *in->selected);
    dpt_job_hash_for_units(job, &hash);
    dpt_job_hash_edit(edit, &hash);
    if (dpt_job_leaves_out(job, edit)) { /* units of other edits stay as they are */
        const uint64_t proof[] = {(uint64_t)job->proof.groups, job->proof.alone};
        dpt_hash_update(&hash, proof, sizeof proof);
    }
    if (edit->gradient_data >= 0 && dpt_inputs_needs_model(in))
        dpt_hash_update(&hash, &in->data[edit->gradient_data].hash, sizeof(uint64_t));
    if (edit->auto_data >= 0)
        dpt_hash_update(&hash, &in->data[edit->auto_data].hash, sizeof(uint64_t));
    if (d >= 0)
        data = dpt_inputs_data_key(in, d);
    dpt_hash_update(&hash, &data, sizeof data);
    dpt_results_study study = outputs->study;
    study.key = dpt_hash_value(&hash);
    study.recipe = dpt_recipe_of(in, edit);
    memcpy(study.inputs, in->digest, sizeof study.inputs);
    return study;
}

char *dpt_outputs_model_path(const dpt_job *job, const dpt_job_edit *edit) {
    return dpt_mem_format("%s/models/%s%s", job->directory, edit->id,
                          dpt_store_format_ending(job->checkpoint));
}

static dpt_status outputs_check_replaced(const dpt_job *job, const char *model) {
    dpt_status st = dpt_owned_check_weights(model);
    if (st == DPT_OK)
        st = dpt_shared_check(job, model);
    return st == DPT_OK ? dpt_owned_check_removable(model) : st;
}

dpt_status dpt_outputs_has_model(const dpt_comm *comm, const dpt_inputs *in,
                                 const dpt_job_edit *edit, bool *found, uint64_t *digest) {
    char *path = dpt_outputs_model_path(in->job, edit);
    dpt_status st = dpt_agree(comm, path != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    *found = false;
    if (st == DPT_OK)
        st = dpt_recipe_find_model(comm, path, dpt_recipe_of(in, edit), found, digest);
    /* What is made again must be as it was written: known before hours of work. */
    if (st == DPT_OK && !*found)
        st = dpt_agree(comm, comm->rank == 0 ? outputs_check_replaced(in->job, path) : DPT_OK);
    dpt_mem_free(path);
    return st;
}

/* What says of a part of a model that it is no model: whoever reads it sees of which it is, and of what. */
static char *part_metadata(const dpt_inputs *in) {
    bool delta = in->job->content == DPT_STORE_DELTA;
    json_t *object = json_object();
    json_object_set_new(object, "format", json_string("pt"));
    json_object_set_new(object, "deltapath.content", json_string(delta ? "delta" : "selected"));
    json_object_set_new(object, "deltapath.base",
                        json_string(delta ? in->job->pre : in->job->post));
    return outputs_print_json(object);
}

/* Without configuration and tokenizer: nobody is to load it as a model. */
static dpt_status choose_part(const dpt_inputs *in, char *metadata, const dpt_source *pre,
                              bool *kept, dpt_store_options *options) {
    if (metadata == NULL || kept == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < in->catalog->count; t++)
        kept[t] = dpt_inputs_keeps(in, t);
    options->content = in->job->content;
    options->kept = kept;
    options->pre = pre;
    options->config = NULL;
    options->companions = NULL;
    options->metadata = metadata;
    return DPT_OK;
}

dpt_status dpt_outputs_create_model(const dpt_comm *comm, const dpt_inputs *in,
                                    const dpt_job_edit *edit, const dpt_edit_spec *spec,
                                    const dpt_shard *shard, const dpt_quantiser *quantiser,
                                    dpt_store_writer **out) {
    *out = NULL;
    char *path = dpt_outputs_model_path(in->job, edit);
    char *provenance = model_provenance(in, edit, spec);
    bool part = in->job->content != DPT_STORE_MODEL;
    char *metadata = part ? part_metadata(in) : NULL;
    bool *kept = part ? dpt_mem_zalloc(in->catalog->count, sizeof *kept, "selection") : NULL;
    dpt_source pre = dpt_pair_source((dpt_pair *)(uintptr_t)&in->pair);
    dpt_status st = path != NULL && provenance != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_store_options options = {.format = in->job->checkpoint,
                                 .config = dpt_store_config(in->post),
                                 .metadata = dpt_store_metadata(in->post),
                                 .provenance = provenance,
                                 .companions = in->post,
                                 .layout = dpt_job_layout(in->job),
                                 .overwrite = true,
                                 .owner = edit->id,
                                 .study = in->job->name};
    if (st == DPT_OK && part)
        st = choose_part(in, metadata, &pre, kept, &options);
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        const dpt_catalog *catalog = &in->out_catalog;
        if (quantiser != NULL) {
            options.config = dpt_quantiser_config(quantiser);
            catalog = dpt_quantiser_catalog(quantiser);
            shard = dpt_quantiser_shard(quantiser);
        }
        const dpt_tensor_info *tensors = in->out_catalog.tensors;
        dpt_tied_head copy = {.tied = in->copy.head >= 0};
        if (copy.tied) { /* plain tensors keep their names */
            copy.head = dpt_catalog_find(catalog, tensors[in->copy.head].name);
            copy.embedding = dpt_catalog_find(catalog, tensors[in->copy.embedding].name);
            options.copy = &copy;
        }
        st = dpt_store_create(comm, path, catalog, shard, &options, out);
    }
    dpt_mem_free(kept);
    dpt_mem_free(metadata);
    dpt_mem_free(provenance);
    dpt_mem_free(path);
    return st;
}
