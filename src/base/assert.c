#include "deltapath/base/assert.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int world_rank;
static void (*world_end)(void);
static pid_t world_process; /* a forked child is no rank: MPI is not for it */

void dpt_assert_set_world(int rank, void (*end_all)(void)) {
    world_rank = rank;
    world_end = end_all;
    world_process = getpid();
}

void dpt_assert_failed(const char *file, int line, const char *function, const char *what) {
    fprintf(stderr, "deltapath: internal error: [rank %d] %s:%d: %s: %s\n", world_rank, file, line,
            function, what);
    fflush(stderr);
    if (world_end != NULL && world_process == getpid())
        world_end();
    abort();
}
