#ifndef DELTAPATH_SRC_STORE_STORE_INTERNAL_H
#define DELTAPATH_SRC_STORE_STORE_INTERNAL_H

/* What the files of this layer share; no other layer includes it. */

#include "deltapath/base/file.h"
#include "deltapath/base/path.h"
#include "deltapath/base/hash.h"
#include "deltapath/store/store.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/** How the values of a tensor are computed where no file has them (synthetic.h). */
typedef struct dpt_store_made {
    bool made; /**< they are */
    uint64_t seed;
    float mean, scale, step; /**< of the delta; 0: there is none */
} dpt_store_made;

/** One tensor as a file describes it: type, shape, and the one extent that holds its bytes. */
typedef struct dpt_store_entry {
    char *name;
    dpt_dtype dtype;
    int ndim;
    int64_t shape[DPT_NDIM_MAX];
    int64_t bytes;
    int file;       /**< index into the header's files */
    int64_t offset; /**< first byte, counted from the start of the file */
    bool by_hdf5;  /**< HDF5: in chunks, filtered or compact: no extent, read through the library */
    int64_t cache; /**< of such a one: bytes of chunks that the library keeps while it is read */
    bool companion; /**< HDF5: it stands in /companions */
    bool hashed;    /**< whether the file states the XXH3-64 of the bytes */
    uint64_t hash;
    dpt_store_made made;
} dpt_store_entry;

/** A run of bytes of a file. */
typedef struct dpt_store_extent {
    int64_t offset, bytes;
} dpt_store_extent;

/** A file that belongs to a model next to its weights, as an extent of a file. */
typedef struct dpt_store_companion {
    char *name;
    char *file;
    int64_t offset;
    int64_t bytes;
    bool by_hdf5;  /**< it has no extent: see dpt_store_entry */
    int64_t cache; /**< of such a one */
} dpt_store_companion;

/** Tensors of a model. Each takes some 500 bytes on every rank; models of many experts have a tenth. */
enum { DPT_STORE_TENSORS_MAX = 500000 };

/** All that the headers of a model say. Rank 0 fills it, the others get a copy. */
typedef struct dpt_store_header {
    int nfiles;
    char **files;
    int64_t *file_bytes;
    dpt_file_identity *identities; /**< (nfiles) of the files as they were read */
    int64_t count;
    int64_t capacity;
    dpt_store_entry *entries;
    char *config;
    char *metadata;
    char *provenance;
    bool sealed; /**< HDF5: the file says that it ends with a trailer */
    bool
        rewritten; /**< HDF5: it says so, and ends where HDF5 says: another program has written it anew */
    int64_t nchunks;
    dpt_store_extent *chunks; /**< (nchunks) of a sealed one: chunks of its tensors */
    int ncompanions;
    dpt_store_companion *companions; /**< sorted by name */
    char *
        base; /**< of an adapter: what a caller gives it as its base, NULL for nothing; after the scan its base */
    char *adapter;            /**< text of adapter_config.json; NULL: no adapter */
    int64_t nfactors;         /**< tensors of the adapter's file */
    dpt_store_entry *factors; /**< (nfactors) */
} dpt_store_header;

void dpt_store_header_destroy(dpt_store_header *header); /**< Local. */

/** Add a file; its index is nfiles - 1 afterwards. Local. */
dpt_status dpt_store_header_add_file(dpt_store_header *header, const char *path, int64_t bytes);

/** Check a tensor against its file (name, sides, size, extent) and add it. The name is copied;
 * `bytes` is computed from type and shape. Local. Errors: DPT_ERR_INPUT naming file and tensor. */
dpt_status dpt_store_header_add(dpt_store_header *header, const dpt_store_entry *entry);

/** Sort by name; refuse duplicates and overlapping extents. Local. */
dpt_status dpt_store_header_seal(dpt_store_header *header, const char *path);

/** Position of a name in a sealed header, or -1. Local. */
int64_t dpt_store_header_find(const dpt_store_header *header, const char *name);

