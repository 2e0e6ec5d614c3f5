#include "deltapath/store/owned.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/isolate.h"
#include "deltapath/store/manifest.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "deltapath/hdf5/hdf5_type.h"
#include "owned_internal.h"
#include "store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STUB_BYTES = 1024 }; /* an HDF5 file that ends before its mark holds nothing */

static const char SEAL[] = "deltapath-xxh128 ";

/* How a kind is known: the attribute `format` of an HDF5 file, whose text stands near its start, and the
 * attribute that names the study; or the start of a text. */
static const struct kind {
    const char *what, *format, *owner, *start;
} kinds[] = {
    [DPT_OWNED_UNIT] = {"unit of a study", "deltapath-unit", "study", NULL},
    [DPT_OWNED_RESULTS] = {"results file", "deltapath-results", "name", NULL},
    [DPT_OWNED_CACHE] = {"cache", "deltapath-cache", "study", NULL},
    [DPT_OWNED_SUMMARY] = {"summary", NULL, NULL, DPT_OWNED_SUMMARY_START},
    [DPT_OWNED_SEEDS] = {"table over seeds", NULL, NULL, "edit,data,seeds,"},
    [DPT_OWNED_PLANE] = {"table of a plane", NULL, NULL, DPT_OWNED_PLANE_START},
    [DPT_OWNED_PROOF] = {"table of groups", NULL, NULL, DPT_OWNED_PROOF_START},
    [DPT_OWNED_JSON] = {"results file", NULL, NULL, "{\n \"format\": \"deltapath-results\""},
    [DPT_OWNED_REPORT] = {"report", NULL, NULL, DPT_OWNED_REPORT_START},
    [DPT_OWNED_MANIFEST] = {"manifest", NULL, NULL, DPT_MANIFEST_START},
    [DPT_OWNED_PREDICTIONS] = {"table of predictions", NULL, NULL, DPT_OWNED_PREDICTIONS_START},
    [DPT_OWNED_PROGRESS] = {"part of a pass", NULL, NULL, DPT_OWNED_PROGRESS_START}};

dpt_status dpt_owned_refuse(const char *path, const char *what) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: is no %s that deltapath wrote: move it away or choose another output",
                     path, what);
}

dpt_status dpt_owned_refuse_changed(const char *path) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: was changed after deltapath wrote it: move it away or choose another "
                     "output",
                     path);
}

/* Whether a regular file is there, which is then asked for more. */
static dpt_status owned_find(const char *path, const char *what, bool *there) {
    struct stat info;
    dpt_status st = dpt_guard_output(path);
    *there = st == DPT_OK && lstat(path, &info) == 0;
    return *there && !S_ISREG(info.st_mode) ? dpt_owned_refuse(path, what) : st;
}

/* The start and the end of a file, as far as they go; -1 when it cannot be read. */
int64_t dpt_owned_peek(const char *path, char start[DPT_OWNED_START_BYTES + 1],
                       char tail[DPT_SEAL_BYTES + 1]) {
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return -1;
    size_t n = fread(start, 1, DPT_OWNED_START_BYTES, file);
    start[n] = '\0';
    int64_t size = fseeko(file, 0, SEEK_END) == 0 ? (int64_t)ftello(file) : -1;
    int64_t at = size > DPT_SEAL_BYTES ? size - DPT_SEAL_BYTES : 0;
    n = fseeko(file, (off_t)at, SEEK_SET) == 0 ? fread(tail, 1, DPT_SEAL_BYTES, file) : 0;
    tail[n] = '\0';
    fclose(file);
    return size;
}

