#include "yaml.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the UTF-8 character at `at` of `left` bytes, and its code; 0 when it is none: a lone or a
 * missing continuation, an overlong form, a surrogate, or above U+10FFFF (RFC 3629). */
static int utf8_character(const unsigned char *at, size_t left, uint32_t *code) {
    static const uint32_t minimum[5] = {0, 0, 0x80, 0x800, 0x10000};
    int n = at[0] < 0x80 ? 1 : at[0] < 0xC0 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    if (n == 0 || at[0] > 0xF4 || (size_t)n > left)
        return 0;
    *code = n == 1 ? at[0] : at[0] & (0x7Fu >> n);
    for (int i = 1; i < n; i++) {
        if ((at[i] & 0xC0) != 0x80)
            return 0;
        *code = *code << 6 | (at[i] & 0x3F);
    }
    bool valid = *code >= minimum[n] && *code <= 0x10FFFF && (*code < 0xD800 || *code > 0xDFFF);
    return valid ? n : 0;
}

/* YAML 1.2, production 1 (c-printable). */
static bool yaml_printable(uint32_t code) {
    if (code < 0x20)
        return code == '\t' || code == '\n' || code == '\r';
    if (code < 0xA0)
        return code < 0x7F || code == 0x85;
    return code != 0xFFFE && code != 0xFFFF;
}

/* The place for a message: an assignment of --set is shown without what a terminal cannot show. */
static void text_place(const char *place, int line, int column, char *out, size_t size) {
    if (strncmp(place, "--set ", 6) != 0) {
        snprintf(out, size, "%s:%d:%d", place, line, column);
        return;
    }
    snprintf(out, size, "%.80s", place);
    for (char *c = out; *c != '\0'; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    size_t used = strlen(out);
    snprintf(out + used, size - used, ":%d:%d", line, column);
}

dpt_status dpt_yaml_check_text(const char *text, size_t n, const char *place) {
    const unsigned char *bytes = (const unsigned char *)text;
    char where[512];
    int line = 1, column = 1;
    if (n >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0))
        return dpt_error(DPT_ERR_USAGE, "%s:1:1: the text is UTF-16: save it as UTF-8", place);
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        int length = utf8_character(bytes + i, n - i, &code);
        if (length == 0 || !yaml_printable(code))
            text_place(place, line, column, where, sizeof where);
        if (length == 0)
            return dpt_error(DPT_ERR_USAGE, "%s: byte 0x%02X is no UTF-8: save the text as UTF-8",
                             where, bytes[i]);
        if (!yaml_printable(code))
            return dpt_error(DPT_ERR_USAGE,
                             "%s: the control character U+%04X has no place in YAML: remove it",
                             where, (unsigned)code);
        i += (size_t)length;
        column = code == '\n' ? 1 : column + 1;
        line += code == '\n';
    }
    return DPT_OK;
}
