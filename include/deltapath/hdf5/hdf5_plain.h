#ifndef DELTAPATH_HDF5_HDF5_PLAIN_H
#define DELTAPATH_HDF5_HDF5_PLAIN_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/* Small values in an HDF5 file that one process has open. Every function says whether it worked and
 * leaves nothing open; HDF5's own messages are silenced by the caller. Private to the store layer. */

bool dpt_h5_put_string(hid_t where, const char *name, const char *text); /* attribute */
bool dpt_h5_put_i64(hid_t where, const char *name, int64_t value);       /* attribute */
bool dpt_h5_put_u64(hid_t where, const char *name, uint64_t value);      /* attribute */
bool dpt_h5_put_f64(hid_t where, const char *name, double value);        /* attribute */

/* Text is allocated. */
bool dpt_h5_get_string(hid_t where, const char *name, char **text);
bool dpt_h5_get_i64(hid_t where, const char *name, int64_t *value);
bool dpt_h5_get_u64(hid_t where, const char *name, uint64_t *value);
bool dpt_h5_get_f64(hid_t where, const char *name, double *value);

/* Dataset of `type`, written whole; nothing is written when a side is 0. */
bool dpt_h5_put_array(hid_t where, const char *name, hid_t type, int ndim, const int64_t *sides,
                      const void *values);

/* Read a dataset whole, after checking that it has these sides; nothing is read when one is 0. */
bool dpt_h5_get_array(hid_t where, const char *name, hid_t type, int ndim, const int64_t *sides,
                      void *values);

/* Length of a one-dimensional dataset; 0 when it does not exist. */
bool dpt_h5_length(hid_t where, const char *name, int64_t *length);

/* One-dimensional dataset of texts of one fixed size. Read: each text allocated, and the table. */
bool dpt_h5_put_texts(hid_t where, const char *name, const char *const *texts, int64_t n);
bool dpt_h5_get_texts(hid_t where, const char *name, char ***texts, int64_t *n);

#endif
