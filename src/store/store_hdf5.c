#include "store_internal.h"

#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/isolate.h"

#include <inttypes.h>
#include <string.h>

/* Reading: rank 0 walks the metadata with the plain file driver and learns each tensor's extent; the bytes of
 * what is contiguous never pass through HDF5, those of chunks do (store_hdf5_read.c). */

static dpt_status hdf5_bad(const char *path, const char *tensor, const char *problem) {
    return dpt_error(DPT_ERR_INPUT, "%s: tensor %s %s", path, tensor, problem);
}

static const char *what_of(const dpt_store_entry *entry) {
    return entry->companion ? "companion file" : "tensor";
}

static dpt_status bad_layout(const char *path, const dpt_store_entry *entry, const char *problem) {
    return dpt_error(DPT_ERR_INPUT, "%s: %s %s %s", path, what_of(entry), entry->name, problem);
}

/* A chunk is one piece of memory on each rank, and what it takes to undo its filters two more. */
enum { CHUNK_LIMIT = 1 << 30, CACHE_LIMIT = 1 << 28 };

/* Every filter of the tensor can be undone here. */
static dpt_status check_filters(hid_t plist, const char *path, const dpt_store_entry *entry) {
    for (int i = 0; i < H5Pget_nfilters(plist); i++) {
        unsigned flags = 0, decodes = 0;
        size_t none = 0;
        char name[64] = "";
        H5Z_filter_t id =
            H5Pget_filter2(plist, (unsigned)i, &flags, &none, NULL, sizeof name, name, &decodes);
        if (id < 0)
            return bad_layout(path, entry, "has a filter that cannot be read: copy it again");
        bool there = H5Zfilter_avail(id) > 0 && H5Zget_filter_info(id, &decodes) >= 0 &&
                     (decodes & H5Z_FILTER_CONFIG_DECODE_ENABLED) != 0;
        if (!there)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: %s %s is compressed by HDF5 filter %d%s%s%s, which is not "
                             "installed: name the folder of its plugin in HDF5_PLUGIN_PATH, or run "
                             "`h5repack -f NONE -l CONTI in.h5 out.h5` where it is",
                             path, what_of(entry), entry->name, (int)id,
                             name[0] != '\0' ? " (" : "", name, name[0] != '\0' ? ")" : "");
    }
    return DPT_OK;
}

/* Chunks that were never written would be read as zeros and look like weights. */
static bool all_written(hid_t dataset, hsize_t chunks) {
#if H5_VERSION_GE(1, 10, 5)
    hsize_t written = 0;
    hid_t space = H5Dget_space(dataset);
    bool known = space >= 0 && H5Dget_num_chunks(dataset, space, &written) >= 0;
    if (space >= 0)
        H5Sclose(space);
    return known && written >= chunks;
#else
    return chunks == 0 || H5Dget_storage_size(dataset) > 0;
#endif
}

/* A run goes through all chunks of one row of them again and again: these are kept, where they are few. */
static dpt_status read_chunks(hid_t dataset, hid_t plist, const char *path,
                              dpt_store_entry *entry) {
    hsize_t sides[H5S_MAX_RANK];
    int64_t chunk = dpt_dtype_size(entry->dtype), row = 1, chunks = 1;
    bool fits = H5Pget_chunk(plist, H5S_MAX_RANK, sides) == entry->ndim;
    for (int d = 0; d < entry->ndim && fits; d++) {
        int64_t side = (int64_t)sides[d];
        fits = side > 0 && dpt_mem_mul(chunk, side, &chunk) && chunk <= CHUNK_LIMIT;
        int64_t ways = fits ? entry->shape[d] / side + (entry->shape[d] % side != 0) : 0;
        fits = fits && dpt_mem_mul(chunks, ways, &chunks);
        row = d == 0 ? 1 : fits ? row * ways : 0;
    }
    if (!fits)
        return bad_layout(path, entry,
                          "has chunks of more than 1 GiB, or none that fit its shape: run "
                          "`h5repack -l CONTI in.h5 out.h5`");
    if (!all_written(dataset, (hsize_t)chunks))
        return bad_layout(path, entry, "has chunks that were never written: make the file again");
    bool kept = row <= CACHE_LIMIT / chunk;
    entry->cache = kept ? row * chunk + 2 * chunk : 3 * chunk;
    return check_filters(plist, path, entry);
}

