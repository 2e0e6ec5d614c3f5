#ifndef DELTAPATH_BASE_NEAREST_H
#define DELTAPATH_BASE_NEAREST_H

#include <stddef.h>

enum { DPT_NEAREST_WORD = 64, DPT_NEAREST_HINT = DPT_NEAREST_WORD + 32 };

/** Edit distance of two words: insertions, deletions, replacements and swaps of neighbours, letters
 * compared without case.
 *
 * Local. Computes: optimal string alignment (restricted Damerau-Levenshtein distance).
 *   Source: Damerau, Comm. ACM 7 (1964).
 * @return the distance; DPT_NEAREST_WORD when a word has that many bytes or more.
 */
int dpt_nearest_distance(const char *a, const char *b);

/** Search for the candidate that a mistyped word meant. */
typedef struct dpt_nearest {
    const char *word; /**< borrowed */
    int distance;     /**< of the best candidate */
    char best[DPT_NEAREST_WORD];
} dpt_nearest;

/** Begin with no candidate. Local. */
dpt_nearest dpt_nearest_begin(const char *word);

/** Offer a candidate; the nearest is kept, of equally near ones the first. A word of n letters may be
 * n / 3 changes off, at most 3; one of 3 letters or more may also be the beginning of a candidate. Local.
 * @param[in] candidate (length) bytes, no terminator needed. */
void dpt_nearest_offer(dpt_nearest *nearest, const char *candidate, size_t length);

/** Offer every word of a list. Local. @param[in] separators  between words, as in " |,". */
void dpt_nearest_offer_list(dpt_nearest *nearest, const char *list, const char *separators);

/** " (did you mean 'method'?)", or "" without a candidate that is near enough. Local. */
void dpt_nearest_hint(const dpt_nearest *nearest, char hint[DPT_NEAREST_HINT]);

/** The hint for a word that is none of a list. Local. @return hint. */
const char *dpt_nearest_of_list(const char *word, const char *list, const char *separators,
                                char hint[DPT_NEAREST_HINT]);

enum { DPT_NEAREST_PATH = 640 };

/** The hint for a path that does not exist: its first missing component is compared with what the
 * folder before it holds. Local. @return hint: " (did you mean 'models/llama-post'?)" or "". */
const char *dpt_nearest_path(const char *path, char hint[DPT_NEAREST_PATH]);

#endif
