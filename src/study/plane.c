#include "plane.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/results/reference_cache.h"
#include "recipe.h"

#include <math.h>
#include <string.h>

enum { PIECE = 1 << 13 }; /* elements formed at a time */

/* What all points share. */
typedef struct surface {
    const dpt_inputs *inputs;
    const dpt_shard *shard; /* of the models */
    dpt_evaluation *evaluation;
    dpt_field *a, *b; /* W_a, W_b */
    dpt_catalog catalog;
    dpt_shard cells;      /* the same cells in fp32 */
    dpt_field *point;     /* W_post + x E_a + y E_b */
    const uint64_t *keys; /* of W_a and W_b */
    double x, y;          /* of the point in hand */
    bool bound;           /* the model has it already */
} surface;

static const dpt_comm *world_of(const surface *s) {
    return &s->evaluation->mesh.world;
}

/* Every type that is computed with becomes fp32: a point of a plane is in no file. */
static dpt_status plane_catalog(const dpt_catalog *from, dpt_catalog *out) {
    dpt_status st = dpt_catalog_copy(from, out);
    for (int t = 0; t < out->count && st == DPT_OK; t++)
        if (dpt_dtype_editable(out->tensors[t].dtype))
            out->tensors[t].dtype = DPT_F32;
    return st;
}

/* `--only` may leave an edit out. */
static bool plane_is_wanted(const dpt_job *job) {
    return job->plane.a != NULL && dpt_job_find_edit(job, job->plane.a) >= 0 &&
           dpt_job_find_edit(job, job->plane.b) >= 0;
}

bool dpt_plane_has(const dpt_job *job, int e) {
    return plane_is_wanted(job) &&
           (dpt_job_find_edit(job, job->plane.a) == e || dpt_job_find_edit(job, job->plane.b) == e);
}

int64_t dpt_plane_passes(const dpt_job *job) {
    int64_t points = plane_is_wanted(job) ? job->plane.points : 0;
    return points * points * job->njudged;
}

dpt_status dpt_plane_bytes(const dpt_inputs *in, const dpt_shard *shard, int64_t *cells,
                           int64_t *blocks) {
    dpt_catalog catalog;
    *cells = *blocks = 0;
    if (!plane_is_wanted(in->job))
        return DPT_OK;
    dpt_status st = plane_catalog(&in->out_catalog, &catalog);
    if (st != DPT_OK)
        return st;
    *cells = dpt_field_bytes(&in->out_catalog, shard) + dpt_field_bytes(&catalog, shard) +
             (int64_t)DPT_CELL * (int64_t)sizeof(double);
    *blocks = dpt_catalog_bytes(&catalog);
    dpt_catalog_destroy(&catalog);
    return DPT_OK;
}

/* One cell of the point. @param[in] post  its stored values, (n) of the type of post. */
static void plane_mix(const surface *s, dpt_range cell, int64_t index, const unsigned char *post) {
    const dpt_tensor_info *info = &s->inputs->catalog->tensors[cell.tensor];
    dpt_dtype edited = s->inputs->out_catalog.tensors[cell.tensor].dtype;
    const unsigned char *a = dpt_field_cell(s->a, index), *b = dpt_field_cell(s->b, index);
    float *out = dpt_field_cell(s->point, index);
    float x = (float)s->x, y = (float)s->y, from[2][PIECE];
    if (!dpt_dtype_editable(info->dtype)) {
        memcpy(out, post, (size_t)(cell.n * dpt_dtype_size(info->dtype)));
        return;
    }
    for (int64_t at = 0; at < cell.n; at += PIECE) {
        int64_t n = cell.n - at < PIECE ? cell.n - at : PIECE;
        int64_t offset = at * dpt_dtype_size(edited);
        dpt_dtype_to_f32(info->dtype, post + at * dpt_dtype_size(info->dtype), out + at, n);
        dpt_dtype_to_f32(edited, a + offset, from[0], n);
        dpt_dtype_to_f32(edited, b + offset, from[1], n);
        for (int64_t i = 0; i < n; i++)
            out[at + i] += x * (from[0][i] - out[at + i]) + y * (from[1][i] - out[at + i]);
    }
}

