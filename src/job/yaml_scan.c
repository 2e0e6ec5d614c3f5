#include "yaml.h"

#include "deltapath/base/mem.h"

#include <stdio.h>
#include <string.h>

/* What libfyaml reads and a job cannot hold, from the events of a text: its document shows the first of several
 * documents alone, and aliases as scalars. */

static const char SECOND[] =
    "a second document starts here, and a job file is one: keep one, or give each a file";
static const char ALIAS[] = "aliases (*name) and merge keys (<<) are not read: write the value out";

static bool scan_is_merge(struct fy_event *event) {
    size_t n = 0;
    struct fy_token *token = event->scalar.value;
    const char *text = token != NULL ? fy_token_get_text(token, &n) : NULL;
    return text != NULL && n == 2 && memcmp(text, "<<", 2) == 0 &&
           fy_token_scalar_style(token) == FYSS_PLAIN;
}

/* What is wrong with the next event; NULL: nothing. */
static const char *scan_judge(struct fy_event *event, int *documents) {
    switch (event->type) {
    case FYET_DOCUMENT_START:
        return ++*documents > 1 ? SECOND : NULL;
    case FYET_ALIAS:
        return ALIAS;
    case FYET_SCALAR:
        return scan_is_merge(event) ? ALIAS : NULL;
    default:
        return NULL;
    }
}

static dpt_status scan_error(const char *place, bool lines, const struct fy_mark *mark,
                             const char *wrong) {
    if (lines && mark != NULL)
        return dpt_error(DPT_ERR_USAGE, "%s:%d:%d: %s", place, mark->line + 1, mark->column + 1,
                         wrong);
    return dpt_error(DPT_ERR_USAGE, "%s: %s", place, wrong);
}

/* A document that starts without a mark of its own has the place of what follows it. */
static dpt_status scan_events(struct fy_parser *parser, const char *place, bool lines) {
    dpt_status st = DPT_OK;
    const char *wrong = NULL;
    int documents = 0;
    for (bool done = false; !done;) {
        struct fy_event *event = fy_parser_parse(parser);
        const struct fy_mark *mark = event != NULL ? fy_event_start_mark(event) : NULL;
        done = event == NULL;
        if (wrong == NULL && event != NULL)
            wrong = scan_judge(event, &documents);
        if (wrong != NULL && (mark != NULL || event == NULL)) {
            st = scan_error(place, lines, mark, wrong);
            done = true;
        }
        if (event != NULL)
            fy_parser_event_free(parser, event);
    }
    return st;
}

dpt_status dpt_yaml_scan(const char *text, const char *place, bool lines, struct fy_diag *diag) {
    /* Few texts have a mark of any of these: those without are parsed once. */
    if (strchr(text, '*') == NULL && strstr(text, "<<") == NULL && strstr(text, "---") == NULL &&
        strstr(text, "...") == NULL)
        return DPT_OK;
    struct fy_parse_cfg cfg = {.flags = FYPCF_DEFAULT_PARSE | FYPCF_COLLECT_DIAG, .diag = diag};
    struct fy_parser *parser = fy_parser_create(&cfg);
    dpt_status st = DPT_OK;
    if (parser == NULL || fy_parser_set_string(parser, text, strlen(text)) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "no memory left to read YAML: " DPT_MEM_REMEDY);
    if (st == DPT_OK)
        st = scan_events(parser, place, lines);
    if (parser != NULL)
        fy_parser_destroy(parser);
    return st;
}
