#include "deltapath/tensor/catalog.h"

#include "deltapath/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char HEAD[] = "lm_head.weight";
static const char EMBEDDING[] = "embed_tokens.weight";

/* Growing text of the report; `first` is the first mismatch, for the error message. */
typedef struct findings {
    char *text;
    int64_t length;
    int64_t capacity;
    char first[512];
    int mismatches;
    int retyped[DPT_DTYPE_COUNT][DPT_DTYPE_COUNT]; /* pairs by type of pre and of post */
    dpt_status status;
} findings;

static void add_line(findings *found, const char *line) {
    int64_t more = (int64_t)strlen(line) + 1;
    if (found->status == DPT_OK && found->length + more + 1 > found->capacity) {
        int64_t capacity = 2 * (found->length + more + 1);
        char *grown = dpt_mem_realloc(found->text, capacity, 1, "pairing report");
        if (grown == NULL) {
            found->status = DPT_ERR_OUTPUT;
        } else {
            found->text = grown;
            found->capacity = capacity;
        }
    }
    if (found->status != DPT_OK)
        return;
    memcpy(found->text + found->length, line, (size_t)more - 1);
    found->length += more;
    found->text[found->length - 1] = '\n';
    found->text[found->length] = '\0';
}

__attribute__((format(printf, 2, 3))) static void add_mismatch(findings *found, const char *format,
                                                               ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (found->mismatches++ == 0)
        snprintf(found->first, sizeof found->first, "%.*s", (int)sizeof found->first - 1, line);
    add_line(found, line);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text);
    size_t m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Position of the only token embedding, or -1. */
static int find_embedding(const dpt_catalog *catalog) {
    int found = -1;
    for (int i = 0; i < catalog->count; i++) {
        if (!ends_with(catalog->tensors[i].name, EMBEDDING))
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

static bool same_shape(const dpt_tensor_info *a, const dpt_tensor_info *b, int from) {
    if (a->ndim != b->ndim)
        return false;
    for (int d = from; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d])
            return false;
    return true;
}

static bool is_padded_vocabulary(const dpt_tensor_info *a, const dpt_tensor_info *b) {
    bool named = strstr(b->name, "embed") != NULL || strstr(b->name, "lm_head") != NULL;
    return named && a->ndim >= 1 && same_shape(a, b, 1);
}

/* Whether the values of two tensors can be paired; says why when not. */
static bool check_pair(findings *found, const dpt_tensor_info *pre, const dpt_tensor_info *post) {
    if (!same_shape(pre, post, 0)) {
        char pre_shape[192];
        char post_shape[192];
        dpt_catalog_shape_text(pre, pre_shape, sizeof pre_shape);
        dpt_catalog_shape_text(post, post_shape, sizeof post_shape);
        add_mismatch(found, "tensor '%s': %s %s in the pre-trained model, %s in the post-trained",
                     post->name,
                     is_padded_vocabulary(pre, post) ? "padded vocabulary:" : "shapes differ:",
                     pre_shape, post_shape);
        return false;
    }
    if (pre->dtype == post->dtype)
        return true;
    if (!dpt_dtype_editable(pre->dtype) || !dpt_dtype_editable(post->dtype)) {
        add_mismatch(found,
                     "tensor '%s': types differ: %s in the pre-trained model, %s in the "
                     "post-trained",
                     post->name, dpt_dtype_name(pre->dtype), dpt_dtype_name(post->dtype));
        return false;
    }
    found->retyped[pre->dtype][post->dtype]++;
    return true;
}

static void add_retyped(findings *found) {
    for (int a = 0; a < DPT_DTYPE_COUNT; a++)
        for (int b = 0; b < DPT_DTYPE_COUNT; b++) {
            if (found->retyped[a][b] == 0)
                continue;
            char line[160];
            snprintf(line, sizeof line,
                     "%d tensors are %s in the pre-trained model and %s in the post-trained: "
                     "paired by value",
                     found->retyped[a][b], dpt_dtype_name((dpt_dtype)a),
                     dpt_dtype_name((dpt_dtype)b));
            add_line(found, line);
        }
}

static void pair_post(findings *found, const dpt_catalog *pre, const dpt_catalog *post,
                      bool tied_pre, int *pre_of) {
    for (int i = 0; i < post->count; i++) {
        const dpt_tensor_info *info = &post->tensors[i];
        int partner = dpt_catalog_find(pre, info->name);
        if (partner < 0 && tied_pre && ends_with(info->name, HEAD))
            partner = find_embedding(pre);
        pre_of[i] = -1;
        if (partner < 0)
            add_mismatch(found, "tensor '%s': missing in the pre-trained model", info->name);
        else if (check_pair(found, &pre->tensors[partner], info))
            pre_of[i] = partner;
    }
}

static void list_extra(findings *found, const dpt_catalog *pre, const dpt_catalog *post,
                       bool tied) {
    for (int i = 0; i < pre->count; i++) {
        const char *name = pre->tensors[i].name;
        if (dpt_catalog_find(post, name) >= 0 || (tied && ends_with(name, HEAD)))
            continue;
        add_mismatch(found, "tensor '%s': missing in the post-trained model", name);
    }
}

static dpt_status judge(const findings *found, dpt_mismatch_policy policy) {
    if (found->status != DPT_OK || found->mismatches == 0 || policy != DPT_MISMATCH_ERROR)
        return found->status;
    char others[64] = "";
    if (found->mismatches > 1)
        snprintf(others, sizeof others, " (the first of %d mismatches)", found->mismatches);
    return dpt_error(DPT_ERR_INPUT,
                     "%s%s: take two models of one architecture, or set on_mismatch: keep-post",
                     found->first, others);
}

dpt_status dpt_catalog_pair(const dpt_catalog *pre, const dpt_catalog *post, bool tied_pre,
                            bool tied_post, dpt_mismatch_policy policy, dpt_pairing *out,
                            char **report) {
    *out = (dpt_pairing){.count = 0};
    *report = NULL;
    findings found = {.status = DPT_OK};
    int *pre_of = dpt_mem_alloc(post->count, sizeof *pre_of, "pairing of tensors");
    if (pre_of == NULL)
        return DPT_ERR_OUTPUT;
    pair_post(&found, pre, post, tied_pre, pre_of);
    list_extra(&found, pre, post, tied_pre && tied_post);
    add_retyped(&found);
    dpt_status st = judge(&found, policy);
    if (found.status == DPT_OK)
        *report = found.text;
    else
        dpt_mem_free(found.text);
    if (st != DPT_OK) {
        dpt_mem_free(pre_of);
        return st;
    }
    *out = (dpt_pairing){.count = post->count, .pre_of = pre_of, .mismatches = found.mismatches};
    return DPT_OK;
}

void dpt_pairing_destroy(dpt_pairing *pairing) {
    dpt_mem_free(pairing->pre_of);
    *pairing = (dpt_pairing){.count = 0};
}