/* The cells of this rank. */
static dpt_status plane_form(const surface *s) {
    dpt_source post = dpt_store_source(s->inputs->post);
    const int64_t *own = s->shard->rank_first + world_of(s)->rank;
    unsigned char *stored =
        dpt_mem_alloc(DPT_CELL, sizeof(double), "cell of the post-trained model");
    dpt_status st = stored != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = own[0]; c < own[1] && st == DPT_OK; c++) {
        dpt_range cell = dpt_shard_cell(s->shard, c);
        st = dpt_stop_check();
        if (st == DPT_OK)
            st = post.read(post.ctx, cell, stored);
        if (st == DPT_OK)
            plane_mix(s, cell, c, stored);
    }
    dpt_mem_free(stored);
    return st;
}

static uint64_t plane_point_key(const surface *s) {
    double place[2] = {s->x, s->y};
    uint64_t parts[4] = {s->keys[0], s->keys[1]};
    memcpy(&parts[2], place, sizeof place);
    return dpt_hash_bytes(parts, sizeof parts);
}

/* Only for a pass that no earlier run has finished, and once for all data sets. */
static dpt_status plane_bind(void *ctx) {
    surface *s = ctx;
    if (s->bound)
        return DPT_OK;
    dpt_status st = dpt_agree(world_of(s), plane_form(s));
    dpt_source point = dpt_field_source(s->point);
    if (st == DPT_OK)
        st = dpt_evaluation_bind(s->evaluation, &point, plane_point_key(s));
    s->bound = st == DPT_OK;
    return st;
}

static double place_of(const dpt_job_plane *plane, int i) {
    return plane->low + i * (plane->high - plane->low) / (plane->points - 1);
}

static dpt_status plane_evaluate(surface *s, dpt_plane *out) {
    const dpt_job_plane *plane = &s->inputs->job->plane;
    dpt_status st = DPT_OK;
    for (int i = 0; i < plane->points * plane->points && st == DPT_OK; i++) {
        s->x = place_of(plane, i % plane->points);
        s->y = place_of(plane, i / plane->points);
        s->bound = false;
        for (int d = 0; d < out->count && st == DPT_OK; d++)
            if (!out->known[d])
                st = dpt_evaluation_place(s->evaluation, d, plane_point_key(s), plane_bind, s,
                                          &out->planes[d].loss[i], &out->planes[d].accuracy[i]);
    }
    return st;
}

/* Both edits in cells, and room for the points. */
static dpt_status plane_open(surface *s, const dpt_plane_edits *edits, const dpt_plane *plane) {
    const dpt_inputs *in = s->inputs;
    const dpt_comm *world = world_of(s);
    dpt_status st = dpt_agree(world, plane_catalog(&in->out_catalog, &s->catalog));
    if (st != DPT_OK)
        return st;
    s->cells = *s->shard;
    s->cells.catalog = &s->catalog;
    st = dpt_field_create(world, &in->out_catalog, s->shard, &s->b);
    if (st == DPT_OK)
        st = dpt_field_create(world, &s->catalog, &s->cells, &s->point);
    if (st == DPT_OK)
        st = edits->make(edits->ctx, plane->edits[0], s->a);
    if (st == DPT_OK)
        st = edits->make(edits->ctx, plane->edits[1], s->b);
    return st;
}

static void plane_close(surface *s) {
    dpt_field_destroy(s->point);
    dpt_field_destroy(s->b);
    dpt_catalog_destroy(&s->catalog);
}

