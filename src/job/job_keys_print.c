#include "job_keys.h"

#include "deltapath/base/choice.h"

#include <string.h>

/* "text", "integer from 1 to 5", "a, b or c" */
static void key_print_values(FILE *file, const dpt_job_key *key) {
    static const char *const types[] = {
        [DPT_KEY_STRING] = "text",
        [DPT_KEY_PATH] = "path",
        [DPT_KEY_BOOLEAN] = "`true`, `false`",
        [DPT_KEY_INTEGER] = "integer",
        [DPT_KEY_AUTO] = "`auto` or integer",
        [DPT_KEY_REAL] = "number",
        [DPT_KEY_PATTERNS] = "list of texts",
        [DPT_KEY_TEXTS] = "mapping of texts",
        [DPT_KEY_SECTION] = "mapping",
        [DPT_KEY_ENTRIES] = "list of mappings",
        [DPT_KEY_EDIT] = "value or list",
    };
    bool list = key->type == DPT_KEY_WORDS;
    if (key->choices != NULL) {
        fputs(list ? "list of " : "", file);
        dpt_choice_print(file, key->choices);
        return;
    }
    fputs(types[key->type], file);
    bool range =
        key->type == DPT_KEY_INTEGER || key->type == DPT_KEY_AUTO || key->type == DPT_KEY_REAL;
    if (range && key->high < INT32_MAX)
        fprintf(file, " from %g to %.10g", key->low, key->high);
    else if (range)
        fprintf(file, " from %g", key->low);
}

void dpt_job_print_keys(FILE *file) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    static const char *const redo[] = {"-", "units", "models", "units, models"};
    fputs("| key | value | default | made again | meaning |\n|---|---|---|---|---|\n", file);
    for (int k = 0; k < count; k++) {
        const dpt_job_key *key = &keys[k];
        fprintf(file, "| `%s%s%s%s` | ", key->section,
                strcmp(key->section, "data") == 0 || strcmp(key->section, "edits") == 0 ? "[]" : "",
                key->section[0] != '\0' ? "." : "", key->name);
        key_print_values(file, key);
        if (key->standard != NULL)
            fprintf(file, " | `%s` | ", key->standard);
        else
            fprintf(file, " | %s | ", key->required ? "required" : "none");
        fprintf(file, "%s | ", redo[key->redo]);
        if (key->loss != NULL) {
            fputs("of ", file);
            dpt_choice_print(file, key->loss);
            fputs(" alone: ", file);
        }
        fprintf(file, "%s |\n", key->help);
    }
}
