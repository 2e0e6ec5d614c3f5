#include "report_parts.h"

#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <math.h>

/* All lengths here are pixels of the plot. */
enum {
    DIGIT_WIDTH = 7,
    DIGIT_HEIGHT = 12,
    POINT_RADIUS = 4,
    DIRECTIONS = 16,
    RINGS = 7,
    CROSSING = 25, /* a line that is crossed is worth as much as this detour */
    AMBIGUOUS = 8, /* another point is less than this farther from the number than its own */
    CLEARANCE = 4, /* of the caps of a bar */
    LEADER_FROM = 16
};

typedef struct box {
    double low[2];
    double high[2];
} box;

typedef struct segment {
    double from[2];
    double to[2];
} segment;

/* What a number has to keep clear of: boxes never overlap, lines are crossed when there is no other
 * way. */
typedef struct layout {
    box *boxes;
    int64_t nboxes;
    int64_t npoints; /* the first of the boxes */
    segment *lines;
    int64_t nlines;
} layout;

static box box_around(double x, double y, double half_width, double half_height) {
    return (box){{x - half_width, y - half_height}, {x + half_width, y + half_height}};
}

static bool overlap(const box *a, const box *b) {
    return a->low[0] < b->high[0] && b->low[0] < a->high[0] && a->low[1] < b->high[1] &&
           b->low[1] < a->high[1];
}

/* Where a segment enters a box, as a share of its length; above 1 when it misses it. */
static double entry(const segment *s, const box *b) {
    double first = 0.0;
    double last = 1.0;
    for (int k = 0; k < 2; k++) {
        double step = s->to[k] - s->from[k];
        double ends[2] = {b->low[k] - s->from[k], b->high[k] - s->from[k]};
        if (step == 0.0) {
            if (ends[0] > 0.0 || ends[1] < 0.0)
                return 2.0;
            continue;
        }
        first = fmax(first, fmin(ends[0] / step, ends[1] / step));
        last = fmin(last, fmax(ends[0] / step, ends[1] / step));
    }
    return first <= last ? first : 2.0;
}

/* Where a number goes. */
typedef struct spot {
    segment leader; /* from its point to its middle */
    double distance;
    box place;
    bool ambiguous; /* another point is about as near */
    double cost;    /* infinite: there is no room */
} spot;

static bool is_ambiguous(const layout *l, const spot *s) {
    for (int64_t i = 0; i < l->npoints; i++) {
        double x = 0.5 * (l->boxes[i].low[0] + l->boxes[i].high[0]);
        double y = 0.5 * (l->boxes[i].low[1] + l->boxes[i].high[1]);
        bool own = hypot(x - s->leader.from[0], y - s->leader.from[1]) < 1e-6;
        if (!own && hypot(x - s->leader.to[0], y - s->leader.to[1]) < s->distance + AMBIGUOUS)
            return true;
    }
    return false;
}

/* Cost of a number in a spot; infinite when it collides. */
static double label_cost_of(const layout *l, const dpt_report_square *plot, const spot *s) {
    const box *place = &s->place;
    double cost = s->distance + (s->ambiguous ? CROSSING : 0.0);
    box wide = *place;
    for (int k = 0; k < 2; k++) {
        wide.low[k] -= CLEARANCE;
        wide.high[k] += CLEARANCE;
    }
    if (place->low[0] < 0.0 || place->low[1] < 0.0 || place->high[0] > plot->pixels ||
        place->high[1] > plot->pixels)
        return INFINITY;
    for (int64_t i = 0; i < l->nboxes; i++) {
        if (overlap(place, &l->boxes[i]))
            return INFINITY;
        double at = entry(&s->leader, &l->boxes[i]);
        cost += at > 0.0 && at <= 1.0 ? CROSSING : 0.0; /* 0: it starts in its own point */
    }
    for (int64_t i = 0; i < l->nlines; i++)
        cost += entry(&l->lines[i], &wide) <= 1.0 ? CROSSING : 0.0;
    return cost;
}

/* The cheapest place of a number around its point. */
static spot find_spot(const layout *l, const dpt_report_square *plot, const double point[2],
                      double half_width) {
    static const double rings[RINGS] = {12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 90.0};
    spot best = {.cost = INFINITY};
    for (int k = 0; k < RINGS && rings[k] < best.cost; k++)
        for (int d = 0; d < DIRECTIONS; d++) {
            double angle = 2.0 * M_PI * (d - 1.5) / DIRECTIONS; /* first to the lower right */
            double x = point[0] + rings[k] * cos(angle);
            double y = point[1] + rings[k] * sin(angle);
            spot here = {.leader = {{point[0], point[1]}, {x, y}},
                         .distance = rings[k],
                         .place = box_around(x, y, half_width, 0.5 * DIGIT_HEIGHT)};
            here.ambiguous = is_ambiguous(l, &here);
            here.cost = label_cost_of(l, plot, &here);
            if (here.cost < best.cost)
                best = here;
        }
    return best;
}

