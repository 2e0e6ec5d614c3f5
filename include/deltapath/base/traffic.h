#ifndef DELTAPATH_BASE_TRAFFIC_H
#define DELTAPATH_BASE_TRAFFIC_H

#include <stdint.h>

/** Bytes that this process has moved from and to files of models, data and results; children are not counted. */
typedef struct dpt_file_traffic {
    int64_t read, written;
} dpt_file_traffic;

/** Add to them, and what they are now. Local, thread-safe. */
void dpt_file_count(int64_t read, int64_t written);
dpt_file_traffic dpt_file_counted(void);

#endif
