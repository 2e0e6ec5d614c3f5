#include "deltapath/linalg/blas_memory.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <cblas.h>
#include <inttypes.h>
#include <omp.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

/* Side of a product that OpenBLAS spreads over all of its threads. */
enum { WARM_SIDE = 256 };

/* Whether `count` pieces of address space can be had at once. They are given back. */
static bool pieces_fit(int64_t count, size_t bytes) {
    void **pieces = dpt_mem_alloc(count, sizeof *pieces, "pieces of address space");
    int64_t n = 0;
    if (pieces == NULL)
        return false;
    for (; n < count; n++) {
        pieces[n] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pieces[n] == MAP_FAILED)
            break;
    }
    for (int64_t i = 0; i < n; i++)
        munmap(pieces[i], bytes);
    dpt_mem_free(pieces);
    return n == count;
}

static size_t stack_bytes(void) {
    pthread_attr_t attributes;
    size_t bytes = 8 << 20;
    if (pthread_getattr_default_np(&attributes) == 0) {
        pthread_attr_getstacksize(&attributes, &bytes);
        pthread_attr_destroy(&attributes);
    }
    return bytes;
}

/* A buffer for each thread, their stacks, and one piece more for what MPI and the C library map
 * meanwhile. */
static dpt_status probe(int threads) {
    int64_t stacks = (int64_t)stack_bytes() * threads;
    int64_t pieces = threads + 1 + stacks / DPT_BLAS_BUFFER_BYTES;
    if (pieces_fit(pieces, DPT_BLAS_BUFFER_BYTES))
        return DPT_OK;
    dpt_error_clear();
    return dpt_error(
        DPT_ERR_OUTPUT,
        "address space: OpenBLAS needs %" PRId64
        " MiB for %d threads, which this rank cannot map: raise its limit (ulimit -v), "
        "or lower OMP_NUM_THREADS",
        pieces * (DPT_BLAS_BUFFER_BYTES >> 20), threads);
}

/* OpenBLAS shares a product among as many threads as it was told of, and a thread of a smaller team waits for
 * ever for the others' parts. A thread limit, or threads that follow the load, would make it smaller. */
static int settle_threads(void) {
    int threads = 1;
    omp_set_dynamic(0);
#pragma omp parallel
#pragma omp single
    threads = omp_get_num_threads();
    omp_set_num_threads(threads);
    return threads;
}

static void multiply(float *work) {
    const float *a = work;
    float *c = work + (int64_t)WARM_SIDE * WARM_SIDE;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, WARM_SIDE, WARM_SIDE, WARM_SIDE, 1.0f, a,
                WARM_SIDE, a, WARM_SIDE, 0.0f, c, WARM_SIDE);
}

dpt_status dpt_blas_take_memory(const dpt_comm *comm) {
    int threads = settle_threads();
    float *work = dpt_mem_zalloc(2 * (int64_t)WARM_SIDE * WARM_SIDE, sizeof *work, "a product");
    dpt_status st = work == NULL ? DPT_ERR_OUTPUT : probe(threads);
    if (st == DPT_OK)
        st = dpt_agree_fault("blas.memory");
    st = dpt_agree(comm, st);
    /* OpenBLAS keeps what it has taken, and libgomp its threads. */
    if (st == DPT_OK)
        multiply(work);
    dpt_mem_free(work);
    return st;
}
