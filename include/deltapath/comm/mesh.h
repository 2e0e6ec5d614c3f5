#ifndef DELTAPATH_COMM_MESH_H
#define DELTAPATH_COMM_MESH_H

#include "deltapath/comm/comm.h"

/** Mesh of data x model: rank = data_index * model_size + model_index, so that the ranks of one
 * tensor-parallel group are neighbours. */
typedef struct dpt_mesh {
    dpt_comm world; /**< all ranks of the mesh (a duplicate) */
    dpt_comm model; /**< ranks that share one replica: tensor parallel; rank = model index */
    dpt_comm data;  /**< ranks that hold the same block in each replica; rank = data index */
} dpt_mesh;

/** Build a mesh of comm->size / model_size replicas. Collective over comm (same: model_size).
 * Errors: DPT_ERR_USAGE when model_size does not divide the number of ranks. */
dpt_status dpt_mesh_create(const dpt_comm *comm, int model_size, dpt_mesh *out);
void dpt_mesh_destroy(dpt_mesh *mesh); /**< Collective over the mesh. */

#endif
