#include "deltapath/tensor/part.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <stdio.h>
#include <string.h>

/* The stored forms, as the modelling code of transformers 5.24 reads them:
 *   Phi, GLM      self_attn.qkv_proj [q; k; v], mlp.gate_up_proj [gate; up]: rows one after the other
 *   torch         attention.in_proj_weight [q; k; v] (nn.MultiheadAttention, in SigLIP's pooling)
 *   DINOv2        mlp.weights_in [gate; up]
 *   GPT-NeoX      attention.query_key_value: rows in the order (head, q k v, width of a head)
 *   GPT-2         attn.c_attn (C, 3 C) with columns q, k, v; all four matrices of a layer as (inputs, outputs)
 *   experts       mlp.experts.gate_up_proj (E, 2 I, C) [gate; up] and down_proj (E, C, I); Llama 4 has them as
 *                 (E, C, 2 I) and (E, I, C), and so has gpt-oss, with gate at even and up at odd columns
 * A form is taken where the shapes of the tensors next to it agree; else a tensor, or an expert of it, is one
 * part. */

enum { PART_NAME_MAX = 1024, PART_KINDS = DPT_PART_WAYS };

/* How the outputs of one item of a tensor, which is all of it or an expert, are shared out. */
typedef struct part_form {
    bool transposed; /* stored as (inputs, outputs) */
    int kinds;
    dpt_role_kind kind[PART_KINDS];
    int64_t outputs[PART_KINDS];
    int64_t run; /* outputs of a kind before those of the next; 0: all */
} part_form;

typedef struct part_query {
    const dpt_catalog *catalog;
    const dpt_tensor_info *info;
    int64_t heads;
    const char *end; /* of the name, as the rule has it */
} part_query;

static const dpt_role_kind part_qkv[] = {DPT_ROLE_Q, DPT_ROLE_K, DPT_ROLE_V};
static const dpt_role_kind part_gate_up[] = {DPT_ROLE_GATE, DPT_ROLE_UP};

static bool part_ends(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0 && (n == m || name[n - m - 1] == '.');
}

/* The tensor of `ndim` sides that has `other` in place of the end of a name; NULL: none. */
static const dpt_tensor_info *part_sibling(const part_query *query, const char *other, int ndim) {
    char text[PART_NAME_MAX];
    const char *name = dpt_catalog_alias(query->info);
    size_t stem = strlen(name) - strlen(query->end);
    if (stem + strlen(other) >= sizeof text)
        return NULL;
    memcpy(text, name, stem);
    memcpy(text + stem, other, strlen(other) + 1);
    int at = dpt_catalog_find_alias(query->catalog, text);
    return at >= 0 && query->catalog->tensors[at].ndim == ndim ? &query->catalog->tensors[at]
                                                               : NULL;
}

/* Share outputs out evenly, where they divide. */
static void part_divide(part_form *form, int kinds, const dpt_role_kind *kind, int64_t outputs,
                        int64_t run) {
    if (outputs % kinds != 0)
        return;
    form->kinds = kinds;
    form->run = run;
    for (int k = 0; k < kinds; k++) {
        form->kind[k] = kind[k];
        form->outputs[k] = outputs / kinds;
    }
}

/* As many queries as the output projection has inputs; keys and values share the rest. */
static void part_read_phi(const part_query *query, part_form *form) {
    const dpt_tensor_info *o = part_sibling(query, "o_proj.weight", 2);
    int64_t q = o != NULL ? o->shape[1] : 0, rest = query->info->shape[0] - q;
    if (q <= 0 || rest <= 0 || rest % 2 != 0)
        return;
    part_divide(form, 3, part_qkv, 3, 0);
    form->outputs[0] = q;
    form->outputs[1] = form->outputs[2] = rest / 2;
}

static void part_read_torch(const part_query *query, part_form *form) {
    const dpt_tensor_info *in = part_sibling(query, "in_proj_weight", 2);
    if (in != NULL && in->shape[0] == 3 * in->shape[1])
        part_divide(form, 3, part_qkv, query->info->shape[0], 0);
}

/* As many keys and values as queries, whose width is that of the input: other models have other forms under this name,
 * with the keys of a group of queries (Falcon) or after all queries (ChatGLM). */
