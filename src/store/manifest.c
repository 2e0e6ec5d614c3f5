#include "deltapath/store/manifest.h"

#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/owned.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIGITS = 32, READ_BYTES = 1 << 20, VERSION = 1, NAME_MAX_BYTES = 255 };

static const int64_t MANIFEST_LIMIT = 1 << 21; /* a name is looked for among all before it */
static const char FORMAT[] = "deltapath-manifest";

/* The checksum is the first key: its digits stand after these characters. */
static const char BEGIN[] = DPT_MANIFEST_START;
static const char ZEROS[] = "00000000000000000000000000000000";

void dpt_manifest_destroy(dpt_manifest *manifest) {
    dpt_mem_free(manifest->name);
    dpt_mem_free(manifest->recipe);
    for (int64_t i = 0; i < manifest->count; i++)
        dpt_mem_free(manifest->entries[i].name);
    dpt_mem_free(manifest->entries);
    *manifest = (dpt_manifest){.count = 0};
}

const dpt_manifest_entry *dpt_manifest_find(const dpt_manifest *manifest, const char *name) {
    for (int64_t i = 0; i < manifest->count; i++)
        if (strcmp(manifest->entries[i].name, name) == 0)
            return &manifest->entries[i];
    return NULL;
}

dpt_status dpt_manifest_set(dpt_manifest *manifest, const dpt_manifest_entry *entry) {
    dpt_manifest_entry *slot =
        (dpt_manifest_entry *)(uintptr_t)dpt_manifest_find(manifest, entry->name);
    if (slot != NULL) {
        char *name = slot->name;
        *slot = *entry;
        slot->name = name;
        return DPT_OK;
    }
    slot = dpt_mem_realloc(manifest->entries, manifest->count + 1, sizeof *slot, "manifest");
    if (slot == NULL)
        return DPT_ERR_OUTPUT;
    manifest->entries = slot;
    slot += manifest->count;
    *slot = *entry;
    slot->name = dpt_mem_strdup(entry->name, "manifest");
    if (slot->name == NULL)
        return DPT_ERR_OUTPUT;
    manifest->count++;
    return DPT_OK;
}

static void format_hash(const uint64_t hash[2], char text[DIGITS + 1]) {
    snprintf(text, DIGITS + 1, "%016" PRIx64 "%016" PRIx64, hash[1], hash[0]);
}

static bool parse_hash(const json_t *value, uint64_t hash[2]) {
    const char *text = json_string_value(value);
    char word[17] = "";
    if (text == NULL || strlen(text) != DIGITS || strspn(text, "0123456789abcdef") != DIGITS)
        return false;
    memcpy(word, text, 16);
    hash[1] = strtoull(word, NULL, 16);
    hash[0] = strtoull(text + 16, NULL, 16);
    return true;
}

static void text_checksum(char *text, size_t n, char digits[DIGITS + 1]) {
    uint64_t hash[2];
    memcpy(text + strlen(BEGIN), ZEROS, DIGITS);
    dpt_hash128_bytes(text, n, hash);
    format_hash(hash, digits);
}

static dpt_status parse_entry(const char *name, const json_t *value, dpt_manifest *out, bool *ok) {
    const json_t *bytes = json_object_get(value, "bytes");
    const json_t *header = json_object_get(value, "header");
    const json_t *previous = json_object_get(value, "previous");
    dpt_manifest_entry entry = {.name = (char *)(uintptr_t)name,
                                .bytes = (int64_t)json_integer_value(bytes),
                                .replacing = previous != NULL};
    entry.covered = header != NULL ? (int64_t)json_integer_value(header) : entry.bytes;
    size_t n = strlen(name);
    *ok = json_is_integer(bytes) && entry.bytes >= 0 && entry.covered >= 0 &&
          entry.covered <= entry.bytes && n > 0 && n <= NAME_MAX_BYTES &&
          strchr(name, '/') == NULL && name[0] != '.' &&
          parse_hash(json_object_get(value, "xxh128"), entry.hash) &&
          (previous == NULL || parse_hash(previous, entry.previous));
    return *ok ? dpt_manifest_set(out, &entry) : DPT_OK;
}

