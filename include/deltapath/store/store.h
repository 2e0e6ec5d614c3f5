#ifndef DELTAPATH_STORE_STORE_H
#define DELTAPATH_STORE_STORE_H

#include "deltapath/comm/comm.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"
#include "deltapath/tensor/pair.h"
#include "deltapath/tensor/shard.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** A model on disk, opened by all ranks: an HDF5 checkpoint or a HuggingFace safetensors directory
 * (or a single .safetensors file), an adapter on one, or a synthetic one (store/synthetic.h). One interface; a format is a driver (store_internal.h). */
typedef struct dpt_store dpt_store;

/** Formats in which models are written: X(constant, name in a job file). */
#define DPT_STORE_FORMATS(X) X(HDF5, hdf5) X(SAFETENSORS, safetensors)

#define DPT_STORE_CONSTANT(constant, name) DPT_STORE_##constant,
typedef enum dpt_store_format {
    DPT_STORE_NONE,
    DPT_STORE_FORMATS(DPT_STORE_CONSTANT)
        DPT_STORE_WRITTEN, /* one that is only read goes after this */
    DPT_STORE_ADAPTER,
    DPT_STORE_SYNTHETIC
} dpt_store_format;

/** "none" and their names, with | between them. */
#define DPT_STORE_CHOICE(constant, name) "|" #name
#define DPT_STORE_NAMES                  "none" DPT_STORE_FORMATS(DPT_STORE_CHOICE)

/** What of an edited model is written: all of it; the tensors that are edited; their deltas. */
typedef enum dpt_store_content {
    DPT_STORE_MODEL,
    DPT_STORE_SELECTED,
    DPT_STORE_DELTA
} dpt_store_content;
#define DPT_STORE_CONTENTS "model|selected|delta" /* in this order */

/** How the tensors of an HDF5 file are written: around the library, at their places; by H5Dwrite of each rank for
 * itself; by H5Dwrite of all ranks together. */
typedef enum dpt_store_io {
    DPT_STORE_DIRECT,
    DPT_STORE_INDEPENDENT,
    DPT_STORE_COLLECTIVE
} dpt_store_io;
#define DPT_STORE_IOS "direct|independent|collective" /* in this order */

/** How tensors of an HDF5 file are read: by each rank for itself; by H5Dread of all ranks together those that lie in chunks,
 * filtered or compact; all. */
typedef enum dpt_store_reading {
    DPT_STORE_ALONE,
    DPT_STORE_CHUNKS,
    DPT_STORE_TOGETHER
} dpt_store_reading;
#define DPT_STORE_READINGS "direct|chunks|collective" /* in this order */

/** What MPI-IO is told of a file (MPI_Info). */
typedef struct dpt_store_hint {
    const char *name, *value;
} dpt_store_hint;

/** How the files of a model are written. Zeros are the default. */
typedef struct dpt_store_layout {
    dpt_store_io io; /**< of HDF5 */
    int64_t
        chunk_bytes; /**< of HDF5: tensors lie in chunks of about so much; 0: contiguous, or 1 MiB with deflate */
    int deflate; /**< of HDF5: level + 1, after shuffling; 0: not compressed */
    int nhints;
    const dpt_store_hint *hints;
} dpt_store_layout;

/** Bytes of memory that writing takes besides, on each rank; whether every byte is written to a temporary file first.
 * Local. */
int64_t dpt_store_layout_bytes(const dpt_store_layout *layout);
bool dpt_store_layout_stages(const dpt_store_layout *layout);

/** Name of a format for people; what ends the name of a model that a study writes in it, "" for DPT_STORE_NONE;
 * the format of a new model at a path. Local. */
const char *dpt_store_format_name(dpt_store_format format);
const char *dpt_store_format_ending(dpt_store_format format);
dpt_store_format dpt_store_format_for(const char *path);

/** Open a model for reading; the format is found from the path.
 *
 * Rank 0 reads and checks the headers, the other ranks get the result: metadata costs one reader
 * whatever the number of ranks. Every offset, size, shape, name and type is checked against the
 * length of the file before use.
 * Collective over comm (same: path).
 * Errors: DPT_ERR_INPUT naming the file, the tensor, and the remedy.
 */
dpt_status dpt_store_open(const dpt_comm *comm, const char *path, dpt_store **out);

