#include "pass_file.h"

#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char PASS_FORMAT[24] = "deltapath-progress 2\n";

enum { HASH_BYTES = 1 << 24 }; /* hashed and written while they are in the cache */

static int64_t pass_bytes(const dpt_loss_part *parts, int count) {
    int64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += parts[i].n;
    return bytes;
}

static bool pass_put(int fd, dpt_hash *hash, const char *bytes, int64_t n) {
    while (n > 0) {
        int64_t block = n < HASH_BYTES ? n : HASH_BYTES;
        if (!dpt_file_write_open(fd, bytes, block))
            return false;
        dpt_hash_update(hash, bytes, (size_t)block);
        bytes += block;
        n -= block;
    }
    return true;
}

static bool pass_put_all(int fd, const dpt_pass_header *header, const dpt_loss_part *parts,
                         int count) {
    uint64_t sum[2];
    char seal[DPT_SEAL_BYTES];
    dpt_hash hash;
    dpt_hash_begin(&hash);
    bool ok = pass_put(fd, &hash, (const char *)header, sizeof *header);
    for (int i = 0; i < count && ok; i++)
        ok = pass_put(fd, &hash, parts[i].bytes, parts[i].n);
    dpt_hash128_value(&hash, sum);
    dpt_seal_format(sum, (int64_t)sizeof *header + header->bytes, seal);
    return ok && dpt_file_write_open(fd, seal, sizeof seal);
}

bool dpt_pass_file_write(const char *path, dpt_pass_header *header, const dpt_loss_part *parts,
                         int count, bool sync) {
    memcpy(header->format, PASS_FORMAT, sizeof PASS_FORMAT);
    header->bytes = pass_bytes(parts, count);
    char *temporary = dpt_file_begin(path);
    if (temporary == NULL) {
        dpt_error_clear();
        errno = ENOMEM;
        return false;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && pass_put_all(fd, header, parts, count) && (!sync || fsync(fd) == 0);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok)
        unlink(temporary);
    dpt_mem_free(temporary);
    errno = error;
    return ok;
}

static bool pass_read_header(int fd, dpt_pass_header *header) {
    struct stat info;
    return dpt_file_read_at(fd, 0, header, sizeof *header) == (int64_t)sizeof *header &&
           memcmp(header->format, PASS_FORMAT, sizeof PASS_FORMAT) == 0 && header->bytes >= 0 &&
           fstat(fd, &info) == 0 &&
           info.st_size - (int64_t)sizeof *header - DPT_SEAL_BYTES == header->bytes;
}

static int pass_open(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    struct stat info;
    if (fd < 0 || (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)))
        return fd;
    close(fd);
    return -1;
}

bool dpt_pass_file_peek(const char *path, dpt_pass_header *header) {
    int fd = pass_open(path);
    bool ok = fd >= 0 && pass_read_header(fd, header);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool pass_read_parts(int fd, const dpt_pass_header *header, const dpt_loss_part *parts,
                            int count) {
    dpt_hash hash;
    uint64_t sum[2];
    char expected[DPT_SEAL_BYTES], seal[DPT_SEAL_BYTES];
    int64_t at = sizeof *header;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, header, sizeof *header);
    for (int i = 0; i < count; i++) {
        if (dpt_file_read_at(fd, at, parts[i].bytes, parts[i].n) != parts[i].n)
            return false;
        dpt_hash_update(&hash, parts[i].bytes, (size_t)parts[i].n);
        at += parts[i].n;
    }
    dpt_hash128_value(&hash, sum);
    dpt_seal_format(sum, at, expected);
    return dpt_file_read_at(fd, at, seal, sizeof seal) == (int64_t)sizeof seal &&
           memcmp(seal, expected, sizeof seal) == 0;
}

bool dpt_pass_file_read(const char *path, const dpt_pass_header *wanted, const dpt_loss_part *parts,
                        int count) {
    dpt_pass_header header;
    int fd = pass_open(path);
    if (fd < 0)
        return false;
    bool ok = pass_read_header(fd, &header) && header.key == wanted->key &&
              header.next == wanted->next && header.ranks == wanted->ranks &&
              header.group == wanted->group && header.rank == wanted->rank &&
              header.bytes == pass_bytes(parts, count) &&
              pass_read_parts(fd, &header, parts, count);
    close(fd);
    return ok;
}
