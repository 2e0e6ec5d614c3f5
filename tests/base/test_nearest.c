/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void distance_counts_changes(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        int distance;
    } table[] = {{"", "", 0},
                 {"abc", "", 3},
                 {"kitten", "sitting", 3},
                 {"metod", "method", 1},
                 {"methodd", "method", 1},
                 {"mehtod", "method", 1}, /* neighbours swapped: one change, not two */
                 {"ca", "abc", 3},        /* optimal string alignment: 2 in the full distance */
                 {"METHOD", "method", 0},
                 {"on_mismatch", "on-mismatch", 1}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(dpt_nearest_distance(table[i].a, table[i].b), table[i].distance);
        assert_int_equal(dpt_nearest_distance(table[i].b, table[i].a), table[i].distance);
    }
    char longest[DPT_NEAREST_WORD + 8];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(dpt_nearest_distance(longest, "x"), DPT_NEAREST_WORD);
    longest[DPT_NEAREST_WORD - 1] = '\0'; /* the longest that is compared */
    assert_int_equal(dpt_nearest_distance(longest, ""), DPT_NEAREST_WORD - 1);
}

static const char *hint_of(const char *word, const char *list) {
    static char hint[DPT_NEAREST_HINT];
    return dpt_nearest_of_list(word, list, " |", hint);
}

static void the_nearest_is_named(void **state) {
    (void)state;
    static const char keys[] = "name models data edits select riemann output";
    assert_string_equal(hint_of("edit", keys), " (did you mean 'edits'?)");
    assert_string_equal(hint_of("reimann", keys), " (did you mean 'riemann'?)");
    assert_string_equal(hint_of("Output", keys), " (did you mean 'output'?)");
    assert_string_equal(hint_of("dir", "directory|checkpoint"), " (did you mean 'directory'?)");
    assert_string_equal(hint_of("abcd", "abce abcf"), " (did you mean 'abce'?)");
    assert_string_equal(hint_of("abcd", "abxx abcf"), " (did you mean 'abcf'?)");
}

static void what_is_far_is_not(void **state) {
    (void)state;
    assert_string_equal(hint_of("colour", "name models data"), "");
    assert_string_equal(hint_of("q", "p k"), ""); /* a letter resembles every other */
    assert_string_equal(hint_of("", "p k"), "");
    assert_string_equal(hint_of("abcdef", "abcxyz"), "");
    assert_string_equal(hint_of("ab", "abc"), "");
    assert_string_equal(hint_of("name", ""), "");
}

static void paths_are_compared_with_their_folder(void **state) {
    (void)state;
    char root[] = "/tmp/nearest.XXXXXX", path[256], hint[DPT_NEAREST_PATH], want[512];
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/llama-post", root);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/lama-post/model.safetensors", root);
    snprintf(want, sizeof want, " (did you mean '%s/llama-post'?)", root);
    assert_string_equal(dpt_nearest_path(path, hint), want);
    snprintf(path, sizeof path, "%s//llama-pots/", root);
    assert_string_equal(dpt_nearest_path(path, hint), want);
    snprintf(path, sizeof path, "%s/qwen", root);
    assert_string_equal(dpt_nearest_path(path, hint), "");
    snprintf(path, sizeof path, "%s/llama-post", root); /* exists */
    assert_string_equal(dpt_nearest_path(path, hint), "");
    assert_int_equal(chdir(root), 0);
    assert_string_equal(dpt_nearest_path("llama_post", hint), " (did you mean 'llama-post'?)");
    assert_string_equal(dpt_nearest_path("", hint), "");
    assert_int_equal(rmdir("llama-post"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_string_equal(dpt_nearest_path("/tpm", hint), " (did you mean '/tmp'?)");
    assert_int_equal(rmdir(root), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distance_counts_changes),
        cmocka_unit_test(the_nearest_is_named),
        cmocka_unit_test(what_is_far_is_not),
        cmocka_unit_test(paths_are_compared_with_their_folder),
    };
    return test_mpi_main(argc, argv, tests);
}