static dpt_status parse_root(const json_t *root, dpt_manifest *out, bool *ok) {
    const char *format = json_string_value(json_object_get(root, "format"));
    const char *name = json_string_value(json_object_get(root, "name"));
    const char *recipe = json_string_value(json_object_get(root, "recipe"));
    const json_t *files = json_object_get(root, "files");
    const char *key;
    json_t *value;
    dpt_status st = DPT_OK;
    *ok = format != NULL && strcmp(format, FORMAT) == 0 &&
          json_integer_value(json_object_get(root, "version")) == VERSION && json_is_object(files);
    out->name = dpt_mem_strdup(name, "manifest");
    out->recipe = dpt_mem_strdup(recipe, "manifest");
    if ((name != NULL && out->name == NULL) || (recipe != NULL && out->recipe == NULL))
        return DPT_ERR_OUTPUT;
    json_object_foreach((json_t *)(uintptr_t)files, key, value) {
        if (*ok && st == DPT_OK)
            st = parse_entry(key, value, out, ok);
    }
    return st;
}

static dpt_status parse_text(char *text, int64_t n, dpt_manifest *out, bool *ok) {
    char stored[DIGITS + 1] = "", computed[DIGITS + 1];
    size_t begin = strlen(BEGIN);
    *ok = n > (int64_t)begin + DIGITS && memcmp(text, BEGIN, begin) == 0;
    if (!*ok)
        return DPT_OK;
    memcpy(stored, text + begin, DIGITS);
    text_checksum(text, (size_t)n, computed);
    *ok = strcmp(stored, computed) == 0;
    json_t *root = *ok ? json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    dpt_status st = root != NULL ? parse_root(root, out, ok) : DPT_OK;
    *ok = *ok && root != NULL;
    json_decref(root);
    return st;
}

dpt_status dpt_manifest_read(const char *path, dpt_manifest *out, bool *found) {
    char *text = NULL;
    int64_t n = 0;
    bool ok = true;
    *out = (dpt_manifest){.count = 0};
    *found = access(path, F_OK) == 0;
    if (!*found)
        return DPT_OK;
    dpt_status st = dpt_file_read(path, MANIFEST_LIMIT, &text, &n);
    if (st == DPT_OK)
        st = parse_text(text, n, out, &ok);
    dpt_mem_free(text);
    if (st == DPT_OK && !ok)
        st =
            dpt_error(DPT_ERR_INPUT,
                      "%s: its checksum does not match: it was damaged or changed: copy the folder "
                      "again from where it was whole",
                      path);
    if (st != DPT_OK)
        dpt_manifest_destroy(out);
    return st;
}

static json_t *entry_object(const dpt_manifest_entry *entry) {
    char digits[DIGITS + 1];
    json_t *object = json_object();
    json_object_set_new(object, "bytes", json_integer((json_int_t)entry->bytes));
    if (entry->covered != entry->bytes)
        json_object_set_new(object, "header", json_integer((json_int_t)entry->covered));
    format_hash(entry->hash, digits);
    json_object_set_new(object, "xxh128", json_string(digits));
    if (entry->replacing) {
        format_hash(entry->previous, digits);
        json_object_set_new(object, "previous", json_string(digits));
    }
    return object;
}