/** Bytes of shape and type, with all sides checked. Local. Errors: DPT_ERR_INPUT. */
dpt_status dpt_store_header_size(const char *file, const dpt_store_entry *entry, int64_t *bytes);

/** Plain bytes of a header, and back. Local. */
dpt_status dpt_store_header_pack(const dpt_store_header *header, char **packed, int64_t *bytes);
dpt_status dpt_store_header_unpack(const char *packed, int64_t bytes, dpt_store_header *out);

/** Give rank 0's header to all. Collective over comm. */
dpt_status dpt_store_header_broadcast(const dpt_comm *comm, dpt_store_header *header);

/** Hash of pieces of every tensor, so that weights trained anew under old names are told apart.
 * Local. Errors: DPT_ERR_INPUT when a piece cannot be read. */
dpt_status dpt_store_header_sample(const dpt_store_header *header, uint64_t *sample);
uint64_t dpt_store_header_fingerprint(const dpt_store_header *header,
                                      uint64_t sample); /**< Local. */

/** An HDF5 file that is read through the library; private to store_hdf5_read.c. */
typedef struct dpt_store_hdf5_reader dpt_store_hdf5_reader;

/** Bytes of a file. */
typedef struct dpt_store_span {
    int64_t offset, bytes;
} dpt_store_span;

/** What is moved in order in a file, from `begin` to `end`; all before `asked` is being read, or being written to
 * the disk. Begins as zeros. */
typedef struct dpt_store_run {
    int64_t begin, end, asked;
} dpt_store_run;

/** What to read ahead before `piece` bytes of a request are read from `offset` on. Local.
 * @return of no bytes: nothing. */
dpt_store_span dpt_store_run_read(dpt_store_run *run, dpt_store_span request, int64_t offset,
                                  int64_t piece);

/** What to send to the disk once bytes are written. Local. @return of no bytes: nothing. */
dpt_store_span dpt_store_run_written(dpt_store_run *run, int64_t offset, int64_t bytes);

/** Have the system read, or write, what it holds of a file, without waiting. What fails is told by the read
 * itself and by fsync. Local. */
void dpt_store_read_ahead(int fd, dpt_store_span span);
void dpt_store_write_behind(int fd, dpt_store_span span);

/** A set of files that this rank reads or writes at absolute offsets, each opened at first use. */
typedef struct dpt_store_files {
    int count;
    char *const *paths;  /**< borrowed */
    int *handles;        /**< (count) descriptors; -1: not opened yet */
    dpt_store_run *runs; /**< (count) */
    const dpt_file_identity
        *identities;                 /**< of files that are read: what they have to be; or NULL */
    dpt_store_hdf5_reader **readers; /**< (count) of those that are open in HDF5; NULL: none is */
    bool writing;
} dpt_store_files;

dpt_status dpt_store_files_init(dpt_store_files *files, int count, char *const *paths,
                                bool writing); /**< Local. */

/** Move bytes by pread and pwrite, in pieces that the system takes; what is read in order is read ahead, what is written
 * goes to the disk meanwhile (store_run.c). Local.
 * @param[in] tensor  name for messages. Errors: DPT_ERR_INPUT | DPT_ERR_OUTPUT. */
dpt_status dpt_store_files_read(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                void *out, const char *tensor);
/** Elements [ig, ig + n) of a tensor: from its extent, or through HDF5 where it has none. Local. Errors: DPT_ERR_INPUT. */
dpt_status dpt_store_files_read_entry(dpt_store_files *files, const dpt_store_entry *entry,
                                      int64_t ig, int64_t n, void *out);
dpt_status dpt_store_files_write(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                 const void *data, const char *tensor);

/** Sync (when writing and asked to) and close all. Local. */
dpt_status dpt_store_files_close(dpt_store_files *files, bool sync);

