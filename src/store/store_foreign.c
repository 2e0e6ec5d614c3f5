#include "store_internal.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/tensor/role.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Models that are no models for us, each with one line that names what it is and the command that helps:
 * what lies at a path, before its headers are read, and what its tensors are, before they are paired. */

enum { ENTRIES_MAX = 65536, POINTER_BYTES = 1024, HEAD_BYTES = 64, NAME_BYTES = 256 };

/* The first bytes of a regular file; false when there are fewer or it cannot be read. */
static bool foreign_head(const char *path, char *head, size_t n, int64_t *length) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool ok = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    ok = ok && pread(fd, head, n, 0) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    *length = ok ? (int64_t)info.st_size : 0;
    return ok;
}

bool dpt_store_is_lfs_pointer(const char *path) {
    static const char start[] = "version https://git-lfs";
    char head[sizeof start - 1];
    int64_t length;
    return foreign_head(path, head, sizeof head, &length) && length < POINTER_BYTES &&
           memcmp(head, start, sizeof head) == 0;
}

/* Whether a path reads like the name of a model of the hub: two plain words and one slash. */
static bool foreign_hub_id(const char *path) {
    const char *slash = strchr(path, '/');
    if (slash == NULL || slash == path || slash[1] == '\0' || !isalnum((unsigned char)path[0]))
        return false;
    for (const char *c = path; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("._-", *c) == NULL && c != slash)
            return false;
    char first[NAME_BYTES];
    snprintf(first, sizeof first, "%.*s", (int)(slash - path), path);
    return !dpt_path_exists(first);
}

static dpt_status foreign_absent(const char *path) {
    char hint[DPT_NEAREST_PATH];
    dpt_nearest_path(path, hint);
    if (foreign_hub_id(path) && hint[0] == '\0')
        return dpt_error(DPT_ERR_INPUT,
                         "%s: there is no such folder: a model of the HuggingFace hub is fetched "
                         "first: `hf download %s --local-dir %s`, then name that folder",
                         path, path, dpt_path_base(path));
    return dpt_error(DPT_ERR_INPUT, "%s: there is no such model%s: check the path", path, hint);
}

/* What a folder holds, as far as it decides whether it is a model. */
typedef struct foreign_listing {
    int safetensors, pickles, ggufs, others, pointers;
    int shards; /* model-00001-of-00002.safetensors and so on */
    bool plain; /* model.safetensors */
    bool adapter, snapshots;
    bool adapter_weights; /* adapter_model.safetensors, one of safetensors */
    char pickle[NAME_BYTES], gguf[NAME_BYTES], other[NAME_BYTES], pointer[NAME_BYTES];
} foreign_listing;

static void foreign_note(int *count, char first[NAME_BYTES], const char *name) {
    if (first != NULL && *count == 0)
        snprintf(first, NAME_BYTES, "%s", name);
    ++*count;
}

static bool foreign_ends(const char *name, const char *const *endings) {
    for (; *endings != NULL; endings++)
        if (dpt_path_ends_with(name, *endings))
            return true;
    return false;
}

static dpt_status foreign_see(const char *folder, const char *name, foreign_listing *seen) {
    static const char *const pickles[] = {".bin", ".pth", ".pt", ".ckpt", NULL};
    static const char *const others[] = {".msgpack", ".h5", ".hdf5", ".onnx", ".npz", NULL};
    static const char *const needed[] = {".safetensors", ".json", NULL};
    if (dpt_path_ends_with(name, ".safetensors"))
        foreign_note(&seen->safetensors, NULL, name);
    else if (foreign_ends(name, pickles))
        foreign_note(&seen->pickles, seen->pickle, name);
    else if (dpt_path_ends_with(name, ".gguf"))
        foreign_note(&seen->ggufs, seen->gguf, name);
    else if (foreign_ends(name, others))
        foreign_note(&seen->others, seen->other, name);
    seen->plain = seen->plain || strcmp(name, "model.safetensors") == 0;
    seen->shards += strncmp(name, "model-", 6) == 0 && strstr(name, "-of-") != NULL &&
                    dpt_path_ends_with(name, ".safetensors");
    seen->adapter_weights = seen->adapter_weights || strcmp(name, "adapter_model.safetensors") == 0;
    seen->adapter = seen->adapter || strcmp(name, "adapter_config.json") == 0;
    seen->snapshots = seen->snapshots || strcmp(name, "snapshots") == 0;
    if (!foreign_ends(name, needed))
        return DPT_OK;
    char *path = dpt_path_join(folder, name);
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    if (dpt_store_is_lfs_pointer(path))
        foreign_note(&seen->pointers, seen->pointer, name);
    dpt_mem_free(path);
    return DPT_OK;
}

