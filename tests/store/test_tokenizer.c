/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/mem.h"
#include "deltapath/store/tokenizer.h"

#include <string.h>

/* tests/tools/test_prepare_data.py has the same values from the tool that writes them. */
#define ABC     UINT64_C(0x2606eaaf9bfcffaf)
#define UNICODE UINT64_C(0x49c3ca022b7e7554)

#define RULES_OF_NONE UINT64_C(0x8057ce7d3a73a2a9)
#define RULES         UINT64_C(0xac620022738d2973)
#define RULES_ALONE   UINT64_C(0x73392b97c9e17b33)

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

static const char RULED[] =
    "{\"pre_tokenizer\": null, \"normalizer\": {\"type\": \"Sequence\", \"b\": [{\"conten"
    "t\": \"\\u2581\", \"a\": {}}, [0.1, -0.0, 1e300, -5, 2.0]]}, \"model\": {\"vocab\": "
    "{\"a\": 0}, \"merges\": []}, \"post_processor\": {\"single\": [{\"SpecialToken\": {\""
    "id\": \"<s>\"}}], \"\\u00e9\": 9223372036854775807, \"z\": true, \"a\\\"\\\\\\n\\u00"
    "7f\": \"\\u0000/\\t\\ud83d\\ude00\"}, \"added_tokens\": [{\"special\": false, \"id\""
    ": 0, \"content\": \"<s>\"}]}";
static const char CONFIG[] =
    "{\"add_bos_token\": true, \"bos_token\": {\"lstrip\": false, \"content\": \"<s>\"}, "
    "\"eos_token\": \"</s>\", \"model_max_length\": 1000000000000000019884624838656}";

static dpt_tokenizer rules_of(const char *text, const char *config) {
    dpt_tokenizer found = {.known = true};
    int64_t m = config != NULL ? (int64_t)strlen(config) : 0;
    assert_int_equal(dpt_tokenizer_rules(text, (int64_t)strlen(text), config, m, &found), DPT_OK);
    return found;
}

/* The canonical text has the same bytes as that of the tool: every kind of value is in it. */
static void rules_are_those_of_the_tool(void **state) {
    (void)state;
    assert_true(rules_of(RULED, CONFIG).rules == RULES);
    assert_true(rules_of(RULED, NULL).rules == RULES_ALONE);
    assert_true(rules_of("{\"model\": {\"vocab\": {\"b\": 7}}}", NULL).rules == RULES_OF_NONE);
    assert_true(
        rules_of("{\"normalizer\": null, \"padding\": {}}", "{\"unk_token\": \"u\"}").rules ==
        RULES_OF_NONE);
}

static void rules_that_differ(void **state) {
    (void)state;
    static const char *const texts[][2] = {
        {"{\"added_tokens\": [{\"id\": 0, \"content\": \"a\", \"lstrip\": true}]}", "{}"},
        {"{\"added_tokens\": [{\"id\": 0, \"content\": \"a\", \"lstrip\": false}]}", "{}"},
        {"{\"normalizer\": {\"type\": \"NFC\"}}", "{}"},
        {"{\"pre_tokenizer\": {\"type\": \"NFC\"}}", "{}"},
        {"{\"post_processor\": {\"type\": \"NFC\"}}", "{}"},
        {"{}", "{\"add_bos_token\": true}"},
        {"{}", "{\"add_bos_token\": false}"},
        {"{}", "{\"add_eos_token\": true}"},
        {"{}", "{\"bos_token\": \"<s>\"}"},
        {"{}", "{\"eos_token\": \"<s>\"}"},
        {"{}", "{}"}};
    enum { COUNT = sizeof texts / sizeof texts[0] };
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < COUNT; j++) {
            dpt_tokenizer a = rules_of(texts[i][0], texts[i][1]);
            dpt_tokenizer b = rules_of(texts[j][0], texts[j][1]);
            assert_true(a.rules_known && b.rules_known);
            assert_int_equal(a.rules == b.rules, i == j);
        }
    static const char *const unknown[] = {
        "{\"normalizer\": nul}", "{\"normalizer\": 9223372036854775808}", "{\"normalizer\": 1e999}",
        "{\"normalizer\": \"\\ud800\"}"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_false(rules_of(unknown[i], NULL).rules_known);
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
        assert_int_equal(dpt_tokenizer_rules(block, n, block, n, &found), DPT_OK);
        dpt_mem_free(block);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocabularies_of_all_kinds), cmocka_unit_test(the_rest_does_not_count),
        cmocka_unit_test(what_is_none_is_not_known), cmocka_unit_test(rules_are_those_of_the_tool),
        cmocka_unit_test(rules_that_differ),         cmocka_unit_test(every_cut_is_survived),
    };
    return test_mpi_main(argc, argv, tests);
}
