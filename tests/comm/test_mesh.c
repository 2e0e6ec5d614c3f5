/* ranks: 1 2 3 4 6 */
#include "support/test_mpi.h"

#include "deltapath/comm/mesh.h"

static void every_divisor(void **state) {
    (void)state;
    for (int model = 1; model <= test_comm.size; model++) {
        dpt_mesh mesh;
        dpt_status st = dpt_mesh_create(&test_comm, model, &mesh);
        if (test_comm.size % model != 0) {
            assert_int_equal(st, DPT_ERR_USAGE);
            dpt_error_clear();
            continue;
        }
        assert_int_equal(st, DPT_OK);
        assert_int_equal(mesh.world.size, test_comm.size);
        assert_int_equal(mesh.world.rank, test_comm.rank);
        assert_int_equal(mesh.model.size, model);
        assert_int_equal(mesh.data.size, test_comm.size / model);
        assert_int_equal(mesh.model.rank, test_comm.rank % model);
        assert_int_equal(mesh.data.rank, test_comm.rank / model);
        double ones[2] = {1.0, (double)mesh.data.rank};
        assert_int_equal(dpt_comm_sum_f64(&mesh.model, ones, 2), DPT_OK);
        assert_true(ones[0] == model && ones[1] == (double)mesh.data.rank * model);
        double position = mesh.model.rank;
        assert_int_equal(dpt_comm_sum_f64(&mesh.data, &position, 1), DPT_OK);
        assert_true(position == (double)mesh.model.rank * mesh.data.size);
        dpt_mesh_destroy(&mesh);
        dpt_mesh_destroy(&mesh);
    }
}

static void bad_sizes(void **state) {
    (void)state;
    static const int sizes[] = {0, -1, 1000};
    for (int i = 0; i < 3; i++) {
        dpt_mesh mesh;
        assert_int_equal(dpt_mesh_create(&test_comm, sizes[i], &mesh), DPT_ERR_USAGE);
        dpt_mesh_destroy(&mesh);
        dpt_error_clear();
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_divisor),
        cmocka_unit_test(bad_sizes),
    };
    return test_mpi_main(argc, argv, tests);
}
