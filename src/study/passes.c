#include "passes.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/owned.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/phase.h"
#include "deltapath/comm/stop.h"
#include "deltapath/results/results.h"
#include "pass_file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* A save of sums takes a millisecond, one of a gradient as long as its bytes take. */
static const double MOST_SHARE = 0.01;
/* A finished pass that took this long is synced: less is quickly done again. */
static const double SYNC_SECONDS = 10.0;
/* What a disk takes from one rank; a gradient is kept when computing it takes longer than writing. */
static const double DISK_BYTES_PER_SECOND = 2e8;

static const dpt_comm *world_of(const dpt_passes *p) {
    return &p->mesh.world;
}

/* Name of a file; the path is NULL without memory, then nothing is kept. */
static char *pass_path(const dpt_passes *p, uint64_t key, const char *kind, int rank, int turn) {
    char *path = NULL;
    if (strcmp(kind, "done") == 0)
        path = dpt_mem_format("%s/%016" PRIx64 ".done", p->folder, key);
    else if (strcmp(kind, "gradient") == 0)
        path = dpt_mem_format("%s/%016" PRIx64 ".g%d", p->folder, key, rank);
    else
        path = dpt_mem_format("%s/%016" PRIx64 ".r%d-%d", p->folder, key, rank, turn);
    if (path == NULL)
        dpt_error_clear();
    return path;
}

/* Whether a name is one that pass_path gives, finished or temporary. */
static bool is_pass_name(const char *name) {
    static const char digits[] = "0123456789abcdef";
    if (strspn(name, digits) != 16 || name[16] != '.')
        return false;
    const char *kind = name + 17;
    size_t stem = dpt_file_temporary_stem(kind), n = stem > 0 ? stem : strlen(kind);
    bool done = n == 4 && strncmp(kind, "done", 4) == 0;
    return done || ((kind[0] == 'g' || kind[0] == 'r') && strspn(kind + 1, "0123456789-") == n - 1);
}

static dpt_pass_header pass_header(const dpt_passes *p, uint64_t key, int64_t next, int rank) {
    return (dpt_pass_header){.key = key,
                             .next = next,
                             .ranks = world_of(p)->size,
                             .group = p->mesh.model.size,
                             .rank = rank};
}

static bool pass_write(dpt_passes *p, const char *path, dpt_pass_header header,
                       const dpt_loss_part *parts, int count, bool sync) {
    bool ok = access(p->folder, F_OK) == 0 ? dpt_guard_check_moved(p->folder) == DPT_OK
                                           : dpt_guard_output(p->folder) == DPT_OK;
    if (!ok) {
        dpt_error_clear();
        errno = EPERM; /* an input lies there now, or another folder */
    } else if (mkdir(p->folder, 0777) != 0 && errno != EEXIST && !p->warned_write) {
        dpt_log(DPT_LOG_DEBUG,
                "%s: cannot be created: %s: check the permissions of the folder above", p->folder,
                strerror(errno));
    }
    ok = ok && path != NULL && dpt_pass_file_write(path, &header, parts, count, sync);
    if (!ok && !p->warned_write)
        dpt_log(DPT_LOG_WARN,
                "%s: cannot be written: %s: a run that is stopped will compute this again",
                path != NULL ? path : p->folder, strerror(errno));
    p->warned_write = p->warned_write || !ok;
    return ok;
}

static bool pass_read(dpt_passes *p, const char *path, dpt_pass_header wanted,
                      const dpt_loss_part *parts, int count) {
    if (path == NULL || access(path, F_OK) != 0)
        return false;
    if (dpt_pass_file_read(path, &wanted, parts, count))
        return true;
    if (!p->warned_damage)
        dpt_log(DPT_LOG_WARN, "%s: is damaged: what it kept is computed again", path);
    p->warned_damage = true;
    return false;
}

/* Whether the file system has room for n bytes from each of `writers`; said once when not. */
static bool has_room(dpt_passes *p, int64_t n, int writers) {
    struct statvfs space;
    double need = (double)n * (double)writers;
    if (n == 0 || statvfs(p->folder, &space) != 0 ||
        need <= (double)space.f_bavail * (double)space.f_frsize)
        return true;
    if (!p->warned_room)
        dpt_log(DPT_LOG_WARN,
                "%s: no room for %.3f GB of a pass: a run that is stopped will compute it again",
                p->folder, need / 1e9);
    p->warned_room = true;
    return false;
}

