#ifndef DELTAPATH_STORE_MANIFEST_H
#define DELTAPATH_STORE_MANIFEST_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* A manifest lists files of its folder with their lengths and hashes, so that every byte of files that
 * have no room for a checksum of their own is covered. Two folders have one:
 *
 *   <study>/DPT_MANIFEST_STUDY            results.h5, summary.csv, seeds.csv, plane.csv, proof.csv, results.json,
 *                                         report.html
 *   <checkpoint>/DPT_MANIFEST_CHECKPOINT  all files of a safetensors model; of weights the header
 *
 * The text covers itself: its first key `checksum` is the XXH3-128 of the whole text with zeros in place
 * of the 32 digits. doc/formats.md describes it. All functions are Local. */

#define DPT_MANIFEST_STUDY      "manifest.json"
#define DPT_MANIFEST_START      "{\n \"checksum\": \"" /* of its text */
#define DPT_MANIFEST_CHECKPOINT "deltapath-manifest.json"

/** A file: the hash is of its first `covered` bytes, which are all but for weights. */
typedef struct dpt_manifest_entry {
    char *name;
    int64_t bytes, covered;
    uint64_t hash[2]; /**< XXH3-128 */
    bool replacing;   /**< the file was about to be replaced: it may still be the previous one */
    uint64_t previous[2]; /**< hash of the whole previous one */
} dpt_manifest_entry;

typedef struct dpt_manifest {
    char *name;   /**< of the study's job; NULL for a checkpoint */
    char *recipe; /**< of an edited model: hash of models, selection, edit, types; else NULL */
    int64_t count;
    dpt_manifest_entry *entries;
} dpt_manifest;

void dpt_manifest_destroy(dpt_manifest *manifest); /**< An empty (zeroed) one is allowed. */

/** Add an entry, or replace the one of its name (`name` is copied).
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_manifest_set(dpt_manifest *manifest, const dpt_manifest_entry *entry);
const dpt_manifest_entry *dpt_manifest_find(const dpt_manifest *manifest, const char *name);

/** Read a manifest. @param[out] found  false, and DPT_OK, when there is no such file.
 * Errors: DPT_ERR_INPUT naming the file when it is damaged or of another kind; out is empty then. */
dpt_status dpt_manifest_read(const char *path, dpt_manifest *out, bool *found);

/** Write it whole or not at all. Errors: DPT_ERR_OUTPUT naming the file. */
dpt_status dpt_manifest_write(const char *path, const dpt_manifest *manifest);

/** Length of a file and XXH3-128 of its first `covered` bytes (-1: all); entry->name is untouched.
 * Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_manifest_measure(const char *path, int64_t covered, dpt_manifest_entry *entry);

/** Compare the file of an entry in `folder` with it.
 * Errors: DPT_ERR_INPUT naming the file when it is missing, has another length or another hash. */
dpt_status dpt_manifest_check(const char *folder, const dpt_manifest_entry *entry);

/** Whether a file of the folder is one that the manifest lists: the current or the previous one.
 * False for one that is missing, changed, or not listed. */
bool dpt_manifest_owns(const dpt_manifest *manifest, const char *folder, const char *name);

/** Replace files of a study's folder by those that are put (dpt_file_put): the manifest is written first,
 * with the hash of what is replaced; then the files are committed; then the manifest says that it is done.
 * A damaged manifest is written anew, with a warning. @param[in] study  name of the job.
 * Errors: DPT_ERR_OUTPUT naming the file; temporary files are removed. */
dpt_status dpt_manifest_commit(const char *folder, const char *study, int count,
                               const char *const *names);

/** Commit one file that is put, by the manifest of its folder when that has one.
 * Errors: as dpt_manifest_commit; DPT_ERR_INPUT naming a manifest that is damaged. */
dpt_status dpt_manifest_commit_file(const char *path);

#endif
