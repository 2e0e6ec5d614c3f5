#ifndef DELTAPATH_HDF5_HDF5_TYPE_H
#define DELTAPATH_HDF5_HDF5_TYPE_H

#include "deltapath/tensor/dtype.h"

#include <hdf5.h>
#include <stdbool.h>

/** File type of an element type; little-endian, close with H5Tclose. Negative on failure. Local. */
hid_t dpt_hdf5_type_create(dpt_dtype dtype);

/** Element type of a file type. Local.
 * @param[out] problem  what is wrong and the remedy, when the answer is false. */
bool dpt_hdf5_type_parse(hid_t type, dpt_dtype *out, const char **problem);

/** Text attribute, of fixed or variable length. Local on a file that one rank opened.
 * @param[out] out  allocated; NULL when the attribute is absent. @return false when it is no text. */
bool dpt_hdf5_text_read(hid_t object, const char *name, char **out);

/** Write a variable-length UTF-8 attribute; a NULL text writes none. Collective on a parallel file.
 * @return false on failure. */
bool dpt_hdf5_text_write(hid_t object, const char *name, const char *text);

/** Whether a name of a file or group is there, and whether it is a link of its own: a soft or external one
 * can lead to a file that hangs whoever opens it. Local. */
bool dpt_hdf5_exists(hid_t where, const char *name, bool *elsewhere);

/** Whether the values of a data set lie in other files (external storage, virtual layout). Local. */
bool dpt_hdf5_stored_elsewhere(hid_t dataset);

/** Keep the library's own error print-outs off stderr; our messages say it in one line. Local. */
void dpt_hdf5_silence(void);

#endif
