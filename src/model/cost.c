#include "deltapath/model/cost.h"

#include "transformer.h"

#include <string.h>

/* Elements of a row's matrix that one token is multiplied by: of experts those that it chooses. */
static double cost_of_row(const dpt_arch *arch, const dpt_row *row) {
    double elements = (double)arch->length[row->rows] * (double)arch->length[row->cols];
    return row->expert ? elements * (double)arch->experts.used : elements;
}

/* Keys that a query of a sequence of n tokens sees, added up over all queries and layers. */
static double cost_of_keys(const dpt_arch *arch, int64_t n) {
    double sum = 0.0, all = (double)n;
    for (int64_t l = 0; l < arch->layers; l++) {
        double window = arch->window != NULL && arch->window[l] > 0 && arch->window[l] < n
                            ? (double)arch->window[l]
                            : all;
        sum += arch->causal ? window * (window + 1.0) / 2.0 + (all - window) * window : all * all;
    }
    return sum;
}

static void cost_of_arch(const dpt_arch *arch, dpt_model_cost *out) {
    for (int slot = 0; slot < DPT_SLOTS; slot++) {
        const dpt_row *row = arch->row[slot];
        if (row == NULL || row->cols == DPT_AXIS_NONE || slot == DPT_SLOT_TOKENS ||
            slot == DPT_SLOT_POSITION)
            continue;
        if (row->expert)
            out->experts += cost_of_row(arch, row) * (double)arch->layers;
        if (dpt_arch_recomputes(arch, (dpt_slot)slot)) {
            double again = cost_of_row(arch, row) * (double)arch->layers;
            out->again += again;
            out->always += row->expert || slot == DPT_SLOT_ROUTER ? again : 0.0;
        }
        if (dpt_slot_is_of_layer(slot))
            out->linear += cost_of_row(arch, row) * (double)arch->layers;
        else if (slot >= DPT_SLOTS_HEAD)
            out->head += cost_of_row(arch, row);
        else
            out->linear += cost_of_row(arch, row);
    }
    int64_t units = arch->experts.count > 0
                        ? arch->experts.used * arch->length[DPT_AXIS_EXPERT_UNITS]
                        : arch->length[DPT_AXIS_UNITS];
    out->expert_count = arch->experts.count;
    out->width = arch->length[DPT_AXIS_WIDTH];
    out->layers = arch->layers;
    out->vocabulary = arch->length[DPT_AXIS_VOCABULARY];
    if (arch->tied)
        out->head += (double)out->width * (double)out->vocabulary;
    out->inner = (double)(2 * units + 2 * arch->length[DPT_AXIS_HEADS] +
                          2 * arch->length[DPT_AXIS_KV_HEADS]);
    out->heads = arch->heads;
    out->head_dim = arch->head_dim;
}

dpt_status dpt_model_count_cost(const char *config, const dpt_catalog *catalog, int64_t sequences,
                                const int64_t *lengths, dpt_model_cost *out) {
    json_t *root = NULL;
    dpt_arch arch = {.window = NULL};
    *out = (dpt_model_cost){.layers = 0};
    dpt_status st = dpt_config_parse(config, &root);
    if (st == DPT_OK) {
        dpt_config_take_text(&root);
        st = dpt_arch_read(root, catalog, &arch);
    }
    if (st == DPT_OK) {
        cost_of_arch(&arch, out);
        for (int64_t i = 0; i < sequences; i++)
            out->keys += cost_of_keys(&arch, lengths[i]);
    }
    dpt_arch_destroy(&arch);
    json_decref(root);
    return st;
}
