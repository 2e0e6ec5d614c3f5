#include "adapter.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/part.h"
#include "deltapath/tensor/prefix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Which tensor of the base each tensor of an adapter's file changes. */

enum { NAME_BYTES = 1024 };

typedef enum factor_kind { FACTOR_A, FACTOR_B, FACTOR_FULL } factor_kind;

typedef struct adapter_work {
    dpt_store_adapter *out;
    dpt_store_adapter_options options;
    dpt_prefix_index names; /* of the base */
    dpt_parts parts;        /* of the base */
    const char *file;
} adapter_work;

static dpt_status adapter_bad(const adapter_work *w, const char *name, const char *what) {
    return dpt_error(DPT_ERR_INPUT, "%s: tensor '%.300s' %s", w->file, name, what);
}

/* Cut an ending off; whether it was there. */
static bool adapter_cut(char *name, const char *ending) {
    size_t n = strlen(name), m = strlen(ending);
    bool there = n > m && strcmp(name + n - m, ending) == 0;
    if (there)
        name[n - m] = '\0';
    return there;
}

/* Take out a component that PEFT puts into names of whole tensors. */
static void adapter_take_out(char *name, const char *component) {
    char *at = strstr(name, component);
    if (at != NULL)
        memmove(at, at + strlen(component), strlen(at + strlen(component)) + 1);
}

/* What a factor is and the name of the tensor that it changes. @param[out] module  (NAME_BYTES) without `.weight`.
 * @param[out] embedding  its factors are those of rows that tokens look up. */
static dpt_status adapter_parse_name(const adapter_work *w, const char *name, factor_kind *kind,
                                     char *module, bool *embedding) {
    static const char wrapper[] = "base_model.model.";
    static const struct {
        const char *ending;
        factor_kind kind;
        bool embedding;
    } factors[] = {{".lora_A.weight", FACTOR_A, false},
                   {".lora_B.weight", FACTOR_B, false},
                   {".lora_embedding_A", FACTOR_A, true},
                   {".lora_embedding_B", FACTOR_B, true}};
    if (strlen(name) >= NAME_BYTES)
        return adapter_bad(w, name, "has a name that is too long: save the adapter again");
    bool wrapped = strncmp(name, wrapper, sizeof wrapper - 1) == 0;
    snprintf(module, NAME_BYTES, "%s", wrapped ? name + sizeof wrapper - 1 : name);
    *kind = FACTOR_FULL;
    *embedding = false;
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++)
        if (adapter_cut(module, factors[i].ending)) {
            *kind = factors[i].kind;
            *embedding = factors[i].embedding;
            return DPT_OK;
        }
    if (strstr(name, "lora_magnitude_vector") != NULL)
        return adapter_bad(w, name,
                           "is of DoRA, which is not supported: merge the adapter with "
                           "PEFT and give the merged model");
    if (strstr(name, ".lora_") != NULL)
        return adapter_bad(w, name,
                           "is no factor that is known: merge the adapter with PEFT and "
                           "give the merged model");
    adapter_take_out(module, ".base_layer");
    adapter_take_out(module, ".modules_to_save");
    return DPT_OK;
}

/* Names that transformers 5 gives modules while they are trained, and those of files. */
static const struct {
    const char *trained, *stored;
} adapter_names[] = {{"lm_head.", "embed_out."},                /* GPT-NeoX */
                     {".mlp.gate.", ".block_sparse_moe.gate."}, /* Mixtral */
                     {"vit.layers.", "vit.encoder.layer."},     /* ViT, and DINOv2 from here on */
                     {".attention.q_proj.", ".attention.attention.query."},
                     {".attention.k_proj.", ".attention.attention.key."},
                     {".attention.v_proj.", ".attention.attention.value."},
                     {".attention.o_proj.", ".attention.output.dense."},
                     {".mlp.fc1.", ".intermediate.dense."},
                     {".mlp.fc2.", ".output.dense."},
                     {".mlp.down_proj.", ".mlp.weights_out."}};