static int64_t passes_bytes_of(const dpt_loss_part *parts, int count) {
    int64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += parts[i].n;
    return bytes;
}

/* The keeper of a pass in hand. */

/* Ranks that must go on at the same batch, those of a group or of all that add to a gradient, may not all have written
 * the last state. */
static int turns_of(const dpt_passes *p) {
    return world_of(p)->size > 1 ? 2 : 1;
}

static void keeper_find(void *ctx, int64_t next[2]) {
    dpt_passes *p = ctx;
    int rank = world_of(p)->rank;
    for (int turn = 0; turn < turns_of(p); turn++) {
        dpt_pass_header header, own = pass_header(p, p->key, 0, rank);
        char *path = pass_path(p, p->key, "rank", rank, turn);
        bool there = path != NULL && dpt_pass_file_peek(path, &header);
        if (there && header.key == own.key && header.ranks == own.ranks &&
            header.group == own.group && header.rank == own.rank)
            next[turn] = header.next;
        else if (path != NULL && access(path, F_OK) == 0)
            pass_read(p, path, own, NULL, 0); /* says that it is damaged */
        dpt_mem_free(path);
    }
}

static bool keeper_load(void *ctx, int64_t next, const dpt_loss_part *parts, int count) {
    dpt_passes *p = ctx;
    int64_t found[2] = {-1, -1};
    int rank = world_of(p)->rank;
    keeper_find(ctx, found);
    int turn = found[0] == next ? 0 : 1;
    char *path = pass_path(p, p->key, "rank", rank, turn);
    bool ok = pass_read(p, path, pass_header(p, p->key, next, rank), parts, count);
    p->turn =
        (turn + 1) % turns_of(p); /* the file that was read stays until the next one is whole */
    dpt_mem_free(path);
    return ok;
}

static bool keeper_due(void *ctx, bool gradient) {
    const dpt_passes *p = ctx;
    double wait = gradient ? p->gradient_seconds : p->seconds;
    double minimum = p->share > 0 ? p->cost / p->share : 0.0;
    return dpt_log_seconds() - p->saved >= (wait > minimum ? wait : minimum);
}

static void keeper_save(void *ctx, int64_t next, const dpt_loss_part *parts, int count,
                        bool stops) {
    dpt_passes *p = ctx;
    int rank = world_of(p)->rank;
    double began = dpt_log_seconds();
    if (has_room(p, passes_bytes_of(parts, count), world_of(p)->size)) {
        char *path = pass_path(p, p->key, "rank", rank, p->turn);
        p->wrote = pass_write(p, path, pass_header(p, p->key, next, rank), parts, count, stops);
        dpt_mem_free(path);
        p->turn = (p->turn + 1) % turns_of(p);
    }
    p->saved = dpt_log_seconds();
    p->cost = p->saved - began;
}

static void keeper_taken(void *ctx, int64_t taken) {
    const dpt_passes *p = ctx;
    dpt_log(DPT_LOG_INFO,
            "%s at t = %g: %" PRId64 " of %" PRId64 " samples are those of the earlier run",
            p->what, p->t, taken, p->samples);
}

static double save_seconds(double default_value) {
    const char *text = getenv("DELTAPATH_SAVE_SECONDS");
    return text != NULL ? strtod(text, NULL) : default_value;
}

/* Sums of other ranks would give other bits. */
static void note_others(const dpt_passes *p) {
    DIR *entries = opendir(p->folder);
    int others = 0;
    for (struct dirent *entry = NULL; entries != NULL && (entry = readdir(entries)) != NULL;) {
        dpt_pass_header header;
        char *path = dpt_mem_format("%s/%s", p->folder, entry->d_name);
        if (path != NULL && is_pass_name(entry->d_name) && dpt_pass_file_peek(path, &header) &&
            (header.ranks != world_of(p)->size || header.group != p->mesh.model.size))
            others++;
        dpt_mem_free(path);
    }
    if (entries != NULL)
        closedir(entries);
    if (others > 0)
        dpt_log(DPT_LOG_INFO,
                "%s: %d files are of another number of ranks: their passes are computed again",
                p->folder, others);
}