static void part_read_neox(const part_query *query, part_form *form) {
    int64_t rows = query->info->shape[0], heads = query->heads;
    const dpt_tensor_info *weight =
        query->info->ndim == 2 ? query->info : part_sibling(query, "query_key_value.weight", 2);
    bool alike = weight == NULL || (weight->shape[0] == rows && rows == 3 * weight->shape[1]);
    if (alike && heads > 0 && rows > 0 && rows % 3 == 0 && rows / 3 % heads == 0)
        part_divide(form, 3, part_qkv, rows, rows / 3 / heads);
}

static void part_read_halves(const part_query *query, part_form *form, const char *next) {
    const dpt_tensor_info *down = part_sibling(query, next, 2);
    if (down != NULL && 2 * down->shape[1] == query->info->shape[0])
        part_divide(form, 2, part_gate_up, query->info->shape[0], 0);
}

static void part_read_gate_up(const part_query *query, part_form *form) {
    part_read_halves(query, form, "down_proj.weight");
}

static void part_read_dinov2(const part_query *query, part_form *form) {
    part_read_halves(query, form, "weights_out.weight");
}

/* GPT-2's layers are known by a c_attn.weight of (C, 3 C), where a linear map has (3 C, C). */
static void part_read_gpt2(const part_query *query, part_form *form) {
    const dpt_tensor_info *c = part_sibling(query, "attn.c_attn.weight", 2);
    if (c == NULL || c->shape[0] == 0 || c->shape[1] != 3 * c->shape[0])
        return;
    form->transposed = query->info->ndim == 2;
    form->outputs[0] = query->info->shape[query->info->ndim - 1];
    if (form->kind[0] == DPT_ROLE_QKV)
        part_divide(form, 3, part_qkv, form->outputs[0], 0);
}

/* gate_up_proj (E, a, b) and down_proj (E, c, d) are (outputs, inputs) where a = 2 d and b = c, and (inputs,
 * outputs) where a = d and b = 2 c, which exclude each other. With biases the latter is gpt-oss's. */
static void part_read_experts(const part_query *query, part_form *form) {
    const dpt_tensor_info *info = query->info;
    const dpt_tensor_info *in = part_sibling(query, "gate_up_proj", 3);
    const dpt_tensor_info *out = part_sibling(query, "down_proj", 3);
    if (in == NULL || out == NULL || info->numel == 0)
        return;
    bool straight = in->shape[1] == 2 * out->shape[2] && in->shape[2] == out->shape[1];
    bool transposed = in->shape[1] == out->shape[2] && in->shape[2] == 2 * out->shape[1];
    if (!straight && !transposed)
        return;
    form->transposed = transposed && info->ndim == 3;
    form->outputs[0] = info->shape[form->transposed ? 2 : 1];
    bool alternate = transposed && part_sibling(query, "gate_up_proj_bias", 2) != NULL;
    if (form->kind[0] == DPT_ROLE_GATE_UP)
        part_divide(form, 2, part_gate_up, form->outputs[0], alternate ? 1 : 0);
}

/* What a name ends with, how many sides there are, and who reads it. */
static const struct {
    const char *end;
    int ndim;
    void (*read)(const part_query *query, part_form *form);
} part_rules[] = {
    {"qkv_proj.weight", 2, part_read_phi},         {"qkv_proj.bias", 1, part_read_phi},
    {"in_proj_weight", 2, part_read_torch},        {"in_proj_bias", 1, part_read_torch},
    {"query_key_value.weight", 2, part_read_neox}, {"query_key_value.bias", 1, part_read_neox},
    {"gate_up_proj.weight", 2, part_read_gate_up}, {"gate_up_proj.bias", 1, part_read_gate_up},
    {"weights_in.weight", 2, part_read_dinov2},    {"weights_in.bias", 1, part_read_dinov2},
    {"attn.c_attn.weight", 2, part_read_gpt2},     {"attn.c_attn.bias", 1, part_read_gpt2},
    {"attn.c_proj.weight", 2, part_read_gpt2},     {"mlp.c_fc.weight", 2, part_read_gpt2},
    {"mlp.c_proj.weight", 2, part_read_gpt2},      {"gate_up_proj", 3, part_read_experts},
    {"gate_up_proj_bias", 2, part_read_experts},   {"down_proj", 3, part_read_experts}};

/* A tensor as items of one shape, which are its experts where it has them, and the form of an item. */
typedef struct part_items {
    int64_t experts; /* 0: the tensor is the only item */
    int64_t rows, cols;
    part_form form;
} part_items;

