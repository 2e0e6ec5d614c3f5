#include "resources.h"

#include "deltapath/model/model.h"

/* How many layers keep their activations for the way back, which spares the products that would make them again. */

enum { HELD_RESERVE = 16 << 20 };

/* Work with activations of so many layers. */
static dpt_status measure_held(const dpt_inputs *in, int64_t layers, dpt_resources *res) {
    int64_t weights;
    res->held = layers;
    dpt_model_ranks spread = dpt_resources_ranks(in, res);
    dpt_status st = dpt_model_bytes(dpt_store_config(in->post), in->catalog, &spread, true,
                                    res->packed_tokens, res->longest, &weights, &res->work);
    return dpt_error_locate(st, in->job->post);
}

/* Memory that no activations are kept in, for a study can do without: what a plan leaves out, and other programs. */
static int64_t held_reserve(const dpt_resources *res) {
    int64_t tenth = res->budget / 10;
    return tenth > HELD_RESERVE ? tenth : HELD_RESERVE;
}

dpt_status dpt_resources_hold_layers(const dpt_inputs *in, dpt_resources *res) {
    bool gradients = dpt_resources_keeps_gradient(res);
    int64_t without = res->work;
    dpt_status st = measure_held(in, 1, res);
    int64_t each = res->work - without, layers = res->cost.layers;
    res->work = without;
    int64_t room = res->budget - held_reserve(res) -
                   dpt_resources_peak(in, res, gradients, res->cell_gradient);
    if (each * layers > room)
        layers = room > 0 ? room / each : 0;
    if (st == DPT_OK)
        st = measure_held(in, layers, res);
    res->held_bytes = res->work - without;
    res->peak = dpt_resources_peak(in, res, gradients, res->cell_gradient);
    return st;
}
