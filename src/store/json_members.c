#include "json_members.h"

#include <inttypes.h>
#include <string.h>

static dpt_status json_broken(const dpt_json_members *m, int64_t at, const char *why) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: JSON is broken at byte %" PRId64 " (%s): copy the file again", m->path,
                     at, why);
}

static void json_members_skip_space(dpt_json_members *m) {
    while (m->at < m->n && memchr(" \t\r\n", m->text[m->at], 4) != NULL)
        m->at++;
}

/* After the string that begins at `at`; n when it does not end. */
static int64_t string_end(const dpt_json_members *m, int64_t at) {
    for (at++; at < m->n && m->text[at] != '"'; at++)
        if (m->text[at] == '\\')
            at++;
    return at < m->n ? at + 1 : m->n;
}

/* After the value that begins at `at`. Brackets only count: jansson says what is wrong inside. */
static int64_t value_end(const dpt_json_members *m, int64_t at) {
    int64_t depth = 0;
    if (at < m->n && m->text[at] == '"')
        return string_end(m, at);
    for (; at < m->n; at++) {
        char c = m->text[at];
        if (c == '"') {
            at = string_end(m, at) - 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return at;
            if (--depth == 0)
                return at + 1;
        } else if (depth == 0 && (c == ',' || memchr(" \t\r\n", c, 4) != NULL)) {
            return at;
        }
    }
    return m->n;
}

static dpt_status take_part(dpt_json_members *m, int64_t end, json_t **out) {
    json_error_t error;
    *out = json_loadb(m->text + m->at, (size_t)(end - m->at),
                      JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL)
        return json_broken(m, m->at + (error.position > 0 ? error.position : 0), error.text);
    m->at = end;
    return DPT_OK;
}

static dpt_status take_character(dpt_json_members *m, char wanted, const char *why) {
    json_members_skip_space(m);
    if (m->at >= m->n || m->text[m->at] != wanted)
        return json_broken(m, m->at, why);
    m->at++;
    json_members_skip_space(m);
    return DPT_OK;
}

/* Whether the object ends here; then nothing may follow. */
static dpt_status check_end(dpt_json_members *m, bool *end) {
    json_members_skip_space(m);
    *end = m->at < m->n && m->text[m->at] == '}';
    if (!*end)
        return DPT_OK;
    m->at++;
    json_members_skip_space(m);
    return m->at == m->n ? DPT_OK : json_broken(m, m->at, "there is more after the object");
}

dpt_status dpt_json_members_next(dpt_json_members *m, json_t **name, json_t **value) {
    bool end = false;
    *name = *value = NULL;
    dpt_status st = DPT_OK;
    if (!m->begun)
        st = take_character(m, '{', "an object begins with '{'");
    if (st == DPT_OK)
        st = check_end(m, &end);
    if (st != DPT_OK || end)
        return st;
    if (m->begun)
        st = take_character(m, ',', "',' or '}' is missing");
    m->begun = true;
    if (st == DPT_OK && (m->at >= m->n || m->text[m->at] != '"'))
        st = json_broken(m, m->at, "a name in quotes is missing");
    if (st == DPT_OK)
        st = take_part(m, string_end(m, m->at), name);
    if (st == DPT_OK)
        st = take_character(m, ':', "':' is missing");
    if (st == DPT_OK)
        st = take_part(m, value_end(m, m->at), value);
    if (st != DPT_OK) {
        json_decref(*name);
        *name = NULL;
    }
    return st;
}
