#include "deltapath/store/tokenizer.h"

#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A tokenizer.json is parsed in part: its merges, most of the file, would take a hundred times their bytes
 * as JSON values. */

static const int64_t TOKENIZER_LIMIT = INT64_C(256) << 20;
static const uint64_t FNV_BASIS = UINT64_C(0xcbf29ce484222325), FNV_PRIME = UINT64_C(0x100000001b3);

/* A part of a text that is not trusted: [at, end). */
typedef struct span {
    const char *at, *end;
} span;

static void span_space(span *s) {
    while (s->at < s->end && strchr(" \t\r\n", *s->at) != NULL && *s->at != '\0')
        s->at++;
}

/* Past a string, whose opening quote stands at `at`; false when it does not end. */
static bool span_string(span *s) {
    for (s->at++; s->at < s->end; s->at++) {
        if (*s->at == '\\')
            s->at++;
        else if (*s->at == '"')
            return s->at++ < s->end;
    }
    return false;
}

/* Past a value of any kind; brackets are counted, not matched: the parser looks at what is taken. */
static bool span_value(span *s) {
    int64_t depth = 0;
    span_space(s);
    while (s->at < s->end) {
        char c = *s->at;
        if (c == '"') {
            if (!span_string(s))
                return false;
        } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            return true;
        } else {
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            s->at++;
        }
        if (depth == 0 && (c == '"' || c == '}' || c == ']'))
            return true;
    }
    return false;
}

/* The value of a key of the object that a text is; false when there is none. */
static bool span_member(span object, const char *key, span *value) {
    size_t length = strlen(key);
    span_space(&object);
    if (object.at >= object.end || *object.at != '{')
        return false;
    for (object.at++;; object.at++) {
        span_space(&object);
        const char *name = object.at;
        if (object.at >= object.end || *object.at != '"' || !span_string(&object))
            return false;
        bool found = (size_t)(object.at - name) == length + 2 && memcmp(name + 1, key, length) == 0;
        span_space(&object);
        if (object.at >= object.end || *object.at != ':')
            return false;
        object.at++;
        span_space(&object);
        value->at = object.at;
        if (!span_value(&object))
            return false;
        value->end = object.at;
        if (found)
            return true;
        span_space(&object);
        if (object.at >= object.end || *object.at != ',')
            return false;
    }
}

static json_t *span_parse(span value) {
    return json_loadb(value.at, (size_t)(value.end - value.at), JSON_DECODE_ANY, NULL);
}

typedef struct token {
    int64_t id;
    const char *text; /* borrowed from the JSON */
} token;

typedef struct token_list {
    int64_t count, capacity;
    token *tokens;
    bool good;
    dpt_status st;
} token_list;

static void token_add(token_list *list, const json_t *id, int64_t at, const char *text) {
    if (list->st != DPT_OK || !list->good)
        return;
    list->good = text != NULL && (id == NULL || json_is_integer(id));
    if (!list->good)
        return;
    if (list->count == list->capacity) {
        int64_t capacity = 2 * list->capacity + 1024;
        token *grown = dpt_mem_realloc(list->tokens, capacity, sizeof *grown, "vocabulary");
        if (grown == NULL) {
            list->st = DPT_ERR_OUTPUT;
            return;
        }
        list->tokens = grown;
        list->capacity = capacity;
    }
    list->tokens[list->count++] =
        (token){.id = id != NULL ? (int64_t)json_integer_value(id) : at, .text = text};
}

/* BPE, WordPiece and WordLevel map tokens to ids; Unigram lists pairs of token and score in their order. */
static void token_take_vocab(token_list *list, const json_t *vocab) {
    const char *key;
    json_t *value;
    size_t i;
    list->good = list->good && (json_is_object(vocab) || json_is_array(vocab));
    json_object_foreach((json_t *)(uintptr_t)vocab, key, value) token_add(list, value, 0, key);
    json_array_foreach(vocab, i, value)
        token_add(list, NULL, (int64_t)i, json_string_value(json_array_get(value, 0)));
}

