/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/mem.h"
#include "deltapath/store/tokenizer.h"

#include <string.h>

/* tests/tools/test_prepare_data.py has the same values from the tool that writes them. */
#define ABC     UINT64_C(0x2606eaaf9bfcffaf)
#define UNICODE UINT64_C(0x49c3ca022b7e7554)

static dpt_tokenizer hash_of(const char *text) {
    dpt_tokenizer found;
    assert_int_equal(dpt_tokenizer_hash(text, (int64_t)strlen(text), &found), DPT_OK);
    return found;
}

static void same(const char *text, uint64_t hash) {
    dpt_tokenizer found = hash_of(text);
    assert_true(found.known);
    assert_true(found.hash == hash);
}

static void vocabularies_of_all_kinds(void **state) {
    (void)state;
    same("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}}}", ABC);
    same("{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0.0], [\"b\", -1.5], [\"c\", "
         "-2]]}}",
         ABC);
    same("{\"model\": {\"vocab\": {\"b\": 1}}, \"added_tokens\": [{\"id\": 2, \"content\": \"c\"}, "
         "{\"content\": \"a\", \"id\": 0}]}",
         ABC);
    same("{\"model\": {\"vocab\": {\"\\u00e9\\n\\\"\": 3, \"\\ud83d\\ude00\": 70000, \"\": 5}}}",
         UNICODE);
}

/* What does not change which token an id stands for. */
static void the_rest_does_not_count(void **state) {
    (void)state;
    same("{\"version\":\"1.0\",\"padding\":{\"strategy\":{\"Fixed\":[1,{\"vocab\":{\"x\":9}}]}},"
         "\"added_tokens\":[{\"id\":0,\"content\":\"a\",\"special\":true}],"
         "\"post_processor\":{\"model\":{\"vocab\":{}},\"s\":\"}\\\"{\"},"
         "\"model\":{\"merges\":[\"a b\",[\"a\",\"\\\\\"]],\"vocab\":{\"c\":2,\"a\":0,\"b\":1}}}",
         ABC);
    assert_true(hash_of("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 2, \"c\": 1}}}").hash != ABC);
    assert_true(hash_of("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}}}").hash != ABC);
}

static void what_is_none_is_not_known(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "{}",
        "[]",
        "null",
        "{\"model\"",
        "{\"model\":",
        "{\"model\": {}}",
        "{\"model\": {\"vocab\": {}}}",
        "{\"model\": {\"vocab\": {\"a\": \"b\"}}}",
        "{\"model\": {\"vocab\": [1, 2]}}",
        "{\"model\": {\"vocab\": {\"a\": 1.5}}}",
        "{\"model\": {\"vocab\": {\"a\": 0}",
        "{\"model\": {\"vocab\": \"a",
        "{\"model\": {\"vocab\": {\"a\": 0}}, \"added_tokens\": [{\"content\": \"b\"}]}",
        "{\"model\": {\"vocab\": {\"a\": 0}}, \"added_tokens\": [3]}",
        "{\"model\": {\"vocab\": {\"\\ud800\": 0}}}",
        "{\"model\\",
        "{\"model\": \"\\",
        "\"model\""};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_false(hash_of(texts[i]).known);
}

/* Every beginning of a text, in a block that ends with it: the sanitizers see a read beyond. */
static void every_cut_is_survived(void **state) {
    (void)state;
    static const char text[] =
        "{\"added_tokens\": [{\"id\": 0, \"content\": \"a\\\\\"}], \"model\": {\"vocab\": "
        "{\"a\\u00e9\": 1, \"b\": 2}, \"merges\": [\"\\\"\"]}}";
    for (int64_t n = 0; n < (int64_t)sizeof text; n++) {
        dpt_tokenizer found;
        char *block = dpt_mem_alloc(n, 1, "text");
        assert_non_null(block);
        memcpy(block, text, (size_t)n);
        assert_int_equal(dpt_tokenizer_hash(block, n, &found), DPT_OK);
        dpt_mem_free(block);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocabularies_of_all_kinds),
        cmocka_unit_test(the_rest_does_not_count),
        cmocka_unit_test(what_is_none_is_not_known),
        cmocka_unit_test(every_cut_is_survived),
    };
    return test_mpi_main(argc, argv, tests);
}