static double pixel_of(const dpt_report_square *plot, double x) {
    double place = dpt_report_axis_place(&plot->axis, x);
    return plot->pixels * (place - plot->low) / (plot->high - plot->low);
}

static double label_place_of(const dpt_report_square *plot, double pixel) {
    return plot->low + (plot->high - plot->low) * pixel / plot->pixels;
}

static bool has_point(const dpt_result_scalars *s) {
    return isfinite(s->change) && isfinite(s->estimate);
}

/* Points and their bars are there before the first number. */
static void add_points(layout *l, const dpt_report_square *plot, const dpt_report_group *group) {
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        if (!has_point(s))
            continue;
        double x = pixel_of(plot, s->change);
        double y = pixel_of(plot, s->estimate);
        l->boxes[l->nboxes++] = box_around(x, y, POINT_RADIUS, POINT_RADIUS);
        if (isfinite(s->change_low) && isfinite(s->change_high))
            l->lines[l->nlines++] =
                (segment){{pixel_of(plot, s->change_low), y}, {pixel_of(plot, s->change_high), y}};
        if (isfinite(s->estimate_low) && isfinite(s->estimate_high))
            l->lines[l->nlines++] = (segment){{x, pixel_of(plot, s->estimate_low)},
                                              {x, pixel_of(plot, s->estimate_high)}};
    }
}

static void print_leader(FILE *script, const dpt_report_square *plot, const segment *leader,
                         const box *place) {
    double end = entry(leader, place);
    fprintf(script,
            "set arrow from %.17g,%.17g to %.17g,%.17g nohead lc rgb '#a9b0bb' lw 0.8 back\n",
            label_place_of(plot, leader->from[0]), label_place_of(plot, leader->from[1]),
            label_place_of(plot, leader->from[0] + end * (leader->to[0] - leader->from[0])),
            label_place_of(plot, leader->from[1] + end * (leader->to[1] - leader->from[1])));
}

static int64_t print_numbers(FILE *script, layout *l, const dpt_report_square *plot,
                             const dpt_report_group *group) {
    int64_t left = 0;
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result_scalars *s = &group->units[i]->scalars;
        if (!has_point(s))
            continue;
        const double point[2] = {pixel_of(plot, s->change), pixel_of(plot, s->estimate)};
        double half_width = 0.5 * DIGIT_WIDTH * (floor(log10((double)(i + 1))) + 1.0);
        spot at = find_spot(l, plot, point, half_width);
        if (!isfinite(at.cost)) {
            left++;
            continue;
        }
        fprintf(script,
                "set label '%" PRId64 "' at %.17g,%.17g center font ',10' tc rgb '#5a6270' front\n",
                i + 1, label_place_of(plot, at.leader.to[0]),
                label_place_of(plot, at.leader.to[1]));
        l->boxes[l->nboxes++] = at.place;
        if (at.distance > LEADER_FROM || at.ambiguous) {
            print_leader(script, plot, &at.leader, &at.place);
            l->lines[l->nlines++] = at.leader;
        }
    }
    return left;
}

dpt_status dpt_report_numbers(FILE *script, const dpt_report_square *plot,
                              const dpt_report_group *group, int64_t *left) {
    layout l = {.boxes = NULL};
    int64_t room;
    *left = 0;
    if (group->count > DPT_REPORT_NUMBERS_MAX) { /* more are a cloud, and slow to place */
        *left = group->count;
        return DPT_OK;
    }
    if (!dpt_mem_mul(3, group->count, &room))
        return dpt_error(DPT_ERR_OUTPUT, "report: too many results");
    l.boxes = dpt_mem_alloc(room + 1, sizeof *l.boxes, "places of numbers");
    l.lines = dpt_mem_alloc(room + 1, sizeof *l.lines, "places of numbers");
    if (l.boxes != NULL && l.lines != NULL) {
        l.boxes[l.nboxes++] =
            (box){{plot->pixels - plot->key_width, 0.0}, {plot->pixels, plot->key_height}};
        add_points(&l, plot, group);
        *left = print_numbers(script, &l, plot, group);
    }
    bool ok = l.boxes != NULL && l.lines != NULL;
    dpt_mem_free(l.boxes);
    dpt_mem_free(l.lines);
    return ok ? DPT_OK : DPT_ERR_OUTPUT;
}