/** The same of a path that may be the folder of a PEFT adapter, which is the model of its base with its factors
 * added: W = round(W_base + scaling B A), in the types of the base (doc/formats.md, Adapters).
 *
 * Collective over comm (same: path, base). @param[in] base  model that the adapter is for, where its
 * `base_model_name_or_path` is no model that lies here; NULL: none is given.
 * Errors: DPT_ERR_INPUT as above; naming the adapter and the option, tensor or module that does not fit. */
dpt_status dpt_store_open_on(const dpt_comm *comm, const char *path, const char *base,
                             dpt_store **out);
void dpt_store_close(dpt_store *store); /**< Local. */

/** Tensors as they are read, sorted by name: a quantised one is a plain one of the float type that `config.json`
 * names, bf16 without, and its scales are left out. Local. */
const dpt_catalog *dpt_store_catalog(const dpt_store *store);
/** dpt_catalog_rename of them, before the catalog is used or copied. Local. */
dpt_status dpt_store_rename(dpt_store *store, int count, const dpt_rename *renames, int *idle);
const char *dpt_store_path(const dpt_store *store); /**< Local */
/** Text of config.json, or NULL; of a quantised model without `quantization_config`. Local. */
const char *dpt_store_config(const dpt_store *store);
/** Query heads by its config.json, for dpt_parts_create; 0: not said. Local. */
int64_t dpt_store_heads(const dpt_store *store);
const char *
dpt_store_metadata(const dpt_store *store); /**< JSON object of strings, or NULL; Local */
const char *
dpt_store_provenance(const dpt_store *store); /**< text of who made it, or NULL; Local */
/** Check that the tensors are the plain weights of a model: not quantised, no LoRA adapter, no names of a PEFT
 * wrapper. Local; the same on all ranks. Errors: DPT_ERR_INPUT naming the kind, a tensor and the remedy. */
dpt_status dpt_store_check_usable(const dpt_store *store);

/** Check that an adapter that changes the embedding changes the head that is tied to it alike: PEFT leaves it as it is
 * unless `ensure_weight_tying` says otherwise; and that what it has for a head that the base does not store is the same
 * as for the embedding. Local; reads that on each rank.
 * Errors: DPT_ERR_INPUT naming adapter, tensor and remedy; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_store_check_head(dpt_store *store, const dpt_tied_head *head);

/** Number of tokenizer, generation and licence files that come with the model; name and size of one,
 * borrowed, sorted by name. Local. */
int dpt_store_companion_count(const dpt_store *store);
const char *dpt_store_companion_at(const dpt_store *store, int i, int64_t *bytes);

/** Compare these files with those of the model at `path`. Local. @param[out] name  of the first that only one has or
 * whose bytes differ (dpt_mem_free), or NULL when they are the same. Errors: DPT_ERR_INPUT naming a file. */
dpt_status dpt_store_compare_companions(const dpt_store *store, const char *path, char **name);

dpt_store_format dpt_store_get_format(const dpt_store *store); /**< Local */
/** Path of the model that an adapter is added to; NULL: it is no adapter. Local. */
const char *dpt_store_base(const dpt_store *store);
/** Bytes that reading takes besides: factors of an adapter, chunks of an HDF5 file; 0 for most models. Local. */
int64_t dpt_store_read_bytes(const dpt_store *store);

/** What the headers of a model say about where it comes from. */
typedef struct dpt_store_origin {
    dpt_store_format format;
    bool ours; /**< this program wrote it: provenance and the hash of every tensor are there */
    char recipe[24]; /**< `recipe` of its provenance, or "" */
    uint64_t digest; /**< dpt_store_finish_digest of it; 0 unless every tensor has a hash */
} dpt_store_origin;

/** Read and check the headers, and all that a trailer or a manifest covers, on this rank alone.
 * Local. Errors: DPT_ERR_INPUT as dpt_store_open. */
dpt_status dpt_store_get_origin(const char *path, dpt_store_origin *out);

/** Of a safetensors folder: the next file that its manifest does not list, for `i` from 0 on, allocated; NULL
 * after the last, or without a manifest. Local.
 * Errors: DPT_ERR_INPUT naming the manifest when the folder says that it has one and it is not there. */
dpt_status dpt_store_unlisted(const char *path, int i, char **name);

