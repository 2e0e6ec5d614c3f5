#ifndef DELTAPATH_TESTS_GOLDEN_IMAGE_H
#define DELTAPATH_TESTS_GOLDEN_IMAGE_H

/* A golden file of tools/reference/vit_golden.py or families_golden.py in memory. Every rank reads the file for itself. */
#include "support/golden_model.h"

typedef struct golden_image {
    golden_model g; /* without tokens */
    float *images;
    int32_t *labels;
    uint8_t *correct;
} golden_image;

/* name: a case of the folder vit, or "<folder>/<case>". */
static inline void golden_image_load(const char *name, golden_image *out) {
    golden_model *g = &out->g;
    char folder[64] = "vit";
    const char *slash = strchr(name, '/');
    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
    memset(out, 0, sizeof *out);
    hid_t file = golden_open(folder, slash != NULL ? slash + 1 : name, g);
    g->loss = golden_dataset(file, "loss", H5T_NATIVE_DOUBLE, 8);
    g->loss_edit = golden_dataset(file, "loss_edit", H5T_NATIVE_DOUBLE, 8);
    out->images = golden_dataset(file, "images", H5T_NATIVE_FLOAT, 4);
    out->labels = golden_dataset(file, "labels", H5T_NATIVE_INT32, 4);
    out->correct = golden_dataset(file, "correct", H5T_NATIVE_UINT8, 1);
    g->samples = 5;
    golden_terms(file, g);
    H5Fclose(file);
}

static inline void golden_image_free(golden_image *out) {
    golden_free(&out->g);
    free(out->images);
    free(out->labels);
    free(out->correct);
}

static inline dpt_batch golden_image_batch(const golden_image *in) {
    return (dpt_batch){.sequences = in->g.samples, .images = in->images, .labels = in->labels};
}

static const char *const golden_image_cases[] = {"vit", "vit_nobias", "clip", "clip_gelu", "tiny"};

enum { GOLDEN_IMAGE_CASES = sizeof golden_image_cases / sizeof golden_image_cases[0] };

#endif
