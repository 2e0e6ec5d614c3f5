#include "deltapath/comm/phase.h"

#include <mpi.h>

void dpt_comm_phase(const char *name) {
    (void)MPI_Pcontrol(1, name); /* there is nothing that it could say */
}