static part_items part_items_of(const dpt_catalog *catalog, int64_t heads, int tensor) {
    const dpt_tensor_info *info = &catalog->tensors[tensor];
    const char *name = dpt_catalog_alias(info);
    const int64_t *shape = info->shape;
    part_items items = {.rows = info->numel, .cols = 1};
    if (dpt_role_has_experts(info) && info->numel > 0 && shape[0] < INT32_MAX) {
        items.experts = shape[0];
        items.rows = shape[1];
        items.cols = info->ndim == 3 ? shape[2] : 1;
    } else if (info->ndim == 2) {
        items.rows = shape[0];
        items.cols = shape[1];
    }
    items.form = (part_form){.kinds = 1, .kind = {dpt_role_of(name).kind}, .outputs = {items.rows}};
    for (size_t i = 0; i < sizeof part_rules / sizeof part_rules[0]; i++)
        if (info->ndim == part_rules[i].ndim && part_ends(name, part_rules[i].end)) {
            part_query query = {catalog, info, heads, part_rules[i].end};
            part_rules[i].read(&query, &items.form);
        }
    return items;
}

static int64_t part_items_count(const part_items *items) {
    return (items->experts > 0 ? items->experts : 1) * items->form.kinds;
}

/* Layout of a kind in the item that begins at element `first`. */
static dpt_layout part_layout(const part_items *items, int kind, int64_t first) {
    const part_form *form = &items->form;
    int64_t stride = form->transposed ? 1 : items->cols; /* of outputs */
    int64_t before = 0;
    for (int k = 0; k < kind; k++)
        before += form->run > 0 ? form->run : form->outputs[k];
    dpt_layout out = {.rows = form->outputs[kind],
                      .cols = form->transposed ? items->rows : items->cols,
                      .first = first + before * stride,
                      .row_stride = stride,
                      .col_stride = form->transposed ? items->cols : 1};
    out.run = form->run > 0 ? form->run : out.rows;
    if (form->run == 1) { /* every so many outputs: one run */
        out.run = out.rows;
        out.row_stride *= form->kinds;
    }
    if (out.run == 0)
        out.run = 1;
    out.run_stride = out.run < out.rows ? out.run * form->kinds * stride : out.run * out.row_stride;
    return out;
}

/* Append the parts of a tensor. */
static void part_add(const dpt_catalog *catalog, const part_items *items, int tensor,
                     dpt_parts *parts) {
    int expert =
        items->experts > 0 ? 0 : dpt_role_expert(dpt_catalog_alias(&catalog->tensors[tensor]));
    int64_t first = 0;
    do {
        for (int k = 0; k < items->form.kinds; k++)
            parts->items[parts->count++] = (dpt_part){.tensor = tensor,
                                                      .expert = expert,
                                                      .kind = items->form.kind[k],
                                                      .layout = part_layout(items, k, first)};
        first += items->rows * items->cols;
    } while (++expert < items->experts);
    DPT_ASSERT(first == catalog->tensors[tensor].numel);
}

dpt_status dpt_parts_create(const dpt_catalog *catalog, int64_t heads, dpt_parts *out) {
    *out = (dpt_parts){.first = dpt_mem_alloc((int64_t)catalog->count + 1, sizeof *out->first,
                                              "parts of tensors")};
    int64_t count = 0;
    for (int t = 0; out->first != NULL && t < catalog->count; t++) {
        part_items items = part_items_of(catalog, heads, t);
        out->first[t] = (int)count;
        count += part_items_count(&items);
        out->first[t + 1] = (int)count;
        if (count > INT32_MAX) {
            dpt_parts_destroy(out);
            return dpt_error(DPT_ERR_INPUT, "tensor '%s': the model has more than %d matrices",
                             catalog->tensors[t].name, INT32_MAX);
        }
    }
    if (out->first != NULL)
        out->items = dpt_mem_alloc(count, sizeof *out->items, "parts of tensors");
    if (out->items == NULL) {
        dpt_parts_destroy(out);
        return DPT_ERR_OUTPUT;
    }
    for (int t = 0; t < catalog->count; t++) {
        part_items items = part_items_of(catalog, heads, t);
        part_add(catalog, &items, t, out);
    }
    return DPT_OK;
}

