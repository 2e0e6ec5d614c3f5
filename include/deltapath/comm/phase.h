#ifndef DELTAPATH_COMM_PHASE_H
#define DELTAPATH_COMM_PHASE_H

/** Say to a profiler of MPI which phase of the work begins: MPI_Pcontrol(1, name), which does nothing without one
 * (tools/messages counts by it). Local. @param[in] name  a literal, the same on all ranks. */
void dpt_comm_phase(const char *name);

#endif
