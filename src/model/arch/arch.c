#include "arch.h"

#include "decoder_rope.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/prefix.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define FAMILY_ADDRESS(NAME) &dpt_family_##NAME,
static const dpt_family *const families[] = {DPT_FAMILIES(FAMILY_ADDRESS)};

enum { FAMILIES = sizeof families / sizeof families[0] };

static dpt_status family_unsupported(const char *key, const char *value) {
    char known[1024] = "";
    size_t used = 0;
    for (int i = 0; i < FAMILIES; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                                 families[i]->architecture);
    return dpt_error(DPT_ERR_INPUT,
                     "config.json: %s %.64s is not supported: gradients work for %s; edits alone "
                     "work without `data` in the job",
                     key, value, known);
}

dpt_status dpt_family_find(const json_t *config, const dpt_family **out) {
    const char *architecture =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const char *key = architecture != NULL ? "architectures" : "model_type";
    const char *value = architecture != NULL ? architecture : type;
    *out = NULL;
    if (value == NULL)
        return dpt_error(DPT_ERR_INPUT, "config.json: neither architectures nor model_type says "
                                        "what the model is: copy the model's whole config.json");
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(value,
                   architecture != NULL ? families[i]->architecture : families[i]->model_type) == 0)
            *out = families[i];
    if (*out == NULL)
        return family_unsupported(key, value);
    if (type != NULL && strcmp(type, (*out)->model_type) != 0)
        return dpt_error(DPT_ERR_INPUT,
                         "config.json: architectures says %.64s but model_type says "
                         "%.64s: copy the model's config.json again",
                         value, type);
    return DPT_OK;
}

bool dpt_family_takes(const dpt_family *family, const char *key) {
    for (const char *const *taken = family->takes; taken != NULL && *taken != NULL; taken++)
        if (strcmp(*taken, key) == 0)
            return true;
    return false;
}

dpt_status dpt_arch_number(dpt_arch *arch) {
    int64_t whole = 0, per_layer = 0;
    for (int slot = 0; slot < DPT_SLOTS; slot++) {
        const dpt_row *row = arch->row[slot];
        int64_t *next = dpt_slot_is_of_layer(slot) ? &per_layer : &whole;
        if (row == NULL)
            continue;
        arch->number[slot] = (int)*next;
        *next += dpt_arch_copies(arch, row);
        if (*next > INT_MAX / (arch->layers > 0 ? 2 * arch->layers : 2))
            return dpt_error(DPT_ERR_INPUT,
                             "config.json: %" PRId64 " layers of %" PRId64
                             " experts are more matrices than the program can number: copy the "
                             "model's config.json again",
                             arch->layers, arch->experts.count);
    }
    arch->whole = (int)whole;
    arch->per_layer = (int)per_layer;
    return DPT_OK;
}

/* Code of its own in place of this architecture; a tokenizer of its own changes no model, and a class of the same name
 * is what the model was published with before transformers had it (Phi-3). */
static void arch_reject_own_code(dpt_config *in, const dpt_arch *out) {
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)dpt_config_get(in, "auto_map"), name, value) {
        const char *code = json_string_value(value),
                   *dot = code != NULL ? strrchr(code, '.') : NULL;
        bool own = dot == NULL || strcmp(dot + 1, out->family->architecture) != 0;
        bool model = strcmp(name, "AutoModelForCausalLM") == 0 ||
                     strcmp(name, "AutoModelForImageClassification") == 0;
        if (model && own) {
            dpt_config_reject(in, "auto_map", "a model without code of its own, or no auto_map");
            return;
        }
    }
}

dpt_status dpt_arch_read(const json_t *config, const dpt_catalog *catalog, dpt_arch *out) {
    *out = (dpt_arch){.length = {[DPT_AXIS_ONE] = 1}, .embed_scale = 1.0};
    dpt_config in = {.object = config, .where = "config.json", .status = DPT_OK};
    in.status = dpt_family_find(config, &out->family);
    if (in.status == DPT_OK)
        arch_reject_own_code(&in, out);
    if (in.status == DPT_OK)
        out->family->read(&in, catalog, out);
    if (in.status == DPT_OK)
        in.status = dpt_arch_number(out);
    if (in.status != DPT_OK)
        dpt_arch_destroy(out);
    return in.status;
}

