#include "deltapath/tensor/catalog.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char HEAD[] = DPT_NAME_HEAD;
static const char EMBEDDING[] =
    "embed_tokens.weight"; /* at the end of a name, whatever wraps the model */

/* What may be wrong with a tensor. More than LISTED of a kind become one line with their number. */
typedef enum finding_kind { LACKS_PRE, LACKS_POST, OTHER_SHAPE, OTHER_TYPE, KINDS } finding_kind;

enum { LISTED = 5, NAMED = 3 };

static const char *const kind_texts[KINDS] = {
    [LACKS_PRE] = "are missing in the pre-trained model",
    [LACKS_POST] = "are missing in the post-trained model",
    [OTHER_SHAPE] = "have other shapes in the two models",
    [OTHER_TYPE] = "have other types in the two models, one of which cannot be edited"};

/* A growing text. */
typedef struct lines {
    char *text;
    int64_t length;
    int64_t capacity;
} lines;

/* The report by kind; `first` is the first mismatch, for the error message. */
typedef struct findings {
    lines kind[KINDS];
    int count[KINDS];
    const char *named[KINDS][NAMED]; /* the first tensors of a kind; borrowed from the catalogs */
    lines report;
    char first[512];
    int mismatches;
    int retyped[DPT_DTYPE_COUNT][DPT_DTYPE_COUNT]; /* pairs by type of pre and of post */
    dpt_status status;
} findings;

static void add_line(findings *found, lines *to, const char *line) {
    int64_t more = (int64_t)strlen(line) + 1;
    if (found->status == DPT_OK && to->length + more + 1 > to->capacity) {
        int64_t capacity = 2 * (to->length + more + 1);
        char *grown = dpt_mem_realloc(to->text, capacity, 1, "pairing report");
        if (grown == NULL) {
            found->status = DPT_ERR_OUTPUT;
        } else {
            to->text = grown;
            to->capacity = capacity;
        }
    }
    if (found->status != DPT_OK)
        return;
    memcpy(to->text + to->length, line, (size_t)more - 1);
    to->length += more;
    to->text[to->length - 1] = '\n';
    to->text[to->length] = '\0';
}

__attribute__((format(printf, 4, 5))) static void
add_mismatch(findings *found, finding_kind kind, const char *name, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = snprintf(line, sizeof line, "tensor '%.600s': ", name);
    vsnprintf(line + length, sizeof line - (size_t)length, format, args);
    va_end(args);
    if (found->mismatches++ == 0)
        snprintf(found->first, sizeof found->first, "%.*s", (int)sizeof found->first - 1, line);
    if (found->count[kind] < NAMED)
        found->named[kind][found->count[kind]] = name;
    if (found->count[kind]++ < LISTED)
        add_line(found, &found->kind[kind], line);
}

/* The lines of each kind, or one for all of them. */
static void add_kinds(findings *found) {
    for (int k = 0; k < KINDS; k++) {
        char line[1024];
        if (found->count[k] > LISTED) {
            snprintf(line, sizeof line, "%d tensors %s: '%.250s', '%.250s', '%.250s' and %d more",
                     found->count[k], kind_texts[k], found->named[k][0], found->named[k][1],
                     found->named[k][2], found->count[k] - NAMED);
            add_line(found, &found->report, line);
        } else if (found->kind[k].text != NULL) {
            found->kind[k].text[--found->kind[k].length] = '\0'; /* add_line ends it again */
            add_line(found, &found->report, found->kind[k].text);
        }
        dpt_mem_free(found->kind[k].text);
    }
}

static bool pairing_ends_with(const char *text, const char *end) {
    size_t n = strlen(text);
    size_t m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Position of the only token embedding, or -1. */
static int find_embedding(const dpt_catalog *catalog) {
    int found = -1;
    for (int i = 0; i < catalog->count; i++) {
        if (!pairing_ends_with(catalog->tensors[i].name, EMBEDDING))
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

static bool pairing_same_shape(const dpt_tensor_info *a, const dpt_tensor_info *b, int from) {
    if (a->ndim != b->ndim)
        return false;
    for (int d = from; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d])
            return false;
    return true;
}

static bool is_padded_vocabulary(const dpt_tensor_info *a, const dpt_tensor_info *b) {
    return dpt_role_has_vocabulary(b->name) && a->ndim >= 1 && pairing_same_shape(a, b, 1);
}

/* Whether the values of two tensors can be paired; says why when not. */
static bool check_pair(findings *found, const dpt_tensor_info *pre, const dpt_tensor_info *post) {
    if (!pairing_same_shape(pre, post, 0)) {
        char pre_shape[192];
        char post_shape[192];
        dpt_catalog_shape_text(pre, pre_shape, sizeof pre_shape);
        dpt_catalog_shape_text(post, post_shape, sizeof post_shape);
        add_mismatch(found, OTHER_SHAPE, post->name,
                     "%s %s in the pre-trained model, %s in the post-trained",
                     is_padded_vocabulary(pre, post) ? "padded vocabulary:" : "shapes differ:",
                     pre_shape, post_shape);
        return false;
    }
    if (pre->dtype == post->dtype)
        return true;
    if (!dpt_dtype_editable(pre->dtype) || !dpt_dtype_editable(post->dtype)) {
        add_mismatch(found, OTHER_TYPE, post->name,
                     "types differ: %s in the pre-trained model, %s in the post-trained",
                     dpt_dtype_name(pre->dtype), dpt_dtype_name(post->dtype));
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
            add_line(found, &found->report, line);
        }
}

static void pair_post(findings *found, const dpt_catalog *pre, const dpt_catalog *post,
                      bool tied_pre, int *pre_of) {
    for (int i = 0; i < post->count; i++) {
        const dpt_tensor_info *info = &post->tensors[i];
        int partner = dpt_catalog_find(pre, info->name);
        if (partner < 0 && tied_pre && pairing_ends_with(info->name, HEAD))
            partner = find_embedding(pre);
        pre_of[i] = -1;
        if (partner < 0)
            add_mismatch(found, LACKS_PRE, info->name, "missing in the pre-trained model");
        else if (check_pair(found, &pre->tensors[partner], info))
            pre_of[i] = partner;
    }
}

static void list_extra(findings *found, const dpt_catalog *pre, const dpt_catalog *post,
                       bool tied) {
    for (int i = 0; i < pre->count; i++) {
        const char *name = pre->tensors[i].name;
        if (dpt_catalog_find(post, name) >= 0 || (tied && pairing_ends_with(name, HEAD)))
            continue;
        add_mismatch(found, LACKS_POST, name, "missing in the post-trained model");
    }
}

static dpt_status pairing_judge(const findings *found, dpt_mismatch_policy policy) {
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
    add_kinds(&found);
    add_retyped(&found);
    dpt_status st = pairing_judge(&found, policy);
    if (found.status == DPT_OK)
        *report = found.report.text;
    else
        dpt_mem_free(found.report.text);
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
