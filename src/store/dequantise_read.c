#include "dequantise.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Values of quantised tensors, of any run or block of elements. */

enum {
    CHUNK = 2048,
    WINDOW = 1024,
    MX_TILE = 1 << 20,
    MX_CODES = 16,
    MX_STEP = 32,
    E8M0_BIAS = 127
};

/* A tensor while it is read, with the scales around the last one that was asked for. */
typedef struct reading {
    const dpt_store_header *header;
    dpt_store_files *io;
    const dpt_store_form *form;
    int64_t first, count;
    float window[WINDOW];
} reading;

static dpt_status reading_entry(const reading *r, int64_t entry, int64_t at, int64_t n, void *out) {
    const dpt_store_entry *from = &r->header->entries[entry];
    return dpt_store_files_read_entry(r->io, from, at, n, out);
}

static dpt_status reading_bad_scale(const reading *r, int64_t index) {
    const dpt_store_entry *scales = &r->header->entries[r->form->scales];
    return dpt_error(DPT_ERR_INPUT,
                     "%s: scale %" PRId64 " of tensor %.300s is NaN or infinite: repair the model",
                     r->header->files[scales->file], index, scales->name);
}

/* Scales from `index` on, as many as there are and fit. */
static dpt_status reading_move_window(reading *r, int64_t index) {
    const dpt_store_entry *scales = &r->header->entries[r->form->scales];
    int64_t left = scales->bytes / dpt_dtype_size(scales->dtype) - index;
    char stored[WINDOW * sizeof(float)];
    DPT_ASSERT(left > 0);
    r->first = index;
    r->count = left < WINDOW ? left : WINDOW;
    dpt_status st = reading_entry(r, r->form->scales, index, r->count, stored);
    if (st != DPT_OK)
        return st;
    if (scales->dtype != DPT_U8)
        dpt_dtype_to_f32(scales->dtype, stored, r->window, r->count);
    for (int64_t i = 0; i < r->count && scales->dtype == DPT_U8; i++) {
        int power = (unsigned char)stored[i];
        r->window[i] = power == UINT8_MAX ? NAN : ldexpf(1.0F, power - E8M0_BIAS);
    }
    return DPT_OK;
}

static dpt_status reading_scale(reading *r, int64_t index, float *out) {
    dpt_status st = DPT_OK;
    if (index < r->first || index >= r->first + r->count)
        st = reading_move_window(r, index);
    if (st != DPT_OK)
        return st;
    *out = r->window[index - r->first];
    return isfinite(*out) ? DPT_OK : reading_bad_scale(r, index);
}

static int64_t blocks_of(int64_t side, int64_t block) {
    return side / block + (side % block != 0);
}

int64_t dpt_store_form_piece(const dpt_store_form *form, int64_t ig, int64_t n, int64_t *scale) {
    int64_t row = ig / form->cols, col = ig % form->cols;
    int64_t line = row / form->rows * blocks_of(form->rows, form->block_rows) +
                   row % form->rows / form->block_rows;
    int64_t end = (col / form->block_cols + 1) * form->block_cols;
    *scale = line * blocks_of(form->cols, form->block_cols) + col / form->block_cols;
    end = end < form->cols ? end : form->cols;
    return end - col < n ? end - col : n;
}

/* Times their scales: values (n) from element ig on. */
static dpt_status reading_multiply(reading *r, int64_t ig, int64_t n, float *values) {
    dpt_status st = DPT_OK;
    while (n > 0 && st == DPT_OK) {
        int64_t index;
        int64_t take = dpt_store_form_piece(r->form, ig, n, &index);
        float scale = 0.0F;
        st = reading_scale(r, index, &scale);
        for (int64_t i = 0; i < take; i++)
            values[i] *= scale;
        values += take;
        ig += take;
        n -= take;
    }
    return st;
}

/* The stored bytes are read to the end of `out` and become wider from its start on: what is written never reaches
 * what is still to be read. */
static dpt_status reading_scaled(reading *r, dpt_dtype dtype, int64_t ig, int64_t n, char *out) {
    dpt_dtype from = r->header->entries[r->form->entry].dtype;
    int64_t size = dpt_dtype_size(dtype);
    const char *stored = out + n * (size - 1);
    float values[CHUNK];
    dpt_status st = reading_entry(r, r->form->entry, ig, n, (char *)(uintptr_t)stored);
    for (int64_t at = 0; at < n && st == DPT_OK;) {
        int64_t take = n - at < CHUNK ? n - at : CHUNK;
        dpt_dtype_to_f32(from, stored + at, values, take);
        st = reading_multiply(r, ig + at, take, values);
        dpt_dtype_from_f32(dtype, values, out + at * size, take);
        at += take;
    }
    return st;
}

