/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "deltapath/base/status.h"

static int forget(void **state) {
    (void)state;
    dpt_error_clear();
    return 0;
}

static void first_error_stays(void **state) {
    (void)state;
    assert_int_equal(dpt_error(DPT_ERR_INPUT, "file %s: byte %d", "a", 7), DPT_ERR_INPUT);
    assert_int_equal(dpt_error(DPT_ERR_OUTPUT, "second"), DPT_ERR_OUTPUT);
    assert_string_equal(dpt_error_message(), "file a: byte 7");
    dpt_error_clear();
    assert_string_equal(dpt_error_message(), "");
    (void)dpt_error(DPT_ERR_OUTPUT, "third");
    assert_string_equal(dpt_error_message(), "third");
}

/* A place is put before a message that does not name it: letters of another word do not. */
static void place_is_named_once(void **state) {
    (void)state;
    (void)dpt_error(DPT_ERR_INPUT, "no tensors");
    (void)dpt_error_locate(DPT_ERR_INPUT, "o");
    assert_string_equal(dpt_error_message(), "o: no tensors");
    (void)dpt_error_locate(DPT_ERR_INPUT, "o");
    assert_string_equal(dpt_error_message(), "o: no tensors");
    dpt_error_clear();
    (void)dpt_error(DPT_ERR_INPUT, "o/model.safetensors: cut off");
    (void)dpt_error_locate(DPT_ERR_INPUT, "o");
    assert_string_equal(dpt_error_message(), "o/model.safetensors: cut off");
    dpt_error_clear();
    (void)dpt_error(DPT_ERR_INPUT, "foo/model: cut off");
    (void)dpt_error_locate(DPT_ERR_INPUT, "o");
    assert_string_equal(dpt_error_message(), "o: foo/model: cut off");
}

static void message_is_one_plain_line(void **state) {
    (void)state;
    (void)dpt_error(DPT_ERR_INPUT, "tensor 'a\nb\x1b[31m\x7f'");
    assert_string_equal(dpt_error_message(), "tensor 'a?b?[31m?'");
}

static void long_message_is_cut(void **state) {
    (void)state;
    char text[3 * DPT_MESSAGE_MAX];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    (void)dpt_error(DPT_ERR_INPUT, "%s", text);
    assert_int_equal(strlen(dpt_error_message()), DPT_MESSAGE_MAX - 1);
    dpt_error_set_message(text);
    assert_int_equal(strlen(dpt_error_message()), DPT_MESSAGE_MAX - 1);
}

static void severity_orders(void **state) {
    (void)state;
    static const dpt_status order[] = {DPT_OK,        DPT_INTERRUPTED, DPT_ERR_USAGE,
                                       DPT_ERR_INPUT, DPT_ERR_OUTPUT,  DPT_ERR_INTERNAL};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(dpt_status_severity(order[i]), i);
        assert_int_equal(dpt_status_of_severity(i), order[i]);
        for (int j = 0; j < 6; j++)
            assert_int_equal(dpt_status_worse(order[i], order[j]), order[i > j ? i : j]);
    }
    assert_int_equal(dpt_status_severity((dpt_status)99), 5);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(first_error_stays, forget),
        cmocka_unit_test_teardown(place_is_named_once, forget),
        cmocka_unit_test_teardown(message_is_one_plain_line, forget),
        cmocka_unit_test_teardown(long_message_is_cut, forget),
        cmocka_unit_test(severity_orders),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
