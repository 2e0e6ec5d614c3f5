/* Inputs are never outputs: by spelling, by link, by what lies inside or around them. */
#include "deltapath/base/guard.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char home[] = "/tmp/deltapath-guard-XXXXXX";

static void make_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    close(fd);
}

/* model/{weights,sub/}, data.h5, hard (the same file as weights), to-model -> model, to-data -> data.h5,
 * hub/{link -> ../blob, up -> ..}, blob, other/ */
static int make_files(void **state) {
    (void)state;
    if (mkdtemp(home) == NULL || chdir(home) != 0)
        return -1;
    mkdir("model", 0777);
    mkdir("model/sub", 0777);
    mkdir("hub", 0777);
    mkdir("other", 0777);
    make_file("model/weights");
    make_file("data.h5");
    make_file("blob");
    make_file("free");
    return link("model/weights", "hard") | symlink("model", "to-model") |
           symlink("data.h5", "to-data") | symlink("../blob", "hub/link") |
           symlink("..", "hub/up") | mkfifo("pipe", 0666);
}

static int remove_files(void **state) {
    (void)state;
    char command[200];
    dpt_guard_clear();
    snprintf(command, sizeof command, "rm -r '%s'", home);
    return chdir("/") | system(command);
}

static int register_inputs(void **state) {
    (void)state;
    dpt_guard_clear();
    return dpt_guard_input("./model/") | dpt_guard_input("to-data") | dpt_guard_input("hub") |
           dpt_guard_input("missing");
}

static void refused(const char *path, const char *input) {
    if (dpt_guard_output(path) != DPT_ERR_OUTPUT || strstr(dpt_error_message(), path) == NULL ||
        strstr(dpt_error_message(), input) == NULL)
        fail_msg("%s: \"%s\" does not name %s", path, dpt_error_message(), input);
    dpt_error_clear();
}

static void allowed(const char *path) {
    if (dpt_guard_output(path) != DPT_OK)
        fail_msg("%s: %s", path, dpt_error_message());
}

static void test_same_file(void **state) {
    (void)state;
    char absolute[200];
    snprintf(absolute, sizeof absolute, "%s//other/../model", home);
    static const char *const ways[] = {"model",          "model/",   "./model//",
                                       "other/../model", "to-model", "hub/up/model"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        refused(ways[i], "model");
    refused(absolute, "model");
    refused("data.h5", "to-data");
    refused("to-data", "to-data");
    refused("hard", "model/weights");
    refused("blob", "hub/link");
}

static void test_inside_a_folder(void **state) {
    (void)state;
    refused("model/new", "model");
    refused("model/weights.partial", "model");
    refused("model/sub/new", "model");
    refused("model/not/yet/there", "model");
    refused("to-model/new", "model");
    refused("other/../model/new", "model");
    refused("hub/new", "hub");
}

static void test_around_an_input(void **state) {
    (void)state;
    refused(home, "model");
    refused("/", "model");
    refused("hub/..", "hub");
}

static void test_no_plain_file(void **state) {
    (void)state;
    assert_int_equal(symlink("free", "to-free"), 0);
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    refused("to-free", "link");
    refused("dangling", "link");
    refused("pipe", "pipe");
    refused("/dev/null", "device");
}

static void test_allowed(void **state) {
    (void)state;
    static const char *const paths[] = {"free",
                                        "new",
                                        "./new",
                                        "other",
                                        "other/new",
                                        "other/a/b/c",
                                        "models",
                                        "model2",
                                        "hub2/x",
                                        "hub/../new",
                                        "data.h5.partial-deltapath"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        allowed(paths[i]);
    char absolute[200];
    snprintf(absolute, sizeof absolute, "%s/new", home);
    allowed(absolute);
}

/* An input that was moved away and came back under another name is still one. */
static void test_moved(void **state) {
    (void)state;
    assert_int_equal(rename("data.h5", "moved.h5"), 0);
    refused("moved.h5", "to-data");
    assert_int_equal(rename("moved.h5", "data.h5"), 0);
}

static void test_many(void **state) {
    (void)state;
    char path[64];
    for (int i = 0; i < 300; i++) {
        snprintf(path, sizeof path, "other/%d", i);
        make_file(path);
        assert_int_equal(dpt_guard_input(path), DPT_OK);
    }
    for (int i = 0; i < 300; i++) {
        snprintf(path, sizeof path, "other/%d", i);
        refused(path, path);
    }
}

static void moved(const char *path, const char *folder) {
    assert_true(dpt_guard_is_moved(path));
    assert_int_equal(dpt_guard_output(path), DPT_ERR_OUTPUT);
    if (strncmp(dpt_error_message(), folder, strlen(folder)) != 0 ||
        strstr(dpt_error_message(), "is another folder than the one") == NULL)
        fail_msg("%s: \"%s\" does not name %s", path, dpt_error_message(), folder);
    dpt_error_clear();
}

static void test_folder_exchanged(void **state) {
    (void)state;
    mkdir("out", 0777);
    mkdir("out/units", 0777);
    assert_int_equal(dpt_guard_enter("out/"), DPT_OK);
    assert_int_equal(dpt_guard_enter("out/units"), DPT_OK);
    assert_int_equal(dpt_guard_enter("out/missing"), DPT_OK);
    allowed("out/units/a");
    allowed("outer");
    assert_int_equal(rename("out", "mine"), 0);
    moved("out/a", "out: ");
    mkdir("out", 0777);
    mkdir("out/units", 0777);
    moved("out/a", "out: ");
    moved("out//units/a", "out: ");
    moved("out", "out: ");
    allowed("outer");
    allowed("mine/a");
    assert_int_equal(dpt_guard_enter("out"), DPT_OK); /* it stays the one that was entered */
    moved("out/a", "out: ");
    dpt_guard_leave("out//");
    assert_int_equal(dpt_guard_enter("out"), DPT_OK);
    allowed("out/units/a");
    assert_int_equal(dpt_guard_enter("out/units"), DPT_OK);
    assert_int_equal(rename("out/units", "out/old") | rename("mine/units", "out/units"), 0);
    moved("out/units/a", "out/units: ");
    allowed("out/a");
    dpt_guard_clear();
    allowed("out/units/a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_same_file, register_inputs),
        cmocka_unit_test_setup(test_inside_a_folder, register_inputs),
        cmocka_unit_test_setup(test_around_an_input, register_inputs),
        cmocka_unit_test_setup(test_no_plain_file, register_inputs),
        cmocka_unit_test_setup(test_allowed, register_inputs),
        cmocka_unit_test_setup(test_moved, register_inputs),
        cmocka_unit_test_setup(test_many, register_inputs),
        cmocka_unit_test_setup(test_folder_exchanged, register_inputs),
    };
    return cmocka_run_group_tests_name("guard", tests, make_files, remove_files);
}
