#include "deltapath/base/status.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;
static char record[DPT_MESSAGE_MAX];

/* Messages quote names from untrusted files: one line, no terminal control. */
static void record_store(const char *message) {
    size_t n = 0;
    for (; message[n] != '\0' && n + 1 < sizeof record; n++) {
        unsigned char c = (unsigned char)message[n];
        record[n] = (c < 0x20 || c == 0x7f) ? '?' : (char)c;
    }
    record[n] = '\0';
}

dpt_status dpt_error(dpt_status code, const char *format, ...) {
    char message[DPT_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    pthread_mutex_lock(&record_lock);
    if (record[0] == '\0')
        record_store(message);
    pthread_mutex_unlock(&record_lock);
    return code;
}

const char *dpt_error_message(void) {
    return record;
}

void dpt_error_set_message(const char *message) {
    pthread_mutex_lock(&record_lock);
    record_store(message);
    pthread_mutex_unlock(&record_lock);
}

/* Whether a message names a place: as a word of its own, or as the folder of a path. */
static bool status_names(const char *message, const char *place) {
    size_t length = strlen(place);
    for (const char *at = message; length > 0 && (at = strstr(at, place)) != NULL; at++) {
        bool begins = at == message || strchr(" '\"(", at[-1]) != NULL;
        if (begins && (at[length] == '\0' || strchr(" :/'\"),", at[length]) != NULL))
            return true;
    }
    return false;
}

dpt_status dpt_error_locate(dpt_status status, const char *place) {
    char message[DPT_MESSAGE_MAX];
    if (status == DPT_OK)
        return status;
    pthread_mutex_lock(&record_lock);
    if (record[0] != '\0' && !status_names(record, place)) {
        /* "[rank 2] " stays in front. */
        const char *end = strncmp(record, "[rank ", 6) == 0 ? strstr(record, "] ") : NULL;
        int prefix = end != NULL ? (int)(end + 2 - record) : 0;
        int room = DPT_MESSAGE_MAX / 2;
        snprintf(message, sizeof message, "%.*s%.*s: %.*s", prefix, record, room - prefix - 4,
                 place, room, record + prefix);
        record_store(message);
    }
    pthread_mutex_unlock(&record_lock);
    return status;
}

void dpt_error_clear(void) {
    dpt_error_set_message("");
}

/* From harmless to worst. */
static const dpt_status by_severity[] = {DPT_OK,        DPT_INTERRUPTED, DPT_ERR_USAGE,
                                         DPT_ERR_INPUT, DPT_ERR_OUTPUT,  DPT_ERR_INTERNAL};
enum { SEVERITIES = sizeof by_severity / sizeof by_severity[0] };

int dpt_status_severity(dpt_status status) {
    for (int i = 0; i < SEVERITIES; i++)
        if (by_severity[i] == status)
            return i;
    return SEVERITIES - 1;
}

dpt_status dpt_status_of_severity(int severity) {
    return by_severity[severity];
}

dpt_status dpt_status_worse(dpt_status a, dpt_status b) {
    return dpt_status_severity(a) >= dpt_status_severity(b) ? a : b;
}