static dpt_status read_hash(hid_t dataset, const char *path, dpt_store_entry *entry) {
    if (H5Aexists(dataset, "xxh3") <= 0)
        return DPT_OK;
    hid_t attribute = H5Aopen(dataset, "xxh3", H5P_DEFAULT);
    hid_t type = attribute >= 0 ? H5Aget_type(attribute) : -1;
    hid_t space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    bool ok = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_INTEGER &&
              H5Tget_size(type) == 8 && H5Sget_simple_extent_npoints(space) == 1 &&
              H5Aread(attribute, H5T_NATIVE_UINT64, &entry->hash) >= 0;
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
    entry->hashed = ok;
    return ok ? DPT_OK
              : hdf5_bad(path, entry->name,
                         "has an attribute xxh3 that is no 64-bit integer: remove it");
}

static dpt_status read_shape(hid_t dataset, const char *path, dpt_store_entry *entry) {
    hid_t space = H5Dget_space(dataset);
    H5S_class_t class = space >= 0 ? H5Sget_simple_extent_type(space) : H5S_NO_CLASS;
    int ndim = class == H5S_SIMPLE || class == H5S_SCALAR ? H5Sget_simple_extent_ndims(space) : -1;
    hsize_t sides[H5S_MAX_RANK] = {0};
    bool ok =
        ndim >= 0 && ndim <= DPT_NDIM_MAX && H5Sget_simple_extent_dims(space, sides, NULL) >= 0;
    if (space >= 0)
        H5Sclose(space);
    if (!ok)
        return hdf5_bad(path, entry->name, "has no shape of at most 8 sides: rewrite it");
    entry->ndim = ndim;
    for (int i = 0; i < ndim; i++) {
        if (sides[i] > INT64_MAX)
            return hdf5_bad(path, entry->name, "has an absurd side: the header is corrupt");
        entry->shape[i] = (int64_t)sides[i];
    }
    return DPT_OK;
}

static dpt_status read_contiguous(hid_t dataset, int64_t bytes, const char *path,
                                  dpt_store_entry *entry) {
    haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF)
        return bad_layout(path, entry, "was declared but never written: make the file again");
    if (H5Dget_storage_size(dataset) != (hsize_t)bytes || offset > INT64_MAX)
        return bad_layout(path, entry,
                          "has a storage size that does not fit its shape: the file is "
                          "corrupt, copy it again");
    entry->offset = (int64_t)offset;
    return DPT_OK;
}

/* Bytes of other files are under no check that this program makes. */
static dpt_status read_layout(hid_t dataset, hid_t plist, int64_t bytes, const char *path,
                              dpt_store_entry *entry) {
    H5D_layout_t layout = H5Pget_layout(plist);
    if (H5Pget_external_count(plist) != 0 || layout == H5D_VIRTUAL)
        return bad_layout(path, entry,
                          "is stored in other files: run `h5repack -l CONTI in.h5 out.h5`");
    if (bytes == 0)
        return DPT_OK;
    if (layout == H5D_CONTIGUOUS)
        return read_contiguous(dataset, bytes, path, entry);
    entry->by_hdf5 = true;
    if (layout == H5D_CHUNKED)
        return read_chunks(dataset, plist, path, entry);
    return layout == H5D_COMPACT && H5Dget_storage_size(dataset) == (hsize_t)bytes
               ? DPT_OK
               : bad_layout(path, entry,
                            "is stored in a way that is not known: run `h5repack -l CONTI in.h5 "
                            "out.h5`");
}

static dpt_status read_extent(hid_t dataset, const char *path, dpt_store_entry *entry) {
    hid_t plist = H5Dget_create_plist(dataset);
    int64_t bytes = 0;
    dpt_status st = plist < 0 ? hdf5_bad(path, entry->name, "cannot be read: the file is corrupt")
                              : dpt_store_header_size(path, entry, &bytes);
    if (st == DPT_OK)
        st = read_layout(dataset, plist, bytes, path, entry);
    if (plist >= 0)
        H5Pclose(plist);
    return st;
}

/* What the trailer leaves to the hashes of the tensors. A file of many small chunks is none that this program wrote. */
static dpt_status list_chunks(hid_t dataset, const char *path, const dpt_store_entry *entry,
                              dpt_store_header *header) {
    hid_t plist = H5Dget_create_plist(dataset);
    bool chunks = plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED;
    if (plist >= 0)
        H5Pclose(plist);
    return !chunks || dpt_store_hdf5_chunks_of(dataset, &header->nchunks, &header->chunks)
               ? DPT_OK
               : hdf5_bad(path, entry->name, "has chunks that cannot be listed: copy it again");
}