/* Paths and small files; all Local. */
/** Copy of a path without trailing slashes. */
char *dpt_store_path_clean(const char *path);
/** Length of a regular file. Errors: DPT_ERR_INPUT. */
dpt_status dpt_store_path_length(const char *path, int64_t *bytes);
/** Whole text file of at most `limit` bytes, with a terminator; *out is NULL when it is absent. */
dpt_status dpt_store_path_read_text(const char *path, int64_t limit, char **out);
/** Write and sync a small file, then stretch it to `length` bytes when that is more. */
dpt_status dpt_store_path_write(const char *path, const void *bytes, int64_t n, int64_t length);
/** Take the disk space of a file's whole length now, where the file system can: a full disk or quota
 * is found before the work, and the writes cost less. Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_store_path_allocate(const char *path);
dpt_status dpt_store_path_sync(const char *path); /**< fsync of a file or a directory */
/** Whether a directory holds nothing but regular files of names that this program gives to the files of a
 * model. Errors: DPT_ERR_OUTPUT naming the first other one. */
dpt_status dpt_store_path_check_folder(const char *path);
/** Remove a file, or a directory and in it the files of a model. Absence is no error.
 * Errors: DPT_ERR_OUTPUT naming what stays. */
dpt_status dpt_store_path_remove(const char *path);
/** Whether nothing is at `path`, or `overwrite` says that a model of ours may be replaced, and it is one of
 * this kind and of the edit `owner` of `study` (dpt_owned_check_model). Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_store_path_check_existing(const char *path, bool directory, bool overwrite,
                                         const char *owner, const char *study);
/** Whether a new output may be made at `path`, with room for `bytes`. Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_store_path_check_output(const char *path, bool directory, bool overwrite,
                                       const char *owner, const char *study, int64_t bytes);
/** Move a complete output to its final name and sync the parent directory. */
dpt_status dpt_store_path_commit(const char *partial, const char *path);
/** Record that `path` cannot be written and why (errno). Returns DPT_ERR_OUTPUT. */
dpt_status dpt_store_path_write_failed(const char *path);

/* Tokenizer, generation and licence files; all Local. */
enum { DPT_STORE_COMPANIONS_MAX = 256 };
#define DPT_STORE_COMPANIONS_BYTES (INT64_C(256) << 20) /**< in an HDF5 checkpoint */

/** Whether a name is one of these files, without anything that leads elsewhere. */
bool dpt_store_companion_allowed(const char *name);
dpt_status dpt_store_companion_add(dpt_store_header *header, const dpt_store_companion *companion);
/** Add those of a directory, sorted. */
dpt_status dpt_store_companions_list(const char *directory, dpt_store_header *header);
void dpt_store_companions_sort(dpt_store_header *header);
int64_t dpt_store_companions_bytes(const dpt_store_header *header); /**< 0 without a header */

/** A companion that is open to be read. */
typedef struct dpt_store_companion_input {
    const dpt_store_companion *companion;
    int fd;
    dpt_store_hdf5_reader *reader; /**< of one that is read by HDF5; NULL: fd is */
} dpt_store_companion_input;

/** Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_store_companion_open(const dpt_store_companion *companion,
                                    dpt_store_companion_input *out);
void dpt_store_companion_close(dpt_store_companion_input *input);
/** n bytes from one on. Errors: DPT_ERR_INPUT naming file and companion. */
dpt_status dpt_store_companion_read(dpt_store_companion_input *input, int64_t at, int64_t n,
                                    void *out);
/** Copy into the file `to` from a byte on, and sync. */
dpt_status dpt_store_companion_copy(const dpt_store_companion *companion, const char *to,
                                    int64_t to_offset);
/** The first of two sorted lists that only one has or whose bytes differ; NULL: none. Borrowed. */
dpt_status dpt_store_companions_compare(const dpt_store_header *a, const dpt_store_header *b,
                                        const char **name);
/** Write all as files of a directory. */
dpt_status dpt_store_companions_restore(const dpt_store_header *header, const char *directory);

/** Text of config.json whose torch_dtype or dtype says the one float type of the catalog; a plain
 * copy when there is no such key or no single type. Local. */
dpt_status dpt_store_config_update(const char *config, const dpt_catalog *catalog, char **out);

/** Text of config.json without a member of the outermost object; a plain copy when it has none of this name. Local.
 * @return allocated; NULL without memory. */
char *dpt_store_config_without(const char *config, const char *key);

