#include "deltapath/study/machine.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/peers.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/bf16.h"
#include "deltapath/linalg/blas_memory.h"
#include "deltapath/nn/bf16.h"

#include <cblas.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SIDE = 1024,          /* of large products */
    SMALL = 192,          /* of small ones */
    GLANCE_SIDE = 256,    /* of products that are looked at in passing */
    COPY_BYTES = 1 << 26, /* of a rank, at least: what is measured needs as much */
    COPY_SHARE = 8,       /* part of a machine's memory that its ranks take at most */
    COPY_CACHES = 2,      /* last-level caches that a rank copies */
    GLANCE_BYTES = 1 << 24,
    MESSAGE_BYTES = 1 << 22,
    FILE_BYTES = 1 << 28,
    STEP_BYTES = 1 << 24,
    BF16_ROWS = 512, /* of a thread: pieces that passes take */
    BF16_ROWS_MAX = 4096
};

static const double LEAST = 0.4, GLANCE = 0.004; /* seconds of a measurement */

/* Rounds that a measurement does until it has taken long enough. */
typedef struct machine_clock {
    double least; /* seconds that a rate is measured over */
    double begin, seconds, best;
    int rounds;
} machine_clock;

static bool clock_goes_on(machine_clock *c) {
    double now = dpt_log_seconds();
    if (c->rounds == 0)
        c->begin = c->seconds = now;
    else
        c->best = c->rounds == 1 ? now - c->seconds : fmin(c->best, now - c->seconds);
    c->seconds = now;
    return c->rounds++ < 3 || now - c->begin < c->least;
}

/* Gflop/s of one core, while all ranks compute. The fastest round: others of the machine only slow it down. */
static double machine_products(int side, bool wide, double least, void *room) {
    int64_t n = (int64_t)side * side;
    machine_clock c = {.least = least};
    while (clock_goes_on(&c))
        if (wide) {
            double *a = room;
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, side, side, side, 1.0, a, side,
                        a + n, side, 0.0, a + 2 * n, side);
        } else {
            float *a = room;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 4 * side, side, side, 1.0F, a,
                        side, a + 4 * n, side, 0.0F, a + 5 * n, side);
        }
    double flops = 2.0 * (double)n * side * (wide ? 1.0 : 4.0);
    return flops / c.best / 1e9 / omp_get_max_threads();
}

/* A piece of activations times both matrices of W(t), forward and back. */
typedef struct machine_pair {
    dpt_bf16_shape shape;
    float *x, *z[2];
    uint16_t *half, *w[2];
} machine_pair;

static machine_pair machine_pair_at(int side, char *room) {
    int64_t n = side, rows = (int64_t)BF16_ROWS * omp_get_max_threads();
    rows = rows < BF16_ROWS_MAX ? rows : BF16_ROWS_MAX;
    machine_pair p = {.shape = {.M = rows, .N = n, .K = n}, .x = (float *)(void *)room};
    p.z[0] = p.x + rows * n;
    p.z[1] = p.z[0] + rows * n;
    p.half = (uint16_t *)(void *)(p.z[1] + rows * n);
    p.w[0] = p.half + rows * n;
    p.w[1] = p.w[0] + n * n;
    return p;
}

/* Gflop/s of one core in products of bf16 as a pass takes them, with the rounding before and the sum after; 0 where there
 * are none. */
static double machine_bf16(int side, double least, char *room) {
    machine_pair p = machine_pair_at(side, room);
    machine_clock c = {.least = least};
    dpt_bf16 *bf16 = NULL;
    if (dpt_bf16_find_speed() == DPT_BF16_NONE || dpt_bf16_create(&bf16) != DPT_OK) {
        dpt_error_clear(); /* the rate stays unknown */
        return 0.0;
    }
    while (clock_goes_on(&c))
        for (int back = 0; back < 2; back++) {
            p.shape.trans_b = back == 0;
            dpt_nn_bf16_round(p.shape.M, side, p.x, side, p.half);
            for (int i = 0; i < 2; i++)
                dpt_bf16_multiply(bf16, &p.shape, p.half, p.w[i], p.z[i]);
            dpt_nn_bf16_join(p.shape.M, side, p.z[0], p.z[1], 0.5F, NULL, false, p.x, side);
        }
    bool ok = dpt_bf16_get_status(bf16) == DPT_OK;
    dpt_bf16_destroy(bf16);
    if (!ok) {
        dpt_error_clear();
        return 0.0;
    }
    return 8.0 * (double)p.shape.M * side * side / c.best / 1e9 / omp_get_max_threads();
}

