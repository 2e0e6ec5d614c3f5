#include "deltapath/comm/mesh.h"

#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

dpt_status dpt_mesh_create(const dpt_comm *comm, int model_size, dpt_mesh *out) {
    DPT_ASSERT_SAME(comm, model_size);
    *out = (dpt_mesh){.world = {.size = 0}, .model = {.size = 0}, .data = {.size = 0}};
    if (model_size < 1 || comm->size % model_size != 0)
        return dpt_error(DPT_ERR_USAGE,
                         "mesh: %d tensor-parallel ranks do not divide %d ranks: choose a divisor",
                         model_size, comm->size);
    dpt_status st = dpt_comm_create(comm->mpi, &out->world);
    if (st == DPT_OK)
        st = dpt_comm_split(comm, comm->rank / model_size, comm->rank, &out->model);
    if (st == DPT_OK)
        st = dpt_comm_split(comm, comm->rank % model_size, comm->rank, &out->data);
    if (st != DPT_OK) {
        dpt_mesh_destroy(out);
        return st;
    }
    DPT_ASSERT(out->model.size == model_size && out->data.size == comm->size / model_size);
    DPT_ASSERT(comm->rank == out->data.rank * model_size + out->model.rank);
    return DPT_OK;
}

void dpt_mesh_destroy(dpt_mesh *mesh) {
    dpt_comm_destroy(&mesh->data);
    dpt_comm_destroy(&mesh->model);
    dpt_comm_destroy(&mesh->world);
}
