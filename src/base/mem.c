#include "deltapath/base/mem.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/status.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Each block is preceded by one cache line that holds its size, so that release can count it. */
enum { HEADER_BYTES = 64, HUGE_BLOCK_BYTES = 8 << 20 };

static _Atomic int64_t in_use;
static _Atomic int64_t peak;
static _Atomic int64_t budget;
static _Atomic int library_failed;

bool dpt_mem_mul(int64_t a, int64_t b, int64_t *product) {
    return !__builtin_mul_overflow(a, b, product);
}

bool dpt_mem_add(int64_t a, int64_t b, int64_t *sum) {
    return !__builtin_add_overflow(a, b, sum);
}

static bool count_in(int64_t bytes, const char *what) {
    int64_t limit = atomic_load(&budget);
    int64_t now = atomic_fetch_add(&in_use, bytes) + bytes;
    if (limit > 0 && now > limit) {
        atomic_fetch_sub(&in_use, bytes);
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "%s needs %" PRId64 " bytes but %" PRId64 " of the budget of %" PRId64
                        " are in use: raise --memory or use more ranks",
                        what, bytes, now - bytes, limit);
        return false;
    }
    int64_t old = atomic_load(&peak);
    while (now > old && !atomic_compare_exchange_weak(&peak, &old, now)) {
    }
    return true;
}

/* Huge pages for the whole pages of a block; the kernel uses them where they are aligned. */
static void advise_huge(char *base, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)base + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)base + bytes) / page * page;
    madvise((void *)from, to - from, MADV_HUGEPAGE);
}

void *dpt_mem_alloc(int64_t count, size_t size, const char *what) {
    int64_t bytes;
    int64_t padded;
    if (count < 0 || size > INT64_MAX || !dpt_mem_mul(count, (int64_t)size, &bytes) ||
        !dpt_mem_add(bytes, 2 * HEADER_BYTES, &padded)) {
        (void)dpt_error(DPT_ERR_OUTPUT, "%s: the size of %" PRId64 " items of %zu bytes overflows",
                        what, count, size);
        return NULL;
    }
    if (!count_in(bytes, what))
        return NULL;
    padded = padded / HEADER_BYTES * HEADER_BYTES;
    char *base = aligned_alloc(HEADER_BYTES, (size_t)padded);
    if (base == NULL) {
        atomic_fetch_sub(&in_use, bytes);
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "%s needs %" PRId64 " bytes and the system has none left: " DPT_MEM_REMEDY,
                        what, bytes);
        return NULL;
    }
    if (bytes >= HUGE_BLOCK_BYTES)
        advise_huge(base, (size_t)padded);
    memcpy(base, &bytes, sizeof bytes);
    return base + HEADER_BYTES;
}

static int64_t block_bytes(const void *block) {
    int64_t bytes;
    memcpy(&bytes, (const char *)block - HEADER_BYTES, sizeof bytes);
    return bytes;
}

void *dpt_mem_zalloc(int64_t count, size_t size, const char *what) {
    void *block = dpt_mem_alloc(count, size, what);
    if (block != NULL)
        memset(block, 0, (size_t)block_bytes(block));
    return block;
}

void *dpt_mem_realloc(void *block, int64_t count, size_t size, const char *what) {
    void *grown = dpt_mem_alloc(count, size, what);
    if (grown == NULL || block == NULL)
        return grown;
    int64_t old = block_bytes(block);
    int64_t now = block_bytes(grown);
    memcpy(grown, block, (size_t)(old < now ? old : now));
    dpt_mem_free(block);
    return grown;
}

char *dpt_mem_strdup(const char *text, const char *what) {
    if (text == NULL)
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = dpt_mem_alloc((int64_t)bytes, 1, what);
    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

char *dpt_mem_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : dpt_mem_alloc(length + 1, 1, "text");
    if (text != NULL)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void dpt_mem_free(void *block) {
    if (block == NULL)
        return;
    int64_t before = atomic_fetch_sub(&in_use, block_bytes(block));
    DPT_ASSERT(block_bytes(block) >= 0 && before >= block_bytes(block));
    free((char *)block - HEADER_BYTES);
}

bool dpt_mem_charge(int64_t bytes, const char *what) {
    return count_in(bytes, what);
}

void dpt_mem_discharge(int64_t bytes) {
    int64_t before = atomic_fetch_sub(&in_use, bytes);
    DPT_ASSERT(bytes >= 0 && before >= bytes);
}

void *dpt_mem_library_alloc(size_t bytes) {
    void *block = malloc(bytes);
    if (block == NULL) {
        atomic_store(&library_failed, 1);
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "a text needs %zu bytes and the system has none left: " DPT_MEM_REMEDY,
                        bytes);
    }
    return block;
}

dpt_status dpt_mem_check(void) {
    return atomic_load(&library_failed)
               ? dpt_error(DPT_ERR_OUTPUT, "the system has no memory left: " DPT_MEM_REMEDY)
               : DPT_OK;
}

int64_t dpt_mem_in_use(void) {
    return atomic_load(&in_use);
}

int64_t dpt_mem_peak(void) {
    return atomic_load(&peak);
}

void dpt_mem_set_budget(int64_t bytes) {
    atomic_store(&budget, bytes);
}

int64_t dpt_mem_available(void) {
    int64_t limit = atomic_load(&budget);
    if (limit == 0)
        return INT64_MAX;
    int64_t left = limit - atomic_load(&in_use);
    return left > 0 ? left : 0;
}

/* A number in a one-line file; `fallback` when the file is absent or says "max". */
static int64_t read_limit(const char *path, int64_t default_value) {
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return default_value;
    long long value;
    int64_t limit = fscanf(file, "%lld", &value) == 1 && value > 0 ? (int64_t)value : default_value;
    fclose(file);
    return limit;
}

/* Least limit of a control group and of all that it lies in; `path` is shortened on the way. */
static int64_t group_limit(const char *root, char *path, const char *file, int64_t limit) {
    for (;;) {
        char full[PATH_MAX];
        int length = snprintf(full, sizeof full, "%s%s/%s", root, path, file);
        if (length > 0 && (size_t)length < sizeof full) {
            int64_t value = read_limit(full, limit);
            limit = value < limit ? value : limit;
        }
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return limit;
        *slash = '\0';
    }
}

int64_t dpt_mem_machine(void) {
    int64_t limit = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    char root[] = "";
    limit = group_limit("/sys/fs/cgroup", root, "memory.max", limit);
    limit = group_limit("/sys/fs/cgroup/memory", root, "memory.limit_in_bytes", limit);
    FILE *file = fopen("/proc/self/cgroup", "r");
    if (file == NULL)
        return limit;
    char line[PATH_MAX]; /* hierarchy:controllers:/path */
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *path = strstr(line, ":/");
        if (path == NULL)
            continue;
        if (strncmp(line, "0::", 3) == 0)
            limit = group_limit("/sys/fs/cgroup", path + 1, "memory.max", limit);
        else if (strstr(line, ":memory:") != NULL)
            limit = group_limit("/sys/fs/cgroup/memory", path + 1, "memory.limit_in_bytes", limit);
    }
    fclose(file);
    return limit;
}