static dpt_status foreign_pointers(const char *path, const char *name, int count) {
    char more[48] = "";
    if (count > 1)
        snprintf(more, sizeof more, " and %d more files", count - 1);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: %s%s: Git LFS pointers, not the files themselves: run `git lfs pull` in "
                     "that folder",
                     path, name, more);
}

#define FOREIGN_CONVERT "convert them: `tools/convert_checkpoint.py %s NEW`"
#define FOREIGN_MERGE                                                                              \
    "merge it: `python -c \"from peft import AutoPeftModelForCausalLM as M; "                      \
    "M.from_pretrained('%s').merge_and_unload().save_pretrained('NEW')\"`"

/* A study opens its models again at the end; the warnings of a folder are given once. */
static bool foreign_warned(const char *path) {
    static uint64_t warned[64];
    static int count;
    uint64_t hash = dpt_hash_bytes(path, strlen(path));
    for (int i = 0; i < count; i++)
        if (warned[i] == hash)
            return true;
    if (count < (int)(sizeof warned / sizeof warned[0]))
        warned[count++] = hash;
    return false;
}

/* A folder with more than one model: which of them is taken. */
static void foreign_warn(const char *path, const foreign_listing *seen) {
    bool two = seen->plain && seen->shards > 0;
    bool adapter = seen->adapter && seen->safetensors > seen->adapter_weights;
    if ((!two && !adapter) || foreign_warned(path))
        return;
    if (two)
        dpt_log(DPT_LOG_WARN,
                "%s: holds model.safetensors and %d shards: model.safetensors is taken, as "
                "transformers does: remove what is not the model",
                path, seen->shards);
    if (adapter)
        dpt_log(DPT_LOG_WARN,
                "%s: holds a PEFT adapter next to the model: the adapter is not applied: merge it "
                "or remove it",
                path);
}

static dpt_status foreign_judge(const char *path, const foreign_listing *seen) {
    if (seen->pointers > 0)
        return foreign_pointers(path, seen->pointer, seen->pointers);
    if (seen->safetensors > 0) {
        foreign_warn(path, seen);
        return DPT_OK;
    }
    if (seen->adapter)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: a PEFT adapter without adapter_model.safetensors: save it again with "
                         "PEFT, or " FOREIGN_MERGE,
                         path, path);
    if (seen->snapshots)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the cache folder of a hub model: give the folder below snapshots/ "
                         "that holds its config.json",
                         path);
    if (seen->pickles > 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: holds PyTorch weights (%s) and no safetensors: " FOREIGN_CONVERT,
                         path, seen->pickle, path);
    if (seen->ggufs > 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: holds GGUF weights (%s) and no safetensors: take the safetensors "
                         "model that they were made from, or " FOREIGN_CONVERT,
                         path, seen->gguf, path);
    if (seen->others > 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: holds %s and no safetensors: give a safetensors folder, or the path "
                         "of one HDF5 checkpoint",
                         path, seen->other);
    return DPT_OK;
}

