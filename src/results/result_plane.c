#include "result_plane.h"

#include "deltapath/base/mem.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "deltapath/store/owned.h"

#include <math.h>
#include <string.h>

void dpt_result_plane_destroy(dpt_result_plane *plane) {
    dpt_mem_free(plane->data);
    dpt_mem_free(plane->a);
    dpt_mem_free(plane->b);
    dpt_mem_free(plane->loss);
    *plane = (dpt_result_plane){.points = 0};
}

double dpt_result_plane_place(const dpt_result_plane *plane, int64_t i) {
    return plane->low + (double)i * (plane->high - plane->low) / (double)(plane->points - 1);
}

/* One of the planes of a file, in a group of the number that it has there. */
static bool plane_put_one(hid_t group, const dpt_result_plane *plane) {
    const int64_t sides[2] = {plane->points, plane->points};
    double *places = dpt_mem_alloc(plane->points, sizeof *places, "places of a plane");
    for (int64_t i = 0; places != NULL && i < plane->points; i++)
        places[i] = dpt_result_plane_place(plane, i);
    bool ok = places != NULL && dpt_h5_put_string(group, "data", plane->data) &&
              dpt_h5_put_string(group, "a", plane->a) && dpt_h5_put_string(group, "b", plane->b) &&
              dpt_h5_put_array(group, "places", H5T_NATIVE_DOUBLE, 1, sides, places) &&
              dpt_h5_put_array(group, "loss", H5T_NATIVE_DOUBLE, 2, sides, plane->loss) &&
              dpt_h5_put_array(group, "accuracy", H5T_NATIVE_DOUBLE, 2, sides, plane->accuracy);
    dpt_mem_free(places);
    return ok;
}

static hid_t plane_group(hid_t file, int64_t i, bool create) {
    char path[48];
    snprintf(path, sizeof path, "/plane/%lld", (long long)i);
    if (!create)
        return H5Gopen2(file, path, H5P_DEFAULT);
    hid_t creation = H5Pcreate(H5P_LINK_CREATE);
    hid_t group = H5I_INVALID_HID;
    if (creation >= 0 && H5Pset_create_intermediate_group(creation, 1) >= 0)
        group = H5Gcreate2(file, path, creation, H5P_DEFAULT, H5P_DEFAULT);
    if (creation >= 0)
        H5Pclose(creation);
    return group;
}

bool dpt_result_plane_put(int64_t file, const dpt_results_study *study) {
    bool ok = true;
    for (int64_t i = 0; ok && i < study->nplanes; i++) {
        hid_t group = plane_group(file, i, true);
        ok = group >= 0 && plane_put_one(group, &study->planes[i]);
        if (group >= 0)
            ok = H5Gclose(group) >= 0 && ok;
    }
    return ok;
}

static bool plane_get_one(hid_t group, int64_t file_bytes, dpt_result_plane *out) {
    int64_t n = 0, most = file_bytes / (int64_t)sizeof(double);
    bool ok = dpt_h5_get_string(group, "data", &out->data) &&
              dpt_h5_get_string(group, "a", &out->a) && dpt_h5_get_string(group, "b", &out->b) &&
              dpt_h5_length(group, "places", &n) && n >= 2 && n <= most / n;
    if (!ok)
        return false;
    const int64_t sides[2] = {n, n};
    out->points = n;
    out->loss = dpt_mem_alloc(2 * n * n, sizeof *out->loss, "losses of a plane");
    if (out->loss == NULL)
        return false;
    out->accuracy = out->loss + n * n;
    ok = dpt_h5_get_array(group, "places", H5T_NATIVE_DOUBLE, 1, &n, out->loss);
    out->low = out->loss[0];
    out->high = out->loss[n - 1];
    return ok && out->low < out->high &&
           dpt_h5_get_array(group, "loss", H5T_NATIVE_DOUBLE, 2, sides, out->loss) &&
           dpt_h5_get_array(group, "accuracy", H5T_NATIVE_DOUBLE, 2, sides, out->accuracy);
}

bool dpt_result_plane_get(int64_t file, int64_t file_bytes, dpt_results *out) {
    H5G_info_t info;
    if (H5Lexists(file, "plane", H5P_DEFAULT) <= 0)
        return true;
    bool ok = H5Gget_info_by_name(file, "plane", &info, H5P_DEFAULT) >= 0 &&
              (int64_t)info.nlinks <= file_bytes;
    int64_t n = ok ? (int64_t)info.nlinks : 0;
    out->planes = dpt_mem_zalloc(n, sizeof *out->planes, "planes");
    ok = ok && out->planes != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        hid_t group = plane_group(file, i, false);
        out->nplanes++;
        ok = group >= 0 && plane_get_one(group, file_bytes, &out->planes[i]);
        if (group >= 0)
            H5Gclose(group);
    }
    return ok;
}

void dpt_result_plane_csv(FILE *file, const dpt_results_study *study) {
    fputs(DPT_OWNED_PLANE_START "\n", file);
    for (int64_t p = 0; p < study->nplanes; p++) {
        const dpt_result_plane *plane = &study->planes[p];
        for (int64_t i = 0; i < plane->points * plane->points; i++) {
            const double row[] = {dpt_result_plane_place(plane, i % plane->points),
                                  dpt_result_plane_place(plane, i / plane->points), plane->loss[i],
                                  plane->accuracy[i]};
            /* Names of edits and data sets are plain characters: the job file allows no others. */
            fprintf(file, "%s,%s,%s", plane->data, plane->a, plane->b);
            for (int k = 0; k < 4; k++)
                if (isnan(row[k]))
                    fputc(',', file);
                else
                    fprintf(file, ",%.17g", row[k]);
            fputc('\n', file);
        }
    }
}