/* Bytes that one rank copies: beyond the last-level cache, which it may have to itself, where memory allows. */
static int64_t machine_copy_bytes(int ranks) {
    int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE), bytes = COPY_CACHES * (cache > 0 ? cache : 0);
    int64_t most = dpt_mem_machine() / COPY_SHARE / ranks, left = dpt_mem_available() / 2;
    most = left < most ? left : most;
    bytes = (bytes < most ? bytes : most) / STEP_BYTES * STEP_BYTES;
    return bytes > COPY_BYTES ? bytes : COPY_BYTES;
}

/* GB/s of a copy, with bytes read and written; each thread has a piece at least. */
static double machine_copies(double least, int64_t bytes, char *room) {
    machine_clock c = {.least = least};
    int64_t half = bytes / 2, step = half / omp_get_max_threads();
    step = step < STEP_BYTES / 16 ? step : STEP_BYTES / 16;
    while (clock_goes_on(&c)) {
#pragma omp parallel for schedule(static)
        for (int64_t at = 0; at < half; at += step)
            memcpy(room + at, room + half + at, (size_t)(half - at < step ? half - at : step));
    }
    return (double)bytes / c.best / 1e9;
}

static dpt_status machine_compute(const dpt_comm *comm, const dpt_peers *peers, char *room,
                                  int64_t bytes, dpt_machine *out) {
    double sums[5] = {machine_products(SIDE, false, LEAST, room),
                      machine_products(SMALL, false, LEAST, room),
                      machine_products(SIDE / 2, true, LEAST, room),
                      machine_copies(LEAST, bytes, room), machine_bf16(SIDE, LEAST, room)};
    dpt_status st = dpt_comm_sum_f64(comm, sums, 5);
    if (st != DPT_OK)
        return st;
    double alone = comm->rank == 0 ? machine_copies(LEAST, bytes, room) : 0.0;
    out->sgemm_gflops = sums[0] / comm->size;
    out->sgemm_small_gflops = sums[1] / comm->size;
    out->dgemm_gflops = sums[2] / comm->size;
    out->memory_gb_per_s = sums[3] / peers->nodes;
    out->bf16_gflops = sums[4] / comm->size;
    out->core_memory_gb_per_s = alone; /* the others wait */
    return dpt_comm_max_f64(comm, &out->core_memory_gb_per_s, 1);
}

static dpt_status machine_messages(const dpt_comm *comm, int peer, double *latency, double *rate) {
    double small, large;
    if (peer < 0)
        return DPT_OK;
    dpt_status st = dpt_peers_time(comm, peer, 8, &small);
    if (st == DPT_OK)
        st = dpt_peers_time(comm, peer, MESSAGE_BYTES, &large);
    if (st == DPT_OK) {
        *latency = small * 1e6;
        *rate = MESSAGE_BYTES / large / 1e9;
    }
    return st;
}

/* A file of its own, written until it is stored and read again, not from memory where the system lets go of it. */
static dpt_status machine_file(const char *path, char *room, dpt_machine *out) {
    bool ok = true;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be made (%s): give a folder to write into",
                         path, strerror(errno));
    double begin = dpt_log_seconds();
    for (int64_t at = 0; at < FILE_BYTES && ok; at += STEP_BYTES)
        ok = dpt_file_write_open(fd, room, STEP_BYTES);
    ok = ok && fsync(fd) == 0;
    int error = errno;
    double stored = dpt_log_seconds();
    if (ok)
        (void)posix_fadvise(fd, 0, FILE_BYTES, POSIX_FADV_DONTNEED); /* a wish */
    double read = dpt_log_seconds();
    for (int64_t at = 0; at < FILE_BYTES && ok; at += STEP_BYTES)
        ok = dpt_file_read_at(fd, at, room, STEP_BYTES) == STEP_BYTES;
    double end = dpt_log_seconds();
    close(fd);
    unlink(path);
    if (!ok)
        return dpt_error(DPT_ERR_OUTPUT, "%s: a file of %d MiB fails (%s): give another folder",
                         path, FILE_BYTES >> 20, strerror(error));
    out->write_gb_per_s = FILE_BYTES / (stored - begin) / 1e9;
    out->read_gb_per_s = FILE_BYTES / (end - read) / 1e9;
    return DPT_OK;
}

