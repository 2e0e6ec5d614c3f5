#include "deltapath/tensor/role.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COMPONENTS_MAX = 24, LAYER_DIGITS_MAX = 6 };

typedef struct role_component {
    const char *text;
    size_t length;
} role_component;

static int role_split(const char *name, role_component *parts) {
    int count = 0;
    while (count < COMPONENTS_MAX) {
        size_t length = strcspn(name, ".");
        parts[count++] = (role_component){.text = name, .length = length};
        if (name[length] == '\0')
            break;
        name += length + 1;
    }
    return count;
}

static bool role_is(role_component part, const char *word) {
    return part.length == strlen(word) && memcmp(part.text, word, part.length) == 0;
}

static bool role_is_one_of(role_component part, const char *const *words) {
    for (; *words != NULL; words++)
        if (role_is(part, *words))
            return true;
    return false;
}

static bool role_contains(role_component part, const char *word) {
    size_t length = strlen(word);
    for (size_t at = 0; at + length <= part.length; at++)
        if (strncasecmp(part.text + at, word, length) == 0)
            return true;
    return false;
}

static bool role_starts(role_component part, const char *word) {
    return part.length >= strlen(word) && memcmp(part.text, word, strlen(word)) == 0;
}

static bool role_ends(role_component part, const char *word) {
    size_t length = strlen(word);
    return part.length >= length && memcmp(part.text + part.length - length, word, length) == 0;
}

/* The number after the first of some words; -1: none. */
static int role_number(const role_component *parts, int count, const char *const *words) {
    for (int i = 0; i + 1 < count; i++) {
        role_component number = parts[i + 1];
        bool digits = number.length > 0 && number.length <= LAYER_DIGITS_MAX &&
                      strspn(number.text, "0123456789") == number.length;
        if (digits && role_is_one_of(parts[i], words))
            return (int)strtol(number.text, NULL, 10);
    }
    return -1;
}

static const char *const stacks[] = {"layers", "layer", "blocks", "block", "h", NULL};
static const char *const experts[] = {"experts", NULL};

/* Kind of one component on its own; `before` is the one in front of it. */
static dpt_role_kind role_kind(role_component part, role_component before) {
    static const struct {
        const char *word;
        dpt_role_kind kind;
    } table[] = {
        {"q_proj", DPT_ROLE_Q},
        {"query", DPT_ROLE_Q},
        {"wq", DPT_ROLE_Q},
        {"k_proj", DPT_ROLE_K},
        {"key", DPT_ROLE_K},
        {"wk", DPT_ROLE_K},
        {"v_proj", DPT_ROLE_V},
        {"value", DPT_ROLE_V},
        {"wv", DPT_ROLE_V},
        {"qkv_proj", DPT_ROLE_QKV},
        {"query_key_value", DPT_ROLE_QKV},
        {"c_attn", DPT_ROLE_QKV},
        {"in_proj_weight", DPT_ROLE_QKV},
        {"in_proj_bias", DPT_ROLE_QKV},
        {"o_proj", DPT_ROLE_O},
        {"out_proj", DPT_ROLE_O},
        {"wo", DPT_ROLE_O},
        {"gate_proj", DPT_ROLE_GATE},
        {"w1", DPT_ROLE_GATE},
        {"up_proj", DPT_ROLE_UP},
        {"fc1", DPT_ROLE_UP},
        {"intermediate", DPT_ROLE_UP},
        {"w3", DPT_ROLE_UP},
        {"c_fc", DPT_ROLE_UP},
        {"dense_h_to_4h", DPT_ROLE_UP},
        {"gate_up_proj", DPT_ROLE_GATE_UP},
        {"gate_up_proj_bias", DPT_ROLE_GATE_UP},
        {"weights_in", DPT_ROLE_GATE_UP},
        {"down_proj", DPT_ROLE_DOWN},
        {"down_proj_bias", DPT_ROLE_DOWN},
        {"dense_4h_to_h", DPT_ROLE_DOWN},
        {"weights_out", DPT_ROLE_DOWN},
        {"fc2", DPT_ROLE_DOWN},
        {"w2", DPT_ROLE_DOWN},
        {"gate", DPT_ROLE_ROUTER},
        {"router", DPT_ROLE_ROUTER},
        {"shared_expert_gate", DPT_ROLE_ROUTER},
        {"cls_token", DPT_ROLE_EMBED},
        {"wte", DPT_ROLE_EMBED},
        {"wpe", DPT_ROLE_EMBED},
        {"lm_head", DPT_ROLE_HEAD},
        {"embed_out", DPT_ROLE_HEAD},
        {"classifier", DPT_ROLE_HEAD},
        {"score", DPT_ROLE_HEAD},
        {"head", DPT_ROLE_HEAD},
        {"pooler", DPT_ROLE_HEAD},
        {"visual_projection", DPT_ROLE_HEAD},
        {"text_projection", DPT_ROLE_HEAD},
    };
    bool attention = role_contains(before, "attention") || role_contains(before, "attn");
    if (role_is(part, "output") || role_is(part, "c_proj")) /* of the attention or of the MLP */
        return attention ? DPT_ROLE_O : DPT_ROLE_DOWN;
    if (role_is(part, "dense") && attention)
        return DPT_ROLE_O;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (role_is(part, table[i].word))
            return table[i].kind;
    if (role_contains(part, "norm") || role_starts(part, "ln_"))
        return DPT_ROLE_NORM;
    return role_contains(part, "embed") ? DPT_ROLE_EMBED : DPT_ROLE_OTHER;
}

