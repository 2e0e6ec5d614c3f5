#include "transformer.h"

#include "deltapath/base/mem.h"
#include "deltapath/nn/linear.h"

#include <omp.h>

enum {
    LOGITS_FLOATS = 1 << 26, /* logits held at a time, as far as the least number of rows allows */
    EXPERT_ROWS = 1024,      /* tokens of one expert taken at a time */
    LOGITS_ROWS_MIN = 128,   /* fewer rows would make the products of the head slow */
};

/* One allocation that is handed out in pieces; with base NULL it is only counted. */
typedef struct work_room {
    char *base;
    int64_t used;
} work_room;

static void *work_take(work_room *room, int64_t n, int64_t size) {
    void *at = room->base != NULL ? room->base + room->used : NULL;
    room->used += (n * size + 63) / 64 * 64;
    return at;
}

static float *work_floats(work_room *room, int64_t n) {
    return work_take(room, n, (int64_t)sizeof(float));
}

static int64_t work_maximum(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t dpt_work_head_rows(const dpt_model *model, int64_t scored) {
    int64_t rows = work_maximum(LOGITS_FLOATS / model->slice.rows_maximum, LOGITS_ROWS_MIN);
    return rows < scored ? rows : scored;
}

static int64_t work_images(const dpt_model *model, int64_t tokens) {
    return model->arch.side > 0 ? tokens / model->arch.image_tokens : 0;
}

static dpt_norm_stats work_take_stats(const dpt_model *model, int64_t rows, work_room *room) {
    dpt_norm_stats stats = {.mean = NULL, .rstd = work_floats(room, rows)};
    if (model->arch.norm == DPT_NORM_LAYER)
        stats.mean = work_floats(room, rows);
    return stats;
}

/* The room of the MLP's activations takes the gradients of the attention when these are free. */
static void work_lay_out_inner(const dpt_slice *slice, int64_t T, work_room *room, dpt_work *w) {
    work_room mlp = *room, attention = *room;
    w->hidden = work_floats(&mlp, T * slice->hidden);
    w->m = work_floats(&mlp, T * slice->f);
    w->dm = work_floats(&mlp, T * slice->f);
    w->dqkv = work_floats(&attention, T * slice->qkv);
    w->d_o = work_floats(&attention, T * slice->q);
    room->used = work_maximum(mlp.used, attention.used);
}

/* What a branch adds to the residual stream, where a norm or a factor follows it. */
static float *work_take_branch(const dpt_model *model, int64_t T, dpt_slot norm, dpt_slot scale,
                               dpt_norm_stats *stats, work_room *room) {
    const dpt_arch *arch = &model->arch;
    *stats = work_take_stats(model, arch->row[norm] != NULL ? T : 0, room);
    return arch->row[norm] != NULL || arch->row[scale] != NULL
               ? work_floats(room, T * arch->length[DPT_AXIS_WIDTH])
               : NULL;
}

/* Gradient of what a branch adds. */
static void work_lay_out_dy(const dpt_model *model, int64_t T, work_room *room, dpt_work *w) {
    int64_t width = model->arch.length[DPT_AXIS_WIDTH];
    static const dpt_slot after[] = {DPT_SLOT_OUT_NORM1, DPT_SLOT_OUT_NORM2, DPT_SLOT_SCALE1,
                                     DPT_SLOT_SCALE2};
    bool any = false;
    for (size_t i = 0; i < sizeof after / sizeof after[0]; i++)
        any = any || model->arch.row[after[i]] != NULL;
    w->dy =
        work_floats(room, any ? T * width : 0); /* y1 and y2 are NULL too while bytes are counted */
}

/* What the way back needs of a layer but what norms and activations make of it. */
static void work_lay_out_layer(const dpt_model *model, int64_t T, work_room *room, dpt_work *w) {
    const dpt_slice *slice = &model->slice;
    w->y1 = work_take_branch(model, T, DPT_SLOT_OUT_NORM1, DPT_SLOT_SCALE1, &w->out1, room);
    w->y2 = work_take_branch(model, T, DPT_SLOT_OUT_NORM2, DPT_SLOT_SCALE2, &w->out2, room);
    w->qkv = work_floats(room, T * slice->qkv);
    bool qk_norm = model->arch.row[DPT_SLOT_Q_NORM] != NULL;
    int64_t normed = model->arch.norm_qk_whole ? 2 : slice->heads + slice->kv_heads;
    w->raw = work_floats(room, qk_norm ? T * (slice->q + slice->kv) : 0);
    w->qk_rstd = work_floats(room, qk_norm ? T * normed : 0);
    w->o = work_floats(room, T * slice->q);
    w->lse = work_floats(room, T * slice->heads);
}

/* The same of a layer that is held: experts are taken again one by one on the way back, and where attention and MLP stand
 * side by side nothing reads their sum. */
static void work_lay_out_held(const dpt_model *model, int64_t T, work_room *room, dpt_work *w) {
    work_lay_out_layer(model, T, room, w);
    if (!model->arch.parallel)
        w->h = work_floats(room, T * model->arch.length[DPT_AXIS_WIDTH]);
    if (model->arch.experts.count == 0)
        w->hidden = work_floats(room, T * model->slice.hidden);
}

static int64_t work_held_bytes(const dpt_model *model, int64_t T) {
    work_room room = {.base = NULL};
    dpt_work none;
    work_lay_out_held(model, T, &room, &none);
    return room.used;
}

void dpt_work_point(const dpt_model *model, int64_t layer, dpt_work *work) {
    int64_t number = layer - (model->arch.layers - work->held);
    work_room room = {.base = work->held_room,
                      .used = number * work_held_bytes(model, work->tokens)};
    work_lay_out_held(model, work->tokens, &room, work);
}

static void work_lay_out_experts(const dpt_model *model, int64_t T, work_room *room,
                                 dpt_route_work *w) {
    const dpt_arch *arch = &model->arch;
    int64_t width = arch->length[DPT_AXIS_WIDTH], f = arch->length[DPT_AXIS_EXPERT_UNITS];
    int64_t choices = T * arch->experts.used, logits = T * arch->experts.count;
    w->rows = arch->experts.count == 0 ? 0 : T < EXPERT_ROWS ? T : EXPERT_ROWS;
    w->logits = work_floats(room, logits);
    w->dlogits = work_floats(room, logits);
    w->chosen = work_take(room, choices, sizeof(int32_t));
    w->weight = work_floats(room, choices);
    w->dweight = work_floats(room, choices);
    w->first =
        work_take(room, model->slice.expert_end - model->slice.expert_begin + 1, sizeof(int64_t));
    w->choice = work_take(room, choices, sizeof(int64_t));
    w->x = work_floats(room, w->rows * width);
    w->y = work_floats(room, w->rows * width);
    w->hidden = work_floats(room, w->rows * 2 * f);
    w->m = work_floats(room, w->rows * f);
    w->dm = work_floats(room, w->rows * f);
    w->sample = work_take(room, w->rows, sizeof(int64_t));
}

static void work_lay_out_block(const dpt_model *model, int64_t T, bool backward, work_room *room,
                               dpt_work *w) {
    const dpt_slice *slice = &model->slice;
    int64_t width = model->arch.length[DPT_AXIS_WIDTH];
    bool shared = slice->ranks > 1; /* each rank keeps the inputs of some tokens */
    int64_t inputs = model->arch.layers + 1, share = (T + slice->ranks - 1) / slice->ranks;
    w->x = work_floats(room, T * width * (!backward ? 1 : shared ? 2 : inputs));
    w->kept = work_floats(room, backward && shared ? inputs * share * width : 0);
    w->dx = work_floats(room, backward ? T * width : 0);
    w->n1 = work_floats(room, T * width);
    w->n2 = work_floats(room, T * width);
    w->h = work_floats(room, T * width);
    w->part = work_floats(room, T * width);
    work_lay_out_layer(model, T, room, w);
    work_lay_out_dy(model, T, room, w);
    w->sinks = work_floats(room, model->arch.row[DPT_SLOT_SINKS] != NULL ? T * slice->heads : 0);
    w->norm1 = work_take_stats(model, T, room);
    w->norm2 = work_take_stats(model, T, room);
    work_lay_out_inner(slice, T, room, w);
    work_lay_out_experts(model, T, room, &w->route);
}

static void work_lay_out_images(const dpt_model *model, int64_t T, work_room *room, dpt_work *w) {
    const dpt_arch *arch = &model->arch;
    int64_t images = work_images(model, T), patches = images * arch->patches;
    bool norm = arch->row[DPT_SLOT_EMBED_NORM] != NULL;
    w->pixels = work_floats(
        room, patches * (model->slice.end[DPT_AXIS_PIXELS] - model->slice.begin[DPT_AXIS_PIXELS]));
    w->embedded = work_floats(room, norm ? T * arch->length[DPT_AXIS_WIDTH] : 0);
    w->embed_norm = work_take_stats(model, norm ? T : 0, room);
    w->first = work_take(room, images + 1, sizeof(int64_t));
    w->image_of_patch = work_take(room, patches, sizeof(int64_t));
}

static void work_lay_out_head(const dpt_model *model, int64_t H, work_room *room, dpt_work *w) {
    int64_t projection = model->arch.length[DPT_AXIS_PROJECTION];
    w->logits = work_floats(room, dpt_work_head_rows(model, H) * model->slice.v);
    bool attends = model->arch.row[DPT_SLOT_POOL_PROBE] != NULL;
    w->pool_a = work_floats(room, attends ? H * model->arch.length[DPT_AXIS_WIDTH] : 0);
    w->pool_n = work_floats(room, attends ? H * model->arch.length[DPT_AXIS_WIDTH] : 0);
    w->z = work_floats(room, H * projection);
    w->dz = work_floats(room, H * projection);
    w->length = work_floats(room, projection > 0 ? H : 0);
    w->sums = work_take(room, 2 * H, sizeof(double));
    w->rows = work_take(room, H, sizeof(int64_t));
    w->row_sequence = work_take(room, H, sizeof(int64_t));
    w->best = work_take(room, H, sizeof(int64_t));
    w->targets = work_take(room, H, sizeof(int32_t));
    w->max = work_floats(room, H);
    w->scale = work_floats(room, H);
}

/* Floats of E that the largest tensor needs at a time. */
static int64_t work_delta_floats(const dpt_model *model) {
    int64_t maximum = 0;
    for (int slot = 0; slot < DPT_SLOTS; slot++) {
        const dpt_row *row = model->arch.row[slot];
        int index = dpt_slice_index(model, (dpt_slot)slot);
        if (row != NULL)
            maximum =
                work_maximum(maximum, dpt_accumulate_delta_floats(&model->params.items[index],
                                                                  row->share == DPT_SHARE_FIRST));
    }
    return maximum;
}

/* Floats of W(t) that are formed at a time. @param[out] of_e  of those with which E is formed. */
static int64_t work_linear_floats(const dpt_model *model, int64_t tokens, int64_t *of_e) {
    int64_t maximum = 0;
    *of_e = 0;
    for (int slot = 0; slot < DPT_SLOTS; slot++) {
        const dpt_row *row = model->arch.row[slot];
        int index = dpt_slice_index(model, (dpt_slot)slot);
        if (index < 0 || !dpt_slot_is_product((dpt_slot)slot))
            continue;
        const dpt_param *param = &model->params.items[index];
        bool expert = row != NULL && row->expert;
        int64_t floats =
            expert ? dpt_linear_floats(param) : dpt_linear_rows_for(param, tokens) * param->cols;
        maximum = work_maximum(maximum, floats);
        *of_e = work_maximum(*of_e, expert ? floats : 0);
    }
    return maximum;
}

/* Elements of the buffers of products in bf16, and the longest row of E. */
static void work_count_bf16(const dpt_model *model, int64_t tokens, int64_t *half, int64_t *both,
                            int64_t *cols) {
    *half = *both = *cols = 0;
    for (int slot = 0; slot < DPT_SLOTS; slot++) {
        int index = dpt_slice_index(model, (dpt_slot)slot);
        if (index < 0 || !dpt_slot_is_product((dpt_slot)slot))
            continue;
        const dpt_param *param = &model->params.items[index];
        int64_t of_half, of_both;
        dpt_product_bf16_elements(param, tokens, &of_half, &of_both);
        *half = work_maximum(*half, of_half);
        *both = work_maximum(*both, of_both);
        *cols = work_maximum(*cols, param->cols);
    }
}

static void work_lay_out_bf16(const dpt_model *model, int64_t T, work_room *room, dpt_work *w) {
    int64_t half = 0, both = 0, cols = 0;
    if (model->has_bf16)
        work_count_bf16(model, T, &half, &both, &cols);
    for (int i = 0; i < 2; i++) {
        w->half[i] = work_take(room, half, sizeof(uint16_t));
        w->both[i] = work_floats(room, both);
    }
    w->e_half = work_take(room, DPT_ACCUMULATE_ROWS * cols, sizeof(uint16_t));
}

static void work_lay_out_rotary(const dpt_arch *arch, int64_t longest, work_room *room,
                                dpt_work *w) {
    for (int r = 0; r < DPT_ROPES; r++) {
        dpt_rotary *table = &w->rotary[r];
        table->half = dpt_nn_rope_half(&arch->rope[r]);
        table->inv_freq = work_floats(room, table->half);
        for (int is_long = 0; is_long < 2; is_long++) {
            bool used = !is_long || dpt_nn_rope_is_long(&arch->rope[r], longest);
            table->cos[is_long] = work_floats(room, used ? longest * table->half : 0);
            table->sin[is_long] = work_floats(room, used ? longest * table->half : 0);
        }
    }
}

/* Pointers into base for T tokens; @return the bytes. With base NULL only counts. */
static int64_t work_lay_out(const dpt_model *model, int64_t T, int64_t longest, bool backward,
                            char *base, dpt_work *w) {
    const dpt_arch *arch = &model->arch;
    work_room room = {.base = base};
    dpt_attention_shape shape = {.n = longest,
                                 .hq = model->slice.heads,
                                 .hd = arch->head_dim,
                                 .threads = omp_get_max_threads()};
    work_lay_out_block(model, T, backward, &room, w);
    work_lay_out_images(model, T, &room, w);
    work_lay_out_head(model, arch->side > 0 ? work_images(model, T) : T, &room, w);
    work_lay_out_rotary(arch, longest, &room, w);
    w->attention = work_floats(&room, (int64_t)dpt_nn_attention_scratch(&shape));
    w->products = work_floats(&room, (int64_t)dpt_nn_linear_terms_scratch(T, INT32_MAX));
    int64_t of_e, of_w = work_linear_floats(model, T, &of_e);
    of_e = work_maximum(work_delta_floats(model), of_e);
    w->e = work_floats(&room, backward ? of_e : 0);
    w->squares = work_floats(&room, backward && arch->side > 0 ? of_e : 0);
    w->rows_of_w = work_floats(&room, of_w);
    w->arena = work_floats(&room, dpt_weights_floats(model));
    work_lay_out_bf16(model, T, &room, w);
    w->term = work_take(&room, T, sizeof(double));
    w->sequence = work_take(&room, T, sizeof(int64_t));
    w->position = work_take(&room, T, sizeof(int32_t));
    int64_t held = backward ? model->held : 0;
    w->held_room = work_take(&room, held, work_held_bytes(model, T));
    return room.used;
}

int64_t dpt_work_bytes(const dpt_model *model, int64_t tokens, int64_t longest, bool backward) {
    dpt_work w;
    return work_lay_out(model, tokens, longest, backward, NULL, &w);
}

static void work_fill_rotary(const dpt_model *model, int64_t longest, dpt_work *w) {
    for (int r = 0; r < DPT_ROPES; r++) {
        const dpt_rope_params *rope = &model->arch.rope[r];
        bool both = dpt_nn_rope_is_long(rope, longest);
        dpt_rotate_fill(rope, both ? rope->original_max_position : longest, &w->rotary[r]);
        if (both)
            dpt_rotate_fill(rope, longest, &w->rotary[r]);
    }
}

dpt_status dpt_work_reserve(dpt_model *model, int64_t tokens, int64_t longest, bool backward) {
    dpt_work *w = &model->work;
    if (w->base != NULL && tokens <= w->tokens && longest <= w->longest &&
        (w->backward || !backward))
        return DPT_OK;
    tokens = work_maximum(tokens, w->tokens);
    longest = work_maximum(longest, w->longest);
    backward = backward || w->backward;
    dpt_work_release(w);
    w->base = dpt_mem_alloc(dpt_work_bytes(model, tokens, longest, backward), 1,
                            "activations and weights of a layer");
    if (w->base == NULL)
        return DPT_ERR_OUTPUT;
    w->tokens = tokens;
    w->longest = longest;
    w->backward = backward;
    w->held = backward ? model->held : 0;
    work_lay_out(model, tokens, longest, backward, w->base, w);
    dpt_weights_place(model, w->arena, w->w);
    work_fill_rotary(model, longest, w);
    return DPT_OK;
}

void dpt_work_release(dpt_work *work) {
    dpt_mem_free(work->base);
    *work = (dpt_work){.base = NULL};
}
