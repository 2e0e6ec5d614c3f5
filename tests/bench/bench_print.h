#ifndef DELTAPATH_TESTS_BENCH_PRINT_H
#define DELTAPATH_TESTS_BENCH_PRINT_H

/* How benchmarks say what they measured: the median and the spread in absolute figures, next to the limit that
 * was measured in the same run and the ratio to it; and one JSON object a line for programs, appended to the file
 * of `--json FILE` or of the environment variable DPT_BENCH_JSON.
 *
 *     bench_begin(&argc, argv, "bench_edit", rank, ranks);
 *     bench_figure rate = bench_over(seconds, n, 1e-9 * bytes);
 *     bench_say((bench_result){.name = "dare p=0.5", .unit = "GB/s", .figure = rate, .limit = copy.median,
 *                              .ratio = rate.median / copy.median});
 *     bench_end();
 */

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Half of what was measured lies between low and high; of fewer than four all of it. */
typedef struct bench_figure {
    double median, low, high;
} bench_figure;

typedef struct bench_result {
    const char *name;    /* of the case */
    const char *unit;    /* of figure and limit */
    bench_figure figure; /* what was measured */
    double limit;        /* what it stands next to; 0: nothing */
    double ratio;        /* to the limit; 0: none */
    double seconds;      /* of one call, median; 0: the unit says it */
} bench_result;

static FILE *bench_json;
static const char *bench_name = "bench";
static int bench_rank, bench_ranks = 1;

/* Takes `--json FILE` out of the arguments. Figures are said by rank 0. */
static inline void bench_begin(int *argc, char **argv, const char *name, int rank, int ranks) {
    const char *path = getenv("DPT_BENCH_JSON");
    int kept = 1;
    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], "--json") == 0 && i + 1 < *argc)
            path = argv[++i];
        else
            argv[kept++] = argv[i];
    argv[kept] = NULL;
    *argc = kept;
    bench_name = name;
    bench_rank = rank;
    bench_ranks = ranks;
    if (rank != 0 || path == NULL || path[0] == '\0')
        return;
    bench_json = fopen(path, "a");
    if (bench_json == NULL) {
        fprintf(stderr, "%s: %s cannot be opened for JSON lines\n", name, path);
        exit(2);
    }
}

static inline void bench_end(void) {
    if (bench_json != NULL && fclose(bench_json) != 0)
        fprintf(stderr, "%s: JSON lines were not written\n", bench_name);
    bench_json = NULL;
}

static inline int bench_by_size(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Median and quartiles. Sorts x (n >= 1). */
static inline bench_figure bench_of(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, bench_by_size);
    double median = n % 2 != 0 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
    return (bench_figure){.median = median, .low = x[n / 4], .high = x[n - 1 - n / 4]};
}

/* Work by time: amount / x. Sorts x (n >= 1). */
static inline bench_figure bench_over(double *x, int n, double amount) {
    bench_figure time = bench_of(x, n);
    return (bench_figure){
        .median = amount / time.median, .low = amount / time.high, .high = amount / time.low};
}

static inline void bench_write_text(const char *text) {
    fputc('"', bench_json);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', bench_json);
        fputc(*text, bench_json);
    }
    fputc('"', bench_json);
}

static inline void bench_write_number(const char *key, double x) {
    if (isfinite(x) && x != 0.0)
        fprintf(bench_json, ", \"%s\": %.6g", key, x);
    else
        fprintf(bench_json, ", \"%s\": null", key);
}

static inline void bench_write(const bench_result *r) {
    fputs("{\"bench\": ", bench_json);
    bench_write_text(bench_name);
    fputs(", \"case\": ", bench_json);
    bench_write_text(r->name);
    fputs(", \"unit\": ", bench_json);
    bench_write_text(r->unit);
    bench_write_number("median", r->figure.median);
    bench_write_number("low", r->figure.low);
    bench_write_number("high", r->figure.high);
    bench_write_number("limit", r->limit);
    bench_write_number("ratio", r->ratio);
    bench_write_number("seconds", r->seconds);
    fprintf(bench_json, ", \"ranks\": %d}\n", bench_ranks);
    fflush(bench_json);
}

/* One line for people, and one for programs where they are wanted. */
static inline void bench_say(bench_result r) {
    if (bench_rank != 0)
        return;
    char limit[48] = "", ratio[24] = "", time[32] = "";
    if (r.limit != 0.0)
        snprintf(limit, sizeof limit, " of %.4g %s", r.limit, r.unit);
    if (r.ratio != 0.0)
        snprintf(ratio, sizeof ratio, ": %.2f", r.ratio);
    if (r.seconds != 0.0)
        snprintf(time, sizeof time, "%10.3f ms", 1e3 * r.seconds);
    printf("%-32s %9.4g %-6s (%.4g .. %.4g)%s%s%s\n", r.name, r.figure.median, r.unit, r.figure.low,
           r.figure.high, time, limit, ratio);
    fflush(stdout);
    if (bench_json != NULL)
        bench_write(&r);
}

#endif