/** Bytes of a .safetensors file before its tensors: the length and the header's text; -1 when the file
 * says something that cannot be. Local. */
int64_t dpt_store_safetensors_header_bytes(const char *path);

/** Write the manifest of a folder that holds a complete safetensors model. Local. */
dpt_status dpt_store_manifest_write(const char *folder, const char *provenance);

/** Check a folder's files against its manifest, when there is one. Local.
 * Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_store_manifest_check(const char *folder);

/** Append the trailer of an HDF5 checkpoint: its hash is over all bytes outside the tensors. Rank 0, when
 * HDF5 has closed the file. Local. */
dpt_status dpt_store_seal_write(const dpt_store_writer *writer);

/** Check the trailer; a file that neither says that it has one nor has one is accepted. Local.
 * Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_store_seal_check(const dpt_store_header *header);

/** Say that another program has dropped the trailer, where one has. Local. */
void dpt_store_seal_say(const dpt_store_header *header);

/** Add to a list. Local. @return false without memory. */
bool dpt_store_extent_add(int64_t *count, dpt_store_extent **extents, dpt_store_extent one);

/** Feed the digest of a model with its next tensor, in order of names. Local. */
void dpt_store_digest_feed(dpt_hash *hash, const char *name, uint64_t tensor);

/** Value of `recipe` in the text of a provenance, allocated; NULL when there is none. Local. */
char *dpt_store_recipe_of(const char *provenance);

/** Hashes of tensors whose cells several ranks have: see store_hash.c. Borrows comm, catalog and shard. */
typedef struct dpt_store_hasher {
    const dpt_comm *comm;
    const dpt_catalog *catalog;
    const dpt_shard *shard;
    const bool *wanted; /**< (tensors) those to hash, the same on all ranks; NULL: all */
    int first_own;      /**< tensors [first_own, end_own) have cells of this rank */
    int end_own;
    dpt_hash *streams; /**< (end_own - first_own) hash of the elements fed so far */
    int64_t *streamed; /**< (end_own - first_own) number of those elements */
    uint64_t *hashes;  /**< (tensors) complete after dpt_store_hash_finish */
} dpt_store_hasher;

/** Read n elements of a tensor again, from ig on. Local. */
typedef dpt_status (*dpt_store_hash_read_fn)(void *ctx, int tensor, int64_t ig, int64_t n,
                                             void *out);

dpt_status dpt_store_hash_init(dpt_store_hasher *hasher, const dpt_comm *comm,
                               const dpt_catalog *catalog, const dpt_shard *shard); /**< Local. */
void dpt_store_hash_destroy(dpt_store_hasher *hasher);                              /**< Local. */

/** Feed a run of elements to the hash of its tensor when it continues the stream. Local. */
void dpt_store_hash_feed(dpt_store_hasher *hasher, dpt_range range, const void *data);

/** Complete all hashes; every rank has all on return. Collective, agreed. @param[in] st of this rank. */
dpt_status dpt_store_hash_finish(dpt_store_hasher *hasher, dpt_status st,
                                 dpt_store_hash_read_fn read, void *ctx);

/** Tensors of a model that are written when it is not written whole (store_partial.c). */
typedef struct dpt_store_partial {
    const dpt_catalog *all; /**< of the model; borrowed */
    dpt_catalog catalog;    /**< those that are written */
    dpt_shard shard;        /**< their cells, each with the rank that has it in the model */
    int *number;            /**< (tensors of all) in catalog; -1: not written */
    bool delta;
    dpt_source pre;             /**< of a delta */
    void *before;               /**< (DPT_CELL) of pre, as stored */
    float *values, *difference; /**< (DPT_CELL) */
} dpt_store_partial;

/** Choose the tensors. Local; the same on all ranks. Errors: DPT_ERR_INPUT when there are none; DPT_ERR_OUTPUT. */
dpt_status dpt_store_partial_create(const char *path, const dpt_catalog *all,
                                    const dpt_shard *shard, const dpt_store_options *options,
                                    dpt_store_partial **out);
void dpt_store_partial_destroy(dpt_store_partial *partial); /**< Local; NULL is allowed. */