dpt_status dpt_passes_open(const char *directory, bool resumes, const dpt_mesh *mesh,
                           dpt_passes *out) {
    *out = (dpt_passes){.resumes = resumes, .mesh = *mesh};
    out->seconds = save_seconds(DPT_PASSES_SECONDS);
    out->gradient_seconds = save_seconds(DPT_PASSES_GRADIENT_SECONDS);
    out->share = getenv("DELTAPATH_SAVE_SECONDS") != NULL ? 0.0 : MOST_SHARE;
    out->keeper = (dpt_loss_keeper){.ctx = out,
                                    .resumes = resumes,
                                    .find = keeper_find,
                                    .load = keeper_load,
                                    .due = keeper_due,
                                    .save = keeper_save,
                                    .taken = keeper_taken};
    out->folder = dpt_mem_format("%s/progress", directory);
    if (out->folder != NULL && resumes && mesh->world.rank == 0)
        note_others(out);
    return out->folder != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void passes_log_counts(const dpt_pass_counts *n) {
    if (n->forward + n->backward + n->earlier == 0)
        return;
    dpt_log(DPT_LOG_INFO,
            "passes over data sets: %" PRId64 " forward, %" PRId64
            " forward and backward; not taken again: %" PRId64
            " at t = 0 by the gradient that edits share, %" PRId64
            " of another edit on the same line, %" PRId64 " of an earlier run",
            n->forward, n->backward, n->reused, n->along, n->earlier);
}

void dpt_passes_close(dpt_passes *passes) {
    passes_log_counts(&passes->counts);
    dpt_mem_free(passes->folder);
    dpt_mem_free(passes->keys);
    dpt_mem_free(passes->lasting);
    *passes = (dpt_passes){.folder = NULL};
}

void dpt_passes_watch(dpt_passes *p, uint64_t key, const char *what, dpt_loss *loss) {
    uint64_t parts[3] = {key, (uint64_t)world_of(p)->size, (uint64_t)p->mesh.model.size};
    p->key = dpt_hash_bytes(parts, sizeof parts);
    p->what = what;
    p->t = 0.0;
    p->samples = dpt_loss_samples(loss);
    p->saved = dpt_log_seconds();
    p->cost = 0.0;
    p->turn = 0;
    p->wrote = false;
    dpt_loss_set_keeper(loss, &p->keeper);
}

/* A folder that has come to lie at its place is of others. */
static void pass_remove(const char *path) {
    if (path != NULL && !dpt_guard_is_moved(path))
        unlink(path);
}

void dpt_passes_forget(dpt_passes *p) {
    for (int turn = 0; turn < turns_of(p) && (p->wrote || p->resumes); turn++) {
        char *path = pass_path(p, p->key, "rank", world_of(p)->rank, turn);
        pass_remove(path);
        dpt_mem_free(path);
    }
}

/* Finished passes. */

enum { PASS_PARTS = 8 };

/* Found, but not left by an earlier run. */
enum { PASS_ALONG = 2 };

static int pass_parts(const dpt_pass *pass, dpt_loss_part parts[PASS_PARTS]) {
    int64_t samples = dpt_loss_samples(pass->loss), n = 0;
    int64_t bytes = samples * (int64_t)sizeof(double);
    dpt_model_image image;
    int64_t tensors = dpt_model_catalog(pass->model)->count * (int64_t)sizeof(double);
    parts[n++] = (dpt_loss_part){pass->losses, bytes};
    if (pass->correct != NULL)
        parts[n++] = (dpt_loss_part){pass->correct, samples};
    if (pass->mode == DPT_BACKWARD_TERMS || pass->labels != NULL)
        parts[n++] = (dpt_loss_part){pass->terms, tensors};
    if (pass->mode == DPT_BACKWARD_TERMS)
        parts[n++] = (dpt_loss_part){pass->sample_terms, bytes};
    if (pass->logits != NULL && dpt_model_get_image(pass->model, &image))
        parts[n++] = (dpt_loss_part){pass->logits, bytes * image.classes};
    if (pass->tensor_terms != NULL)
        parts[n++] = (dpt_loss_part){pass->tensor_terms, samples * tensors};
    if (pass->matrix_terms != NULL)
        parts[n++] = (dpt_loss_part){
            pass->matrix_terms, dpt_model_columns(pass->model) * (int64_t)sizeof(double) - tensors};
    if (pass->reduce != NULL)
        parts[n++] = (dpt_loss_part){pass->kept, pass->nkept * (int64_t)sizeof(double)};
    return (int)n;
}

static bool keeps_gradient(const dpt_pass *pass) {
    return pass->gradient != NULL && pass->labels == NULL && pass->reduce == NULL;
}

/* This rank's rows of a gradient (count); allocated, NULL without memory. */
static dpt_loss_part *gradient_parts(const dpt_model_gradient *gradient, int *count) {
    int blocks = dpt_model_gradient_count(gradient);
    dpt_loss_part *parts = dpt_mem_alloc(blocks, sizeof *parts, "blocks of a gradient");
    *count = parts != NULL ? blocks : 0;
    for (int i = 0; i < *count; i++) {
        int64_t numel;
        float *rows = dpt_model_gradient_rows(gradient, i, &numel);
        parts[i] = (dpt_loss_part){rows, numel * (int64_t)sizeof *rows};
    }
    return parts;
}

/* Each rank has a file of the rows that it holds. */
static dpt_status find_gradient(dpt_passes *p, const dpt_pass *pass, int64_t *found) {
    int count = 0;
    dpt_loss_part *parts = gradient_parts(pass->gradient, &count);
    int64_t failed = 0;
    dpt_status st = dpt_agree(world_of(p), parts != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        char *path = pass_path(p, p->key, "gradient", world_of(p)->rank, 0);
        failed = !pass_read(p, path, pass_header(p, p->key, DPT_PASS_FINISHED, world_of(p)->rank),
                            parts, count);
        dpt_mem_free(path);
        st = dpt_agree(world_of(p), dpt_comm_max_i64(world_of(p), &failed, 1));
    }
    for (int i = 0; i < count && st == DPT_OK && failed; i++)
        memset(parts[i].bytes, 0, (size_t)parts[i].n);
    *found = !failed;
    dpt_mem_free(parts);
    return dpt_agree(world_of(p), st);
}

/* One more key; where there is no memory for it the list stays as it is. */
static void passes_add_key(uint64_t key, uint64_t **keys, int *n, int *room) {
    enum { KEYS = 64 };
    if (*n == *room) {
        int more = *room > 0 ? 2 * *room : KEYS;
        uint64_t *grown = dpt_mem_realloc(*keys, more, sizeof *grown, "keys of passes");
        if (grown == NULL) {
            dpt_error_clear();
            return;
        }
        *keys = grown;
        *room = more;
    }
    (*keys)[(*n)++] = key;
}

/* Of the edit in hand, to be removed with it, or with the study, as all that is not in a list; or to be taken again. */
static void note_key(dpt_passes *p, const dpt_pass *pass, bool in_edit) {
    if (pass->lasting)
        passes_add_key(p->key, &p->lasting, &p->nlasting, &p->lasting_room);
    else if (in_edit)
        passes_add_key(p->key, &p->keys, &p->nkeys, &p->room);
}

static bool passes_has_lasting(const dpt_passes *p) {
    for (int i = 0; i < p->nlasting; i++)
        if (p->lasting[i] == p->key)
            return true;
    return false;
}

static dpt_status find_pass(dpt_passes *p, const dpt_pass *pass, int64_t *found) {
    dpt_loss_part parts[PASS_PARTS];
    int count = pass_parts(pass, parts);
    *found = 0;
    if (!p->resumes && !pass->lasting)
        return DPT_OK;
    if (world_of(p)->rank == 0) {
        char *path = pass_path(p, p->key, "done", 0, 0);
        bool own = pass->lasting && passes_has_lasting(p);
        if (own || p->resumes)
            *found = pass_read(p, path, pass_header(p, p->key, DPT_PASS_FINISHED, 0), parts, count);
        *found = *found != 0 && own ? PASS_ALONG : *found;
        dpt_mem_free(path);
    }
    dpt_status st = dpt_comm_broadcast(world_of(p), found, sizeof *found, 0);
    for (int i = 0; i < count && st == DPT_OK && *found; i++)
        st = dpt_comm_broadcast(world_of(p), parts[i].bytes, parts[i].n, 0);
    st = dpt_agree(world_of(p), st);
    if (st == DPT_OK && *found && keeps_gradient(pass))
        st = find_gradient(p, pass, found);
    return st;
}

bool dpt_passes_keeps_gradient(double seconds, double bytes) {
    return getenv("DELTAPATH_SAVE_SECONDS") != NULL || seconds > bytes / DISK_BYTES_PER_SECOND;
}

/* A file for each rank. */
static dpt_status keep_gradient(dpt_passes *p, const dpt_pass *pass, double seconds, bool *kept) {
    int count = 0;
    dpt_loss_part *parts = gradient_parts(pass->gradient, &count);
    int64_t bytes = passes_bytes_of(parts, count), refused = 0;
    dpt_status st = parts != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK) {
        /* A run that ends here has nothing else to show. */
        bool worth = dpt_passes_keeps_gradient(seconds, (double)bytes) || dpt_stop_asked();
        char *path = pass_path(p, p->key, "gradient", world_of(p)->rank, 0);
        refused = !worth || !has_room(p, bytes, world_of(p)->size) ||
                  !pass_write(p, path, pass_header(p, p->key, DPT_PASS_FINISHED, world_of(p)->rank),
                              parts, count, seconds > SYNC_SECONDS);
        dpt_mem_free(path);
    }
    dpt_mem_free(parts);
    st = dpt_agree(world_of(p), st);
    if (st == DPT_OK)
        st = dpt_agree(world_of(p), dpt_comm_max_i64(world_of(p), &refused, 1));
    *kept = st == DPT_OK && !refused;
    return st;
}

