/* ranks: 1 2 3 4 */
/* The classification loss against transformers at every mesh and several batch sizes. */
#include "support/test_mpi.h"
#include "support/golden_image.h"

#include "loss/loss_golden.h"

typedef struct reader {
    const golden_image *in;
    int64_t pixels; /* of an image */
    int fail_at;    /* image whose reading fails; -1: none */
} reader;

static dpt_status read_images(void *ctx, int64_t first, int64_t n, float *out) {
    const reader *r = ctx;
    if (r->fail_at >= first && r->fail_at < first + n)
        return dpt_error(DPT_ERR_INPUT, "images: a test that cannot be read");
    memcpy(out, r->in->images + first * r->pixels, (size_t)(n * r->pixels) * sizeof *out);
    return DPT_OK;
}

static dpt_class_data data_of(golden_image *in, reader *r, dpt_model_image image) {
    *r = (reader){.in = in, .pixels = image.channels * image.height * image.width, .fail_at = -1};
    return (dpt_class_data){.samples = in->g.samples,
                            .channels = image.channels,
                            .height = image.height,
                            .width = image.width,
                            .labels = in->labels,
                            .ctx = r,
                            .read = read_images};
}

static void open_case(loss_fixture *f, golden_image *in, reader *r, const char *name, int size,
                      int64_t images) {
    dpt_model_image image;
    golden_image_load(name, in);
    loss_fixture_open(f, &in->g, in->correct, size);
    assert_true(dpt_model_get_image(f->model, &image));
    dpt_class_data data = data_of(in, r, image);
    assert_int_equal(
        dpt_loss_class_create(&data, &image, &f->mesh, images * image.positions, &f->loss), DPT_OK);
    assert_int_equal(dpt_loss_samples(f->loss), in->g.samples);
}

static void test_golden(void **state) {
    (void)state;
    static const int64_t batches[] = {0, 2, 1000};
    for (int c = 0; c < GOLDEN_IMAGE_CASES; c++)
        for (int size = 1; size <= test_comm.size; size++)
            for (int b = 0; b < 3 && test_comm.size % size == 0; b++) {
                loss_fixture f;
                golden_image in;
                reader r;
                open_case(&f, &in, &r, golden_image_cases[c], size, batches[b]);
                loss_check_all(&f);
                loss_fixture_close(&f);
                golden_image_free(&in);
            }
}

static void expect_refusal(const loss_fixture *f, const dpt_class_data *data, const char *named) {
    dpt_loss *loss;
    dpt_model_image image;
    dpt_model_get_image(f->model, &image);
    assert_int_equal(dpt_loss_class_create(data, &image, &f->mesh, 100, &loss), DPT_ERR_INPUT);
    assert_null(loss);
    test_error_says(named);
}

static void test_bad_data(void **state) {
    (void)state;
    loss_fixture f;
    golden_image in;
    reader r;
    open_case(&f, &in, &r, "vit", 1, 2);
    dpt_model_image image;
    dpt_model_get_image(f.model, &image);
    dpt_class_data data = data_of(&in, &r, image), bad = data;
    bad.samples = 0;
    expect_refusal(&f, &bad, "no samples");
    bad = data;
    bad.width = 224;
    expect_refusal(&f, &bad, "images are 3 x 12 x 224 (channels, height, width) but the model");
    in.labels[3] = 7;
    expect_refusal(&f, &data, "sample 3 has the label 7, but the model has 7 classes");
    in.labels[3] = -1;
    expect_refusal(&f, &data, "sample 3 has the label -1");
    in.labels[3] = 0;
    loss_check_bad_weights(f.loss);
    loss_fixture_close(&f);
    golden_image_free(&in);
}

/* A fault, or a rank that cannot read an image, ends in the same status everywhere. */
static void test_faults(void **state) {
    (void)state;
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        loss_fixture f;
        golden_image in;
        reader r;
        open_case(&f, &in, &r, "clip", size, 1);
        loss_check_faults(&f);
        if (test_comm.rank == test_comm.size - 1)
            r.fail_at = 4; /* the last replica's */
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, NULL, NULL, NULL, NULL),
                         DPT_ERR_INPUT);
        dpt_error_clear();
        r.fail_at = -1;
        loss_check_faults(&f);
        loss_fixture_close(&f);
        golden_image_free(&in);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_faults),
    };
    return test_mpi_main(argc, argv, tests);
}
