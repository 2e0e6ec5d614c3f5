/* A model of bf16 from one HDF5 file to another: by H5Dread and H5Dwrite of hyperslabs, of all ranks together and of each
 * for itself; by the store with each way of writing, hashes and the child that makes the file included; and the same
 * bytes by pread and pwrite. All sync what they wrote, and take turns. Then a model in chunks, plain and compressed, read by
 * the store, by each rank for itself and by all together, and through MPI-IO.
 *
 * usage: mpirun -n 2 bench_hdf5 [-g gigabytes] [-d directory] [-r repeats] [--json FILE]
 * Prints seconds and GB/s of the model's bytes, and the ratio of the times to pread and pwrite. */

#include "bench_print.h"

#include "deltapath/base/log.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/store.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

enum { REPEATS_MAX = 33, ROWS = 8192, COLS = 4096, PIECE_ROWS = 512 };

static dpt_comm comm;
static int repeats = 5, tensors = 1;
static char from[512], to[512];
static uint16_t *buffer; /* (PIECE_ROWS, COLS), at least a cell */

static double begin(void) {
    MPI_Barrier(comm.mpi);
    return dpt_log_seconds();
}

static double since(double begun) {
    double seconds = dpt_log_seconds() - begun;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, comm.mpi);
    return seconds;
}

static void name_of(int t, char name[64]) {
    snprintf(name, 64, "model.layers.%03d.weight", t);
}

static void must(bool good, const char *what) {
    if (good)
        return;
    fprintf(stderr, "bench_hdf5: %s failed: %s\n", what, dpt_error_message());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void drop(const char *path) {
    MPI_Barrier(comm.mpi);
    if (comm.rank == 0)
        unlink(path);
    MPI_Barrier(comm.mpi);
}

static void make_catalog(dpt_catalog *catalog) {
    const int64_t shape[] = {ROWS, COLS};
    char name[64];
    dpt_catalog_init(catalog);
    for (int t = 0; t < tensors; t++) {
        name_of(t, name);
        must(dpt_catalog_add(catalog, name, DPT_BF16, 2, shape) == DPT_OK, "a catalog");
    }
}

/* Values of a normal weight's look: signs and the last bits are noise, exponents are few. */
static void fill(int64_t cell, uint16_t *values) {
    uint64_t state = (uint64_t)cell * 0x9E3779B97F4A7C15u + 1;
    for (int64_t i = 0; i < DPT_CELL; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t x = state >> 40;
        int zeros = __builtin_ctzll(x | 1u << 10);
        values[i] = (uint16_t)((x & 1) << 15 | (uint64_t)(120 - zeros) << 7 | (x >> 12 & 127));
    }
}

/* By the store, from a store or, where it is NULL, from what fill() says. */
static void write_store(const char *path, dpt_store *source, const dpt_store_layout *layout) {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    dpt_store_options options = {.format = DPT_STORE_HDF5, .layout = *layout};
    dpt_status st = DPT_OK;
    make_catalog(&catalog);
    must(dpt_shard_create(&catalog, comm.size, &shard) == DPT_OK, "a shard");
    must(dpt_store_create(&comm, path, &catalog, &shard, &options, &writer) == DPT_OK, "a file");
    dpt_sink sink = dpt_store_writer_sink(writer);
    for (int64_t c = shard.rank_first[comm.rank]; c < shard.rank_first[comm.rank + 1]; c++) {
        dpt_range range = dpt_shard_cell(&shard, c);
        if (source == NULL) {
            fill(c, buffer);
        } else if (st == DPT_OK) {
            dpt_source model = dpt_store_source(source);
            st = model.read(model.ctx, range, buffer);
        }
        if (st == DPT_OK)
            st = sink.write(sink.ctx, range, buffer);
    }
    must(dpt_store_finish(writer, st) == DPT_OK, "the store");
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
}

static double by_store(dpt_store_io io) {
    const dpt_store_layout layout = {.io = io};
    dpt_store *store = NULL;
    double begun = begin();
    must(dpt_store_open(&comm, from, &store) == DPT_OK, "opening");
    write_store(to, store, &layout);
    dpt_store_close(store);
    return since(begun);
}

static hid_t open_all(const char *path, unsigned how) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_mpio(access, comm.mpi, MPI_INFO_NULL);
    H5Pset_alignment(access, 1 << 20, 4096);
    hid_t file = how == H5F_ACC_TRUNC ? H5Fcreate(path, how, H5P_DEFAULT, access)
                                      : H5Fopen(path, how, access);
    must(file >= 0, path);
    H5Pclose(access);
    return file;
}

