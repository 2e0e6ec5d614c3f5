#include "stage.h"

#include <stddef.h>

static dpt_status check_stage(const dpt_edit_stage_spec *spec, const dpt_edit_input *input) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->method);
    const dpt_catalog *post = input->post.catalog;
    dpt_status st = DPT_OK;
    for (int t = 0; method->fits != NULL && t < post->count && st == DPT_OK; t++) {
        if (dpt_edit_covers(spec, input, t))
            st = method->fits(spec, &post->tensors[t]);
    }
    return st;
}

bool dpt_edit_covers_any(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    for (int s = 0; s < spec->nstages; s++)
        for (int t = 0; t < input->post.catalog->count; t++)
            if (dpt_edit_covers(&spec->stages[s], input, t))
                return true;
    return false;
}

dpt_status dpt_edit_check(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    dpt_status st = DPT_OK;
    for (int s = 0; s < spec->nstages && st == DPT_OK; s++)
        st = check_stage(&spec->stages[s], input);
    return st;
}