void dpt_arch_destroy(dpt_arch *arch) {
    for (int r = 0; r < DPT_ROPES; r++) {
        dpt_mem_free(arch->rope[r].short_factor);
        dpt_mem_free(arch->rope[r].long_factor);
        arch->rope[r].short_factor = arch->rope[r].long_factor = NULL;
    }
    dpt_mem_free(arch->window);
    dpt_mem_free(arch->rope_of);
    arch->window = NULL;
    arch->rope_of = NULL;
}

void dpt_arch_add(dpt_arch *arch, const dpt_row *rows, size_t count, unsigned options) {
    for (size_t i = 0; i < count; i++) {
        if (rows[i].slot == DPT_SLOT_HEAD)
            arch->head = &rows[i];
        if ((rows[i].option & ~options) == 0)
            arch->row[rows[i].slot] = &rows[i];
    }
}

void dpt_arch_drop(dpt_arch *arch, dpt_slot slot) {
    arch->row[slot] = NULL;
}

void dpt_arch_read_act(dpt_config *in, const char *key, const char *default_value, dpt_arch *out) {
    static const struct {
        const char *name;
        dpt_act_kind kind;
    } known[] = {{"gelu", DPT_ACT_GELU},
                 {"gelu_python", DPT_ACT_GELU},
                 {"gelu_new", DPT_ACT_GELU_TANH},
                 {"gelu_fast", DPT_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", DPT_ACT_GELU_TANH},
                 {"quick_gelu", DPT_ACT_QUICK_GELU},
                 {"silu", DPT_ACT_SILU},
                 {"swish", DPT_ACT_SILU}};
    const char *name = dpt_config_string(in, key, default_value);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) {
            out->act = known[i].kind;
            out->act_name = known[i].name;
            return;
        }
    }
    dpt_config_reject(in, key, "\"gelu\", \"quick_gelu\", \"gelu_pytorch_tanh\" or \"silu\"");
}

int dpt_arch_index(const dpt_arch *arch, int64_t layer, dpt_slot slot) {
    if (slot == DPT_SLOT_HEAD && arch->tied)
        slot = DPT_SLOT_TOKENS;
    if (arch->row[slot] == NULL)
        return -1;
    int64_t first = dpt_slot_is_of_layer((int)slot) ? arch->whole + layer * arch->per_layer : 0;
    return (int)first + arch->number[slot];
}

int dpt_arch_index_expert(const dpt_arch *arch, int64_t layer, dpt_slot slot, int64_t expert) {
    int first = dpt_arch_index(arch, layer, slot);
    return first < 0 ? -1 : first + (int)expert;
}

bool dpt_arch_recomputes(const dpt_arch *arch, dpt_slot slot) {
    switch (slot) {
    case DPT_SLOT_DOWN: /* the output of the layer */
        return arch->row[DPT_SLOT_OUT_NORM2] != NULL || arch->row[DPT_SLOT_SCALE2] != NULL;
    case DPT_SLOT_O: /* what the MLP reads, unless they are side by side */
        return !arch->parallel || arch->row[DPT_SLOT_OUT_NORM1] != NULL ||
               arch->row[DPT_SLOT_SCALE1] != NULL;
    default:
        return dpt_slot_is_of_layer((int)slot);
    }
}

int64_t dpt_arch_copies(const dpt_arch *arch, const dpt_row *row) {
    return row->expert ? arch->experts.count : 1;
}

int dpt_arch_count(const dpt_arch *arch) {
    return arch->whole + (int)arch->layers * arch->per_layer;
}