/** What is written for at most DPT_CELL elements of the model: their number, and of a delta their values. Local.
 * @param[in,out] range, data  tensor -1: nothing. Errors: those of pre. */
dpt_status dpt_store_partial_take(dpt_store_partial *partial, dpt_range *range, const void **data);

/** The cells of a part of a model, each with the rank that has it in the model. Local.
 * @param[in] number  (tensors of the shard) in catalog, rising; -1: not in it. catalog is borrowed.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_store_part_shard(const dpt_shard *shard, const int *number,
                                const dpt_catalog *catalog, dpt_shard *out);

/** Tensors of a model that all ranks have read together, in memory: each rank its own cells (store_hold.c). */
typedef struct dpt_store_held {
    dpt_catalog catalog;
    dpt_shard shard;
    int rank;
    int *number;                     /**< (tensors of the store) in catalog; -1: not held */
    const dpt_store_entry **entries; /**< (catalog) borrowed */
    dpt_field *field;
} dpt_store_held;

/** Elements of a tensor of the store from memory. Local. @return false: not all of them are there. */
bool dpt_store_held_read(const dpt_store_held *held, dpt_range range, void *out);
void dpt_store_held_destroy(dpt_store_held *held); /**< Local; NULL is allowed. */

/** Where a store keeps them; NULL in it: nowhere. Local. */
dpt_store_held **dpt_store_held_of(dpt_store *store);

/** What is read byte by byte for a tensor; NULL: its values are computed. Local. */
const dpt_store_entry *dpt_store_plain_entry(const dpt_store *store, int tensor);

/** An HDF5 file that all ranks have open to write; private to store_hdf5_parallel.c. */
typedef struct dpt_store_hdf5_parallel dpt_store_hdf5_parallel;

/** A model being written. */
struct dpt_store_writer {
    dpt_comm comm;
    const struct dpt_store_driver *driver;
    dpt_store_partial *partial_content; /**< NULL: it is written whole */
    const dpt_catalog *catalog;
    const dpt_shard *shard;
    char *path;
    char *partial;
    char *config;
    char *metadata;
    char *provenance;
    char *owner;                        /**< edit whose model may be replaced, or NULL */
    char *study;                        /**< and the study that it must belong to, or NULL */
    const dpt_store_header *companions; /**< whose files come along, or NULL; while creating */
    int64_t shard_bytes;
    bool overwrite;
    dpt_tied_head copy; /**< dpt_store_options.copy; -1: none */

    int nfiles;
    char **files;
    char **headers;      /**< (nfiles) safetensors: header texts */
    int64_t *file_bytes; /**< (nfiles) safetensors: lengths of the files */
    int *file_of;        /**< (tensors) */
    int64_t *offset_of;  /**< (tensors) absolute */
    dpt_store_files io;
    dpt_store_layout layout; /**< its hints are in `info` */
    MPI_Info info;
    char *stage; /**< temporary file that has the tensors end to end until all are there, or NULL */
    dpt_store_hdf5_parallel *parallel; /**< HDF5, independent: while tensors are written; or NULL */
    int64_t nextents;
    dpt_store_extent
        *extents; /**< (nextents) rank 0, HDF5: bytes of the tensors in the file, for the trailer */

    dpt_store_hasher hasher;
    const uint64_t *hashes; /**< (tensors) the hasher's, complete after dpt_store_hash_finish */
    int64_t written;        /**< elements written by this rank */
    int lock;               /**< rank 0: of a model outside a study; -1: none */
    bool partial_made;      /**< there may be something to remove; the same on all ranks */
};

/** One storage format. */
typedef struct dpt_store_driver {
    dpt_store_format format;
    const char *name;
    bool directory; /**< whether an output is a directory */
    /** What ends the names of such models; NULL after the last. A study takes the first. "" is for what no other
     * format has. */
    const char *endings[3];

    /** Read and check the headers. Local (rank 0). */
    dpt_status (*scan)(const char *path, dpt_store_header *out);

    /* Of a format that is only read, NULL. */

    /** Check names and set nfiles and files; file_of and offset_of where they are known before the
     * files exist. Local, the same on all ranks. */
    dpt_status (*layout)(dpt_store_writer *writer);

    /** Make the files with their headers. Collective over the writer's communicator; agreed. */
    dpt_status (*create)(dpt_store_writer *writer);

    /** Add the hashes. Collective; agreed. */
    dpt_status (*finish)(dpt_store_writer *writer);
} dpt_store_driver;