/* The text, allocated by jansson; NULL without memory, or for a name that is not UTF-8. */
static char *manifest_text(const dpt_manifest *manifest) {
    json_t *root = json_object();
    json_t *files = json_object();
    bool ok = true;
    json_object_set_new(root, "checksum", json_string(ZEROS));
    json_object_set_new(root, "format", json_string(FORMAT));
    json_object_set_new(root, "version", json_integer(VERSION));
    if (manifest->name != NULL)
        ok = json_object_set_new(root, "name", json_string(manifest->name)) == 0;
    if (manifest->recipe != NULL)
        ok = json_object_set_new(root, "recipe", json_string(manifest->recipe)) == 0 && ok;
    for (int64_t i = 0; i < manifest->count; i++)
        ok = json_object_set_new(files, manifest->entries[i].name,
                                 entry_object(&manifest->entries[i])) == 0 &&
             ok;
    ok = json_object_set_new(root, "files", files) == 0 && ok;
    /* Sorted: the same files give the same text, whatever order a folder lists them in. */
    char *text = ok ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    if (text != NULL) {
        char digits[DIGITS + 1];
        text_checksum(text, strlen(text), digits);
        memcpy(text + strlen(BEGIN), digits, DIGITS);
    }
    return text;
}

dpt_status dpt_manifest_write(const char *path, const dpt_manifest *manifest) {
    char *text = manifest_text(manifest);
    dpt_status st = text != NULL ? dpt_file_write(path, text, (int64_t)strlen(text))
                                 : dpt_error(DPT_ERR_OUTPUT,
                                             "%s: cannot be made: no memory, or a name that is not "
                                             "UTF-8",
                                             path);
    free(text);
    return st;
}

static dpt_status hash_open(int fd, const char *path, int64_t n, uint64_t hash[2]) {
    char *buffer = dpt_mem_alloc(READ_BYTES, 1, "buffer of a hash");
    dpt_status st = buffer != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_hash state;
    dpt_hash_begin(&state);
    for (int64_t at = 0; at < n && st == DPT_OK;) {
        int64_t want = n - at < READ_BYTES ? n - at : READ_BYTES;
        int64_t got = dpt_file_read_at(fd, at, buffer, want);
        if (got != want)
            st = dpt_error(DPT_ERR_INPUT, "%s: cannot be read to its end: check the disk", path);
        else
            dpt_hash_update(&state, buffer, (size_t)got);
        at += want;
    }
    dpt_hash128_value(&state, hash);
    dpt_mem_free(buffer);
    return st;
}

dpt_status dpt_manifest_measure(const char *path, int64_t covered, dpt_manifest_entry *entry) {
    dpt_file_identity identity;
    int fd = dpt_file_open_input(path);
    if (fd < 0)
        return DPT_ERR_INPUT;
    dpt_status st = dpt_file_identify_open(fd, path, &identity);
    entry->bytes = identity.size;
    entry->covered = covered < 0 || covered > identity.size ? identity.size : covered;
    if (st == DPT_OK)
        st = hash_open(fd, path, entry->covered, entry->hash);
    close(fd);
    return st;
}

dpt_status dpt_manifest_check(const char *folder, const dpt_manifest_entry *entry) {
    dpt_manifest_entry now = {.bytes = 0};
    char *path = dpt_mem_format("%s/%s", folder, entry->name);
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_manifest_measure(path, entry->covered, &now);
    if (st == DPT_OK && now.bytes != entry->bytes)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: has %" PRId64 " bytes where the manifest says %" PRId64
                       ": it was damaged or changed, copy it again",
                       path, now.bytes, entry->bytes);
    else if (st == DPT_OK && memcmp(now.hash, entry->hash, sizeof now.hash) != 0)
        st =
            dpt_error(DPT_ERR_INPUT,
                      "%s: does not have the hash of the manifest: it was damaged or changed, copy "
                      "it again",
                      path);
    dpt_mem_free(path);
    return st;
}

/* Hash of a file that the manifest lists as it is. */
static bool find_owned(const dpt_manifest *manifest, const char *folder, const char *name,
                       dpt_manifest_entry *now) {
    const dpt_manifest_entry *entry = dpt_manifest_find(manifest, name);
    char *path = dpt_mem_format("%s/%s", folder, name);
    bool owned = entry != NULL && path != NULL && access(path, F_OK) == 0;
    if (owned && dpt_manifest_measure(path, -1, now) != DPT_OK) {
        dpt_error_clear();
        owned = false;
    }
    dpt_mem_free(path);
    return owned &&
           ((now->bytes == entry->bytes && entry->covered == entry->bytes &&
             memcmp(now->hash, entry->hash, sizeof now->hash) == 0) ||
            (entry->replacing && memcmp(now->hash, entry->previous, sizeof now->hash) == 0));
}

