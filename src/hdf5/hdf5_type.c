#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Sign, exponent and mantissa of the float types that HDF5 has no name for. */
typedef struct float_layout {
    dpt_dtype dtype;
    size_t size, sign, exponent_at, exponent_bits, mantissa_bits, bias;
} float_layout;

static const float_layout layouts[] = {
    {DPT_F32, 4, 31, 23, 8, 23, 127}, {DPT_F16, 2, 15, 10, 5, 10, 15},
    {DPT_BF16, 2, 15, 7, 8, 7, 127},  {DPT_F64, 8, 63, 52, 11, 52, 1023},
    {DPT_F8_E4M3, 1, 7, 3, 4, 3, 7},  {DPT_F8_E5M2, 1, 7, 2, 5, 2, 15},
};
enum { LAYOUT_COUNT = sizeof layouts / sizeof layouts[0] };

static hid_t make_float(const float_layout *layout) {
    hid_t type = H5Tcopy(layout->size == 8 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE);
    if (type < 0 || layout->size >= 4)
        return type;
    if (H5Tset_fields(type, layout->sign, layout->exponent_at, layout->exponent_bits, 0,
                      layout->mantissa_bits) < 0 ||
        H5Tset_size(type, layout->size) < 0 || H5Tset_ebias(type, layout->bias) < 0) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

/* As h5py writes numpy.bool_. */
static hid_t make_bool(void) {
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    const signed char no = 0;
    const signed char yes = 1;
    if (type >= 0 &&
        (H5Tenum_insert(type, "FALSE", &no) < 0 || H5Tenum_insert(type, "TRUE", &yes) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

hid_t dpt_hdf5_type_create(dpt_dtype dtype) {
    for (int i = 0; i < LAYOUT_COUNT; i++)
        if (layouts[i].dtype == dtype)
            return make_float(&layouts[i]);
    switch (dtype) {
    case DPT_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case DPT_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case DPT_I16:
        return H5Tcopy(H5T_STD_I16LE);
    case DPT_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case DPT_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case DPT_BOOL:
        return make_bool();
    default:
        return -1;
    }
}

static bool parse_float(hid_t type, size_t size, dpt_dtype *out) {
    size_t sign = 0, exponent_at = 0, exponent_bits = 0, mantissa_at = 0, mantissa_bits = 0;
    if (H5Tget_fields(type, &sign, &exponent_at, &exponent_bits, &mantissa_at, &mantissa_bits) < 0)
        return false;
    for (int i = 0; i < LAYOUT_COUNT; i++) {
        const float_layout *l = &layouts[i];
        if (l->size == size && l->sign == sign && l->exponent_at == exponent_at &&
            l->exponent_bits == exponent_bits && mantissa_at == 0 &&
            l->mantissa_bits == mantissa_bits && l->bias == H5Tget_ebias(type) &&
            H5Tget_norm(type) == H5T_NORM_IMPLIED) {
            *out = l->dtype;
            return true;
        }
    }
    return false;
}

static bool parse_integer(hid_t type, size_t size, dpt_dtype *out) {
    bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
    if (size == 1)
        *out = is_signed ? DPT_I8 : DPT_U8;
    else if (is_signed && (size == 2 || size == 4 || size == 8))
        *out = size == 2 ? DPT_I16 : size == 4 ? DPT_I32 : DPT_I64;
    else
        return false;
    return true;
}

static bool parse_bool(hid_t type, dpt_dtype *out) {
    *out = DPT_BOOL;
    return H5Tget_size(type) == 1 && H5Tget_nmembers(type) == 2;
}

bool dpt_hdf5_type_parse(hid_t type, dpt_dtype *out, const char **problem) {
    *problem =
        "has an element type that is not supported: store it as f32, f16, bf16 or an integer";
    H5T_class_t class = H5Tget_class(type);
    size_t size = H5Tget_size(type);
    if (class == H5T_ENUM)
        return parse_bool(type, out);
    if (class != H5T_FLOAT && class != H5T_INTEGER)
        return false;
    if (size > 1 && H5Tget_order(type) != H5T_ORDER_LE) {
        *problem = "is big-endian: rewrite the file with little-endian types";
        return false;
    }
    if (H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0)
        return false;
    return class == H5T_FLOAT ? parse_float(type, size, out) : parse_integer(type, size, out);
}

/* The type of a pointer to text; without its size the library would take the pointer for the text. */
static hid_t variable_text(H5T_cset_t set) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, set) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

static char *read_variable(hid_t attribute) {
    char *text = NULL;
    hid_t type = H5Aget_type(attribute);
    hid_t memory = variable_text(H5Tget_cset(type));
    char *copy = NULL;
    if (memory >= 0 && H5Aread(attribute, memory, &text) >= 0 && text != NULL)
        copy = dpt_mem_strdup(text, "text attribute");
    H5free_memory(text);
    H5Tclose(type);
    if (memory >= 0)
        H5Tclose(memory);
    return copy;
}

static char *read_fixed(hid_t attribute, hid_t type) {
    size_t size = H5Tget_size(type);
    bool sound = size > 0 && size < (1u << 30); /* 0 when the library fails */
    char *text = sound ? dpt_mem_zalloc((int64_t)size + 1, 1, "text attribute") : NULL;
    if (text != NULL && H5Aread(attribute, type, text) < 0) {
        dpt_mem_free(text);
        return NULL;
    }
    return text;
}

bool dpt_hdf5_text_read(hid_t object, const char *name, char **out) {
    *out = NULL;
    if (H5Aexists(object, name) <= 0)
        return true;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0)
        return false;
    hid_t type = H5Aget_type(attribute);
    hid_t space = H5Aget_space(attribute);
    if (H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1)
        *out =
            H5Tis_variable_str(type) > 0 ? read_variable(attribute) : read_fixed(attribute, type);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return *out != NULL;
}

bool dpt_hdf5_text_write(hid_t object, const char *name, const char *text) {
    if (text == NULL)
        return true;
    hid_t type = variable_text(H5T_CSET_UTF8);
    if (type < 0)
        return false;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, type, &text) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

void dpt_hdf5_silence(void) {
    /* Some network file systems refuse locks, and nobody else works on these files: a study is locked as
     * a whole. Counts before the library's first call. */
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

bool dpt_hdf5_exists(hid_t where, const char *name, bool *elsewhere) {
    H5L_info_t info;
    *elsewhere = false;
    if (H5Lexists(where, name, H5P_DEFAULT) <= 0)
        return false;
    *elsewhere = H5Lget_info(where, name, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD;
    return true;
}

bool dpt_hdf5_stored_elsewhere(hid_t dataset) {
    hid_t made = H5Dget_create_plist(dataset);
    bool here = made >= 0 && H5Pget_layout(made) != H5D_VIRTUAL && H5Pget_external_count(made) == 0;
    if (made >= 0)
        H5Pclose(made);
    return !here;
}
