/* The verb that makes a pair of synthetic models of a configuration. */
#include "cli.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/comm/agree.h"
#include "deltapath/model/tensors.h"
#include "deltapath/store/synthetic.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { KEY_SET = 1000, KEY_SEED, KEY_DELTA, KEY_DTYPE, SETS_MAX = 64 };
static const int64_t CONFIG_LIMIT = 1 << 24;

typedef struct synthetic_words {
    const char *config, *folder;
    const char *sets[SETS_MAX];
    int nsets, seed;
    double delta;
    dpt_dtype dtype;
} synthetic_words;

static const struct argp_option synthetic_table[] = {
    {.name = "set",
     .key = KEY_SET,
     .arg = "KEY=VALUE",
     .doc = "Change a key of the configuration, as num_hidden_layers=2"},
    {.name = "seed", .key = KEY_SEED, .arg = "N", .doc = "Other values (0)"},
    {.name = "delta",
     .key = KEY_DELTA,
     .arg = "X",
     .doc = "Size of the delta over that of the weights (0.01)"},
    {.name = "dtype", .key = KEY_DTYPE, .arg = "TYPE", .doc = "bf16 (default), f16 or f32"},
    {.name = NULL}};

static error_t synthetic_refuse(const char *option, const char *value, const char *remedy) {
    (void)dpt_error(DPT_ERR_USAGE, "%s %s: %s", option, value, remedy);
    return EINVAL;
}

static error_t synthetic_take_delta(synthetic_words *w, const char *arg) {
    char *end = NULL;
    w->delta = strtod(arg, &end);
    if (end == arg || *end != '\0' || !(w->delta > 0.0 && w->delta <= 1.0))
        return synthetic_refuse("--delta", arg, "give a number above 0, up to 1");
    return 0;
}

static error_t synthetic_option(int key, char *arg, struct argp_state *state) {
    synthetic_words *w = state->input;
    switch (key) {
    case KEY_SET:
        if (w->nsets == SETS_MAX)
            return synthetic_refuse("--set", arg, "it is given too often");
        w->sets[w->nsets++] = arg;
        return 0;
    case KEY_SEED:
        return dpt_cli_count(arg, "--seed", &w->seed) == DPT_OK ? 0 : EINVAL;
    case KEY_DELTA:
        return synthetic_take_delta(w, arg);
    case KEY_DTYPE:
        if (!dpt_dtype_parse(arg, &w->dtype) || !dpt_dtype_editable(w->dtype))
            return synthetic_refuse("--dtype", arg, "give bf16, f16 or f32");
        return 0;
    case ARGP_KEY_ARG:
        if (w->folder != NULL || arg[0] == '\0')
            return EINVAL;
        *(w->config == NULL ? &w->config : &w->folder) = arg;
        return 0;
    case ARGP_KEY_END:
        if (w->folder != NULL)
            return 0;
        (void)dpt_error(DPT_ERR_USAGE, "give a config.json and a folder for pre/ and post/");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* KEY=VALUE, the value as JSON. */
static dpt_status synthetic_set(json_t *root, const char *set) {
    const char *equals = strchr(set, '=');
    json_error_t error;
    json_t *value = equals != NULL
                        ? json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error)
                        : NULL;
    char *key = equals != NULL ? dpt_mem_format("%.*s", (int)(equals - set), set) : NULL;
    dpt_status st = DPT_OK;
    if (value == NULL || key == NULL || key[0] == '\0')
        st = dpt_error(DPT_ERR_USAGE,
                       "--set %s: give a key of config.json, an equals sign and a value as JSON",
                       set);
    else if (json_object_set(root, key, value) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "--set %s: " DPT_MEM_REMEDY, set);
    json_decref(value);
    dpt_mem_free(key);
    return st;
}

/* Text of the configuration with what the words change, allocated by jansson. */
static dpt_status synthetic_config(const synthetic_words *w, char **out) {
    char *text = NULL;
    int64_t bytes = 0;
    json_error_t error;
    dpt_status st = dpt_file_read(w->config, CONFIG_LIMIT, &text, &bytes);
    if (st != DPT_OK)
        return st;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    dpt_mem_free(text);
    if (!json_is_object(root))
        st = dpt_error(DPT_ERR_INPUT, "%s: no JSON object: give the config.json of a model",
                       w->config);
    for (int i = 0; i < w->nsets && st == DPT_OK; i++)
        st = synthetic_set(root, w->sets[i]);
    if (st == DPT_OK)
        json_object_del(root, "quantization_config");
    *out = st == DPT_OK ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return st != DPT_OK || *out != NULL
               ? st
               : dpt_error(DPT_ERR_OUTPUT, "%s: " DPT_MEM_REMEDY, w->config);
}

static dpt_status synthetic_put(const synthetic_words *w, dpt_synthetic_model model,
                                const char *name, double delta) {
    char *folder = dpt_path_join(w->folder, name);
    model.delta = delta;
    dpt_status st = folder != NULL ? dpt_synthetic_write(folder, &model) : DPT_ERR_OUTPUT;
    dpt_mem_free(folder);
    return st;
}

/* Rank 0. */
static dpt_status synthetic_make(const synthetic_words *w) {
    dpt_catalog catalog;
    dpt_spread *values = NULL;
    char *config = NULL;
    dpt_catalog_init(&catalog);
    dpt_status st = synthetic_config(w, &config);
    if (st == DPT_OK)
        st = dpt_model_list_tensors(config, w->dtype, &catalog, &values);
    if (st == DPT_OK && mkdir(w->folder, 0777) != 0 && errno != EEXIST)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be made (%s): check the path", w->folder,
                       strerror(errno));
    const dpt_synthetic_model model = {
        .config = config, .catalog = &catalog, .values = values, .seed = w->seed};
    if (st == DPT_OK)
        st = synthetic_put(w, model, "pre", 0.0);
    if (st == DPT_OK)
        st = synthetic_put(w, model, "post", w->delta);
    if (st == DPT_OK)
        printf("%s/pre and %s/post: %d tensors, %" PRId64 " parameters each\n", w->folder,
               w->folder, catalog.count, dpt_catalog_elements(&catalog));
    if (st == DPT_OK && fflush(stdout) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "standard output cannot be written");
    dpt_mem_free(values);
    dpt_catalog_destroy(&catalog);
    free(config);
    return st;
}

static dpt_status run_synthetic(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {
        .options = synthetic_table,
        .parser = synthetic_option,
        .args_doc = "CONFIG FOLDER",
        .doc = "Make a pre- and a post-trained model of the architecture and size that a "
               "config.json says, of random values that take no disk: FOLDER/pre and FOLDER/post. "
               "They serve measurements."};
    synthetic_words w = {.delta = 0.01, .dtype = DPT_BF16};
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, &w);
    return st == DPT_OK ? dpt_agree(&cli->comm, cli->comm.rank == 0 ? synthetic_make(&w) : DPT_OK)
                        : st;
}

const dpt_cli_verb dpt_cli_verb_synthetic = {
    .name = "synthetic", .help = "make models of any size without disk", .run = run_synthetic};