bool dpt_manifest_owns(const dpt_manifest *manifest, const char *folder, const char *name) {
    dpt_manifest_entry now;
    return find_owned(manifest, folder, name, &now);
}

/* Entry of a file that is put, with what it replaces. */
static dpt_status add_change(dpt_manifest *manifest, const char *folder, const char *name) {
    dpt_manifest_entry now = {.bytes = 0};
    dpt_manifest_entry next = {.name = (char *)(uintptr_t)name};
    char *path = dpt_mem_format("%s/%s", folder, name);
    char *temporary = path != NULL ? dpt_file_temporary(path) : NULL;
    dpt_status st = temporary != NULL ? dpt_manifest_measure(temporary, -1, &next) : DPT_ERR_OUTPUT;
    next.replacing = find_owned(manifest, folder, name, &now);
    memcpy(next.previous, now.hash, sizeof next.previous);
    dpt_mem_free(temporary);
    dpt_mem_free(path);
    return st == DPT_OK ? dpt_manifest_set(manifest, &next) : st;
}

static dpt_status commit_files(dpt_status st, const char *folder, int count,
                               const char *const *names) {
    for (int i = 0; i < count; i++) {
        char file[PATH_MAX]; /* no memory: temporary files are discarded when there is none, too */
        snprintf(file, sizeof file, "%s/%s", folder, names[i]);
        if (st == DPT_OK)
            st = dpt_file_commit(file);
        else
            dpt_file_discard(file);
    }
    return st;
}

/* Announce, commit, conclude. */
static dpt_status commit_by(dpt_manifest *manifest, const char *path, const char *folder, int count,
                            const char *const *names) {
    dpt_status st = dpt_owned_check(path, DPT_OWNED_MANIFEST, manifest->name);
    for (int i = 0; i < count && st == DPT_OK; i++)
        st = add_change(manifest, folder, names[i]);
    if (st == DPT_OK)
        st = dpt_manifest_write(path, manifest);
    st = commit_files(st, folder, count, names);
    for (int64_t i = 0; i < manifest->count; i++)
        manifest->entries[i].replacing = false;
    return st == DPT_OK ? dpt_manifest_write(path, manifest) : st;
}

dpt_status dpt_manifest_commit(const char *folder, const char *study, int count,
                               const char *const *names) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    char *path = dpt_mem_format("%s/" DPT_MANIFEST_STUDY, folder);
    dpt_status st = path != NULL ? dpt_manifest_read(path, &manifest, &found) : DPT_ERR_OUTPUT;
    if (st == DPT_ERR_INPUT) {
        dpt_log(DPT_LOG_WARN, "%s: it is written anew", dpt_error_message());
        dpt_error_clear();
        st = DPT_OK;
    }
    dpt_mem_free(manifest.name);
    manifest.name = dpt_mem_strdup(study, "manifest");
    if (manifest.name == NULL)
        st = DPT_ERR_OUTPUT;
    st = st == DPT_OK ? commit_by(&manifest, path, folder, count, names)
                      : commit_files(st, folder, count, names);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(path);
    return st;
}

dpt_status dpt_manifest_commit_file(const char *path) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char *folder =
        slash != NULL ? dpt_mem_format("%.*s", (int)(slash - path), path) : dpt_mem_format(".");
    char *list = folder != NULL ? dpt_mem_format("%s/" DPT_MANIFEST_STUDY, folder) : NULL;
    dpt_status st = list != NULL ? dpt_manifest_read(list, &manifest, &found) : DPT_ERR_OUTPUT;
    if (st == DPT_OK && found)
        st = commit_by(&manifest, list, folder, 1, &name);
    else if (st == DPT_OK)
        st = dpt_file_commit(path);
    else
        dpt_file_discard(path);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(list);
    dpt_mem_free(folder);
    return st;
}