/** Whether a path is an HDF5 file whose attribute of this name is this text; the name is `format`. Local. */
bool dpt_store_attribute_is(const char *path, const char *name, const char *text);
bool dpt_store_is_format(const char *path, const char *format);

/** Hash of the headers (names, types, shapes, sizes, modification times excluded) and of a few KiB of
 * each tensor, for provenance and resume: it tells trainings apart, not single values. Local; the same
 * on all ranks. */
uint64_t dpt_store_fingerprint(const dpt_store *store);

/** Whether a tensor is quantised in the files: how, for people, and the bytes that it and its scales take there; else
 * "" and 0. Local. */
bool dpt_store_quantised(const dpt_store *store, int tensor, char *text, int size, int64_t *bytes);

/** Whether the format carries a stored XXH3-64 of a tensor's bytes; its value. None of a quantised tensor, whose
 * bytes in the files are others than those that are read. Local. */
bool dpt_store_stored_hash(const dpt_store *store, int tensor, uint64_t *hash);

/** What is done about the hash of a tensor. */
typedef enum dpt_store_hashing {
    DPT_STORE_COMPARED, /**< made and compared where one is stored */
    DPT_STORE_MADE,     /**< the same; made too where none is stored */
    DPT_STORE_TRUSTED /**< the stored one is taken as it is, and nothing is read for it; without one, made */
} dpt_store_hashing;

/** Compare the stored hashes with the bytes that are read: between begin and end each dpt_source.read feeds
 * them, and what was not read in order is read again at the end.
 *
 * Begin is Local (same: all; end checks it), end Collective over comm, agreed.
 * @param[in] catalog  in whose order the shard cuts, with the types of the store, borrowed until the end; pair: the store is its pre and the catalog
 * its own; NULL: the catalog is the store's. how (tensors of catalog): NULL: those are hashed that have a stored one.
 * @param[out] hashes (tensors of catalog) XXH3-64 of each that was hashed, the stored one of each that is trusted, 0 of the
 * others; or NULL.
 * Errors: DPT_ERR_INPUT naming file and tensor of a hash that differs; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_store_check_begin(dpt_store *store, const dpt_comm *comm, const dpt_catalog *catalog,
                                 const dpt_shard *shard, const dpt_pair *pair,
                                 const dpt_store_hashing *how);
dpt_status dpt_store_check_end(dpt_store *store, uint64_t *hashes);

/** What is read together, for cells of which a rank has the same in all passes. */
typedef struct dpt_store_holding {
    dpt_store_reading how;
    const dpt_shard
        *shard; /**< of the catalog of the store, or of the pair's, in the store's types */
    const dpt_pair *pair; /**< the store is its pre; NULL: the catalog is the store's */
    const bool *wanted;   /**< (tensors of the shard) */
} dpt_store_holding;

/** Memory and bytes that this takes. */
typedef struct dpt_store_hold_needs {
    int64_t kept;    /**< memory of a rank, until the store is closed: the largest rank's */
    int64_t besides; /**< while it is read */
    int64_t read;    /**< of the file, by all ranks */
} dpt_store_hold_needs;

/** Whether a tensor of the shard's catalog is held when it is wanted; what all of them take. Local. Errors: DPT_ERR_OUTPUT without memory. */
bool dpt_store_holds(const dpt_store *store, dpt_store_reading how, const dpt_catalog *catalog,
                     const dpt_pair *pair, int tensor);
dpt_status dpt_store_hold_bytes(const dpt_store *store, const dpt_store_holding *what,
                                dpt_store_hold_needs *out);

/** Read tensors by collective H5Dread of hyperslabs, in the file's own type and rounds of a run of rows for each rank, in which
 * ranks that have no run left select nothing; each rank keeps the cells that the shard gives it. From then on a read of own
 * cells comes from there, any other one from the file as ever: the bytes are the same. Quantised tensors, those of an adapter and
 * other formats are not held. Once for a store.
 * Collective over comm, agreed (same: what). Errors: DPT_ERR_INPUT naming file, tensor and what HDF5 says; DPT_ERR_OUTPUT
 * when the budget does not allow it. */
dpt_status dpt_store_hold(dpt_store *store, const dpt_comm *comm, const dpt_store_holding *what);