/* Rows of a tensor that this rank has in a round; all ranks have as many rounds. */
static void select_rows(hid_t space, int round, hid_t *memory) {
    hsize_t start[] = {((hsize_t)round * (hsize_t)comm.size + (hsize_t)comm.rank) * PIECE_ROWS, 0};
    hsize_t count[] = {PIECE_ROWS, COLS};
    *memory = H5Screate_simple(2, count, NULL);
    if (start[0] >= ROWS) {
        H5Sselect_none(space);
        H5Sselect_none(*memory);
    } else {
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    }
}

/* One tensor; with out < 0 it is only read. */
static void move_tensor(hid_t in, hid_t out, int t, hid_t transfer) {
    char name[80] = "tensors/";
    name_of(t, name + 8);
    hid_t read = H5Dopen2(in, name, H5P_DEFAULT), type = H5Dget_type(read);
    hid_t space = H5Dget_space(read), plist = H5Pcreate(H5P_DATASET_CREATE), write = -1;
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    if (out >= 0)
        write = H5Dcreate2(out, name + 8, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    int rounds = (ROWS / PIECE_ROWS + comm.size - 1) / comm.size;
    for (int i = 0; i < rounds; i++) {
        hid_t memory;
        select_rows(space, i, &memory);
        must(H5Dread(read, type, memory, space, transfer, buffer) >= 0, "H5Dread");
        must(out < 0 || H5Dwrite(write, type, memory, space, transfer, buffer) >= 0, "H5Dwrite");
        H5Sclose(memory);
    }
    if (out >= 0)
        H5Dclose(write);
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(read);
}

static double by_hdf5(const char *path, H5FD_mpio_xfer_t how, bool writes) {
    double begun = begin();
    hid_t in = open_all(path, H5F_ACC_RDONLY), out = writes ? open_all(to, H5F_ACC_TRUNC) : -1;
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_dxpl_mpio(transfer, how);
    for (int t = 0; t < tensors; t++)
        move_tensor(in, out, t, transfer);
    H5Pclose(transfer);
    H5Fclose(in);
    if (writes) {
        H5Fclose(out);
        int file = open(to, O_RDWR);
        must(file >= 0 && fsync(file) == 0, "fsync");
        close(file);
    }
    return since(begun);
}

static double by_pread(void) {
    int64_t first, end, bytes = 2 * ROWS * COLS * (int64_t)tensors, run = 4 << 20;
    double begun = begin();
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0666);
    dpt_shard_split(bytes, comm.size, comm.rank, &first, &end);
    for (int64_t at = first; at < end; at += run) {
        size_t n = (size_t)(end - at < run ? end - at : run);
        must(pread(in, buffer, n, at) == (ssize_t)n && pwrite(out, buffer, n, at) == (ssize_t)n,
             "pread or pwrite");
    }
    must(fsync(out) == 0, "fsync");
    close(in);
    close(out);
    return since(begun);
}

/* Own cells, by the store. */
static double read_store(const char *path, dpt_store_reading how) {
    bool wanted[4096];
    dpt_store *store = NULL;
    dpt_shard shard;
    double begun = begin();
    must(dpt_store_open(&comm, path, &store) == DPT_OK, "opening");
    must(dpt_shard_create(dpt_store_catalog(store), comm.size, &shard) == DPT_OK, "a shard");
    must(shard.ntensors <= 4096, "fewer gigabytes");
    for (int t = 0; t < shard.ntensors; t++)
        wanted[t] = true;
    dpt_store_holding what = {.how = how, .shard = &shard, .wanted = wanted};
    must(dpt_store_hold(store, &comm, &what) == DPT_OK, "reading together");
    dpt_source source = dpt_store_source(store);
    for (int64_t c = shard.rank_first[comm.rank]; c < shard.rank_first[comm.rank + 1]; c++)
        must(source.read(source.ctx, dpt_shard_cell(&shard, c), buffer) == DPT_OK, "reading");
    dpt_shard_destroy(&shard);
    dpt_store_close(store);
    return since(begun);
}

