#include "deltapath/hdf5/hdf5_plain.h"

#include "deltapath/base/mem.h"

#include <string.h>

enum { NDIM_MAX = 4 };

static bool close_all(bool ok, hid_t object, hid_t space, hid_t type) {
    if (object >= 0)
        ok = (H5Iget_type(object) == H5I_ATTR ? H5Aclose(object) : H5Dclose(object)) >= 0 && ok;
    if (space >= 0)
        ok = H5Sclose(space) >= 0 && ok;
    if (type >= 0)
        ok = H5Tclose(type) >= 0 && ok;
    return ok;
}

/* NUL-terminated text of a fixed size, terminator included. */
static hid_t text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, size) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        return H5I_INVALID_HID;
    }
    return type;
}

static bool put_scalar(hid_t where, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = space < 0 ? H5I_INVALID_HID
                                : H5Acreate2(where, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    return close_all(ok, attribute, space, H5I_INVALID_HID);
}

bool dpt_h5_put_string(hid_t where, const char *name, const char *text) {
    hid_t type = text_type(strlen(text) + 1);
    bool ok = type >= 0 && put_scalar(where, name, type, text);
    return close_all(ok, H5I_INVALID_HID, H5I_INVALID_HID, type);
}

bool dpt_h5_put_i64(hid_t where, const char *name, int64_t value) {
    return put_scalar(where, name, H5T_NATIVE_INT64, &value);
}

bool dpt_h5_put_u64(hid_t where, const char *name, uint64_t value) {
    return put_scalar(where, name, H5T_NATIVE_UINT64, &value);
}

bool dpt_h5_put_f64(hid_t where, const char *name, double value) {
    return put_scalar(where, name, H5T_NATIVE_DOUBLE, &value);
}

/* One value of a numeric class, converted by HDF5 to `type`. */
static bool get_scalar(hid_t where, const char *name, hid_t type, H5T_class_t class, void *value) {
    hid_t attribute = H5Aopen(where, name, H5P_DEFAULT);
    if (attribute < 0)
        return false;
    hid_t space = H5Aget_space(attribute);
    hid_t stored = H5Aget_type(attribute);
    bool ok = space >= 0 && stored >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
              H5Tget_class(stored) == class && H5Aread(attribute, type, value) >= 0;
    return close_all(ok, attribute, space, stored);
}

bool dpt_h5_get_i64(hid_t where, const char *name, int64_t *value) {
    return get_scalar(where, name, H5T_NATIVE_INT64, H5T_INTEGER, value);
}

bool dpt_h5_get_u64(hid_t where, const char *name, uint64_t *value) {
    return get_scalar(where, name, H5T_NATIVE_UINT64, H5T_INTEGER, value);
}

bool dpt_h5_get_f64(hid_t where, const char *name, double *value) {
    return get_scalar(where, name, H5T_NATIVE_DOUBLE, H5T_FLOAT, value);
}

bool dpt_h5_get_string(hid_t where, const char *name, char **text) {
    *text = NULL;
    hid_t attribute = H5Aopen(where, name, H5P_DEFAULT);
    if (attribute < 0)
        return false;
    hid_t space = H5Aget_space(attribute);
    hid_t type = H5Aget_type(attribute);
    size_t size = type >= 0 ? H5Tget_size(type) : 0; /* 0 when that fails */
    bool ok = space >= 0 && size > 0 && H5Sget_simple_extent_npoints(space) == 1 &&
              H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
              H5Aget_storage_size(attribute) == size;
    if (ok) {
        *text = dpt_mem_zalloc((int64_t)size + 1, 1, "text attribute");
        ok = *text != NULL && H5Aread(attribute, type, *text) >= 0;
        if (!ok) {
            dpt_mem_free(*text);
            *text = NULL;
        }
    }
    return close_all(ok, attribute, space, type);
}

static hid_t create_space(int ndim, const int64_t *sides) {
    hsize_t dims[NDIM_MAX];
    for (int d = 0; d < ndim; d++)
        dims[d] = (hsize_t)sides[d];
    return H5Screate_simple(ndim, dims, NULL);
}

static bool is_empty(int ndim, const int64_t *sides) {
    for (int d = 0; d < ndim; d++)
        if (sides[d] == 0)
            return true;
    return false;
}

bool dpt_h5_put_array(hid_t where, const char *name, hid_t type, int ndim, const int64_t *sides,
                      const void *values) {
    if (is_empty(ndim, sides))
        return true;
    hid_t space = create_space(ndim, sides);
    hid_t set = space < 0
                    ? H5I_INVALID_HID
                    : H5Dcreate2(where, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    return close_all(ok, set, space, H5I_INVALID_HID);
}

bool dpt_h5_get_array(hid_t where, const char *name, hid_t type, int ndim, const int64_t *sides,
                      void *values) {
    if (is_empty(ndim, sides))
        return true;
    hid_t set = H5Dopen2(where, name, H5P_DEFAULT);
    if (set < 0)
        return false;
    hid_t space = H5Dget_space(set);
    hid_t stored = H5Dget_type(set);
    hsize_t dims[NDIM_MAX];
    bool ok = space >= 0 && stored >= 0 && H5Tget_class(stored) == H5Tget_class(type) &&
              H5Sget_simple_extent_ndims(space) == ndim &&
              H5Sget_simple_extent_dims(space, dims, NULL) == ndim;
    for (int d = 0; ok && d < ndim; d++)
        ok = dims[d] == (hsize_t)sides[d];
    ok = ok && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    return close_all(ok, set, space, stored);
}

bool dpt_h5_length(hid_t where, const char *name, int64_t *length) {
    *length = 0;
    htri_t exists = H5Lexists(where, name, H5P_DEFAULT);
    if (exists <= 0)
        return exists == 0;
    hid_t set = H5Dopen2(where, name, H5P_DEFAULT);
    hid_t space = set < 0 ? H5I_INVALID_HID : H5Dget_space(set);
    hsize_t dim = 0;
    bool ok = space >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
              H5Sget_simple_extent_dims(space, &dim, NULL) == 1 && dim <= INT64_MAX;
    *length = ok ? (int64_t)dim : 0;
    return close_all(ok, set, space, H5I_INVALID_HID);
}

bool dpt_h5_put_texts(hid_t where, const char *name, const char *const *texts, int64_t n) {
    size_t size = 1;
    for (int64_t i = 0; i < n; i++)
        size = strlen(texts[i]) + 1 > size ? strlen(texts[i]) + 1 : size;
    if (n == 0)
        return true;
    char *table = dpt_mem_zalloc(n, size, "table of texts");
    if (table == NULL)
        return false;
    for (int64_t i = 0; i < n; i++)
        memcpy(table + (size_t)i * size, texts[i], strlen(texts[i]));
    hid_t type = text_type(size);
    bool ok = type >= 0 && dpt_h5_put_array(where, name, type, 1, &n, table);
    dpt_mem_free(table);
    return close_all(ok, H5I_INVALID_HID, H5I_INVALID_HID, type);
}

static bool split_table(const char *table, size_t size, int64_t n, char ***texts) {
    *texts = dpt_mem_zalloc(n, sizeof **texts, "table of texts");
    bool ok = *texts != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        (*texts)[i] = dpt_mem_format("%.*s", (int)size, table + (size_t)i * size);
        ok = (*texts)[i] != NULL;
    }
    for (int64_t i = 0; !ok && *texts != NULL && i < n; i++)
        dpt_mem_free((*texts)[i]);
    if (!ok) {
        dpt_mem_free(*texts);
        *texts = NULL;
    }
    return ok;
}

bool dpt_h5_get_texts(hid_t where, const char *name, char ***texts, int64_t *n) {
    enum { LONGEST = 1 << 20 };
    *texts = NULL;
    if (!dpt_h5_length(where, name, n))
        return false;
    if (*n == 0)
        return true;
    hid_t set = H5Dopen2(where, name, H5P_DEFAULT);
    hid_t type = set < 0 ? H5I_INVALID_HID : H5Dget_type(set);
    size_t size = type < 0 ? 0 : H5Tget_size(type);
    int64_t bytes;
    bool ok = type >= 0 && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
              size > 0 && size <= LONGEST && dpt_mem_mul(*n, (int64_t)size, &bytes) &&
              H5Dget_storage_size(set) == (hsize_t)bytes;
    char *table = ok ? dpt_mem_alloc(bytes, 1, "table of texts") : NULL;
    ok = table != NULL && dpt_h5_get_array(where, name, type, 1, n, table) &&
         split_table(table, size, *n, texts);
    dpt_mem_free(table);
    return close_all(ok, set, H5I_INVALID_HID, type);
}
