#ifndef DELTAPATH_LINALG_BLAS_MEMORY_H
#define DELTAPATH_LINALG_BLAS_MEMORY_H

#include "deltapath/comm/comm.h"

/** Size of one of OpenBLAS's buffers: BUFFER_SIZE of its common_x86_64.h, 32 << 22, in 0.3.21. It maps
 * one when it is loaded, one at the first product, and one for each further thread. */
enum { DPT_BLAS_BUFFER_BYTES = 32 << 22 };

/** Let OpenBLAS take its buffers, and libgomp its threads, now.
 *
 * OpenBLAS 0.3.21 takes them at its first use and tries for ever when there is no address space, while
 * the other ranks wait. So the address space is tried first, and the ranks agree. The number of threads is
 * from here on what OpenMP gives (OMP_THREAD_LIMIT), and no more follows the load (OMP_DYNAMIC).
 * Collective over comm. Errors: DPT_ERR_OUTPUT naming the need of a rank that is short; agreed. */
dpt_status dpt_blas_take_memory(const dpt_comm *comm);

#endif