/** Time of the last change of any file of the weights [ns since 1970], of its content or of its name and
 * rights; 0 when every tensor has a stored hash, by which the fingerprint tells all changes. Local. */
int64_t dpt_store_changed_at(const dpt_store *store);

/** Check that the files are those that were opened (inode, size, times of modification and of the inode); with `headers`
 * also that headers and pieces of all tensors are what they were.
 * Collective over comm, agreed. Errors: DPT_ERR_INPUT naming the file: "changed while it was read". */
dpt_status dpt_store_check_unchanged(const dpt_comm *comm, const dpt_store *store, bool headers);

/** The store as a source: read is Local (pread), fetch is Collective by contract but
 * each rank reads for itself, so its status is not agreed. Valid while the store is open. */
dpt_source dpt_store_source(dpt_store *store);

/** What a new model is written with. Texts are borrowed for the call. */
typedef struct dpt_store_options {
    dpt_store_format format;
    const char *config;   /**< config.json text or NULL */
    const char *metadata; /**< JSON object of strings or NULL ({"format": "pt"} for safetensors) */
    const char *provenance;      /**< JSON text of who made it how, or NULL */
    const dpt_store *companions; /**< whose tokenizer, generation and licence files come along, as
                                    files or in the HDF5 file, or NULL */
    int64_t shard_bytes;         /**< safetensors: start a new file beyond this size; 0: 5e9 */
    bool overwrite;              /**< replace a model that this program wrote (store/owned); else
                                    existing output is an error */
    const char *owner;           /**< id of the edit that must have made it; NULL: any model */
    const char *study;           /**< name of the study whose edit it must be; NULL: of any */
    const dpt_tied_head *copy;   /**< head that gets what is written of its embedding, of the same
                                    type, in the place of its own; NULL: none */
    dpt_store_layout layout;     /**< its hints are borrowed for the call */
    dpt_store_content content;
    const bool *
        kept; /**< (tensors) of another content than a model: which are written; borrowed for the call */
    const dpt_source *
        pre; /**< DPT_STORE_DELTA: what is taken off, under the numbers of the catalog; its `read` is
                              called until the end; f32, f16 or bf16, as the catalog where it is kept */
} dpt_store_options;

/** A model being written next to its final name (path DPT_FILE_PARTIAL, base/file.h). */
typedef struct dpt_store_writer dpt_store_writer;

/** Create. Checks permission, disk space and existing output before anything is written.
 * Collective over comm (same: path, catalog, options). @param[in] shard whose cells belong to whom;
 * borrowed with its catalog until close.
 * Errors: DPT_ERR_OUTPUT; nothing is left behind. */
dpt_status dpt_store_create(const dpt_comm *comm, const char *path, const dpt_catalog *catalog,
                            const dpt_shard *shard, const dpt_store_options *options,
                            dpt_store_writer **out);

/** The writer as a sink: write and scatter are Local in effect (pwrite in pieces of at most
 * 1 GiB); any range may be written once, by any rank. */
dpt_sink dpt_store_writer_sink(dpt_store_writer *writer);

/** Complete: hashes, sync, rename to the final name (the old one, if any, is replaced atomically
 * where the file system can). Collective. On error the partial output is removed. The writer is
 * freed in either case. @param[in] local this rank's status so far; not DPT_OK on any rank: the
 * output is discarded on all. */
dpt_status dpt_store_finish(dpt_store_writer *writer, dpt_status local);

/** The same. @param[out] digest  hash of the names and hashes of all tensors, the same on all ranks. */
dpt_status dpt_store_finish_digest(dpt_store_writer *writer, dpt_status local, uint64_t *digest);

/** Whether a file is the pointer that Git LFS leaves in place of a large file. Local. */
bool dpt_store_is_lfs_pointer(const char *path);

/** Check a model: structure, all hashes, finite values; rank 0 prints to `out`. Collective over comm (same: path, base).
 * @param[in] base  as dpt_store_open_on.
 * @param[out] hashes (count) XXH3-64 of each tensor in the order of the store, on all ranks, allocated, or NULL
 * on error; not wanted when both are NULL. Errors: DPT_ERR_INPUT naming file and tensor. */
dpt_status dpt_store_verify(const dpt_comm *comm, const char *path, const char *base, FILE *out,
                            uint64_t **hashes, int *count);

#endif