static dpt_status machine_storage(const char *folder, char *room, dpt_machine *out) {
    char *stem = dpt_mem_format("%s/deltapath-machine", folder);
    char *path = stem != NULL ? dpt_file_temporary(stem) : NULL;
    dpt_status st = path != NULL ? machine_file(path, room, out) : DPT_ERR_OUTPUT;
    dpt_mem_free(path);
    dpt_mem_free(stem);
    return st;
}

/* Of the machine that runs this, without measuring. */
static void machine_look(dpt_machine *out) {
    *out = dpt_machine_defaults();
    out->cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    out->memory_gib = (double)dpt_mem_machine() / 1073741824.0;
}

dpt_status dpt_machine_glance(const dpt_comm *comm, bool products, bool bf16, dpt_machine *out) {
    DPT_ASSERT_SAME(comm, products);
    DPT_ASSERT_SAME(comm, bf16);
    machine_look(out);
    dpt_status st = products ? dpt_blas_take_memory(comm) : DPT_OK;
    if (st != DPT_OK)
        return st;
    /* Not of the budget: it is given back before there is work. */
    char *room =
        mmap(NULL, GLANCE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double sums[4] = {0.0};
    if (room != MAP_FAILED) {
        (void)madvise(room, GLANCE_BYTES, MADV_HUGEPAGE); /* a wish: thousands of faults fewer */
        sums[0] = products ? machine_products(GLANCE_SIDE, false, GLANCE, room) : 0.0;
        sums[1] = machine_copies(GLANCE, GLANCE_BYTES, room);
        sums[2] = 1.0;
        sums[3] = bf16 ? machine_bf16(GLANCE_SIDE, GLANCE, room) : 0.0;
        munmap(room, GLANCE_BYTES);
    }
    st = dpt_agree(comm, dpt_comm_sum_f64(comm, sums, 4));
    if (st == DPT_OK && sums[2] > 0.0) {
        out->bf16_gflops = sums[3] / sums[2];
        if (products)
            out->sgemm_gflops = sums[0] / sums[2];
        out->memory_gb_per_s = sums[1] / sums[2] * fmin(out->cores, comm->size);
        out->core_memory_gb_per_s = sums[1] / sums[2];
    }
    snprintf(out->source, sizeof out->source, "%smemory measured now, else defaults",
             products ? "products and " : "");
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, out, sizeof *out, 0)) : st;
}

dpt_status dpt_machine_measure(const dpt_comm *comm, const char *folder, dpt_machine *out) {
    DPT_ASSERT_SAME_TEXT(comm, folder);
    dpt_peers peers;
    machine_look(out);
    dpt_status st = dpt_peers_find(comm, &peers);
    if (st == DPT_OK)
        st = dpt_blas_take_memory(comm);
    if (st != DPT_OK)
        return st;
    int64_t bytes = machine_copy_bytes((comm->size + peers.nodes - 1) / peers.nodes);
    char *room = dpt_mem_zalloc(bytes, 1, "room to measure");
    st = dpt_agree(comm, room != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_agree(comm, machine_compute(comm, &peers, room, bytes, out));
    if (st == DPT_OK)
        st = machine_messages(comm, peers.near, &out->node_latency_us, &out->node_gb_per_s);
    if (st == DPT_OK)
        st = machine_messages(comm, peers.far, &out->network_latency_us, &out->network_gb_per_s);
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? machine_storage(folder, room, out) : DPT_OK);
    dpt_mem_free(room);
    snprintf(out->source, sizeof out->source, "measured now");
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, out, sizeof *out, 0)) : st;
}