extern const dpt_store_driver dpt_store_hdf5_driver;
extern const dpt_store_driver dpt_store_safetensors_driver;
extern const dpt_store_driver dpt_store_adapter_driver;
extern const dpt_store_driver dpt_store_synthetic_driver;

/** Driver of a format, or NULL; of an existing path, by content. Local. */
const dpt_store_driver *dpt_store_driver_of(dpt_store_format format);
dpt_status dpt_store_driver_probe(const char *path, const dpt_store_driver **out);

/** Refuse what lies at a path and is no model, by the name of what it is, with the command that helps: a
 * path that does not exist or is the name of a hub model, Git LFS pointers, adapters, PyTorch, GGUF.
 * Local; rank 0. Errors: DPT_ERR_INPUT. */
dpt_status dpt_store_foreign_check(const char *path);

/** Whether a folder holds a PEFT adapter and no model. Local. */
bool dpt_store_is_adapter(const char *path);

const dpt_store_header *dpt_store_header_of(const dpt_store *store); /**< Local. */

/** Open an HDF5 file for reading through the library, by its name. Local.
 * @param[in] identity  what it has to be; NULL: anything. Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_store_hdf5_reader_open(const char *path, const dpt_file_identity *identity,
                                      dpt_store_hdf5_reader **out);
void dpt_store_hdf5_reader_close(dpt_store_hdf5_reader *reader); /**< Local; NULL is allowed. */

/** What the library says of its last failure. */
typedef struct dpt_store_hdf5_why {
    char text[DPT_MESSAGE_MAX / 4];
} dpt_store_hdf5_why;

/** Keep that where a call was not ok, before the next one, with which the library forgets it. Local. @return ok. */
bool dpt_store_hdf5_noted(dpt_store_hdf5_why *why, bool ok);

/** Elements [ig, ig + n) in the file's own type by H5Dread of hyperslabs of at most 1 GiB. Local; one thread at a time
 * is inside, whoever calls. Errors: DPT_ERR_INPUT naming file, tensor and what HDF5 says. */
dpt_status dpt_store_hdf5_reader_read(dpt_store_hdf5_reader *reader, const dpt_store_entry *entry,
                                      int64_t ig, int64_t n, void *out);

/** The same for all ranks together, through MPI-IO. Collective, agreed (same: path). Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_store_hdf5_reader_open_together(const dpt_comm *comm, const char *path,
                                               const dpt_file_identity *identity,
                                               dpt_store_hdf5_reader **out);

/** Open a tensor, which is then what is read; rows of its chunks, 1 without any. Local.
 * Errors: DPT_ERR_INPUT naming file and tensor. */
dpt_status dpt_store_hdf5_reader_tensor(dpt_store_hdf5_reader *reader,
                                        const dpt_store_entry *entry);
int64_t dpt_store_hdf5_reader_rows(const dpt_store_hdf5_reader *reader);

/** Elements of a run of dpt_store_hdf5_cut by one collective H5Dread; n = 0: this rank reads none. Collective, not
 * agreed, of a tensor that all ranks have open. Errors: as dpt_store_hdf5_reader_read. */
dpt_status dpt_store_hdf5_reader_read_together(dpt_store_hdf5_reader *reader,
                                               const dpt_store_entry *entry, int64_t ig, int64_t n,
                                               void *out);

/** Select a box of a data space; NULL: nothing of it. Local. @return the space of memory of the same shape; negative: HDF5
 * could not. */
int64_t dpt_store_hdf5_select(int64_t space, int ndim, const uint64_t *start,
                              const uint64_t *count);

