#include "adapter.h"

#include "deltapath/base/log.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"

#include <string.h>

/* Rank 0: the headers of an adapter and of its base. */

static const int64_t ADAPTER_CONFIG_LIMIT = 1 << 24;

/* The base: the model that the adapter names where it lies here, else the one that is given. */
static dpt_status adapter_choose_base(const char *path, const char *text, const char *given,
                                      char **base) {
    json_t *root = json_loads(text, 0, NULL);
    const char *named = json_string_value(json_object_get(root, "base_model_name_or_path"));
    const char *chosen = named != NULL && dpt_path_is_directory(named) ? named : given;
    dpt_status st = DPT_OK;
    if (chosen == named && given != NULL && chosen != NULL && strcmp(named, given) != 0)
        dpt_log(
            DPT_LOG_WARN,
            "%s: the adapter is added to the base that its adapter_config.json names, %s, not to "
            "%s: change base_model_name_or_path there for another one",
            path, named, given);
    if (chosen != NULL) {
        *base = dpt_store_path_clean(chosen);
        st = *base != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    } else {
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: a PEFT adapter for '%.200s', which is no folder here: name its base "
                       "with --base, or in a job with models.pre",
                       path, named != NULL ? named : "?");
    }
    json_decref(root);
    return st;
}

static dpt_status adapter_scan_base(const char *path, dpt_store_header *out) {
    const dpt_store_driver *driver = NULL;
    if (dpt_store_is_adapter(out->base))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: its base %s is a PEFT adapter too: merge that one first, as with "
                         "`deltapath convert`",
                         path, out->base);
    dpt_store_header base = {.nfiles = 0};
    dpt_status st = dpt_guard_input(out->base);
    if (st == DPT_OK)
        st = dpt_store_driver_probe(out->base, &driver);
    if (st == DPT_OK)
        st = driver->scan(out->base, &base);
    base.base = out->base;
    base.adapter = out->adapter;
    *out = base;
    dpt_mem_free(out->provenance); /* of who made the base */
    out->provenance = NULL;
    return st;
}

/* Files that come with the adapter stand for those of the same name of the base. */
static dpt_status adapter_take_companions(dpt_store_header *out, const dpt_store_header *own) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < own->ncompanions && st == DPT_OK; i++) {
        const dpt_store_companion *from = &own->companions[i];
        int at = 0;
        while (at < out->ncompanions && strcmp(out->companions[at].name, from->name) != 0)
            at++;
        if (at == out->ncompanions) {
            st = dpt_store_companion_add(out, from);
            continue;
        }
        char *file = dpt_mem_strdup(from->file, "companion file");
        if (file == NULL)
            return DPT_ERR_OUTPUT;
        dpt_mem_free(out->companions[at].file);
        out->companions[at].file = file;
        out->companions[at].offset = from->offset;
        out->companions[at].bytes = from->bytes;
        out->companions[at].by_hdf5 = from->by_hdf5;
        out->companions[at].cache = from->cache;
    }
    dpt_store_companions_sort(out);
    return st;
}

/* The tensors of the adapter's file become the factors of the header. */
static dpt_status adapter_scan_own(const char *path, dpt_store_header *out) {
    dpt_store_header own = {.nfiles = 0};
    char *file = dpt_path_join(path, "adapter_model.safetensors");
    dpt_status st = file != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_store_safetensors_driver.scan(file, &own);
    if (st == DPT_OK)
        st = dpt_store_header_add_file(out, file, own.file_bytes[0]);
    if (st == DPT_OK) {
        out->identities[out->nfiles - 1] = own.identities[0];
        out->factors = own.entries;
        out->nfactors = own.count;
        own.entries = NULL;
        own.count = 0;
    }
    for (int64_t i = 0; i < out->nfactors; i++)
        out->factors[i].file = out->nfiles - 1;
    if (st == DPT_OK)
        st = dpt_store_companions_list(path, &own);
    if (st == DPT_OK)
        st = adapter_take_companions(out, &own);
    dpt_store_header_destroy(&own);
    dpt_mem_free(file);
    return st;
}

static dpt_status adapter_scan(const char *path, dpt_store_header *out) {
    char *config = dpt_path_join(path, "adapter_config.json");
    char *base = NULL;
    dpt_status st = config != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_store_path_read_text(config, ADAPTER_CONFIG_LIMIT, &out->adapter);
    dpt_mem_free(config);
    if (st == DPT_OK)
        st = adapter_choose_base(path, out->adapter, out->base, &base);
    if (st != DPT_OK)
        return st;
    dpt_mem_free(out->base);
    out->base = base;
    st = adapter_scan_base(path, out);
    return st == DPT_OK ? adapter_scan_own(path, out) : st;
}

const dpt_store_driver dpt_store_adapter_driver = {
    .format = DPT_STORE_ADAPTER, .name = "PEFT adapter", .endings = {NULL}, .scan = adapter_scan};
