#include "deltapath/study/machine.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/owned.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MACHINE_FILE_BYTES = 1 << 20 };

static const char MACHINE_START[] = "# deltapath machine";

typedef struct machine_key {
    const char *name;
    size_t offset;
    double value, least, most;
    const char *help;
} machine_key;

#define MACHINE_KEY(KEY, DEFAULT, LEAST, MOST, HELP)                                               \
    {.name = #KEY,                                                                                 \
     .offset = offsetof(dpt_machine, KEY),                                                         \
     .value = (DEFAULT),                                                                           \
     .least = (LEAST),                                                                             \
     .most = (MOST),                                                                               \
     .help = (HELP)},
static const machine_key keys[] = {DPT_MACHINE_KEYS(MACHINE_KEY)};
enum { KEYS = sizeof keys / sizeof keys[0] };

static double *machine_field(dpt_machine *machine, int k) {
    return (double *)(void *)((char *)machine + keys[k].offset);
}

dpt_machine dpt_machine_defaults(void) {
    dpt_machine machine = {.source = "defaults"};
    for (int k = 0; k < KEYS; k++)
        *machine_field(&machine, k) = keys[k].value;
    return machine;
}

void dpt_machine_print(const dpt_machine *machine, FILE *file) {
    dpt_machine copy = *machine;
    fprintf(file,
            "%s: what `deltapath plan --machine` takes; `deltapath machine` measures it.\n"
            "# Rates are those of powers of ten: 1 GB/s is 1e9 bytes a second.\n",
            MACHINE_START);
    for (int k = 0; k < KEYS; k++)
        fprintf(file, "%s: %.4g # %s\n", keys[k].name, *machine_field(&copy, k), keys[k].help);
}

static int machine_find(const char *name, size_t length) {
    for (int k = 0; k < KEYS; k++)
        if (strlen(keys[k].name) == length && memcmp(keys[k].name, name, length) == 0)
            return k;
    return -1;
}

static dpt_status machine_refuse_key(const char *path, int line, const char *name, size_t length) {
    char hint[DPT_NEAREST_HINT] = "", word[DPT_NEAREST_WORD];
    snprintf(word, sizeof word, "%.*s", (int)length, name);
    dpt_nearest nearest = dpt_nearest_begin(word);
    for (int k = 0; k < KEYS; k++)
        dpt_nearest_offer(&nearest, keys[k].name, strlen(keys[k].name));
    if (nearest.distance > 0 && nearest.distance < DPT_NEAREST_WORD)
        snprintf(hint, sizeof hint, " (did you mean '%s'?)", nearest.best);
    return dpt_error(DPT_ERR_INPUT,
                     "%s:%d: '%s' is no key of a machine%s: `deltapath machine --defaults` prints "
                     "all of them",
                     path, line, word, hint);
}

/* One line, without its end. */
static dpt_status machine_parse_line(const char *path, int number, char *line, bool seen[KEYS],
                                     dpt_machine *out) {
    line[strcspn(line, "#")] = '\0';
    char *at = line + strspn(line, " \t\r");
    if (*at == '\0')
        return DPT_OK;
    size_t length = strcspn(at, " \t\r:");
    char *colon = at + length + strspn(at + length, " \t\r");
    if (length == 0 || *colon != ':')
        return dpt_error(DPT_ERR_INPUT, "%s:%d: no `key: number`: write one a line", path, number);
    int k = machine_find(at, length);
    if (k < 0)
        return machine_refuse_key(path, number, at, length);
    char *text = colon + 1 + strspn(colon + 1, " \t"), *end = NULL;
    double value = strtod(text, &end);
    if (end == text || end[strspn(end, " \t\r")] != '\0' || !isfinite(value) ||
        value < keys[k].least || value > keys[k].most)
        return dpt_error(DPT_ERR_INPUT, "%s:%d: %s: '%.40s' is no number from %g to %g: %s", path,
                         number, keys[k].name, text, keys[k].least, keys[k].most, keys[k].help);
    if (seen[k])
        return dpt_error(DPT_ERR_INPUT, "%s:%d: %s is given twice: leave one out", path, number,
                         keys[k].name);
    seen[k] = true;
    *machine_field(out, k) = value;
    return DPT_OK;
}

static dpt_status machine_parse(const char *path, char *text, dpt_machine *out) {
    bool seen[KEYS] = {false};
    dpt_status st = DPT_OK;
    int number = 1;
    for (char *line = text; line != NULL && st == DPT_OK; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        st = machine_parse_line(path, number, line, seen, out);
        line = end;
    }
    return st;
}

dpt_status dpt_machine_read(const dpt_comm *comm, const char *path, dpt_machine *out) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    char *text = NULL;
    int64_t n = 0;
    dpt_status st = DPT_OK;
    *out = dpt_machine_defaults();
    if (comm->rank == 0) {
        st = dpt_file_read(path, MACHINE_FILE_BYTES, &text, &n);
        if (st == DPT_OK)
            st = dpt_guard_input(path);
        if (st == DPT_OK && (int64_t)strlen(text) != n)
            st = dpt_error(DPT_ERR_INPUT, "%s: no text: give a machine file", path);
        if (st == DPT_OK)
            st = machine_parse(path, text, out);
        dpt_mem_free(text);
        snprintf(out->source, sizeof out->source, "%.*s", (int)sizeof out->source - 1, path);
    }
    st = dpt_agree(comm, st);
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, out, sizeof *out, 0)) : st;
}

static void machine_print(const void *machine, FILE *file) {
    dpt_machine_print(machine, file);
}

dpt_status dpt_machine_save(const dpt_machine *machine, const char *path, bool overwrite) {
    return dpt_owned_write_table(path, MACHINE_START, "a machine file", overwrite, machine_print,
                                 machine);
}