/* A part of one MXFP4 matrix, transposed: its rows [row_begin, row_end) as they lie, in each the columns first to last,
 * but first + 1 in rows before row_first and last - 1 in rows after row_last. Column c of row r goes to out[c * stride
 * + r - base]. */
typedef struct mx_part {
    int64_t matrix;
    int64_t first, last;
    int64_t row_begin, row_end, row_first, row_last;
    int64_t stride, base;
} mx_part;

/* Codes and scales of some rows and groups of a matrix. */
typedef struct mx_tile {
    int64_t row, rows, group, groups;
    uint8_t *codes, *scales; /* (rows, groups, 16) and (rows, groups) */
} mx_tile;

/* (scale, code) as they are stored in the tensor's type; of scale 255, which is NaN, nothing. */
static void mx_fill_table(dpt_dtype dtype, char *table) {
    static const float values[MX_CODES / 2] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    int64_t size = dpt_dtype_size(dtype);
    for (int scale = 0; scale < UINT8_MAX; scale++) {
        float all[MX_CODES];
        for (int i = 0; i < MX_CODES / 2; i++) {
            all[i] = ldexpf(values[i], scale - E8M0_BIAS);
            all[i + MX_CODES / 2] = -all[i];
        }
        dpt_dtype_from_f32(dtype, all, table + scale * MX_CODES * size, MX_CODES);
    }
}

static dpt_status mx_read_tile(const reading *r, const mx_part *part, const mx_tile *tile) {
    const dpt_store_form *form = r->form;
    int64_t all = form->cols / form->block_cols;
    int64_t at = (part->matrix * form->rows + tile->row) * all + tile->group;
    int64_t n = tile->rows * tile->groups;
    int64_t bytes = form->block_cols / 2;
    dpt_status st = reading_entry(r, form->entry, at * bytes, n * bytes, tile->codes);
    if (st == DPT_OK)
        st = reading_entry(r, form->scales, at, n, tile->scales);
    const uint8_t *bad = st == DPT_OK ? memchr(tile->scales, UINT8_MAX, (size_t)n) : NULL;
    return bad != NULL ? reading_bad_scale(r, at + (bad - tile->scales)) : st;
}

/* One byte of each of some rows: two columns, whose elements lie one after the other in `out`. Inlined for each size. */
__attribute__((always_inline)) static inline void
mx_write_pair(const mx_part *part, const mx_tile *tile, int64_t group, int64_t byte, int64_t row,
              int64_t end, const char *table, int64_t size, char *out) {
    int64_t bytes = MX_STEP / 2;
    int64_t column = (tile->group + group) * MX_STEP + 2 * byte;
    for (int64_t r = row; r < end; r++) {
        int64_t at = (r - tile->row) * tile->groups + group;
        const char *line = table + tile->scales[at] * MX_CODES * size;
        int code = tile->codes[at * bytes + byte];
        int64_t first = part->first + (r < part->row_first);
        int64_t last = part->last - (r > part->row_last);
        int64_t to = column * part->stride + r - part->base;
        if (column >= first && column <= last)
            memcpy(out + to * size, line + (code & 0xf) * size, (size_t)size);
        if (column + 1 >= first && column + 1 <= last)
            memcpy(out + (to + part->stride) * size, line + (code >> 4) * size, (size_t)size);
    }
}

/* In steps of rows that fill a line of the cache where they are written. */
static void mx_write_tile(const mx_part *part, const mx_tile *tile, const char *table, int64_t size,
                          char *out) {
    int64_t begin = part->first / MX_STEP - tile->group;
    int64_t end = part->last / MX_STEP + 1 - tile->group;
    begin = begin > 0 ? begin : 0;
    end = end < tile->groups ? end : tile->groups;
    for (int64_t group = begin; group < end; group++)
        for (int64_t row = tile->row; row < tile->row + tile->rows; row += MX_STEP)
            for (int64_t byte = 0; byte < MX_STEP / 2; byte++) {
                int64_t after = row + MX_STEP;
                after = after < tile->row + tile->rows ? after : tile->row + tile->rows;
                if (size == 2)
                    mx_write_pair(part, tile, group, byte, row, after, table, 2, out);
                else
                    mx_write_pair(part, tile, group, byte, row, after, table, size, out);
            }
}

