/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void resolves(const char *root, const char *path, const char *want) {
    char real[PATH_MAX];
    char *full = dpt_path_join(root, want);
    assert_true(dpt_path_resolve(path, real));
    assert_string_equal(real, full);
    dpt_mem_free(full);
}

static void links_and_new_names(void **state) {
    (void)state;
    char root[PATH_MAX], made[] = "/tmp/deltapath-path-XXXXXX", long_path[PATH_MAX + 2];
    assert_non_null(mkdtemp(made));
    assert_non_null(realpath(made, root));
    assert_int_equal(chdir(root), 0);
    assert_true(mkdir("a", 0777) == 0 && mkdir("a/b", 0777) == 0 && symlink("a/b", "link") == 0);
    resolves(root, "link", "a/b");
    resolves(root, "link/new//./x/", "a/b/new/x");
    resolves(root, "link/../new", "a/new");
    resolves(root, "new/../link/x", "a/b/x"); /* `..` of what is still to be made */
    resolves(root, "new", "new");
    resolves("", "/../..//new-in-root", "new-in-root");
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    assert_false(dpt_path_resolve(long_path, root));
    assert_true(unlink("link") == 0 && rmdir("a/b") == 0 && rmdir("a") == 0);
    assert_true(chdir("/") == 0 && rmdir(made) == 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(home_is_put_in),
        cmocka_unit_test(the_rest_is_named),
        cmocka_unit_test(links_and_new_names),
    };
    return test_mpi_main(argc, argv, tests);
}
