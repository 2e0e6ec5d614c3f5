#ifndef DELTAPATH_TESTS_FAULT_H
#define DELTAPATH_TESTS_FAULT_H

#include <stdio.h>
#include <stdlib.h>

/* Make the next pass of the point fail on the first (0) or last (1) rank of `size`. The program
 * counts the passes of a rank from its start, so each call asks for one pass later. */
static inline void fault_set(const char *point, int last, int size) {
    static long passes[2];
    char text[96];
    long nth = ++passes[size > 1 ? last : 0];
    snprintf(text, sizeof text, "%s:%s:%ld", point, last ? "last" : "0", nth);
    setenv("DPT_FAULT", text, 1);
}

static inline void fault_clear(void) {
    unsetenv("DPT_FAULT");
}

#endif
