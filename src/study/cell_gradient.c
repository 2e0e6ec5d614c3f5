#include "cell_gradient.h"

#include "deltapath/base/mem.h"
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

/* The cells of all ranks in turn; each keeps its own. Collective over the mesh. */
static dpt_status fill_cells(dpt_cell_gradient *g, const dpt_evaluation *ev,
                             const dpt_model_gradient *gradient, float *buffer) {
    const int64_t *own = g->shard.rank_first + ev->mesh.world.rank;
    int64_t cells = g->shard.rank_first[ev->mesh.world.size];
    dpt_status st = DPT_OK;
    for (int64_t c = 0; c < cells && st == DPT_OK; c++) {
        dpt_range cell = dpt_shard_cell(&g->shard, c);
        st = dpt_model_gradient_range(ev->model, gradient, cell, buffer);
        if (st == DPT_OK && c >= own[0] && c < own[1])
            memcpy(dpt_field_cell(g->field, c), buffer, (size_t)cell.n * sizeof *buffer);
    }
    return st;
}

dpt_status dpt_cell_gradient_take(dpt_cell_gradient *g, dpt_evaluation *ev,
                                  const dpt_model_gradient *values) {
    g->data = -1;
    float *buffer = dpt_mem_alloc(DPT_CELL, sizeof *buffer, "cell of a gradient");
    dpt_status st = buffer != NULL ? dpt_agree_fault("study.gradient") : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_stop_check();
    st = dpt_agree(&ev->mesh.world, st);
    if (st == DPT_OK)
        st = dpt_agree(&ev->mesh.world, fill_cells(g, ev, values, buffer));
    dpt_mem_free(buffer);
    return st;
}

dpt_status dpt_cell_gradient_fill(dpt_cell_gradient *g, dpt_evaluation *ev, int d) {
    if (g->data == d)
        return DPT_OK;
    dpt_status st = dpt_cell_gradient_take(g, ev, ev->data[d].gradient);
    g->data = st == DPT_OK ? d : -1;
    return st;
}
