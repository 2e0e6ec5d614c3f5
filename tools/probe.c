/* What the program needs of a machine: the Makefile links this before it builds, and tools/deps.sh says what is
 * missing. */
#include <Random123/philox.h>
#include <cblas.h>
#include <dnnl.h>
#include <hdf5.h>
#include <jansson.h>
#include <lapacke.h>
#include <libfyaml.h>
#include <mpi.h>
#include <omp.h>
#include <xxhash.h>

#ifndef H5_HAVE_PARALLEL
#error "this HDF5 was built without MPI"
#endif

void pdgesvd_(void);

int main(int argc, char **argv) {
    float x = (float)argc;
    lapack_int info = LAPACKE_spotrf(LAPACK_ROW_MAJOR, 'U', 1, &x, 1);
    if (argc > 1)
        pdgesvd_();
    MPI_Init(&argc, &argv);
    H5open();
    json_decref(json_object());
    info += dnnl_version()->major < 2;
    fy_document_destroy(fy_document_create(NULL));
    x += cblas_sdot(1, &x, 1, &x, 1) + (float)(XXH3_64bits(&x, sizeof x) & 1);
    MPI_Finalize();
    return x < 0 || info != 0;
}
