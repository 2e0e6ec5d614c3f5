#include "deltapath/tensor/pair.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
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

static void pair_post(findings *found, const dpt_catalog *pre, bool tied_pre, dpt_pair *out) {
    for (int i = 0; i < out->catalog.count; i++) {
        dpt_tensor_info *info = &out->catalog.tensors[i];
        int partner = dpt_catalog_find(pre, info->name);
        if (partner < 0 && tied_pre && pairing_ends_with(info->name, HEAD))
            partner = find_embedding(pre);
        if (partner < 0)
            add_mismatch(found, LACKS_PRE, info->name, "missing in the pre-trained model");
        else if (!check_pair(found, &pre->tensors[partner], info))
            partner = -1;
        out->pre_of[i] = partner;
        out->comparable[i] = partner >= 0 && dpt_dtype_editable(info->dtype) &&
                             dpt_dtype_editable(pre->tensors[partner].dtype);
        if (partner >= 0)
            info->dtype = pre->tensors[partner].dtype;
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

static dpt_status pairing_allocate(const dpt_catalog *post, dpt_pair *out) {
    dpt_status st = dpt_catalog_copy(post, &out->catalog);
    out->pre_of = dpt_mem_alloc(post->count, sizeof *out->pre_of, "pairing of tensors");
    out->comparable = dpt_mem_alloc(post->count, sizeof *out->comparable, "pairing of tensors");
    return out->pre_of != NULL && out->comparable != NULL ? st : DPT_ERR_OUTPUT;
}

dpt_status dpt_pair_create(const dpt_pair_side *pre, const dpt_pair_side *post,
                           dpt_mismatch_policy policy, dpt_pair *out, char **report) {
    *out = (dpt_pair){.pre = *pre, .post = *post};
    *report = NULL;
    findings found = {.status = DPT_OK};
    dpt_status st = pairing_allocate(post->source.catalog, out);
    if (st == DPT_OK) {
        pair_post(&found, pre->source.catalog, pre->tied, out);
        list_extra(&found, pre->source.catalog, post->source.catalog, pre->tied && post->tied);
        add_kinds(&found);
        add_retyped(&found);
        out->mismatches = found.mismatches;
        st = pairing_judge(&found, policy);
    }
    if (found.status == DPT_OK)
        *report = found.report.text;
    else
        dpt_mem_free(found.report.text);
    if (st != DPT_OK)
        dpt_pair_destroy(out);
    return st;
}

void dpt_pair_destroy(dpt_pair *pair) {
    dpt_catalog_destroy(&pair->catalog);
    dpt_mem_free(pair->pre_of);
    dpt_mem_free(pair->comparable);
    *pair = (dpt_pair){.mismatches = 0};
}

int dpt_pair_partner(const dpt_pair *pair, int tensor) {
    return pair->pre_of[tensor];
}

/* Where a tensor comes from, and its number there. */
static const dpt_source *pair_choose(const dpt_pair *pair, int *tensor) {
    int partner = pair->pre_of[*tensor];
    if (partner < 0)
        return &pair->post.source;
    *tensor = partner;
    return &pair->pre.source;
}

static dpt_status pair_read(void *ctx, dpt_range range, void *out) {
    const dpt_source *source = pair_choose(ctx, &range.tensor);
    return source->read(source->ctx, range, out);
}

/* Each block may come from either model, and goes to it whole: the model merges the reads of its rows. */
static dpt_status pair_fetch(void *ctx, int64_t count, const dpt_block *wants, void *const *outs) {
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        dpt_block want = wants[i];
        const dpt_source *source = pair_choose(ctx, &want.tensor);
        st = source->fetch(source->ctx, 1, &want, &outs[i]);
    }
    return st;
}

dpt_source dpt_pair_source(dpt_pair *pair) {
    return (dpt_source){.ctx = pair,
                        .catalog = &pair->catalog,
                        .independent = true,
                        .read = pair_read,
                        .fetch = pair_fetch};
}

static dpt_status pair_side_values(const dpt_pair_side *side, dpt_range range, void *stored,
                                   float *values) {
    const dpt_tensor_info *info = &side->source.catalog->tensors[range.tensor];
    dpt_status st = side->source.read(side->source.ctx, range, stored);
    if (st != DPT_OK)
        return st;
    int64_t at = dpt_dtype_find_nonfinite(info->dtype, stored, range.n);
    if (at >= 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s has a NaN or an infinity at element %" PRId64
                         ": repair the model",
                         side->name, info->name, range.ig + at);
    dpt_dtype_to_f32(info->dtype, stored, values, range.n);
    return DPT_OK;
}

dpt_status dpt_pair_values(const dpt_pair *pair, dpt_range range, void *stored, float *pre,
                           float *post) {
    dpt_range partner = range;
    partner.tensor = pair->pre_of[range.tensor];
    dpt_status st = pair_side_values(&pair->pre, partner, stored, pre);
    return st == DPT_OK ? pair_side_values(&pair->post, range, stored, post) : st;
}

dpt_status dpt_pair_delta(const dpt_pair *pair, dpt_range range, void *stored, float *pre,
                          float *delta) {
    dpt_status st = dpt_pair_values(pair, range, stored, pre, delta);
    for (int64_t i = 0; i < range.n && st == DPT_OK; i++)
        delta[i] -= pre[i];
    return st;
}
