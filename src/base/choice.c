#include "deltapath/base/choice.h"

#include <string.h>

int dpt_choice_find(const char *choices, const char *word) {
    size_t length = strlen(word);
    int index = 0;
    for (const char *at = choices; at != NULL; index++) {
        const char *end = strchr(at, '|');
        size_t here = end != NULL ? (size_t)(end - at) : strlen(at);
        if (here == length && strncmp(at, word, length) == 0)
            return index;
        at = end != NULL ? end + 1 : NULL;
    }
    return -1;
}

void dpt_choice_print(FILE *file, const char *choices) {
    fputc('`', file);
    for (const char *c = choices; *c != '\0'; c++)
        *c == '|' ? fputs("`, `", file) : fputc(*c, file);
    fputc('`', file);
}
