#include "deltapath/store/part.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { COMPONENTS_MAX = 24, LAYER_DIGITS_MAX = 6 };

typedef struct component {
    const char *text;
    size_t length;
} component;

static int split(const char *name, component *parts) {
    int count = 0;
    while (count < COMPONENTS_MAX) {
        size_t length = strcspn(name, ".");
        parts[count++] = (component){.text = name, .length = length};
        if (name[length] == '\0')
            break;
        name += length + 1;
    }
    return count;
}

static bool is(component part, const char *word) {
    return part.length == strlen(word) && memcmp(part.text, word, part.length) == 0;
}

static bool is_one_of(component part, const char *const *words) {
    for (; *words != NULL; words++)
        if (is(part, *words))
            return true;
    return false;
}

static bool contains(component part, const char *word) {
    size_t length = strlen(word);
    for (size_t at = 0; at + length <= part.length; at++)
        if (strncasecmp(part.text + at, word, length) == 0)
            return true;
    return false;
}

static int layer_of(const component *parts, int count) {
    static const char *const stacks[] = {"layers", "layer", "blocks", "block", "h", NULL};
    for (int i = 0; i + 1 < count; i++) {
        component number = parts[i + 1];
        bool digits = number.length > 0 && number.length <= LAYER_DIGITS_MAX &&
                      strspn(number.text, "0123456789") == number.length;
        if (digits && is_one_of(parts[i], stacks))
            return (int)strtol(number.text, NULL, 10);
    }
    return -1;
}

/* Kind of one component on its own; `before` is the one in front of it. */
static dpt_part_kind kind_of(component part, component before) {
    static const struct {
        const char *word;
        dpt_part_kind kind;
    } table[] = {
        {"q_proj", DPT_PART_Q},
        {"query", DPT_PART_Q},
        {"wq", DPT_PART_Q},
        {"k_proj", DPT_PART_K},
        {"key", DPT_PART_K},
        {"wk", DPT_PART_K},
        {"v_proj", DPT_PART_V},
        {"value", DPT_PART_V},
        {"wv", DPT_PART_V},
        {"o_proj", DPT_PART_O},
        {"out_proj", DPT_PART_O},
        {"wo", DPT_PART_O},
        {"gate_proj", DPT_PART_GATE},
        {"w1", DPT_PART_GATE},
        {"up_proj", DPT_PART_UP},
        {"fc1", DPT_PART_UP},
        {"intermediate", DPT_PART_UP},
        {"w3", DPT_PART_UP},
        {"down_proj", DPT_PART_DOWN},
        {"fc2", DPT_PART_DOWN},
        {"w2", DPT_PART_DOWN},
        {"cls_token", DPT_PART_EMBED},
        {"wte", DPT_PART_EMBED},
        {"wpe", DPT_PART_EMBED},
        {"lm_head", DPT_PART_HEAD},
        {"classifier", DPT_PART_HEAD},
        {"score", DPT_PART_HEAD},
        {"head", DPT_PART_HEAD},
        {"pooler", DPT_PART_HEAD},
        {"visual_projection", DPT_PART_HEAD},
        {"text_projection", DPT_PART_HEAD},
    };
    if (is(part, "output")) /* of ViT's attention or of its MLP */
        return is(before, "attention") ? DPT_PART_O : DPT_PART_DOWN;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (is(part, table[i].word))
            return table[i].kind;
    if (contains(part, "norm"))
        return DPT_PART_NORM;
    return contains(part, "embed") ? DPT_PART_EMBED : DPT_PART_OTHER;
}

dpt_part dpt_part_of(const char *name) {
    component parts[COMPONENTS_MAX];
    int count = split(name, parts);
    dpt_part out = {.layer = layer_of(parts, count), .kind = DPT_PART_OTHER};
    for (int i = count - 1; i >= 0 && out.kind == DPT_PART_OTHER; i--)
        out.kind = kind_of(parts[i], i > 0 ? parts[i - 1] : (component){.text = "", .length = 0});
    return out;
}

const char *dpt_part_name(dpt_part_kind kind) {
    static const char *const names[DPT_PART_COUNT] = {
        "embed", "q", "k", "v", "o", "gate", "up", "down", "norm", "head", "other"};
    return (unsigned)kind < DPT_PART_COUNT ? names[kind] : "other";
}