/* Whole rows at a time as far as they fit, which is one run of the file, else groups of one row. */
static dpt_status mx_read_part(const reading *r, const mx_part *part, uint8_t *buffer,
                               const char *table, int64_t size, char *out) {
    int64_t all = r->form->cols / r->form->block_cols;
    int64_t most = MX_TILE / (MX_STEP / 2); /* groups of a tile */
    bool whole = all <= most;
    dpt_status st = DPT_OK;
    for (int64_t row = part->row_begin; row < part->row_end && st == DPT_OK;) {
        mx_tile tile = {.row = row, .rows = 1, .codes = buffer, .scales = buffer + MX_TILE};
        if (whole)
            tile.rows = most / all < part->row_end - row ? most / all : part->row_end - row;
        int64_t group = whole ? 0 : part->first / MX_STEP;
        int64_t end = whole ? all : part->last / MX_STEP + 1;
        for (; group < end && st == DPT_OK; group += tile.groups) {
            tile.group = group;
            tile.groups = end - group < most ? end - group : most;
            st = mx_read_tile(r, part, &tile);
            if (st == DPT_OK)
                mx_write_tile(part, &tile, table, size, out);
        }
        row += tile.rows;
    }
    return st;
}

/* Tile, its scales and the table of a read. */
static dpt_status mx_allocate(dpt_dtype dtype, uint8_t **buffer, char **table) {
    int64_t size = dpt_dtype_size(dtype);
    *buffer = dpt_mem_alloc(MX_TILE + MX_TILE / (MX_STEP / 2), 1, "codes of a tensor");
    *table = dpt_mem_alloc(UINT8_MAX * MX_CODES, (size_t)size, "values of codes");
    if (*buffer == NULL || *table == NULL)
        return DPT_ERR_OUTPUT;
    mx_fill_table(dtype, *table);
    return DPT_OK;
}

static dpt_status reading_mxfp4(const reading *r, dpt_dtype dtype, int64_t ig, int64_t n,
                                char *out) {
    int64_t size = dpt_dtype_size(dtype), width = r->form->rows;
    int64_t each = width * r->form->cols;
    uint8_t *buffer;
    char *table;
    dpt_status st = mx_allocate(dtype, &buffer, &table);
    for (int64_t done = 0; done < n && st == DPT_OK;) {
        int64_t at = (ig + done) % each;
        int64_t take = each - at < n - done ? each - at : n - done;
        int64_t end = at + take - 1;
        mx_part part = {.matrix = (ig + done) / each, .stride = width, .base = at};
        part.first = at / width;
        part.last = end / width;
        part.row_first = at % width;
        part.row_last = end % width;
        part.row_begin = part.first == part.last ? part.row_first : 0;
        part.row_end = part.first == part.last ? part.row_last + 1 : width;
        st = mx_read_part(r, &part, buffer, table, size, out + done * size);
        done += take;
    }
    dpt_mem_free(buffer);
    dpt_mem_free(table);
    return st;
}

dpt_status dpt_store_dequantise_run(const dpt_store_header *header, dpt_store_files *io,
                                    const dpt_store_form *form, dpt_dtype dtype, int64_t ig,
                                    int64_t n, void *out) {
    reading r = {.header = header, .io = io, .form = form};
    if (n <= 0)
        return DPT_OK;
    return form->kind == DPT_STORE_MXFP4 ? reading_mxfp4(&r, dtype, ig, n, out)
                                         : reading_scaled(&r, dtype, ig, n, out);
}

bool dpt_store_dequantise_takes(const dpt_store_form *form, const dpt_block *block) {
    return form->kind == DPT_STORE_MXFP4 && block->rows > 1 && block->stride == form->rows &&
           block->ig % form->rows + block->cols <= form->rows &&
           block->ig / form->rows % form->cols + block->rows <= form->cols;
}

dpt_status dpt_store_dequantise_block(const dpt_store_header *header, dpt_store_files *io,
                                      const dpt_store_form *form, dpt_dtype dtype,
                                      const dpt_block *block, void *out) {
    reading r = {.header = header, .io = io, .form = form};
    int64_t row = block->ig % form->rows, column = block->ig / form->rows % form->cols;
    mx_part part = {.matrix = block->ig / (form->rows * form->cols),
                    .first = column,
                    .last = column + block->rows - 1,
                    .row_begin = row,
                    .row_end = row + block->cols,
                    .row_first = row,
                    .row_last = row + block->cols - 1,
                    .stride = block->cols,
                    .base = column * block->cols + row};
    uint8_t *buffer;
    char *table;
    DPT_ASSERT(dpt_store_dequantise_takes(form, block));
    dpt_status st = mx_allocate(dtype, &buffer, &table);
    if (st == DPT_OK)
        st = mx_read_part(&r, &part, buffer, table, dpt_dtype_size(dtype), out);
    dpt_mem_free(buffer);
    dpt_mem_free(table);
    return st;
}