/** Most of one call of H5Dread or H5Dwrite; about what a rank moves in a round of all ranks. */
enum { DPT_STORE_HDF5_PIECE = 1 << 30, DPT_STORE_HDF5_ROUND = 16 << 20 };

/** How a tensor is shared out: runs of whole chunks along one side, one for each rank in a round. */
typedef struct dpt_store_hdf5_runs {
    int64_t block;  /**< elements of one index of that side */
    int64_t length; /**< of the side */
    int64_t step;   /**< indices of it in a run */
    int64_t per;    /**< runs of the side */
    int64_t total;
} dpt_store_hdf5_runs;

/** Cut a tensor with elements into runs of about DPT_STORE_HDF5_ROUND, or of one chunk. Local.
 * @param[in] chunk_bytes  of chunks by dpt_store_hdf5_chunk; 0: of others. rows: of these chunks in the first side, 1
 * without any: whole rows of chunks, where they are at most one piece. */
dpt_store_hdf5_runs dpt_store_hdf5_cut(const dpt_tensor_info *info, int64_t chunk_bytes,
                                       int64_t rows);

/** Elements of a run. Local. */
dpt_range dpt_store_hdf5_run(const dpt_store_hdf5_runs *runs, int tensor, int64_t run);

/** The longest run of at most n elements from one on that is a box of a tensor: start and count by side.
 * Local. @return its elements, of at most 1 GiB. */
int64_t dpt_store_hdf5_box(dpt_dtype dtype, int ndim, const int64_t *shape, int64_t ig, int64_t n,
                           uint64_t *start, uint64_t *count);

/** Sides of the chunks of a tensor, which are runs of elements, for about so many bytes. Local.
 * @return the first side that is not 1, along which chunks follow each other. */
int dpt_store_hdf5_chunk(const dpt_tensor_info *info, int64_t bytes, int64_t *sides);

/** Whether a tensor lies in chunks. Local. */
bool dpt_store_hdf5_in_chunks(const dpt_store_layout *layout, const dpt_tensor_info *info);

/** Open the file of a writer on all ranks. Collective, agreed. Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_store_hdf5_parallel_open(dpt_store_writer *writer, dpt_store_hdf5_parallel **out);

/** Close it; NULL is allowed on all ranks. Collective, agreed. */
dpt_status dpt_store_hdf5_parallel_close(dpt_store_writer *writer,
                                         dpt_store_hdf5_parallel *parallel);

/** Write elements by H5Dwrite of this rank alone. Local. Errors: DPT_ERR_OUTPUT naming file and tensor. */
dpt_status dpt_store_hdf5_parallel_write(dpt_store_hdf5_parallel *parallel, dpt_range range,
                                         const void *data);

/** Move all tensors from the temporary file into the file of the model, a round of ranks at a time. Collective, agreed. */
dpt_status dpt_store_hdf5_parallel_move(dpt_store_writer *writer);

/** Chunks of a data set that is open, added to a list. Local. @return false when they cannot be told. */
bool dpt_store_hdf5_chunks_of(int64_t dataset, int64_t *count, dpt_store_extent **extents);

/** Make an empty file by MPI-IO with the hints of a writer, as striping wants; nothing without hints. Local (rank 0). */
dpt_status dpt_store_hint_file(const dpt_store_writer *writer, const char *path);

/* The writing halves of the drivers. */
dpt_status dpt_store_hdf5_layout(dpt_store_writer *writer);
dpt_status dpt_store_hdf5_create(dpt_store_writer *writer);
dpt_status dpt_store_hdf5_finish(dpt_store_writer *writer);
dpt_status dpt_store_safetensors_layout(dpt_store_writer *writer);
dpt_status dpt_store_safetensors_create(dpt_store_writer *writer);
dpt_status dpt_store_safetensors_finish(dpt_store_writer *writer);

/** Checked allocation of `count` items that sets *st. */
#define DPT_STORE_NEW(pointer, count, what)                                                        \
    (((pointer) = dpt_mem_zalloc((count), sizeof *(pointer), (what))) == NULL ? DPT_ERR_OUTPUT     \
                                                                              : DPT_OK)

#endif