static void say(const char *name, double *seconds, double gigabytes, double limit) {
    double copy[REPEATS_MAX];
    memcpy(copy, seconds, (size_t)repeats * sizeof *copy);
    bench_figure time = bench_of(copy, repeats);
    bench_figure rate = bench_over(seconds, repeats, gigabytes);
    bench_say((bench_result){.name = name,
                             .unit = "GB/s",
                             .figure = rate,
                             .limit = limit > 0.0 ? gigabytes / limit : 0.0,
                             .ratio = limit > 0.0 ? time.median / limit : 0.0,
                             .seconds = time.median});
}

enum { PREAD, TOGETHER, ALONE, DIRECT, INDEPENDENT, COLLECTIVE, RIVALS };

static double measure(int rival) {
    double seconds = rival == PREAD      ? by_pread()
                     : rival == TOGETHER ? by_hdf5(from, H5FD_MPIO_COLLECTIVE, true)
                     : rival == ALONE    ? by_hdf5(from, H5FD_MPIO_INDEPENDENT, true)
                                         : by_store((dpt_store_io)(rival - DIRECT));
    drop(to);
    return seconds;
}

static void compare(double gigabytes) {
    static const char *const names[] = {
        "pread and pwrite",         "H5Dread, H5Dwrite collective", "H5Dread, H5Dwrite independent",
        "store, output.io: direct", "store, independent",           "store, collective"};
    static double took[RIVALS][REPEATS_MAX];
    for (int i = 0; i < repeats; i++)
        for (int r = 0; r < RIVALS; r++)
            took[(i + r) % RIVALS][i] = measure((i + r) % RIVALS);
    double copy[REPEATS_MAX];
    memcpy(copy, took[PREAD], sizeof copy);
    double limit = bench_of(copy, repeats).median;
    for (int r = 0; r < RIVALS; r++)
        say(names[r], took[r], gigabytes, limit);
}

static void compare_chunks(double gigabytes) {
    static const dpt_store_layout layouts[] = {
        {.io = DPT_STORE_DIRECT}, {.chunk_bytes = 1 << 20}, {.deflate = 2}};
    static const char *const names[][4] = {
        {"", "read contiguous, store", "read contiguous, store collective",
         "read contiguous, MPI-IO"},
        {"write chunks", "read chunks, store", "read chunks, store collective",
         "read chunks, MPI-IO"},
        {"write deflate 1", "read deflate 1, store", "read deflate 1, store collective",
         "read deflate 1, MPI-IO"}};
    static double took[4][REPEATS_MAX];
    for (int l = 0; l < 3; l++) {
        for (int i = 0; i < repeats; i++) {
            drop(to);
            double begun = begin();
            write_store(to, NULL, &layouts[l]);
            took[0][i] = since(begun);
            took[1][i] = read_store(to, DPT_STORE_ALONE);
            took[2][i] = read_store(to, DPT_STORE_TOGETHER);
            took[3][i] = by_hdf5(to, H5FD_MPIO_INDEPENDENT, false);
        }
        for (int k = l == 0; k < 4; k++)
            say(names[l][k], took[k], gigabytes, 0.0);
    }
    drop(to);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    must(dpt_comm_create(MPI_COMM_WORLD, &comm) == DPT_OK, "a communicator");
    dpt_agree_set_world(comm.rank, comm.size);
    dpt_log_configure(comm.rank, DPT_LOG_WARN);
    bench_begin(&argc, argv, "bench_hdf5", comm.rank, comm.size);
    double gigabytes = 1.0;
    const char *directory = ".";
    for (int option; (option = getopt(argc, argv, "d:g:r:")) != -1;)
        if (option == 'd')
            directory = optarg;
        else if (option == 'g')
            gigabytes = strtod(optarg, NULL);
        else
            repeats = (int)strtol(optarg, NULL, 10);
    repeats = repeats < 1 ? 1 : repeats > REPEATS_MAX ? REPEATS_MAX : repeats;
    tensors = (int)(gigabytes * 1e9 / (2.0 * ROWS * COLS)) + 1;
    gigabytes = 2e-9 * ROWS * COLS * tensors;
    snprintf(from, sizeof from, "%s/bench-from.h5", directory);
    snprintf(to, sizeof to, "%s/bench-to.h5", directory);
    buffer = malloc(sizeof *buffer * PIECE_ROWS * COLS);
    drop(from);
    drop(to);
    write_store(from, NULL, &(dpt_store_layout){.io = DPT_STORE_DIRECT});
    compare(gigabytes);
    drop(from);
    compare_chunks(gigabytes);
    free(buffer);
    dpt_comm_destroy(&comm);
    bench_end();
    MPI_Finalize();
    return 0;
}