bool dpt_owned_begins(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* A damaged file of ours is still ours: it is to be written again. So is an HDF5 file that ends before
 * anything was in it. */
static bool owned_marked(const char *path, const char *format) {
    char start[DPT_OWNED_START_BYTES + 1], tail[DPT_SEAL_BYTES + 1];
    int64_t size = dpt_owned_peek(path, start, tail);
    int64_t n = size < DPT_OWNED_START_BYTES ? size : DPT_OWNED_START_BYTES;
    if (n < 0)
        return false;
    if (memcmp(start, DPT_OWNED_HDF5_START, n < 8 ? (size_t)n : 8) == 0 && size < STUB_BYTES)
        return true;
    return dpt_owned_begins(tail, SEAL) ||
           (dpt_owned_begins(start, DPT_OWNED_HDF5_START) &&
            memmem(start, (size_t)n, format, strlen(format)) != NULL);
}

/* After a crash of a system a file may have its length and none of its bytes. Nothing is lost with it. */
static bool owned_zeroed(const char *path) {
    enum { PIECE = 1 << 16 };
    char piece[PIECE];
    int64_t at = 0, n = 0;
    int fd = dpt_path_ends_with(path, ".h5") ? dpt_file_open_input(path) : -1;
    bool zero = fd >= 0;
    while (zero && (n = dpt_file_read_at(fd, at, piece, PIECE)) > 0) {
        zero = piece[0] == 0 && memcmp(piece, piece + 1, (size_t)n - 1) == 0;
        at += n;
    }
    if (fd >= 0)
        close(fd);
    return zero && n == 0;
}

bool dpt_owned_is_marked(const char *path, dpt_owned_kind kind) {
    return owned_marked(path, kinds[kind].format);
}

typedef struct owned_request {
    const char *path, *attribute;
} owned_request;

/* In a child process: an attribute of the root group. */
static dpt_status owned_attribute(void *ctx, char **bytes, int64_t *n) {
    const owned_request *wanted = ctx;
    char *text = NULL;
    H5E_BEGIN_TRY {
        hid_t file = H5Fopen(wanted->path, H5F_ACC_RDONLY, H5P_DEFAULT);
        if (file >= 0) {
            /* Checkpoints have texts of variable length, the small files of fixed length. */
            if (!dpt_h5_get_string(file, wanted->attribute, &text))
                (void)dpt_hdf5_text_read(file, wanted->attribute, &text);
            H5Fclose(file);
        }
    }
    H5E_END_TRY;
    *bytes = text;
    *n = text != NULL ? (int64_t)strlen(text) + 1 : 0;
    return DPT_OK;
}

/* The attribute, or NULL: a damaged file has none. Only a system that fails is an error. */
static dpt_status owned_ask(const char *path, const char *attribute, char **text) {
    owned_request wanted = {.path = path, .attribute = attribute};
    int64_t n = 0;
    *text = NULL;
    dpt_status st = dpt_isolate_run(path, owned_attribute, &wanted, text, &n);
    if (st != DPT_ERR_INPUT)
        return st;
    dpt_error_clear();
    return DPT_OK;
}

char *dpt_owned_read_attribute(const char *path, const char *attribute) {
    char *text;
    if (owned_ask(path, attribute, &text) != DPT_OK)
        dpt_error_clear();
    return text;
}

dpt_status dpt_owned_refuse_study(const char *path, const char *owner, const char *study) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: belongs to the study '%s', not to '%s': move it away or choose another "
                     "output",
                     path, owner, study);
}

static dpt_status owned_check_study(const char *path, const char *attribute, const char *study) {
    char *owner = NULL;
    dpt_status st = study != NULL ? owned_ask(path, attribute, &owner) : DPT_OK;
    if (owner != NULL && strcmp(owner, study) != 0)
        st = dpt_owned_refuse_study(path, owner, study);
    dpt_mem_free(owner);
    return st;
}

/* A text that the manifest of its folder lists must be as it was written. */
static dpt_status owned_check_listed(const char *path, const char *study) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    struct stat info;
    const char *name = dpt_path_base(path);
    char *folder = dpt_path_parent(path);
    char *list = folder != NULL ? dpt_path_join(folder, DPT_MANIFEST_STUDY) : NULL;
    dpt_status st = list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_manifest_read(list, &manifest, &found) != DPT_OK)
        dpt_error_clear(); /* damaged: it says nothing */
    bool there = lstat(path, &info) == 0;
    bool other =
        found && study != NULL && manifest.name != NULL && strcmp(manifest.name, study) != 0;
    if (st == DPT_OK && other)
        st = dpt_owned_refuse_study(path, manifest.name, study);
    else if (st == DPT_OK && there && dpt_manifest_find(&manifest, name) != NULL &&
             !dpt_manifest_owns(&manifest, folder, name))
        st = dpt_owned_refuse_changed(path);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(list);
    dpt_mem_free(folder);
    return st;
}