dpt_role dpt_role_of(const char *name) {
    role_component parts[COMPONENTS_MAX];
    int count = role_split(name, parts);
    dpt_role out = {.layer = role_number(parts, count, stacks), .kind = DPT_ROLE_OTHER};
    for (int i = 0; i < count; i++)
        if (role_is(parts[i], "head")) /* SigLIP's has attention and MLP of its own */
            out.kind = DPT_ROLE_HEAD;
    for (int i = count - 1; i >= 0 && out.kind == DPT_ROLE_OTHER; i--)
        out.kind =
            role_kind(parts[i], i > 0 ? parts[i - 1] : (role_component){.text = "", .length = 0});
    return out;
}

int dpt_role_expert(const char *name) {
    role_component parts[COMPONENTS_MAX];
    int count = role_split(name, parts);
    return role_number(parts, count, experts);
}

bool dpt_role_has_experts(const dpt_tensor_info *info) {
    role_component parts[COMPONENTS_MAX];
    int count = role_split(dpt_catalog_alias(info), parts);
    bool named = false;
    for (int i = 0; i < count; i++)
        named = named || role_is(parts[i], "experts");
    bool bias = role_ends(parts[count - 1], "bias");
    return named && role_number(parts, count, experts) < 0 && info->ndim == (bias ? 2 : 3);
}

bool dpt_role_is_matrix(const dpt_tensor_info *info) {
    return dpt_role_has_experts(info) ? info->ndim == 3 : info->ndim == 2;
}

bool dpt_role_is_linear(const dpt_tensor_info *info) {
    static const char *const others[] = {"embed", "lm_head",    "wte",  "wpe",
                                         "norm",  "classifier", "score"};
    const char *name = dpt_catalog_alias(info);
    if (!dpt_role_is_matrix(info) || dpt_role_of(name).kind == DPT_ROLE_ROUTER)
        return false;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strstr(name, others[i]) != NULL)
            return false;
    return true;
}

bool dpt_role_is_buffer(const dpt_tensor_info *info) {
    role_component parts[COMPONENTS_MAX];
    int count = role_split(dpt_catalog_alias(info), parts);
    role_component last = parts[count - 1];
    role_component before =
        count > 1 ? parts[count - 2] : (role_component){.text = "", .length = 0};
    bool attention = role_is(before, "attention") || role_is(before, "attn");
    if (role_is(last, "bias"))
        return attention && info->ndim == 4 && info->shape[0] == 1 && info->shape[1] == 1 &&
               info->shape[2] == info->shape[3];
    return (attention && role_is(last, "masked_bias") && info->numel == 1) ||
           (role_is(before, "rotary_emb") && role_is(last, "inv_freq")) ||
           role_is(last, "position_ids");
}

const char *dpt_role_module(const dpt_tensor_info *info) {
    return dpt_role_is_buffer(info) ? "buffer" : dpt_role_name(dpt_role_of(info->name).kind);
}

bool dpt_role_has_vocabulary(const char *name) {
    static const char *const words[] = {
        "embed_tokens",    "embed_in",       "embed_out", "wte", "word_embeddings",
        "token_embedding", "tok_embeddings", "lm_head",   NULL};
    role_component parts[COMPONENTS_MAX];
    int count = role_split(name, parts);
    for (int i = 0; i < count; i++)
        if (role_is_one_of(parts[i], words))
            return true;
    return false;
}

const char *dpt_role_name(dpt_role_kind kind) {
    static const char *const names[DPT_ROLE_COUNT] = {"embed",  "q",    "k",    "v",       "qkv",
                                                      "o",      "gate", "up",   "gate_up", "down",
                                                      "router", "norm", "head", "other"};
    return (unsigned)kind < DPT_ROLE_COUNT ? names[kind] : "other";
}

void dpt_role_label(dpt_role role, bool by_layer, char label[DPT_ROLE_LABEL]) {
    if (!by_layer)
        snprintf(label, DPT_ROLE_LABEL, "%s", dpt_role_name(role.kind));
    else if (role.layer < 0)
        snprintf(label, DPT_ROLE_LABEL, "outside");
    else
        snprintf(label, DPT_ROLE_LABEL, "%d", role.layer);
}
