#ifndef DELTAPATH_TESTS_FAULT_H
#define DELTAPATH_TESTS_FAULT_H

#include <stdio.h>
#include <stdlib.h>

/* Make the next pass of the point fail on the first (0) or last (1) rank. Passes are counted anew
 * when the request differs from the one before. */
static inline void fault_set(const char *point, int last) {
    char text[96];
    snprintf(text, sizeof text, "%s:%s", point, last ? "last" : "0");
    setenv("DPT_FAULT", text, 1);
}

static inline void fault_clear(void) {
    unsetenv("DPT_FAULT");
}

#endif