static void token_take_added(token_list *list, const json_t *added) {
    json_t *value;
    size_t i;
    json_array_foreach(added, i, value) {
        const json_t *id = json_object_get(value, "id");
        list->good = list->good && id != NULL;
        token_add(list, id, 0, json_string_value(json_object_get(value, "content")));
    }
}

static int token_order(const void *a, const void *b) {
    const token *x = a;
    const token *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return strcmp(x->text, y->text);
}

static uint64_t token_feed(uint64_t hash, const char *text) {
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * FNV_PRIME;
    return hash;
}

static uint64_t token_hash(const token_list *list) {
    uint64_t hash = FNV_BASIS;
    char number[24];
    for (int64_t i = 0; i < list->count; i++) {
        if (i > 0 && token_order(&list->tokens[i - 1], &list->tokens[i]) == 0)
            continue;
        snprintf(number, sizeof number, "%" PRId64 "\t", list->tokens[i].id);
        hash = token_feed(token_feed(token_feed(hash, number), list->tokens[i].text), "\n");
    }
    return hash;
}

dpt_status dpt_tokenizer_hash(const char *text, int64_t n, dpt_tokenizer *out) {
    span whole = {.at = text, .end = text + n}, model, part;
    token_list list = {.good = true, .st = DPT_OK};
    *out = (dpt_tokenizer){.known = false};
    if (!span_member(whole, "model", &model) || !span_member(model, "vocab", &part))
        return DPT_OK;
    json_t *vocab = span_parse(part);
    json_t *added = span_member(whole, "added_tokens", &part) ? span_parse(part) : NULL;
    token_take_vocab(&list, vocab);
    token_take_added(&list, added);
    if (list.st == DPT_OK && list.good && list.count > 0) {
        qsort(list.tokens, (size_t)list.count, sizeof *list.tokens, token_order);
        *out = (dpt_tokenizer){.known = true, .hash = token_hash(&list)};
    }
    dpt_mem_free(list.tokens);
    json_decref(vocab);
    json_decref(added);
    return list.st;
}

/* The bytes of a companion, as an extent of its file. */
static dpt_status tokenizer_read(const dpt_store_companion *from, char **text) {
    *text = NULL;
    if (from->bytes > TOKENIZER_LIMIT)
        return DPT_OK;
    int fd = dpt_file_open_input(from->file);
    if (fd < 0)
        return DPT_ERR_INPUT;
    *text = dpt_mem_alloc(from->bytes, 1, "tokenizer");
    dpt_status st = *text != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_file_read_at(fd, from->offset, *text, from->bytes) != from->bytes)
        st = dpt_error(DPT_ERR_INPUT, "%s: %s cannot be read: copy the file again", from->file,
                       from->name);
    close(fd);
    return st;
}

static dpt_status tokenizer_load(const dpt_store *store, dpt_tokenizer *out) {
    const dpt_store_header *header = dpt_store_header_of(store);
    dpt_status st = DPT_OK;
    *out = (dpt_tokenizer){.known = false};
    for (int i = 0; i < header->ncompanions && st == DPT_OK; i++) {
        char *text;
        if (strcmp(header->companions[i].name, "tokenizer.json") != 0)
            continue;
        st = tokenizer_read(&header->companions[i], &text);
        if (st == DPT_OK && text != NULL)
            st = dpt_tokenizer_hash(text, header->companions[i].bytes, out);
        dpt_mem_free(text);
    }
    return st;
}

dpt_status dpt_tokenizer_of_store(const dpt_comm *comm, const dpt_store *store,
                                  dpt_tokenizer *out) {
    memset(out, 0, sizeof *out); /* with its padding: all of it travels */
    dpt_status st = dpt_agree(comm, comm->rank == 0 ? tokenizer_load(store, out) : DPT_OK);
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, out, sizeof *out, 0)) : st;
}