void dpt_parts_destroy(dpt_parts *parts) {
    dpt_mem_free(parts->items);
    dpt_mem_free(parts->first);
    *parts = (dpt_parts){.count = 0};
}

const dpt_part *dpt_parts_find(const dpt_parts *parts, int tensor, dpt_role_kind kind, int expert) {
    for (int i = parts->first[tensor]; i < parts->first[tensor + 1]; i++)
        if (parts->items[i].kind == kind && parts->items[i].expert == expert)
            return &parts->items[i];
    return NULL;
}

static int64_t part_elements(const dpt_part *part) {
    return part->layout.rows * part->layout.cols;
}

int dpt_parts_number(const dpt_parts *parts, int *number) {
    int count = 0;
    for (int p = 0; p < parts->count; p++) {
        int tensor = parts->items[p].tensor;
        bool shares = parts->first[tensor + 1] - parts->first[tensor] > 1;
        if (number != NULL)
            number[p] = shares ? count : -1;
        count += shares;
    }
    return count;
}

dpt_part_item dpt_parts_item(const dpt_parts *parts, int tensor, int64_t ig) {
    dpt_part_item item = {.first = parts->first[tensor]};
    int last = parts->first[tensor + 1];
    const dpt_part *part = &parts->items[item.first];
    while (item.first + item.count < last && part[item.count].expert == part->expert)
        item.end += part_elements(&part[item.count++]);
    if (item.first + item.count == last)
        return item;
    int64_t number = ig / item.end; /* experts are of one size */
    item.first += (int)number * item.count;
    item.begin = number * item.end;
    item.end += item.begin;
    DPT_ASSERT(ig >= 0 && item.first + item.count <= last);
    return item;
}

/* How many elements from `ig` on are of a part before one of another comes; 0: not even the first. For a part that
 * shares its item with others. */
static int64_t part_stretch(const dpt_layout *layout, int64_t ig) {
    int64_t at = ig - layout->first;
    if (at < 0)
        return 0;
    if (layout->col_stride > 1) { /* outputs of an input follow each other */
        int64_t row = at % layout->col_stride;
        return row < layout->rows && at / layout->col_stride < layout->cols ? layout->rows - row
                                                                            : 0;
    }
    int64_t before = at / layout->run_stride * layout->run, in = at % layout->run_stride;
    int64_t row = in / layout->row_stride, col = in % layout->row_stride;
    int64_t run = layout->run < layout->rows - before ? layout->run : layout->rows - before;
    if (row >= run || col >= layout->cols)
        return 0;
    return layout->row_stride == layout->cols ? (run - row) * layout->cols - col
                                              : layout->cols - col;
}

dpt_part_span dpt_parts_span(const dpt_parts *parts, int tensor, int64_t ig, int64_t n) {
    dpt_part_item item = dpt_parts_item(parts, tensor, ig);
    dpt_part_span span = {.n = item.end - ig, .ways = 1, .part = {item.first}};
    const dpt_layout *layout = &parts->items[item.first].layout;
    bool alternate =
        layout->row_stride == item.count && (layout->cols == 1 || layout->col_stride > 1);
    if (item.count > 1 && alternate) {
        span.ways = item.count;
        for (int w = 0; w < span.ways; w++)
            span.part[w] = item.first + (int)((ig - item.begin + w) % item.count);
    } else if (item.count > 1) {
        int k = 0;
        while ((span.n = part_stretch(&parts->items[item.first + k].layout, ig)) == 0)
            k++;
        DPT_ASSERT(k < item.count);
        span.part[0] = item.first + k;
    }
    span.n = span.n < n ? span.n : n;
    return span;
}

void dpt_part_label(const dpt_parts *parts, int part, char label[DPT_PART_LABEL]) {
    const dpt_part *it = &parts->items[part];
    dpt_part_item item = dpt_parts_item(parts, it->tensor, it->layout.first);
    const char *kind = item.count > 1 ? dpt_role_name(it->kind) : "";
    label[0] = '\0';
    if (parts->first[it->tensor + 1] - parts->first[it->tensor] == 1)
        return;
    if (it->expert >= 0)
        snprintf(label, DPT_PART_LABEL, "%d%s%s", it->expert, kind[0] != '\0' ? "." : "", kind);
    else
        snprintf(label, DPT_PART_LABEL, "%s", kind);
}
