#include "deltapath/store/tokenizer.h"

#include "token_list.h"

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

static void token_add(dpt_token_list *list, const json_t *id, int64_t at, const char *text,
                      bool added) {
    if (list->st != DPT_OK || !list->good)
        return;
    list->good = text != NULL && (id == NULL || json_is_integer(id));
    if (!list->good)
        return;
    if (list->count == list->capacity) {
        int64_t capacity = 2 * list->capacity + 1024;
        dpt_token *grown = dpt_mem_realloc(list->tokens, capacity, sizeof *grown, "vocabulary");
        if (grown == NULL) {
            list->st = DPT_ERR_OUTPUT;
            return;
        }
        list->tokens = grown;
        list->capacity = capacity;
    }
    list->tokens[list->count++] = (dpt_token){
        .id = id != NULL ? (int64_t)json_integer_value(id) : at, .text = text, .added = added};
}

/* BPE, WordPiece and WordLevel map tokens to ids; Unigram lists pairs of token and score in their order. */
static void token_take_vocab(dpt_token_list *list, const json_t *vocab, bool added) {
    const char *key;
    json_t *value;
    size_t i;
    list->good = list->good && (json_is_object(vocab) || json_is_array(vocab));
    json_object_foreach((json_t *)(uintptr_t)vocab, key, value)
        token_add(list, value, 0, key, added);
    json_array_foreach(vocab, i, value)
        token_add(list, NULL, (int64_t)i, json_string_value(json_array_get(value, 0)), added);
}

static void token_take_added(dpt_token_list *list, const json_t *added) {
    json_t *value;
    size_t i;
    json_array_foreach(added, i, value) {
        const json_t *id = json_object_get(value, "id");
        list->good = list->good && id != NULL;
        token_add(list, id, 0, json_string_value(json_object_get(value, "content")), true);
    }
}

static int token_order(const void *a, const void *b) {
    const dpt_token *x = a;
    const dpt_token *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return strcmp(x->text, y->text);
}

static uint64_t hash_feed(uint64_t hash, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * FNV_PRIME;
    return hash;
}

static uint64_t token_feed(uint64_t hash, const char *text) {
    return hash_feed(hash, text, strlen(text));
}

static uint64_t token_hash(const dpt_token_list *list) {
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

void dpt_token_list_destroy(dpt_token_list *list) {
    dpt_mem_free(list->tokens);
    json_decref(list->json[0]);
    json_decref(list->json[1]);
    *list = (dpt_token_list){.count = 0};
}

/* Tokens of the text of a tokenizer.json. */
static dpt_token_list token_list_parse(const char *text, int64_t n) {
    span whole = {.at = text, .end = text + n}, model, part;
    dpt_token_list list = {.good = true, .st = DPT_OK};
    if (!span_member(whole, "model", &model) || !span_member(model, "vocab", &part)) {
        list.good = false;
        return list;
    }
    list.json[0] = span_parse(part);
    list.json[1] = span_member(whole, "added_tokens", &part) ? span_parse(part) : NULL;
    token_take_vocab(&list, list.json[0], false);
    token_take_added(&list, list.json[1]);
    return list;
}

dpt_status dpt_tokenizer_hash(const char *text, int64_t n, dpt_tokenizer *out) {
    dpt_token_list list = token_list_parse(text, n);
    *out = (dpt_tokenizer){.known = false};
    if (list.st == DPT_OK && list.good && list.count > 0) {
        qsort(list.tokens, (size_t)list.count, sizeof *list.tokens, token_order);
        *out = (dpt_tokenizer){.known = true, .hash = token_hash(&list)};
    }
    dpt_status st = list.st;
    dpt_token_list_destroy(&list);
    return st;
}

/* The canonical text of JSON on its way into a hash: no spaces, keys sorted by their bytes, UTF-8 as it is but
 * for quotes, backslashes and control characters, which are \u00xx; 0x and the 16 digits of its bits for a
 * number with a point or an exponent. tools/prepare_data.py writes the same. */
typedef struct rule_text {
    uint64_t hash;
    dpt_status st;
} rule_text;

static void rule_feed(rule_text *text, const char *plain) {
    text->hash = token_feed(text->hash, plain);
}

static void rule_string(rule_text *text, const char *bytes, size_t n) {
    char escaped[8];
    rule_feed(text, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            text->hash = hash_feed(text->hash, &bytes[i], 1);
            continue;
        }
        snprintf(escaped, sizeof escaped, "\\u%04x", c);
        rule_feed(text, escaped);
    }
    rule_feed(text, "\"");
}