static dpt_status foreign_list(const char *path, foreign_listing *seen) {
    *seen = (foreign_listing){.pointers = 0};
    DIR *listing = opendir(path);
    dpt_status st = DPT_OK;
    int entries = 0;
    if (listing == NULL)
        return DPT_OK; /* the driver says why */
    for (struct dirent *entry = readdir(listing);
         entry != NULL && st == DPT_OK && entries++ < ENTRIES_MAX; entry = readdir(listing))
        st = foreign_see(path, entry->d_name, seen);
    closedir(listing);
    return st;
}

static dpt_status foreign_folder(const char *path) {
    foreign_listing seen;
    dpt_status st = foreign_list(path, &seen);
    return st == DPT_OK ? foreign_judge(path, &seen) : st;
}

bool dpt_store_is_adapter(const char *path) {
    foreign_listing seen;
    if (!dpt_path_is_directory(path))
        return false;
    if (foreign_list(path, &seen) != DPT_OK)
        dpt_error_clear(); /* said by those who look at the folder for what it is */
    return seen.adapter && seen.adapter_weights && seen.safetensors == 1;
}

static dpt_status foreign_file(const char *path) {
    char head[HEAD_BYTES] = "";
    int64_t length;
    if (dpt_store_is_lfs_pointer(path))
        return foreign_pointers(path, "the file", 1);
    if (dpt_path_ends_with(path, ".index.json"))
        return dpt_error(DPT_ERR_INPUT, "%s: the index of a model: give the folder that holds it",
                         path);
    foreign_head(path, head, 8, &length);
    if (memcmp(head, "GGUF", 4) == 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: GGUF weights: take the safetensors model that they were made from, "
                         "or " FOREIGN_CONVERT,
                         path, path);
    if (memcmp(head, "PK\x03\x04", 4) == 0 || (head[0] == (char)0x80 && head[1] == 2))
        return dpt_error(DPT_ERR_INPUT, "%s: PyTorch weights: " FOREIGN_CONVERT, path, path);
    return DPT_OK;
}

dpt_status dpt_store_foreign_check(const char *path) {
    if (!dpt_path_exists(path))
        return foreign_absent(path);
    return dpt_path_is_directory(path) ? foreign_folder(path) : foreign_file(path);
}

/* Names that only quantised weights have. */
typedef struct foreign_kind {
    const char *ending; /* of a tensor's name */
    const char *name;
    const char *remedy;
} foreign_kind;

#define FOREIGN_SOURCE "take the model that was quantised"
#define FOREIGN_GPTQMODEL                                                                          \
    FOREIGN_SOURCE ", or dequantise it, as with dequantize_model(SRC, NEW) of "                    \
                   "gptqmodel.utils.model_dequant"
#define FOREIGN_TRANSFORMERS "load it with transformers, "

static const foreign_kind foreign_kinds[] = {
    {".g_idx", "GPTQ", FOREIGN_GPTQMODEL},
    {".qweight", "AWQ or GPTQ", FOREIGN_GPTQMODEL},
    {".weight_packed", "compressed-tensors in packed integers", FOREIGN_GPTQMODEL},
    {".weight_scale_2", "NVFP4", FOREIGN_GPTQMODEL},
    {"_scale_inv", "scales of weights that are not f8", FOREIGN_SOURCE},
    {".weight_scale", "scales of weights that are neither f8 nor symmetric i8", FOREIGN_SOURCE},
    {".SCB", "bitsandbytes int8", FOREIGN_TRANSFORMERS "call dequantize() and save_pretrained"},
    {".absmax", "bitsandbytes 4 bit", FOREIGN_TRANSFORMERS "call dequantize() and save_pretrained"},
    {"_proj_blocks", "MXFP4 without its scales", "copy the model again"},
    {"_proj_scales", "MXFP4 without its blocks", "copy the model again"}};

