#include "pair_rows.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/prefix.h"
#include "deltapath/tensor/role.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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
    int by_rows;                                   /* pairs of vocabularies by their tokens */
    int wrapped;                                   /* pairs whose names differ by prefixes alone */
    const char *inside[2]; /* the names of the first of them, in pre and in post; borrowed */
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

/* One line for all names that differ by prefixes. */
static void add_wrapped(findings *found) {
    char line[1024];
    if (found->wrapped == 0)
        return;
    snprintf(line, sizeof line,
             "%d tensors are paired although prefixes of their names differ, as of '%.400s' in the "
             "pre-trained model and '%.400s' in the post-trained",
             found->wrapped, found->inside[0], found->inside[1]);
    add_line(found, &found->report, line);
}

/* What is paired while names are compared. */
typedef struct pairing {
    findings *found;
    const dpt_pair_side *pre, *post;
    dpt_prefix_index names[2]; /* of pre and post */
    int *taken_by;             /* (tensors of pre) the first of post that found it; -1 */
    dpt_pair *out;
} pairing;

static dpt_status pairing_find_alias(pairing *p, const dpt_tensor_info *info, int *partner) {
    *partner = dpt_prefix_find(&p->names[0], info->alias);
    int before = *partner >= 0 ? p->taken_by[*partner] : -1;
    if (before < 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "models.rename: '%s' and '%s' of the post-trained model would both pair with "
                     "'%s': rename longer prefixes",
                     p->out->catalog.tensors[before].name, info->name,
                     p->pre->source.catalog->tensors[*partner].name);
}

/* The partner of a tensor of post by its name; -1: none. */
static dpt_status pairing_find(pairing *p, int tensor, int *partner) {
    const dpt_tensor_info *info = &p->out->catalog.tensors[tensor];
    const char *name = info->name;
    if (info->alias != NULL)
        return pairing_find_alias(p, info, partner);
    *partner = dpt_catalog_find(p->pre->source.catalog, name);
    if (*partner >= 0 || dpt_prefix_find_rest(&p->names[1], name) != tensor)
        return DPT_OK;
    *partner = dpt_prefix_find_rest(&p->names[0], name);
    if (*partner >= 0 && p->found->wrapped++ == 0) {
        p->found->inside[0] = p->pre->source.catalog->tensors[*partner].name;
        p->found->inside[1] = name;
    }
    return DPT_OK;
}

/* A vocabulary whose rows pair by their tokens; its values are in fp32 where the types differ. */
static bool pair_by_rows(pairing *p, int tensor, int partner) {
    dpt_tensor_info *info = &p->out->catalog.tensors[tensor];
    const dpt_tensor_info *pre = &p->pre->source.catalog->tensors[partner];
    if (!dpt_pair_rows_apply(p->post->tokens, pre, info))
        return false;
    p->out->pre_of[tensor] = partner;
    p->out->comparable[tensor] = p->out->by_rows[tensor] = true;
    info->dtype = pre->dtype == info->dtype ? info->dtype : DPT_F32;
    p->found->by_rows++;
    return true;
}

static void add_by_rows(findings *found, const dpt_token_rows *tokens) {
    char line[256];
    if (found->by_rows == 0)
        return;
    snprintf(line, sizeof line,
             "%d tensors are paired row by row: %" PRId64
             " tokens are in both tokenizers (ids below %" PRId64 " and %" PRId64
             "), other rows keep their post-trained values",
             found->by_rows, tokens->shared, tokens->pre, tokens->post);
    add_line(found, &found->report, line);
}

/* No weight: it is not compared, and one that is not in pre or is another there is post's. */
static void pair_buffer(pairing *p, int tensor, int partner) {
    const dpt_tensor_info *info = &p->out->catalog.tensors[tensor];
    const dpt_tensor_info *pre = partner >= 0 ? &p->pre->source.catalog->tensors[partner] : NULL;
    bool same = pre != NULL && pre->dtype == info->dtype && pairing_same_shape(pre, info, 0);
    p->out->pre_of[tensor] = same ? partner : -1;
    p->out->comparable[tensor] = false;
}

static dpt_status pair_post(pairing *p) {
    const dpt_catalog *pre = p->pre->source.catalog;
    dpt_pair *out = p->out;
    for (int i = 0; i < out->catalog.count; i++) {
        dpt_tensor_info *info = &out->catalog.tensors[i];
        int partner = -1;
        dpt_status st = pairing_find(p, i, &partner);
        if (st != DPT_OK)
            return st;
        if (partner >= 0 && p->taken_by[partner] < 0)
            p->taken_by[partner] = i;
        if (partner < 0 && p->pre->head.tied && i == p->post->head.head)
            partner = p->pre->head.embedding;
        if (dpt_role_is_buffer(info)) {
            pair_buffer(p, i, partner);
            continue;
        }
        if (partner >= 0 && pair_by_rows(p, i, partner))
            continue;
        if (partner < 0)
            add_mismatch(p->found, LACKS_PRE, info->name, "missing in the pre-trained model");
        else if (!check_pair(p->found, &pre->tensors[partner], info))
            partner = -1;
        out->pre_of[i] = partner;
        out->comparable[i] = partner >= 0 && dpt_dtype_editable(info->dtype) &&
                             dpt_dtype_editable(pre->tensors[partner].dtype);
        if (partner >= 0)
            info->dtype = pre->tensors[partner].dtype;
    }
    return DPT_OK;
}