static dpt_status scan_dataset(hid_t group, const char *name, const char *path,
                               dpt_store_header *header) {
    dpt_store_entry entry = {.name = (char *)(uintptr_t)name};
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_bad(path, name,
                        "is no data set that can be opened: the file is corrupt or another "
                        "program wrote it");
    const char *problem = NULL;
    hid_t type = H5Dget_type(dataset);
    dpt_status st = type >= 0 && dpt_hdf5_type_parse(type, &entry.dtype, &problem)
                        ? DPT_OK
                        : hdf5_bad(path, name, problem != NULL ? problem : "has no type");
    if (type >= 0)
        H5Tclose(type);
    if (st == DPT_OK)
        st = read_shape(dataset, path, &entry);
    if (st == DPT_OK)
        st = read_extent(dataset, path, &entry);
    if (st == DPT_OK && header->sealed && !header->rewritten && entry.by_hdf5)
        st = list_chunks(dataset, path, &entry, header);
    if (st == DPT_OK)
        st = read_hash(dataset, path, &entry);
    H5Dclose(dataset);
    return st != DPT_OK ? st : dpt_store_header_add(header, &entry);
}

typedef struct walk {
    const char *path;
    dpt_store_header *header;
    dpt_status st;
} walk;

static herr_t visit(hid_t group, const char *name, const H5L_info_t *info, void *ctx) {
    walk *w = ctx;
    if (info->type != H5L_TYPE_HARD)
        w->st = hdf5_bad(w->path, name, "is a soft or external link: copy the data into the file");
    else
        w->st = scan_dataset(group, name, w->path, w->header);
    return w->st == DPT_OK ? 0 : -1;
}

/* A file of this program that is given in a model's place. */
static const char *what_it_is(hid_t file, const char *format) {
    if (format != NULL && strncmp(format, "deltapath-results", 17) == 0)
        return ", the results of a study";
    if (format != NULL && strncmp(format, "deltapath-unit", 14) == 0)
        return ", the result of one edit";
    bool data = format != NULL && strcmp(format, "deltapath-data") == 0;
    if (data || H5Lexists(file, "tokens", H5P_DEFAULT) > 0 ||
        H5Lexists(file, "chosen", H5P_DEFAULT) > 0 || H5Lexists(file, "images", H5P_DEFAULT) > 0)
        return ", a data set, which belongs under `data`";
    if (format == NULL && H5Lexists(file, "layer_names", H5P_DEFAULT) > 0)
        return ", weights of Keras";
    return "";
}

/* HDF5 drops what follows its own end of file when it writes one: then there is no trailer to look for. */
static bool ends_with_hdf5(hid_t file, int64_t bytes) {
#if H5_VERSION_GE(1, 10, 5)
    haddr_t end = HADDR_UNDEF;
    return H5Fget_eoa(file, &end) >= 0 && end == (haddr_t)bytes;
#else
    (void)file, (void)bytes;
    return false;
#endif
}

static dpt_status read_texts(hid_t file, const char *path, dpt_store_header *header) {
    char *format = NULL;
    bool ok = dpt_hdf5_text_read(file, "format", &format);
    bool ours = ok && format != NULL && strcmp(format, "deltapath-checkpoint") == 0;
    dpt_status st = DPT_OK;
    if (!ours)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: HDF5 file of format \"%s\", not \"deltapath-checkpoint\"%s: give a "
                       "checkpoint or convert the model",
                       path, format != NULL ? format : "unknown", what_it_is(file, format));
    dpt_mem_free(format);
    header->sealed = H5Aexists(file, "sealed") > 0;
    header->rewritten = header->sealed && ends_with_hdf5(file, header->file_bytes[0]);
    static const char *const names[] = {"config", "metadata", "provenance"};
    char **const texts[] = {&header->config, &header->metadata, &header->provenance};
    for (int i = 0; i < 3 && st == DPT_OK; i++)
        if (!dpt_hdf5_text_read(file, names[i], texts[i]))
            st = dpt_error(DPT_ERR_INPUT, "%s: attribute %s is no text: remove or rewrite it", path,
                           names[i]);
    return st;
}

