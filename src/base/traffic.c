#include "deltapath/base/traffic.h"

#include <stdatomic.h>

static _Atomic int64_t bytes_read;
static _Atomic int64_t bytes_written;

void dpt_file_count(int64_t read, int64_t written) {
    atomic_fetch_add(&bytes_read, read);
    atomic_fetch_add(&bytes_written, written);
}

dpt_file_traffic dpt_file_counted(void) {
    return (dpt_file_traffic){.read = atomic_load(&bytes_read),
                              .written = atomic_load(&bytes_written)};
}
