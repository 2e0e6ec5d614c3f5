#include "groups.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <stdio.h>
#include <string.h>

/* Place of a tensor among all groups that there could be. */
static int group_place(const dpt_inputs *in, int kind, int tensor) {
    dpt_role role = dpt_role_of(in->catalog->tensors[tensor].name);
    return kind == DPT_GROUPS_LAYERS ? role.layer + 1 : (int)role.kind;
}

static int groups_places(const dpt_inputs *in, int kind) {
    int places = 0;
    for (int t = 0; t < in->catalog->count; t++) {
        int place = group_place(in, kind, t);
        places = in->selected[t] && place >= places ? place + 1 : places;
    }
    return places;
}

static bool group_is_used(const dpt_inputs *in, int kind, int place) {
    for (int t = 0; t < in->catalog->count; t++)
        if (in->selected[t] && group_place(in, kind, t) == place)
            return true;
    return false;
}

int dpt_groups_count(const dpt_inputs *in, int kind) {
    int count = 0;
    for (int place = 0; kind != DPT_GROUPS_NONE && place < groups_places(in, kind); place++)
        count += group_is_used(in, kind, place);
    return count;
}

/* @param[in] room of the names. */
static void groups_fill(const dpt_inputs *in, int kind, int64_t room, dpt_groups *out) {
    for (int place = 0, group = 0; group < out->count; place++) {
        char name[DPT_ROLE_LABEL];
        size_t used = strlen(out->names);
        if (!group_is_used(in, kind, place))
            continue;
        dpt_role_label((dpt_role){.layer = place - 1, .kind = (dpt_role_kind)place},
                       kind == DPT_GROUPS_LAYERS, name);
        snprintf(out->names + used, (size_t)room - used, "%s%s", group > 0 ? "|" : "", name);
        for (int t = 0; t < in->catalog->count; t++)
            if (in->selected[t] && group_place(in, kind, t) == place)
                out->group_of[t] = group;
        group++;
    }
}

dpt_status dpt_groups_create(const dpt_inputs *in, int kind, dpt_groups *out) {
    int tensors = in->catalog->count;
    *out = (dpt_groups){.count = dpt_groups_count(in, kind)};
    int64_t room = DPT_ROLE_LABEL * ((int64_t)out->count + 1);
    out->group_of = dpt_mem_alloc(tensors, sizeof *out->group_of, "groups of tensors");
    out->names = dpt_mem_zalloc(room, 1, "names of groups");
    if (out->group_of == NULL || out->names == NULL) {
        dpt_groups_destroy(out);
        return DPT_ERR_OUTPUT;
    }
    for (int t = 0; t < tensors; t++)
        out->group_of[t] = -1;
    groups_fill(in, kind, room, out);
    return DPT_OK;
}

void dpt_groups_destroy(dpt_groups *groups) {
    dpt_mem_free(groups->group_of);
    dpt_mem_free(groups->names);
    *groups = (dpt_groups){.count = 0};
}
