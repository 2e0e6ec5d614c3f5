#include "deltapath/base/nearest.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { CHANGES_MAX = 3, PREFIX_LEAST = 3, ENTRIES_MAX = 4096, PATH_LONGEST = 4096 };

static bool nearest_same(char a, char b) {
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static int nearest_least(int a, int b) {
    return a < b ? a : b;
}

int dpt_nearest_distance(const char *a, const char *b) {
    int rows[3][DPT_NEAREST_WORD + 1]; /* of the matrix: before the last, last, this */
    int n = (int)strnlen(a, DPT_NEAREST_WORD);
    int m = (int)strnlen(b, DPT_NEAREST_WORD);
    if (n == DPT_NEAREST_WORD || m == DPT_NEAREST_WORD)
        return DPT_NEAREST_WORD;
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *here = rows[i % 3];
        const int *above = rows[(i - 1) % 3];
        here[0] = i;
        for (int j = 1; j <= m; j++) {
            bool same = nearest_same(a[i - 1], b[j - 1]);
            int cost = nearest_least(above[j], here[j - 1]) + 1;
            cost = nearest_least(cost, above[j - 1] + !same);
            if (i > 1 && j > 1 && nearest_same(a[i - 1], b[j - 2]) &&
                nearest_same(a[i - 2], b[j - 1]))
                cost = nearest_least(cost, rows[(i - 2) % 3][j - 2] + 1);
            here[j] = cost;
        }
    }
    return rows[n % 3][m];
}

dpt_nearest dpt_nearest_begin(const char *word) {
    return (dpt_nearest){.word = word, .distance = DPT_NEAREST_WORD};
}

void dpt_nearest_offer(dpt_nearest *nearest, const char *candidate, size_t length) {
    char text[DPT_NEAREST_WORD];
    size_t letters = strlen(nearest->word);
    if (length == 0 || length >= sizeof text || letters >= sizeof text)
        return;
    snprintf(text, sizeof text, "%.*s", (int)length, candidate);
    int maximum = nearest_least((int)letters / 3, CHANGES_MAX);
    int distance = dpt_nearest_distance(nearest->word, text);
    bool begins = letters >= PREFIX_LEAST && strncasecmp(nearest->word, text, letters) == 0;
    if (begins)
        distance = nearest_least(distance, maximum);
    if (distance > maximum || distance >= nearest->distance)
        return;
    nearest->distance = distance;
    memcpy(nearest->best, text, sizeof text);
}

void dpt_nearest_offer_list(dpt_nearest *nearest, const char *list, const char *separators) {
    for (const char *at = list; *at != '\0';) {
        size_t length = strcspn(at, separators);
        dpt_nearest_offer(nearest, at, length);
        at += length;
        at += strspn(at, separators);
    }
}

void dpt_nearest_hint(const dpt_nearest *nearest, char hint[DPT_NEAREST_HINT]) {
    hint[0] = '\0';
    if (nearest->distance < DPT_NEAREST_WORD)
        snprintf(hint, DPT_NEAREST_HINT, " (did you mean '%s'?)", nearest->best);
}

const char *dpt_nearest_of_list(const char *word, const char *list, const char *separators,
                                char hint[DPT_NEAREST_HINT]) {
    dpt_nearest nearest = dpt_nearest_begin(word);
    dpt_nearest_offer_list(&nearest, list, separators);
    dpt_nearest_hint(&nearest, hint);
    return hint;
}

/* Length of the part of a path that exists, its trailing slashes left out; 0: not even its beginning. */
static size_t nearest_existing(const char *path) {
    char part[PATH_LONGEST];
    struct stat info;
    size_t found = path[0] == '/' ? 1 : 0;
    for (size_t at = found; path[at] != '\0';) {
        at += strspn(path + at, "/");
        at += strcspn(path + at, "/");
        snprintf(part, sizeof part, "%.*s", (int)at, path);
        if (stat(part, &info) != 0)
            break;
        found = at;
    }
    return found;
}

const char *dpt_nearest_path(const char *path, char hint[DPT_NEAREST_PATH]) {
    char folder[PATH_LONGEST], missing[DPT_NEAREST_WORD];
    hint[0] = '\0';
    if (strlen(path) >= PATH_LONGEST)
        return hint;
    size_t found = nearest_existing(path);
    snprintf(folder, sizeof folder, "%.*s", (int)found, path);
    const char *rest = path + found + strspn(path + found, "/");
    size_t length = strcspn(rest, "/");
    if (length == 0 || length >= sizeof missing)
        return hint;
    snprintf(missing, sizeof missing, "%.*s", (int)length, rest);
    DIR *listing = opendir(found > 0 ? folder : ".");
    if (listing == NULL)
        return hint;
    dpt_nearest nearest = dpt_nearest_begin(missing);
    int entries = 0;
    for (struct dirent *entry = readdir(listing); entry != NULL && entries++ < ENTRIES_MAX;
         entry = readdir(listing))
        if (entry->d_name[0] != '.')
            dpt_nearest_offer(&nearest, entry->d_name, strlen(entry->d_name));
    closedir(listing);
    if (nearest.distance < DPT_NEAREST_WORD)
        snprintf(hint, DPT_NEAREST_PATH, " (did you mean '%.*s%s%s'?)", 400, folder,
                 found > 1 ? "/" : "", nearest.best);
    return hint;
}