static void rule_number(rule_text *text, const json_t *value) {
    char number[24];
    if (json_is_integer(value)) {
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        double real = json_real_value(value);
        uint64_t bits;
        memcpy(&bits, &real, sizeof bits);
        snprintf(number, sizeof number, "0x%016" PRIx64, bits);
    }
    rule_feed(text, number);
}

static int key_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void rule_value(rule_text *text, const json_t *value);

static void rule_object(rule_text *text, const json_t *object) {
    const char *key;
    json_t *value;
    size_t n = 0;
    const char **keys = dpt_mem_alloc((int64_t)json_object_size(object), sizeof *keys, "keys");
    if (keys == NULL) {
        text->st = DPT_ERR_OUTPUT;
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value) keys[n++] = key;
    qsort(keys, n, sizeof *keys, key_order);
    rule_feed(text, "{");
    for (size_t i = 0; i < n && text->st == DPT_OK; i++) {
        rule_feed(text, i > 0 ? "," : "");
        rule_string(text, keys[i], strlen(keys[i]));
        rule_feed(text, ":");
        rule_value(text, json_object_get(object, keys[i]));
    }
    rule_feed(text, "}");
    dpt_mem_free(keys);
}

static void rule_value(rule_text *text, const json_t *value) {
    if (json_is_object(value)) {
        rule_object(text, value);
    } else if (json_is_array(value)) {
        rule_feed(text, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            rule_feed(text, i > 0 ? "," : "");
            rule_value(text, json_array_get(value, i));
        }
        rule_feed(text, "]");
    } else if (json_is_string(value)) {
        rule_string(text, json_string_value(value), json_string_length(value));
    } else if (json_is_number(value)) {
        rule_number(text, value);
    } else {
        rule_feed(text, json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null");
    }
}

/* The member of a text of an object, or null; false when it is no JSON. */
static bool rule_member(rule_text *text, span object, const char *key, bool named) {
    span part;
    json_t *value = NULL;
    if (span_member(object, key, &part)) {
        value = json_loadb(part.at, (size_t)(part.end - part.at), JSON_DECODE_ANY | JSON_ALLOW_NUL,
                           NULL);
        if (value == NULL)
            return false;
    }
    rule_string(text, key, strlen(key));
    rule_feed(text, ":");
    /* A token is its text, or a mapping that has it. */
    rule_value(text, named && json_is_object(value) ? json_object_get(value, "content") : value);
    json_decref(value);
    return true;
}

dpt_status dpt_tokenizer_rules(const char *text, int64_t n, const char *config, int64_t m,
                               dpt_tokenizer *out) {
    const span files[] = {{text, text + n}, {config, config != NULL ? config + m : NULL}};
    static const struct {
        const char *key;
        int file;
        bool named;
    } members[] = {{"add_bos_token", 1, false},  {"add_eos_token", 1, false},
                   {"added_tokens", 0, false},   {"bos_token", 1, true},
                   {"eos_token", 1, true},       {"normalizer", 0, false},
                   {"post_processor", 0, false}, {"pre_tokenizer", 0, false}};
    rule_text rules = {.hash = FNV_BASIS, .st = DPT_OK};
    bool good = true;
    for (size_t i = 0; i < sizeof members / sizeof members[0] && good; i++) {
        rule_feed(&rules, i > 0 ? "," : "{");
        good = rule_member(&rules, files[members[i].file], members[i].key, members[i].named);
    }
    rule_feed(&rules, "}");
    out->rules_known = good && rules.st == DPT_OK;
    out->rules = out->rules_known ? rules.hash : 0;
    return rules.st;
}

/* The bytes of a companion. */
static dpt_status tokenizer_read(const dpt_store_companion *from, char **text) {
    *text = NULL;
    if (from->bytes > TOKENIZER_LIMIT)
        return DPT_OK;
    dpt_store_companion_input input;
    dpt_status st = dpt_store_companion_open(from, &input);
    if (st != DPT_OK)
        return st;
    *text = dpt_mem_alloc(from->bytes, 1, "tokenizer");
    st = *text != NULL ? dpt_store_companion_read(&input, 0, from->bytes, *text) : DPT_ERR_OUTPUT;
    dpt_store_companion_close(&input);
    return st;
}

/* The text of the companion of a name, NULL without one. */
static dpt_status tokenizer_find(const dpt_store_header *header, const char *name, char **text,
                                 int64_t *n) {
    *text = NULL;
    *n = 0;
    for (int i = 0; i < header->ncompanions; i++) {
        if (strcmp(header->companions[i].name, name) != 0)
            continue;
        *n = header->companions[i].bytes;
        return tokenizer_read(&header->companions[i], text);
    }
    return DPT_OK;
}

/* Of the older files, which have objects of token and id. */
static dpt_status token_list_read_old(const dpt_store_header *header, dpt_token_list *out) {
    static const char *const names[] = {"vocab.json", "added_tokens.json"};
    *out = (dpt_token_list){.good = true, .st = DPT_OK};
    for (int i = 0; i < 2 && out->st == DPT_OK; i++) {
        char *text = NULL;
        int64_t n = 0;
        out->st = tokenizer_find(header, names[i], &text, &n);
        if (out->st == DPT_OK && text != NULL) {
            out->json[i] = json_loadb(text, (size_t)n, 0, NULL);
            token_take_vocab(out, out->json[i], i == 1);
        }
        dpt_mem_free(text);
    }
    return out->st;
}

dpt_status dpt_token_list_read(const dpt_store_header *header, dpt_token_list *out) {
    char *text = NULL;
    int64_t n = 0;
    *out = (dpt_token_list){.count = 0};
    dpt_status st = tokenizer_find(header, "tokenizer.json", &text, &n);
    if (st == DPT_OK && text == NULL)
        return token_list_read_old(header, out);
    if (st == DPT_OK) {
        *out = token_list_parse(text, n);
        st = out->st;
    }
    dpt_mem_free(text);
    return st;
}

static dpt_status tokenizer_load(const dpt_store *store, dpt_tokenizer *out) {
    const dpt_store_header *header = dpt_store_header_of(store);
    char *text = NULL, *config = NULL;
    int64_t n = 0, m = 0;
    dpt_status st = tokenizer_find(header, "tokenizer.json", &text, &n);
    if (st == DPT_OK)
        st = tokenizer_find(header, "tokenizer_config.json", &config, &m);
    if (st == DPT_OK && text != NULL)
        st = dpt_tokenizer_hash(text, n, out);
    if (st == DPT_OK && out->known)
        st = dpt_tokenizer_rules(text, n, config, m, out);
    dpt_mem_free(text);
    dpt_mem_free(config);
    return st;
}

dpt_status dpt_tokenizer_of_store(const dpt_comm *comm, const dpt_store *store,
                                  dpt_tokenizer *out) {
    memset(out, 0, sizeof *out); /* with its padding: all of it travels */
    dpt_status st = dpt_agree(comm, comm->rank == 0 ? tokenizer_load(store, out) : DPT_OK);
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, out, sizeof *out, 0)) : st;
}