static dpt_status evaluate_loss(dpt_passes *p, const dpt_pass *pass) {
    if (pass->squares)
        return dpt_loss_evaluate_label(pass->loss, &p->mesh, pass->model, pass->t, pass->label,
                                       pass->losses, pass->terms, pass->sample_terms);
    if (pass->logits != NULL)
        return dpt_loss_evaluate_logits(pass->loss, &p->mesh, pass->model, pass->t, pass->losses,
                                        pass->correct, pass->logits);
    if (pass->matrix_terms != NULL)
        return dpt_loss_evaluate_matrices(pass->loss, &p->mesh, pass->model, pass->t, pass->losses,
                                          pass->correct, pass->terms, pass->sample_terms,
                                          pass->matrix_terms);
    if (pass->tensor_terms != NULL)
        return dpt_loss_evaluate_tensors(pass->loss, &p->mesh, pass->model, pass->t, pass->losses,
                                         pass->terms, pass->sample_terms, pass->tensor_terms);
    dpt_status st = pass->labels != NULL
                        ? dpt_loss_evaluate_drawn(pass->loss, &p->mesh, pass->model, pass->t,
                                                  *pass->labels, pass->losses, pass->gradient)
                        : dpt_loss_evaluate(pass->loss, &p->mesh, pass->model, pass->t, pass->mode,
                                            pass->losses, pass->correct, pass->terms,
                                            pass->sample_terms, pass->gradient);
    if (st == DPT_OK && pass->labels != NULL)
        st = dpt_agree(world_of(p),
                       dpt_model_gradient_squares(pass->model, pass->gradient, pass->terms));
    if (st == DPT_OK && pass->reduce != NULL)
        st = pass->reduce(pass->reduce_ctx, pass->gradient, pass->kept);
    return st;
}

