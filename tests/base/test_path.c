/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"

#include <stdlib.h>
#include <string.h>

static void expands(const char *path, const char *want) {
    char *out = NULL;
    assert_int_equal(dpt_path_expand(path, &out), DPT_OK);
    if (want == NULL)
        assert_null(out);
    else
        assert_string_equal(out, want);
    dpt_mem_free(out);
}

static void refuses(const char *path, const char *why) {
    char *out = NULL;
    assert_int_equal(dpt_path_expand(path, &out), DPT_ERR_USAGE);
    assert_null(out);
    assert_non_null(strstr(dpt_error_message(), why));
    dpt_error_clear();
}

static void home_is_put_in(void **state) {
    (void)state;
    assert_int_equal(setenv("HOME", "/home/me", 1), 0);
    expands("~/models/a b", "/home/me/models/a b");
    expands("~", "/home/me");
    expands("models/~/a", NULL);
    expands("./~/a", NULL);
    expands("a~", NULL);
    expands("", NULL);
    assert_int_equal(unsetenv("HOME"), 0);
    refuses("~/a", "HOME is not set");
}

static void the_rest_is_named(void **state) {
    (void)state;
    refuses("~nobody-here/a", "only `~/`");
    refuses("$SCRATCH/a", "variables");
    refuses("a/${SCRATCH}", "variables");
    expands("a$/b$1", NULL); /* no variables */
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(home_is_put_in),
        cmocka_unit_test(the_rest_is_named),
    };
    return test_mpi_main(argc, argv, tests);
}