/* Whether a file that exists is as it was written: its seal stands at the end, before `after`. */
static bool owned_sealed(const char *path, const char *after) {
    char *bytes = NULL;
    int64_t n = 0, length = 0, rest = (int64_t)strlen(after);
    bool sealed = dpt_file_read(path, INT64_MAX - 1, &bytes, &n) == DPT_OK && n >= rest &&
                  memcmp(bytes + n - rest, after, (size_t)rest) == 0 &&
                  dpt_seal_check(bytes, n - rest, &length);
    dpt_error_clear();
    dpt_mem_free(bytes);
    return sealed;
}

/* A text that begins with `start`; `what` names such a file in the message. */
static dpt_status owned_check_text(const char *path, const char *start, const char *what) {
    char text[DPT_OWNED_START_BYTES + 1], tail[DPT_SEAL_BYTES + 1];
    bool there = false;
    dpt_status st = owned_find(path, what, &there);
    if (!there)
        return st;
    int64_t size = dpt_owned_peek(path, text, tail);
    return size > 0 && dpt_owned_begins(text, start) ? DPT_OK : dpt_owned_refuse(path, what);
}

dpt_status dpt_owned_check(const char *path, dpt_owned_kind kind, const char *study) {
    const struct kind *k = &kinds[kind];
    if (k->start != NULL) {
        dpt_status text = owned_check_text(path, k->start, k->what);
        struct stat info;
        bool listed = kind != DPT_OWNED_PROGRESS;
        if (text == DPT_OK && kind == DPT_OWNED_REPORT && lstat(path, &info) == 0 &&
            !owned_sealed(path, DPT_OWNED_REPORT_END))
            text = dpt_owned_refuse_changed(path);
        return text == DPT_OK && listed ? owned_check_listed(path, study) : text;
    }
    bool there = false;
    dpt_status st = owned_find(path, k->what, &there);
    if (!there)
        return st;
    bool again = kind == DPT_OWNED_UNIT || kind == DPT_OWNED_CACHE; /* when it is damaged */
    if (!owned_marked(path, k->format) && !(again && owned_zeroed(path)))
        return dpt_owned_refuse(path, k->what);
    if (kind == DPT_OWNED_RESULTS && !owned_sealed(path, ""))
        return dpt_owned_refuse_changed(path);
    return owned_check_study(path, k->owner, study);
}

dpt_status dpt_owned_check_table(const char *path, const char *start, const char *what,
                                 bool overwrite) {
    struct stat info;
    dpt_status st = owned_check_text(path, start, what);
    if (st == DPT_OK && !overwrite && lstat(path, &info) == 0)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: exists already: give --overwrite to replace it, changes that were made "
                       "to it included, or choose another output",
                       path);
    return st;
}

dpt_status dpt_owned_write_table(const char *path, const char *start, const char *what,
                                 bool overwrite, dpt_owned_print_fn *print, const void *ctx) {
    char *text = NULL;
    size_t n = 0;
    dpt_status st = dpt_owned_check_table(path, start, what, overwrite);
    if (st == DPT_OK)
        st = dpt_owned_check_place(path);
    if (st != DPT_OK)
        return st;
    dpt_file_sweep_of(path);
    FILE *file = open_memstream(&text, &n);
    if (file != NULL)
        print(ctx, file);
    bool failed = file == NULL || ferror(file) != 0;
    if (file != NULL && fclose(file) != 0)
        failed = true;
    st = failed ? dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path)
                : dpt_file_write(path, text, (int64_t)n);
    free(text);
    return st;
}