static dpt_status plane_allocate(const dpt_job *job, dpt_plane *out) {
    int64_t n = (int64_t)job->plane.points * job->plane.points;
    out->planes = dpt_mem_zalloc(job->njudged, sizeof *out->planes, "planes");
    out->known = dpt_mem_zalloc(job->njudged, sizeof *out->known, "planes that are known");
    out->count = out->planes != NULL ? job->njudged : 0;
    bool whole = out->planes != NULL && out->known != NULL;
    for (int d = 0; d < out->count; d++) {
        dpt_result_plane *one = &out->planes[d];
        *one = (dpt_result_plane){
            .points = job->plane.points, .low = job->plane.low, .high = job->plane.high};
        one->data = dpt_mem_strdup(job->data[d].name, "name of a data set");
        one->a = dpt_mem_strdup(job->plane.a, "name of an edit");
        one->b = dpt_mem_strdup(job->plane.b, "name of an edit");
        /* In one block: it is kept as one. */
        one->loss = dpt_mem_zalloc(2 * n, sizeof *one->loss, "losses of a plane");
        one->accuracy = one->loss != NULL ? one->loss + n : NULL;
        whole = whole && one->data != NULL && one->a != NULL && one->b != NULL && one->loss != NULL;
    }
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Of all that the numbers of a data set depend on, besides ranks. */
static uint64_t plane_key(const dpt_inputs *in, const dpt_plane *plane, int d) {
    const dpt_job_plane *job = &in->job->plane;
    double range[3] = {job->low, job->high, job->points};
    uint64_t parts[7] = {plane->keys[0], plane->keys[1], dpt_inputs_data_key(in, d),
                         dpt_hash_string(DPT_VERSION) + DPT_RESULTS_VERSION};
    memcpy(&parts[4], range, sizeof range);
    return dpt_hash_bytes(parts, sizeof parts);
}

/* The numbers of a data set are kept, or those that an earlier run kept are taken. */
static dpt_status plane_keep(const dpt_comm *comm, const dpt_inputs *in, dpt_plane *plane, int d,
                             bool save) {
    dpt_result_plane *one = &plane->planes[d];
    int64_t n = 2 * one->points * one->points;
    char *path =
        dpt_mem_format("%s/references/plane@%s.h5", in->job->directory, in->job->data[d].name);
    dpt_status st = dpt_agree(comm, path != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK && save)
        st = dpt_cache_save(comm, path, plane_key(in, plane, d), n, one->loss);
    else if (st == DPT_OK)
        st = dpt_cache_load(comm, path, plane_key(in, plane, d), n, one->loss, &plane->known[d]);
    dpt_mem_free(path);
    return st;
}

dpt_status dpt_plane_find(const dpt_comm *comm, const dpt_inputs *in, bool resumes,
                          dpt_plane *out) {
    const dpt_job *job = in->job;
    const char *const names[] = {job->plane.a, job->plane.b};
    DPT_ASSERT_SAME(comm, resumes);
    *out = (dpt_plane){.count = 0};
    if (names[0] == NULL)
        return DPT_OK;
    if (!plane_is_wanted(job)) {
        dpt_log(DPT_LOG_INFO, "plane of %s and %s: --only leaves one of them out", names[0],
                names[1]);
        return DPT_OK;
    }
    for (int i = 0; i < 2; i++) {
        out->edits[i] = &job->edits[dpt_job_find_edit(job, names[i])];
        out->keys[i] = dpt_recipe_in_memory(in, out->edits[i], &out->edits[i]->spec);
    }
    dpt_status st = dpt_agree(comm, plane_allocate(job, out));
    for (int d = 0; d < out->count && st == DPT_OK; d++) {
        if (resumes)
            st = plane_keep(comm, in, out, d, false);
        out->missing += !out->known[d];
    }
    if (st != DPT_OK)
        dpt_plane_destroy(out);
    return st;
}

dpt_status dpt_plane_run(const dpt_shard *shard, dpt_field *field, dpt_evaluation *evaluation,
                         const dpt_plane_edits *edits, dpt_plane *plane) {
    const dpt_inputs *in = evaluation->inputs;
    surface s = {
        .inputs = in, .shard = shard, .evaluation = evaluation, .a = field, .keys = plane->keys};
    DPT_ASSERT_SAME_ARRAY(world_of(&s), plane->keys, 2);
    dpt_log(DPT_LOG_INFO, "plane of %s and %s: %d points", plane->edits[0]->id, plane->edits[1]->id,
            in->job->plane.points * in->job->plane.points);
    dpt_passes_begin_edit(&evaluation->passes);
    dpt_status st = plane_open(&s, edits, plane);
    if (st == DPT_OK)
        st = plane_evaluate(&s, plane);
    for (int d = 0; d < plane->count && st == DPT_OK; d++)
        if (!plane->known[d])
            st = plane_keep(world_of(&s), in, plane, d, true);
    if (st == DPT_OK)
        dpt_passes_end_edit(&evaluation->passes);
    plane_close(&s);
    return st;
}

void dpt_plane_destroy(dpt_plane *plane) {
    for (int d = 0; d < plane->count; d++)
        dpt_result_plane_destroy(&plane->planes[d]);
    dpt_mem_free(plane->planes);
    dpt_mem_free(plane->known);
    *plane = (dpt_plane){.count = 0};
}