static dpt_status check_version(hid_t file, const char *path) {
    int version = 0;
    hid_t attribute = H5Aexists(file, "version") > 0 ? H5Aopen(file, "version", H5P_DEFAULT) : -1;
    bool ok = attribute >= 0;
    if (ok) {
        hid_t space = H5Aget_space(attribute);
        ok = H5Sget_simple_extent_npoints(space) == 1 &&
             H5Aread(attribute, H5T_NATIVE_INT, &version) >= 0;
        H5Sclose(space);
        H5Aclose(attribute);
    }
    if (!ok || version != 1)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: checkpoint version %d, this program knows version 1: use a newer one",
                         path, version);
    return DPT_OK;
}

static dpt_status bad_companion(const char *path, const char *name, const char *problem) {
    return dpt_error(DPT_ERR_INPUT, "%s: companion file %.200s %s", path, name, problem);
}

/* A vector of bytes, and how many. */
static const char *companion_side(hid_t dataset, int64_t *bytes) {
    hid_t type = H5Dget_type(dataset);
    hid_t space = H5Dget_space(dataset);
    hsize_t side = 0;
    const char *problem = NULL;
    if (type < 0 || space < 0)
        problem = "cannot be opened: the file is corrupt, copy it again";
    else if (H5Tequal(type, H5T_STD_U8LE) <= 0 || H5Sget_simple_extent_ndims(space) != 1 ||
             H5Sget_simple_extent_dims(space, &side, NULL) != 1)
        problem = "is no vector of bytes (uint8): remove or rewrite it";
    else if (side > (hsize_t)DPT_STORE_COMPANIONS_BYTES)
        problem = "is larger than 256 MiB: remove it";
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    *bytes = (int64_t)side;
    return problem;
}

static dpt_status companion_read(hid_t dataset, const dpt_store_header *header,
                                 dpt_store_companion *out) {
    dpt_store_entry entry = {.name = out->name, .dtype = DPT_U8, .ndim = 1, .companion = true};
    const char *problem = companion_side(dataset, &out->bytes);
    if (problem != NULL)
        return bad_companion(out->file, out->name, problem);
    entry.shape[0] = out->bytes;
    dpt_status st = read_extent(dataset, out->file, &entry);
    int64_t room = header->file_bytes[0] - out->bytes;
    if (st == DPT_OK && !entry.by_hdf5 && (room < 0 || entry.offset > room))
        st = bad_companion(out->file, out->name,
                           "lies outside the file: it is truncated, copy it again");
    out->offset = entry.offset;
    out->by_hdf5 = entry.by_hdf5;
    out->cache = entry.cache;
    return st;
}

static herr_t visit_companion(hid_t group, const char *name, const H5L_info_t *info, void *ctx) {
    walk *w = ctx;
    dpt_store_companion one = {.name = (char *)(uintptr_t)name, .file = (char *)(uintptr_t)w->path};
    if (info->type != H5L_TYPE_HARD || !dpt_store_companion_allowed(name)) {
        w->st = bad_companion(w->path, name, "is not one that belongs to a model: remove it");
        return -1;
    }
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    w->st = dataset >= 0 ? companion_read(dataset, w->header, &one)
                         : bad_companion(w->path, name,
                                         "cannot be opened: the file is corrupt, copy it again");
    if (dataset >= 0)
        H5Dclose(dataset);
    if (w->st == DPT_OK)
        w->st = dpt_store_companion_add(w->header, &one);
    return w->st == DPT_OK ? 0 : -1;
}

static dpt_status scan_companions(hid_t file, const char *path, dpt_store_header *header) {
    bool away = false;
    if (!dpt_hdf5_exists(file, "companions", &away))
        return DPT_OK;
    if (away)
        return dpt_error(DPT_ERR_INPUT, "%s: /companions is a soft or external link: remove it",
                         path);
    hid_t group = H5Gopen2(file, "companions", H5P_DEFAULT);
    walk w = {.path = path, .header = header, .st = DPT_OK};
    hsize_t at = 0;
    herr_t code =
        group < 0 ? -1 : H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit_companion, &w);
    if (group >= 0)
        H5Gclose(group);
    if (w.st == DPT_OK && code < 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the list of companion files cannot be read: the file is corrupt, "
                         "copy it again",
                         path);
    if (w.st == DPT_OK && dpt_store_companions_bytes(header) > DPT_STORE_COMPANIONS_BYTES)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: more than 256 MiB of companion files: remove what is not needed",
                         path);
    dpt_store_companions_sort(header);
    return w.st;
}