/* The value of "quant_method" in config.json, or ""; whether it says that the model is quantised. */
static bool foreign_method(const char *config, char out[NAME_BYTES]) {
    static const char *const keys[] = {"quantization_config", "compression_config"};
    json_t *root = config != NULL ? json_loads(config, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool found = false;
    out[0] = '\0';
    for (size_t k = 0; k < sizeof keys / sizeof keys[0] && !found; k++) {
        const json_t *quantised = json_object_get(root, keys[k]);
        const char *method = json_string_value(json_object_get(quantised, "quant_method"));
        found = json_is_object(quantised);
        if (method != NULL)
            snprintf(out, NAME_BYTES, "; quant_method %.100s in config.json", method);
        else if (found)
            snprintf(out, NAME_BYTES, "; %s in config.json", keys[k]);
    }
    json_decref(root);
    return found;
}

static dpt_status foreign_quantised(const dpt_store *store, const char *kind, const char *tensor,
                                    const char *remedy) {
    char method[NAME_BYTES];
    foreign_method(dpt_store_config(store), method);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: quantised weights (%s: tensor '%.200s'%s), and an edit needs plain f32, "
                     "f16 or bf16: %s",
                     dpt_store_path(store), kind, tensor, method, remedy);
}

static dpt_status foreign_tensor(const dpt_store *store, const dpt_tensor_info *info) {
    const char *name = info->name;
    if (strstr(name, ".lora_A.") != NULL || strstr(name, ".lora_B.") != NULL ||
        strstr(name, ".lora_embedding_") != NULL)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: a LoRA adapter (tensor '%.200s'): give its folder with its "
                         "adapter_config.json, or " FOREIGN_MERGE,
                         dpt_store_path(store), name, dpt_store_path(store));
    for (size_t k = 0; k < sizeof foreign_kinds / sizeof foreign_kinds[0]; k++)
        if (dpt_path_ends_with(name, foreign_kinds[k].ending))
            return foreign_quantised(store, foreign_kinds[k].name, name, foreign_kinds[k].remedy);
    return DPT_OK;
}

/* Integers next to a key that no tensor was dequantised by are codes under names that are not known. Of a model whose
 * tensors are all floats the key is one that was left behind. */
static dpt_status foreign_codes(const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    char method[NAME_BYTES];
    bool quantised = foreign_method(dpt_store_config(store), method);
    for (int t = 0; t < catalog->count && quantised; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        if (info->ndim > 0 && info->dtype != DPT_F64 && !dpt_dtype_editable(info->dtype) &&
            !dpt_role_is_buffer(info))
            return foreign_quantised(store, "in a form that is not known", info->name,
                                     FOREIGN_SOURCE ", or remove the key where they are plain");
    }
    return DPT_OK;
}

/* What this program writes with output.content. */
static dpt_status foreign_part(const dpt_store *store) {
    const char *text = dpt_store_metadata(store);
    json_t *metadata = text != NULL ? json_loads(text, 0, NULL) : NULL;
    const char *content = json_string_value(json_object_get(metadata, "deltapath.content"));
    const char *base = json_string_value(json_object_get(metadata, "deltapath.base"));
    dpt_status st = DPT_OK;
    if (content != NULL)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: is no model: it has %s of %.300s: make the edited model with "
                       "output.content: model",
                       dpt_store_path(store),
                       strcmp(content, "delta") == 0 ? "what edited tensors differ by from those"
                                                     : "the edited tensors alone",
                       base != NULL ? base : "a model");
    json_decref(metadata);
    return st;
}

dpt_status dpt_store_check_usable(const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    dpt_status part = foreign_part(store);
    if (part != DPT_OK)
        return part;
    for (int t = 0; t < catalog->count; t++) {
        dpt_status st = foreign_tensor(store, &catalog->tensors[t]);
        if (st != DPT_OK)
            return st;
    }
    for (int t = 0; t < catalog->count; t++) {
        dpt_dtype dtype = catalog->tensors[t].dtype;
        if (dtype == DPT_F8_E4M3 || dtype == DPT_F8_E5M2)
            return foreign_quantised(store, "FP8 without scales", catalog->tensors[t].name,
                                     FOREIGN_SOURCE);
    }
    return foreign_codes(store);
}
