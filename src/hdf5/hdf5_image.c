#include "deltapath/hdf5/hdf5_image.h"

#include "deltapath/base/mem.h"

#include <string.h>

enum { INCREMENT = 1 << 16, COMPACT_MAX = 1000 };

/* The newer file layout has no limit of 64 KiB on the text of an attribute. */
static hid_t image_access(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && (H5Pset_fapl_core(access, INCREMENT, false) < 0 ||
                        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) < 0)) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

hid_t dpt_h5_image_create(void) {
    hid_t access = image_access();
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t file = H5I_INVALID_HID;
    /* All attributes in the header of the group, `format` first: then a file shows near its start who
     * wrote it, even when it was cut off. */
    if (access >= 0 && creation >= 0 && H5Pset_attr_phase_change(creation, COMPACT_MAX, 0) >= 0)
        file = H5Fcreate("image", H5F_ACC_TRUNC, creation, access);
    if (access >= 0)
        H5Pclose(access);
    if (creation >= 0)
        H5Pclose(creation);
    return file;
}

/* HDF5's checksum of metadata: Bob Jenkins's lookup3 (hashlittle) with initial value 0, here of whole
 * words. */
static uint32_t rotate(uint32_t x, int by) {
    return x << by | x >> (32 - by);
}

static uint32_t lookup3(const unsigned char *bytes, size_t words) {
    uint32_t a, b, c, next[3];
    a = b = c = 0xdeadbeef + 4 * (uint32_t)words;
    for (; words > 0; words -= 3, bytes += 12) {
        size_t n = words < 3 ? words : 3;
        memset(next, 0, sizeof next);
        for (size_t i = 0; i < 4 * n; i++)
            next[i / 4] |= (uint32_t)bytes[i] << 8 * (i % 4);
        a += next[0];
        b += next[1];
        c += next[2];
        if (words <= 3)
            break;
        a = (a - c) ^ rotate(c, 4), c += b;
        b = (b - a) ^ rotate(a, 6), a += c;
        c = (c - b) ^ rotate(b, 8), b += a;
        a = (a - c) ^ rotate(c, 16), c += b;
        b = (b - a) ^ rotate(a, 19), a += c;
        c = (c - b) ^ rotate(b, 4), b += a;
    }
    c = (c ^ b) - rotate(b, 14);
    a = (a ^ c) - rotate(c, 11);
    b = (b ^ a) - rotate(a, 25);
    c = (c ^ b) - rotate(b, 16);
    a = (a ^ c) - rotate(c, 4);
    b = (b ^ a) - rotate(a, 14);
    return (c ^ b) - rotate(b, 24);
}

enum { SUPERBLOCK_WORDS = 11, SUPERBLOCK_BYTES = 48, SUPERBLOCK_VERSION = 2 };

/* H5Fget_file_image of HDF5 1.10 takes the mark "open for writing" out of a superblock of version 2, but
 * leaves the checksum as it was with the mark. */
static bool image_repair(unsigned char *bytes, int64_t n) {
    if (n < SUPERBLOCK_BYTES || bytes[8] != SUPERBLOCK_VERSION || bytes[9] != 8)
        return false;
    uint32_t sum = lookup3(bytes, SUPERBLOCK_WORDS);
    for (int i = 0; i < 4; i++)
        bytes[4 * SUPERBLOCK_WORDS + i] = (unsigned char)(sum >> 8 * i);
    return true;
}

static char *image_copy(hid_t file, int64_t *n) {
    ssize_t size = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(file, NULL, 0);
    char *bytes = size > 0 ? dpt_mem_alloc(size, 1, "HDF5 file in memory") : NULL;
    if (bytes != NULL && (H5Fget_file_image(file, bytes, (size_t)size) != size ||
                          !image_repair((unsigned char *)bytes, size))) {
        dpt_mem_free(bytes);
        bytes = NULL;
    }
    *n = bytes != NULL ? size : 0;
    return bytes;
}

char *dpt_h5_image_take(hid_t file, bool ok, int64_t *n) {
    *n = 0;
    if (file < 0)
        return NULL;
    char *bytes = ok ? image_copy(file, n) : NULL;
    H5Fclose(file);
    return bytes;
}

hid_t dpt_h5_image_open(const char *bytes, int64_t n) {
    hid_t access = image_access();
    hid_t file = H5I_INVALID_HID;
    if (access >= 0 && H5Pset_file_image(access, (void *)(uintptr_t)bytes, (size_t)n) >= 0)
        file = H5Fopen("image", H5F_ACC_RDONLY, access);
    if (access >= 0)
        H5Pclose(access);
    return file;
}