static dpt_status scan_file(hid_t file, const char *path, dpt_store_header *header) {
    dpt_status st = read_texts(file, path, header);
    if (st == DPT_OK)
        st = check_version(file, path);
    if (st != DPT_OK)
        return st;
    bool away = false, there = dpt_hdf5_exists(file, "tensors", &away);
    hid_t group = there && !away ? H5Gopen2(file, "tensors", H5P_DEFAULT) : -1;
    if (away)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: /tensors is a soft or external link: copy the data into "
                         "the file",
                         path);
    if (group < 0)
        return dpt_error(DPT_ERR_INPUT, "%s: there is no group /tensors: the file is corrupt",
                         path);
    walk w = {.path = path, .header = header, .st = DPT_OK};
    hsize_t at = 0;
    herr_t code = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit, &w);
    H5Gclose(group);
    if (w.st == DPT_OK && code < 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the list of tensors cannot be read: the file is "
                         "corrupt, copy it again",
                         path);
    return w.st != DPT_OK ? w.st : scan_companions(file, path, header);
}

/* Both questions are put in a child process: see dpt_isolate_run. */
typedef struct attribute_question {
    const char *path, *name;
} attribute_question;

static dpt_status ask_attribute(void *ctx, char **bytes, int64_t *n) {
    const attribute_question *question = ctx;
    dpt_hdf5_silence();
    hid_t file = H5Fopen(question->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return DPT_OK;
    dpt_hdf5_text_read(file, question->name, bytes);
    *n = *bytes != NULL ? (int64_t)strlen(*bytes) + 1 : 0;
    H5Fclose(file);
    return DPT_OK;
}

bool dpt_store_attribute_is(const char *path, const char *name, const char *text) {
    char *answer = NULL;
    int64_t n = 0;
    attribute_question question = {.path = path, .name = name};
    if (!dpt_path_is_file(path) ||
        dpt_isolate_run(path, ask_attribute, &question, &answer, &n) != DPT_OK)
        dpt_error_clear(); /* opening it as a model says what is wrong */
    bool same = n == (int64_t)strlen(text) + 1 && memcmp(answer, text, (size_t)n) == 0;
    dpt_mem_free(answer);
    return same;
}

bool dpt_store_is_format(const char *path, const char *format) {
    return dpt_store_attribute_is(path, "format", format);
}

static dpt_status ask_headers(void *ctx, char **bytes, int64_t *n) {
    const char *path = ctx;
    dpt_store_header header = {.nfiles = 0};
    int64_t length = 0;
    dpt_hdf5_silence();
    dpt_status st = dpt_store_path_length(path, &length);
    if (st == DPT_OK)
        st = dpt_store_header_add_file(&header, path, length);
    if (st == DPT_OK) {
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        st = file >= 0 ? scan_file(file, path, &header)
                       : dpt_error(DPT_ERR_INPUT,
                                   "%s: HDF5 cannot open it: it is truncated, corrupt or not "
                                   "readable, copy it again",
                                   path);
        if (file >= 0)
            H5Fclose(file);
    }
    if (st == DPT_OK)
        st = dpt_store_header_pack(&header, bytes, n);
    dpt_store_header_destroy(&header);
    return st;
}

static dpt_status hdf5_scan(const char *path, dpt_store_header *out) {
    char *packed = NULL;
    int64_t n = 0;
    dpt_status st = dpt_isolate_run(path, ask_headers, (void *)(uintptr_t)path, &packed, &n);
    if (st == DPT_OK)
        st = dpt_store_header_unpack(packed, n, out);
    dpt_mem_free(packed);
    return st == DPT_OK ? dpt_store_seal_check(out) : st;
}

const dpt_store_driver dpt_store_hdf5_driver = {.format = DPT_STORE_HDF5,
                                                .name = "HDF5 checkpoint",
                                                .directory = false,
                                                .endings = {".h5", ".hdf5"},
                                                .scan = hdf5_scan,
                                                .layout = dpt_store_hdf5_layout,
                                                .create = dpt_store_hdf5_create,
                                                .finish = dpt_store_hdf5_finish};
