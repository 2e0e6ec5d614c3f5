#ifndef DELTAPATH_HDF5_HDF5_IMAGE_H
#define DELTAPATH_HDF5_HDF5_IMAGE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/* Small HDF5 files that are made and read in memory: the library never has one open on a disk, which may
 * be full (HDF5 1.10 then crashes at the end of the program), and reads the very bytes whose checksum was
 * checked. HDF5's own messages are silenced by the caller. Local. Private to the store layer. */

/** A new file in memory. @return negative on failure. */
hid_t dpt_h5_image_create(void);

/** Close it and take its bytes, allocated; NULL when anything failed, `ok` of the caller included. */
char *dpt_h5_image_take(hid_t file, bool ok, int64_t *n);

/** Open the bytes of a file for reading; they are copied. @return negative on failure. */
hid_t dpt_h5_image_open(const char *bytes, int64_t n);

#endif