/* What lies in files in another shape than it is trained in. */
static bool adapter_reshaped(const adapter_work *w, const char *own) {
    static const char *const pairs[][2] = {{".mlp.experts.", ".experts.0."},
                                           {".mlp.gate_proj.", ".mlp.weights_in."},
                                           {".mlp.up_proj.", ".mlp.weights_in."}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        for (int t = 0; strstr(own, pairs[i][0]) != NULL && t < w->out->catalog->count; t++)
            if (strstr(w->out->catalog->tensors[t].name, pairs[i][1]) != NULL)
                return true;
    return false;
}

/* The tensor of a name, or of the one that files have for it; -1: none. @param[in,out] own  (size). */
static int adapter_look_up(const adapter_work *w, char *own, size_t size) {
    int tensor = dpt_prefix_find(&w->names, own);
    for (size_t i = 0; i < sizeof adapter_names / sizeof adapter_names[0] && tensor < 0; i++) {
        const char *trained = adapter_names[i].trained, *at = strstr(own, trained);
        char other[NAME_BYTES + 64];
        if (at == NULL)
            continue;
        snprintf(other, sizeof other, "%.*s%s%s", (int)(at - own), own, adapter_names[i].stored,
                 at + strlen(trained));
        snprintf(own, size, "%s", other);
        tensor = dpt_prefix_find(&w->names, own);
    }
    return tensor;
}

static dpt_status adapter_find(const adapter_work *w, const char *name, const char *module,
                               factor_kind kind, int *tensor) {
    char own[NAME_BYTES + 8], stored[NAME_BYTES + 64];
    snprintf(own, sizeof own, "%s%s", module, kind == FACTOR_FULL ? "" : ".weight");
    snprintf(stored, sizeof stored, "%s", own);
    *tensor = adapter_look_up(w, stored, sizeof stored);
    if (*tensor < 0 && adapter_reshaped(w, own))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor '%.300s' changes '%.300s', which the base %s stores in other "
                         "pieces: merge the adapter with PEFT and give the merged model",
                         w->file, name, own, w->out->header->base);
    if (*tensor < 0)
        return dpt_error(
            DPT_ERR_INPUT,
            "%s: tensor '%.300s' changes '%.300s', which the base %s does not have: "
            "name the base of this adapter, or, where the base ties its head to the embedding and "
            "the adapter does not, merge it with PEFT",
            w->file, name, own, w->out->header->base);
    if (!dpt_dtype_editable(w->out->catalog->tensors[*tensor].dtype))
        return adapter_bad(w, name,
                           "changes a tensor of the base that is not f32, f16 or bf16: "
                           "take another base");
    return DPT_OK;
}

/* Whether a factor is of a head, which a base that ties it need not have. */
static bool adapter_is_of_head(const char *module) {
    static const char *const heads[] = {"lm_head", "lm_head.weight", "embed_out",
                                        "embed_out.weight"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (strcmp(dpt_prefix_skip(module), heads[i]) == 0)
            return true;
    return false;
}

/* What a factor changes: a tensor, or the head apart from those of the base. */
static dpt_status adapter_choose(const adapter_work *w, const char *name, const char *module,
                                 factor_kind kind, dpt_store_adapted **to) {
    char own[NAME_BYTES + 64];
    int tensor;
    snprintf(own, sizeof own, "%s%s", module, kind == FACTOR_FULL ? "" : ".weight");
    *to = &w->out->apart;
    if (adapter_is_of_head(module) && adapter_look_up(w, own, sizeof own) < 0)
        return DPT_OK;
    dpt_status st = adapter_find(w, name, module, kind, &tensor);
    if (st == DPT_OK)
        *to = &w->out->tensors[tensor];
    return st;
}

static dpt_status adapter_place(const adapter_work *w, int64_t f) {
    const dpt_store_entry *factor = &w->out->header->factors[f];
    char module[NAME_BYTES];
    factor_kind kind;
    bool embedding;
    dpt_store_adapted *to;
    dpt_status st = adapter_parse_name(w, factor->name, &kind, module, &embedding);
    if (st == DPT_OK && !dpt_dtype_editable(factor->dtype))
        st = adapter_bad(w, factor->name, "is not f32, f16 or bf16: save the adapter again");
    if (st == DPT_OK)
        st = adapter_choose(w, factor->name, module, kind, &to);
    if (st != DPT_OK)
        return st;
    int64_t *slot = kind == FACTOR_A ? &to->a : kind == FACTOR_B ? &to->b : &to->full;
    if (*slot >= 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: '%.300s' and '%.300s' change the same tensor twice: "
                         "save the adapter again",
                         w->file, w->out->header->factors[*slot].name, factor->name);
    *slot = f;
    to->swapped = to->swapped || embedding;
    to->embedding = to->embedding || embedding;
    if (kind == FACTOR_FULL)
        return DPT_OK;
    double scaling;
    st = dpt_store_adapter_module(&w->options, module, &to->rank, &scaling);
    to->scaling = (float)scaling;
    return st;
}

static void adapter_shape(const dpt_store_entry *entry, char *text, int size) {
    dpt_tensor_info info = {.ndim = entry->ndim};
    memcpy(info.shape, entry->shape, sizeof info.shape);
    dpt_catalog_shape_text(&info, text, size);
}

static dpt_status adapter_misfit(const adapter_work *w, int tensor, const dpt_store_entry *factor,
                                 const char *wanted) {
    const dpt_tensor_info *info = &w->out->catalog->tensors[tensor];
    char own[128], base[128];
    adapter_shape(factor, own, sizeof own);
    dpt_catalog_shape_text(info, base, sizeof base);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: tensor '%.300s' %s does not fit '%.300s' %s of the base %s: it needs %s",
                     w->file, factor->name, own, info->name, base, w->out->header->base, wanted);
}

static bool adapter_is(const dpt_store_entry *factor, int64_t rows, int64_t cols) {
    return factor->ndim == 2 && factor->shape[0] == rows && factor->shape[1] == cols;
}

