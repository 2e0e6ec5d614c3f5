#include "cell_gradient.h"

#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <string.h>

static dpt_status init_catalog(const dpt_catalog *catalog, const dpt_shard *shard,
                               dpt_cell_gradient *out) {
    *out = (dpt_cell_gradient){.data = -1, .shard = *shard};
    dpt_status st = dpt_catalog_copy(catalog, &out->catalog);
    for (int t = 0; st == DPT_OK && t < out->catalog.count; t++)
        out->catalog.tensors[t].dtype = DPT_F32;
    out->shard.catalog = &out->catalog;
    return st;
}

dpt_status dpt_cell_gradient_bytes(const dpt_catalog *catalog, const dpt_shard *shard,
                                   int64_t *bytes) {
    dpt_cell_gradient gradient;
    dpt_status st = init_catalog(catalog, shard, &gradient);
    *bytes = st == DPT_OK ? dpt_field_bytes(&gradient.catalog, &gradient.shard) : 0;
    dpt_catalog_destroy(&gradient.catalog);
    return st;
}

dpt_status dpt_cell_gradient_create(const dpt_comm *comm, const dpt_catalog *catalog,
                                    const dpt_shard *shard, dpt_cell_gradient *out) {
    dpt_status st = dpt_agree(comm, init_catalog(catalog, shard, out));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_field_create(comm, &out->catalog, &out->shard, &out->field));
    if (st == DPT_OK)
        out->source = dpt_field_source(out->field);
    else
        dpt_catalog_destroy(&out->catalog);
    return st;
}

void dpt_cell_gradient_destroy(dpt_cell_gradient *gradient) {
    if (gradient->field == NULL)
        return;
    dpt_field_destroy(gradient->field);
    dpt_catalog_destroy(&gradient->catalog);
    gradient->field = NULL;
}

/* Tensors that the model does not use have a gradient of zero. */
static void clear_cells(dpt_cell_gradient *g, int rank) {
    for (int64_t c = g->shard.rank_first[rank]; c < g->shard.rank_first[rank + 1]; c++)
        memset(dpt_field_cell(g->field, c), 0,
               (size_t)dpt_shard_cell(&g->shard, c).n * sizeof(float));
}

dpt_status dpt_cell_gradient_take(dpt_cell_gradient *g, dpt_evaluation *ev,
                                  const dpt_model_gradient *values) {
    g->data = -1;
    dpt_status st = dpt_agree_fault("study.gradient");
    if (st == DPT_OK)
        st = dpt_stop_check();
    st = dpt_agree(&ev->mesh.world, st);
    if (st != DPT_OK)
        return st;
    clear_cells(g, ev->mesh.world.rank);
    return dpt_model_gradient_write(ev->model, values, dpt_field_sink(g->field));
}

dpt_status dpt_cell_gradient_fill(dpt_cell_gradient *g, dpt_evaluation *ev, int d) {
    if (g->data == d)
        return DPT_OK;
    dpt_status st = dpt_cell_gradient_take(g, ev, ev->data[d].gradient);
    g->data = st == DPT_OK ? d : -1;
    return st;
}
