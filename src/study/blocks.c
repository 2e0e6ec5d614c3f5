#include "blocks.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <stdio.h>
#include <string.h>

/* Place of a tensor among all groups that there could be. */
static int block_place(const dpt_inputs *in, int tensor) {
    dpt_role role = dpt_role_of(in->catalog->tensors[tensor].name);
    return in->job->hessian.blocks == DPT_BLOCKS_LAYERS ? role.layer + 1 : (int)role.kind;
}

static int blocks_places(const dpt_inputs *in) {
    int places = 0;
    for (int t = 0; t < in->catalog->count; t++) {
        int place = block_place(in, t);
        places = in->selected[t] && place >= places ? place + 1 : places;
    }
    return places;
}

static bool block_is_used(const dpt_inputs *in, int place) {
    for (int t = 0; t < in->catalog->count; t++)
        if (in->selected[t] && block_place(in, t) == place)
            return true;
    return false;
}

int dpt_blocks_count(const dpt_inputs *in) {
    int count = 0;
    for (int place = 0; in->job->hessian.blocks != DPT_BLOCKS_NONE && place < blocks_places(in);
         place++)
        count += block_is_used(in, place);
    return count;
}

dpt_status dpt_blocks_create(const dpt_inputs *in, dpt_blocks *out) {
    int tensors = in->catalog->count, places = blocks_places(in);
    *out = (dpt_blocks){.groups = dpt_blocks_count(in)};
    int64_t room = DPT_ROLE_LABEL * ((int64_t)out->groups + 1);
    out->group_of = dpt_mem_alloc(tensors, sizeof *out->group_of, "groups of tensors");
    out->names = dpt_mem_zalloc(room, 1, "names of groups");
    out->values =
        dpt_mem_zalloc((int64_t)tensors * out->groups, sizeof *out->values, "blocks of a Hessian");
    if (out->group_of == NULL || out->names == NULL || out->values == NULL) {
        dpt_blocks_destroy(out);
        return DPT_ERR_OUTPUT;
    }
    for (int t = 0; t < tensors; t++)
        out->group_of[t] = -1;
    for (int place = 0, group = 0; place < places; place++) {
        char name[DPT_ROLE_LABEL];
        size_t used = strlen(out->names);
        if (!block_is_used(in, place))
            continue;
        dpt_role_label((dpt_role){.layer = place - 1, .kind = (dpt_role_kind)place},
                       in->job->hessian.blocks == DPT_BLOCKS_LAYERS, name);
        snprintf(out->names + used, (size_t)room - used, "%s%s", group > 0 ? "|" : "", name);
        for (int t = 0; t < tensors; t++)
            if (in->selected[t] && block_place(in, t) == place)
                out->group_of[t] = group;
        group++;
    }
    return DPT_OK;
}

void dpt_blocks_destroy(dpt_blocks *blocks) {
    dpt_mem_free(blocks->group_of);
    dpt_mem_free(blocks->names);
    dpt_mem_free(blocks->values);
    *blocks = (dpt_blocks){.groups = 0};
}