/* A (rank, inputs) and B (outputs, rank) of a tensor (outputs, inputs), or the other way round. */
static dpt_status adapter_check_product(const adapter_work *w, int tensor) {
    const dpt_tensor_info *info = &w->out->catalog->tensors[tensor];
    dpt_store_adapted *to = &w->out->tensors[tensor];
    const dpt_store_entry *factors = w->out->header->factors;
    if (to->a < 0 || to->b < 0)
        return adapter_bad(w, factors[to->a < 0 ? to->b : to->a].name,
                           to->a < 0 ? "has no A: save the adapter again"
                                     : "has no B: save the adapter again");
    const dpt_store_entry *a = &factors[to->a], *b = &factors[to->b];
    int64_t r = to->rank;
    bool straight = info->ndim == 2 && !to->swapped && adapter_is(a, r, info->shape[1]) &&
                    adapter_is(b, info->shape[0], r);
    bool swapped =
        info->ndim == 2 && adapter_is(a, r, info->shape[0]) && adapter_is(b, info->shape[1], r);
    char wanted[160];
    snprintf(wanted, sizeof wanted,
             "a matrix of its inputs and rank %" PRId64 ", by r and rank_pattern", r);
    bool a_fits =
        info->ndim == 2 && (adapter_is(a, r, info->shape[1]) || adapter_is(a, r, info->shape[0]));
    if (!straight && !swapped)
        return adapter_misfit(w, tensor, a_fits ? b : a, wanted);
    /* Both fit a square one. PEFT's flag is that of the last module that it wrapped. */
    const dpt_part *part = &w->parts.items[w->parts.first[tensor]];
    to->swapped = swapped && (to->swapped || !straight || w->options.fan_in_fan_out ||
                              dpt_layout_is_transposed(&part->layout));
    if (!isfinite(to->scaling))
        return adapter_bad(w, a->name,
                           "has a scaling that is no finite number: check lora_alpha "
                           "and alpha_pattern");
    return DPT_OK;
}

static dpt_status adapter_check_full(const adapter_work *w, int tensor) {
    const dpt_tensor_info *info = &w->out->catalog->tensors[tensor];
    const dpt_store_entry *full = &w->out->header->factors[w->out->tensors[tensor].full];
    bool same = full->ndim == info->ndim;
    for (int d = 0; d < info->ndim && same; d++)
        same = full->shape[d] == info->shape[d];
    return same ? DPT_OK
                : adapter_misfit(w, tensor, full,
                                 "the same shape: resize the base's vocabulary "
                                 "as it was when the adapter was trained");
}

static dpt_status adapter_resolve(adapter_work *w) {
    const dpt_store_header *header = w->out->header;
    dpt_status st = DPT_OK;
    for (int64_t f = 0; f < header->nfactors && st == DPT_OK; f++)
        st = adapter_place(w, f);
    for (int t = 0; t < w->out->catalog->count && st == DPT_OK; t++) {
        const dpt_store_adapted *to = &w->out->tensors[t];
        if (to->a >= 0 || to->b >= 0)
            st = adapter_check_product(w, t);
        if (st == DPT_OK && to->full >= 0)
            st = adapter_check_full(w, t);
    }
    return st;
}

dpt_status dpt_store_adapter_create(const dpt_store_header *header, const dpt_catalog *catalog,
                                    dpt_store_adapter *out) {
    *out = (dpt_store_adapter){
        .header = header, .catalog = catalog, .apart = {.full = -1, .a = -1, .b = -1}, .held = -1};
    if (header->adapter == NULL)
        return DPT_OK;
    adapter_work w = {.out = out, .file = header->files[header->nfiles - 1]};
    dpt_status st = dpt_store_adapter_read(w.file, header->adapter, &w.options);
    out->ties = json_is_true(json_object_get(w.options.root, "ensure_weight_tying"));
    if (st == DPT_OK)
        st = dpt_prefix_index_create(catalog, &w.names);
    if (st == DPT_OK)
        st = dpt_parts_create(catalog, 0, &w.parts);
    if (st == DPT_OK)
        st = DPT_STORE_NEW(out->tensors, catalog->count, "tensors of an adapter");
    for (int t = 0; st == DPT_OK && t < catalog->count; t++)
        out->tensors[t] = (dpt_store_adapted){.full = -1, .a = -1, .b = -1};
    if (st == DPT_OK)
        st = adapter_resolve(&w);
    dpt_parts_destroy(&w.parts);
    dpt_prefix_index_destroy(&w.names);
    dpt_store_adapter_forget(&w.options);
    return st;
}

void dpt_store_adapter_destroy(dpt_store_adapter *adapter) {
    dpt_mem_free(adapter->tensors);
    dpt_mem_free(adapter->left);
    dpt_mem_free(adapter->right);
    *adapter = (dpt_store_adapter){.held = -1};
}

const dpt_store_adapted *dpt_store_adapter_of(const dpt_store_adapter *adapter, int tensor) {
    const dpt_store_adapted *to = adapter->tensors != NULL ? &adapter->tensors[tensor] : NULL;
    return to != NULL && (to->full >= 0 || to->a >= 0) ? to : NULL;
}