static dpt_status evaluate_pass(dpt_passes *p, const dpt_pass *pass) {
    dpt_comm_phase(pass->mode == DPT_BACKWARD_NONE ? "forward" : "slopes");
    double began = dpt_log_seconds();
    bool kept = true;
    dpt_status st = evaluate_loss(p, pass);
    double seconds = dpt_log_seconds() - began;
    if (st == DPT_OK && keeps_gradient(pass))
        st = keep_gradient(p, pass, seconds, &kept);
    if (st == DPT_OK && kept && world_of(p)->rank == 0) {
        dpt_loss_part parts[PASS_PARTS];
        int count = pass_parts(pass, parts);
        char *path = pass_path(p, p->key, "done", 0, 0);
        pass_write(p, path, pass_header(p, p->key, DPT_PASS_FINISHED, 0), parts, count,
                   seconds > SYNC_SECONDS);
        dpt_mem_free(path);
    }
    return dpt_agree(world_of(p), st); /* the parts of ranks may go: the whole is written */
}

dpt_status dpt_passes_run(dpt_passes *p, const dpt_pass *pass) {
    uint64_t key[6] = {pass->key, (uint64_t)pass->mode,
                       dpt_hash_string(DPT_VERSION) + DPT_RESULTS_VERSION};
    memcpy(&key[3], &pass->t, sizeof key[3]);
    key[4] = (uint64_t)(pass->correct != NULL) + (pass->reduce != NULL ? 2 : 0) +
             (pass->logits != NULL ? 4 : 0) + (pass->tensor_terms != NULL ? 8 : 0);
    key[5] = pass->gradient != NULL ? dpt_model_layout(pass->model) : 0; /* which rows are whose */
    dpt_passes_watch(p, dpt_hash_bytes(key, sizeof key), pass->what, pass->loss);
    p->t = pass->t + 0.0; /* -0 is 0 */
    int64_t found = 0;
    /* Not after hours of a pass that could not be kept. */
    dpt_status st =
        dpt_agree(world_of(p), world_of(p)->rank == 0 ? dpt_guard_check_moved(p->folder) : DPT_OK);
    if (st == DPT_OK)
        st = find_pass(p, pass, &found);
    if (st == DPT_OK && found == PASS_ALONG)
        dpt_log(DPT_LOG_DEBUG, "%s at t = %g: taken from another edit", p->what, p->t);
    else if (st == DPT_OK && found)
        keeper_taken(p, p->samples);
    else if (st == DPT_OK && pass->prepare != NULL)
        st = pass->prepare(pass->ctx);
    if (st == DPT_OK && !found)
        st = evaluate_pass(p, pass);
    dpt_loss_set_keeper(pass->loss, NULL);
    if (st == DPT_OK) {
        int64_t *taken = pass->mode == DPT_BACKWARD_NONE ? &p->counts.forward : &p->counts.backward;
        *(found == PASS_ALONG ? &p->counts.along : found ? &p->counts.earlier : taken) += 1;
        dpt_passes_forget(p);
        if (found != PASS_ALONG)
            note_key(p, pass, p->in_edit);
    }
    return st;
}