void dpt_arch_name(const dpt_arch *arch, const dpt_row *row, int64_t layer, int64_t expert,
                   char *out, size_t size) {
    bool of_tower = row->name[0] == '^';
    const char *tower = of_tower ? arch->tower : "", *name = row->name + of_tower;
    size_t head = strcspn(name, "*");
    const char *rest = name[head] == '*' ? name + head + 1 : NULL;
    size_t middle = rest != NULL ? strcspn(rest, "*") : 0;
    if (rest == NULL)
        snprintf(out, size, "%s%s", tower, name);
    else if (rest[middle] == '\0')
        snprintf(out, size, "%s%.*s%" PRId64 "%s", tower, (int)head, name, layer, rest);
    else
        snprintf(out, size, "%s%.*s%" PRId64 "%.*s%" PRId64 "%s", tower, (int)head, name, layer,
                 (int)middle, rest, expert, rest + middle + 1);
}

bool dpt_arch_is_tied_head(const dpt_arch *arch, const char *name) {
    return arch->tied && arch->head != NULL &&
           strcmp(dpt_prefix_skip(name), dpt_prefix_skip(arch->head->name)) == 0;
}

bool dpt_arch_is_outside(const dpt_arch *arch, const char *name) {
    const char *rest = dpt_prefix_skip(name);
    size_t n = strcspn(rest, ".");
    bool outside = arch->multimodal && !dpt_arch_is_tied_head(arch, name);
    for (int slot = 0; slot < DPT_SLOTS && outside; slot++) {
        const char *own = arch->row[slot] != NULL ? dpt_prefix_skip(arch->row[slot]->name) : "";
        outside = strcspn(own, ".") != n || memcmp(own, rest, n) != 0;
    }
    return outside;
}

/* The first layer whose window differs; the others follow the same keys. */
static void arch_compare_windows(const dpt_arch *a, const dpt_arch *b, char *text, size_t size) {
    for (int64_t l = 0; a->window != NULL && l < a->layers && l < b->layers; l++) {
        char key[64];
        snprintf(key, sizeof key, "attention window of layer %" PRId64, l);
        if (a->window[l] != b->window[l]) {
            dpt_config_compare(text, size, key, (double)a->window[l], (double)b->window[l]);
            return;
        }
    }
}

double dpt_arch_attention_scale(const dpt_arch *arch) {
    double own = arch->attention_scale, width = (double)arch->head_dim;
    return own > 0.0 || width <= 0.0 ? own : 1.0 / sqrt(width);
}

void dpt_arch_compare(const dpt_arch *a, const dpt_arch *b, char *text, size_t size) {
    bool tokens = a->side == 0; /* every head of an image model has its own keys */
    const struct {
        const char *key;
        double a, b;
    } options[] = {
        {"num_attention_heads", (double)a->heads, (double)b->heads},
        {"num_key_value_heads", tokens ? (double)a->kv_heads : 0.0,
         tokens ? (double)b->kv_heads : 0.0},
        {a->norm != DPT_NORM_LAYER ? "rms_norm_eps" : "layer_norm_eps", a->eps, b->eps},
        {"scale of the attention", dpt_arch_attention_scale(a), dpt_arch_attention_scale(b)},
        {"scale_attn_by_inverse_layer_idx", a->attention_by_layer, b->attention_by_layer},
        {"attn_logit_softcapping", a->attention_cap, b->attention_cap},
        {"final_logit_softcapping", a->logit_cap, b->logit_cap},
        {"scale of the embedding", a->embed_scale, b->embed_scale},
        {"use_parallel_residual", a->parallel, b->parallel},
        {"num_experts_per_tok", (double)a->experts.used, (double)b->experts.used},
        {"norm_topk_prob", a->experts.kind == DPT_ROUTE_CHOSEN,
         b->experts.kind == DPT_ROUTE_CHOSEN},
        {"swiglu_limit", a->act_limit, b->act_limit},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        dpt_config_compare(text, size, options[i].key, options[i].a, options[i].b);
    dpt_decoder_compare_rope(a, b, text, size);
    size_t used = strlen(text);
    if (a->act != b->act)
        snprintf(text + used, size - used, "%shidden_act (%.32s and %.32s)", used > 0 ? ", " : "",
                 a->act_name, b->act_name);
    arch_compare_windows(a, b, text, size);
}