static void list_extra(const pairing *p) {
    const dpt_catalog *pre = p->pre->source.catalog;
    bool tied = p->pre->head.tied && p->post->head.tied;
    for (int i = 0; i < pre->count; i++) {
        const char *name = pre->tensors[i].name;
        if (p->taken_by[i] < 0 && !dpt_role_is_buffer(&pre->tensors[i]) &&
            !(tied && i == p->pre->head.head))
            add_mismatch(p->found, LACKS_POST, name, "missing in the post-trained model");
    }
}

static dpt_status pairing_names(pairing *p) {
    const dpt_catalog *pre = p->pre->source.catalog;
    dpt_status st = dpt_prefix_index_create(pre, &p->names[0]);
    if (st == DPT_OK)
        st = dpt_prefix_index_create(p->post->source.catalog, &p->names[1]);
    p->taken_by = dpt_mem_alloc(pre->count, sizeof *p->taken_by, "pairing of tensors");
    if (st == DPT_OK && p->taken_by == NULL)
        st = DPT_ERR_OUTPUT;
    for (int i = 0; st == DPT_OK && i < pre->count; i++)
        p->taken_by[i] = -1;
    if (st == DPT_OK)
        st = pair_post(p);
    if (st == DPT_OK)
        list_extra(p);
    dpt_mem_free(p->taken_by);
    dpt_prefix_index_destroy(&p->names[1]);
    dpt_prefix_index_destroy(&p->names[0]);
    return st;
}

static dpt_status pairing_judge(const findings *found, dpt_mismatch_policy policy) {
    if (found->status != DPT_OK || found->mismatches == 0 || policy == DPT_MISMATCH_KEEP_POST)
        return found->status;
    char others[64] = "";
    if (found->mismatches > 1)
        snprintf(others, sizeof others, " (the first of %d mismatches)", found->mismatches);
    return dpt_error(
        DPT_ERR_INPUT,
        "%s%s: take two models of one architecture, say by models.rename how their names "
        "differ, or set on_mismatch: keep-post (rows for vocabularies)",
        found->first, others);
}

static dpt_status pairing_allocate(const dpt_catalog *post, dpt_pair *out) {
    dpt_status st = dpt_catalog_copy(post, &out->catalog);
    out->pre_of = dpt_mem_alloc(post->count, sizeof *out->pre_of, "pairing of tensors");
    out->comparable = dpt_mem_alloc(post->count, sizeof *out->comparable, "pairing of tensors");
    out->by_rows = dpt_mem_zalloc(post->count, sizeof *out->by_rows, "pairing of tensors");
    bool made = out->pre_of != NULL && out->comparable != NULL && out->by_rows != NULL;
    return made ? st : DPT_ERR_OUTPUT;
}

dpt_status dpt_pair_create(const dpt_pair_side *pre, const dpt_pair_side *post,
                           dpt_mismatch_policy policy, dpt_pair *out, char **report) {
    *out = (dpt_pair){.pre = *pre, .post = *post};
    *report = NULL;
    findings found = {.status = DPT_OK};
    dpt_status st = pairing_allocate(post->source.catalog, out);
    pairing names = {.found = &found, .pre = pre, .post = post, .out = out};
    if (st == DPT_OK)
        st = pairing_names(&names);
    add_kinds(&found);
    if (st == DPT_OK) {
        add_retyped(&found);
        add_wrapped(&found);
        add_by_rows(&found, post->tokens);
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
    dpt_mem_free(pair->by_rows);
    *pair = (dpt_pair){.mismatches = 0};
}

static bool pair_is_by_rows(const dpt_pair *pair, int tensor) {
    return pair->by_rows != NULL && pair->by_rows[tensor];
}

int dpt_pair_partner(const dpt_pair *pair, int tensor) {
    return pair_is_by_rows(pair, tensor) ? -1 : pair->pre_of[tensor];
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
    if (pair_is_by_rows(ctx, range.tensor))
        return dpt_pair_rows_read(ctx, range, out);
    const dpt_source *source = pair_choose(ctx, &range.tensor);
    return source->read(source->ctx, range, out);
}

/* Each block may come from either model, and goes to it whole: the model merges the reads of its rows. */
static dpt_status pair_fetch(void *ctx, int64_t count, const dpt_block *wants, void *const *outs) {
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        dpt_block want = wants[i];
        if (pair_is_by_rows(ctx, want.tensor)) {
            st = dpt_pair_rows_fetch(ctx, &want, outs[i]);
            continue;
        }
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