void dpt_passes_begin_edit(dpt_passes *p) {
    p->nkeys = 0;
    p->in_edit = true;
}

void dpt_passes_end_edit(dpt_passes *p) {
    for (int i = 0; i < p->nkeys && world_of(p)->rank == 0; i++) {
        char *path = pass_path(p, p->keys[i], "done", 0, 0);
        pass_remove(path);
        dpt_mem_free(path);
    }
    p->nkeys = 0;
}

void dpt_passes_remove(const char *directory) {
    char *folder = dpt_mem_format("%s/progress", directory);
    DIR *entries = folder != NULL ? opendir(folder) : NULL;
    for (struct dirent *entry = NULL; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (!is_pass_name(entry->d_name))
            continue;
        char *path = dpt_mem_format("%s/%s", folder, entry->d_name);
        bool temporary = dpt_file_temporary_stem(entry->d_name) > 0;
        if (path != NULL && (temporary ? dpt_owned_check_temporary(path)
                                       : dpt_owned_check(path, DPT_OWNED_PROGRESS, NULL)) == DPT_OK)
            unlink(path);
        else
            dpt_error_clear(); /* it stays */
        dpt_mem_free(path);
    }
    if (entries != NULL) {
        closedir(entries);
        rmdir(folder); /* stays when something else is in it */
    }
    if (folder == NULL)
        dpt_error_clear();
    dpt_mem_free(folder);
}
