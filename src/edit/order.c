#include "order.h"

#include "deltapath/base/assert.h"

#include <stdbool.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* Ranks of the magnitudes of a row.
 *
 * The problem: a sort moves every key several times, and what is wanted are the ranks, not the sorted keys.
 *
 * The idea: differences of bf16 numbers of one exponent have at most 8 significant bits, so nearly all
 * magnitudes of a bf16 pair are told apart by the upper half of their fp32 bits. These are ranked by counting:
 * a histogram over the upper halves, its sums from the top, and a walk over the row in which an entry takes the
 * next rank of its bin. Equal entries come in the order of position by themselves. Entries with bits in their
 * lower half (`fine`) are sorted, and stand before those of their bin that have none, which are smaller. Rows
 * where most are fine, of fp32 models, are sorted whole.
 *
 * The two halves of a row have histograms of their own: where many entries are equal, an increment waits for
 * the one before it, and two rows of them wait half as long. Rows of fewer than 2^16 entries have four, of 16 bits, and
 * need one walk: it counts and keeps how many of its bin an entry has before it in its quarter, to which the first rank
 * of its bin is added when the counts are complete, entries side by side.
 *
 * Invariants: a bin is the upper half upside down (0: infinity), so that ranks rise with bins; ZERO holds 0 and what
 * is below 2^-133; FINE takes the fine entries in the walk, and is never looked at. */

enum { FEW = 512, ZERO = 0x7fff, FINE = 0x8000, BINS = FINE + 1, SHORT = 48 };
enum {
    QUARTERS = 4,
    QUARTERED = 1 << 16, /* rows below it have quarters */
    STRIDE =
        0x8000 +
        0x240 /* entries from one histogram to the next: the same bins in other sets of the cache */
};

/* Parts of the room. */
typedef struct order_room {
    uint64_t *keys, *spare; /* (n) of the fine entries */
    uint32_t *fine;         /* (n) positions; room for a vector more */
    uint16_t *bins;         /* (n); room for a vector more */
    uint32_t *first;        /* (BINS) of the first half: counts, then next ranks */
    uint32_t *second;       /* (BINS) of the second half */
    uint16_t *quarters;     /* (QUARTERS, STRIDE) in place of the two */
    uint16_t *before;       /* (n) entries of the same bin and quarter; room for a vector more */
} order_room;

enum { VECTOR = 64 }; /* bytes */

static int64_t whole_vectors(int64_t bytes) {
    return (bytes + 2 * VECTOR - 1) / VECTOR * VECTOR;
}

static int64_t histogram_bytes(void) {
    int64_t halves = 2 * whole_vectors(4 * BINS), quarters = whole_vectors(2 * QUARTERS * STRIDE);
    return halves > quarters ? halves : quarters;
}

int64_t dpt_edit_order_bytes(int64_t n) {
    return 2 * whole_vectors(8 * n) + whole_vectors(4 * n) + 2 * whole_vectors(2 * n) +
           histogram_bytes();
}

static order_room split_room(void *room, int64_t n) {
    char *at = room;
    order_room r = {.keys = (void *)at};
    r.spare = (void *)(at += whole_vectors(8 * n));
    r.fine = (void *)(at += whole_vectors(8 * n));
    r.bins = (void *)(at += whole_vectors(4 * n));
    r.before = (void *)(at += whole_vectors(2 * n));
    r.first = (void *)(at += whole_vectors(2 * n));
    r.second = (void *)(at + whole_vectors(4 * BINS));
    r.quarters = (void *)at;
    return r;
}

static uint32_t size_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & UINT32_C(0x7fffffff);
}

/* The key of an entry: its magnitude upside down, so that rising keys are falling magnitudes, and below it its
 * position, which breaks ties and is what is wanted of the sorted keys. */
static uint64_t order_key(float x, int64_t i) {
    return (uint64_t)(UINT32_C(0x7fffffff) - size_bits(x)) << 32 | (uint64_t)i;
}

static void insert_keys(uint64_t *keys, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        uint64_t key = keys[i];
        int64_t at = i;
        for (; at > 0 && keys[at - 1] > key; at--)
            keys[at] = keys[at - 1];
        keys[at] = key;
    }
}

enum { NARROW = 8, WIDE = 11, COUNTS = 3 << WIDE };

/* Sort by the high words, stably: keys enter in the order of position, so that equal magnitudes stay in it. All
 * counts are taken in one pass, for they do not depend on the order. A digit that all keys share needs no
 * pass. @return where they are. */
static uint64_t *sort_digits(uint64_t *keys, uint64_t *spare, int64_t n, int digit) {
    uint32_t count[COUNTS];
    int passes = (31 + digit - 1) / digit;
    const uint32_t mask = (UINT32_C(1) << digit) - 1;
    DPT_ASSERT(passes << digit <= COUNTS);
    memset(count, 0, ((size_t)passes << digit) * sizeof *count);
    for (int64_t i = 0; i < n; i++)
        for (int pass = 0; pass < passes; pass++)
            count[(pass << digit) + (int)(keys[i] >> (32 + digit * pass) & mask)]++;
    for (int pass = 0; pass < passes; pass++) {
        uint32_t *of = count + (pass << digit), at = 0;
        int shift = 32 + digit * pass;
        if (of[keys[0] >> shift & mask] == n)
            continue;
        for (uint32_t b = 0; b <= mask; b++) {
            uint32_t here = of[b];
            of[b] = at;
            at += here;
        }
        for (int64_t i = 0; i < n; i++)
            spare[of[keys[i] >> shift & mask]++] = keys[i];
        uint64_t *swap = keys;
        keys = spare;
        spare = swap;
    }
    return keys;
}

static uint64_t *sort_keys(uint64_t *keys, uint64_t *spare, int64_t n) {
    if (n > SHORT)
        return sort_digits(keys, spare, n, n < 4096 ? NARROW : WIDE);
    insert_keys(keys, n);
    return keys;
}

/* All entries of a row by sorting. */
static void sort_row(const float *x, int64_t n, uint32_t *order, const order_room *r) {
    for (int64_t i = 0; i < n; i++)
        r->keys[i] = order_key(x[i], i);
    const uint64_t *keys = sort_keys(r->keys, r->spare, n);
    for (int64_t i = 0; i < n; i++)
        order[keys[i] & UINT32_MAX] = (uint32_t)i;
}

/* What a row looks like. Bins of entries that are not ZERO are in [low, high]. */
typedef struct order_shape {
    int64_t fine;
    uint32_t low, high;
} order_shape;

/* The bins of entries [from, n), FINE for fine ones, and where these are. */
static void bin_rest(const float *x, int64_t from, int64_t n, const order_room *r, order_shape *s) {
    for (int64_t i = from; i < n; i++) {
        uint32_t bits = size_bits(x[i]), bin = ZERO - (bits >> 16);
        s->low = bin < s->low ? bin : s->low;
        s->high = bin < ZERO && bin > s->high ? bin : s->high;
        bool fine = (bits & 0xffff) != 0;
        r->fine[s->fine] = (uint32_t)i;
        s->fine += fine;
        r->bins[i] = (uint16_t)(fine ? FINE : bin);
    }
}

#ifdef __AVX512F__
static order_shape bin_row(const float *x, int64_t n, const order_room *r) {
    const __m512i zero = _mm512_set1_epi32(ZERO), lower = _mm512_set1_epi32(0xffff);
    const __m512i size = _mm512_set1_epi32(0x7fffffff), open = _mm512_set1_epi32(FINE);
    __m512i low = zero, high = _mm512_setzero_si512();
    __m512i at = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    order_shape s = {.fine = 0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512i bits = _mm512_and_si512(_mm512_loadu_si512(x + i), size);
        __m512i bin = _mm512_sub_epi32(zero, _mm512_srli_epi32(bits, 16));
        __mmask16 fine = _mm512_test_epi32_mask(bits, lower);
        low = _mm512_min_epi32(low, bin);
        high = _mm512_mask_max_epi32(high, _mm512_cmplt_epi32_mask(bin, zero), high, bin);
        _mm256_storeu_si256((__m256i *)(void *)(r->bins + i),
                            _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(bin, fine, open)));
        _mm512_storeu_si512(r->fine + s.fine, _mm512_maskz_compress_epi32(fine, at));
        s.fine += __builtin_popcount(fine);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
    s.low = (uint32_t)_mm512_reduce_min_epi32(low);
    s.high = (uint32_t)_mm512_reduce_max_epi32(high);
    bin_rest(x, i, n, r, &s);
    return s;
}
#else
static order_shape bin_row(const float *x, int64_t n, const order_room *r) {
    order_shape s = {.low = ZERO};
    bin_rest(x, 0, n, r, &s);
    return s;
}
#endif

/* Counts of bin b of both halves become their first ranks; `at` entries come before. @return how many then do. */
static uint32_t place_bin(const order_room *r, uint32_t b, uint32_t at) {
    uint32_t first = r->first[b], second = r->second[b];
    r->first[b] = at;
    r->second[b] = at + first;
    return at + first + second;
}

#ifdef __AVX512F__
/* Lanes moved up by `by`, 0 below. */
static inline __m512i lanes_up(__m512i x, int by) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_maskz_permutexvar_epi32((__mmask16)(0xffffu << by),
                                          _mm512_sub_epi32(lane, _mm512_set1_epi32(by)), x);
}

/* The same of 16 bins at a time. @return the next bin. */
static uint32_t place_sixteens(const order_room *r, uint32_t b, uint32_t end, uint32_t *at) {
    __m512i before = _mm512_set1_epi32((int)*at);
    for (; b + 16 <= end; b += 16) {
        __m512i first = _mm512_loadu_si512(r->first + b);
        __m512i both = _mm512_add_epi32(first, _mm512_loadu_si512(r->second + b)), sum = both;
        for (int by = 1; by < 16; by *= 2)
            sum = _mm512_add_epi32(sum, lanes_up(sum, by));
        __m512i from = _mm512_add_epi32(before, _mm512_sub_epi32(sum, both));
        _mm512_storeu_si512(r->first + b, from);
        _mm512_storeu_si512(r->second + b, _mm512_add_epi32(from, first));
        before = _mm512_add_epi32(before, _mm512_permutexvar_epi32(_mm512_set1_epi32(15), sum));
    }
    *at = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(before));
    return b;
}
#endif

/* Counts of all bins become first ranks. */
static void place_bins(const order_room *r, const order_shape *s) {
    uint32_t at = 0, b = s->low;
#ifdef __AVX512F__
    if (s->low <= s->high)
        b = place_sixteens(r, b, s->high + 1, &at);
#endif
    for (; b <= s->high; b++)
        at = place_bin(r, b, at);
    place_bin(r, ZERO, at);
}

static void count_bins(const order_room *r, int64_t n, const order_shape *s) {
    int64_t half = n / 2;
    if (s->low <= s->high) {
        size_t bytes = (size_t)(s->high - s->low + 1) * sizeof *r->first;
        memset(r->first + s->low, 0, bytes);
        memset(r->second + s->low, 0, bytes);
    }
    memset(r->first + ZERO, 0, 2 * sizeof *r->first);
    memset(r->second + ZERO, 0, 2 * sizeof *r->second);
    for (int64_t i = 0; i < half; i++) {
        r->first[r->bins[i]]++;
        r->second[r->bins[half + i]]++;
    }
    if (n > 2 * half)
        r->second[r->bins[n - 1]]++;
}

static void walk_bins(const order_room *r, int64_t n, uint32_t *order) {
    const uint16_t *bins = r->bins, *later = r->bins + n / 2;
    uint32_t *restrict first = r->first, *restrict second = r->second;
    uint32_t *restrict end = order + n / 2;
    for (int64_t i = 0; i < n / 2; i++) {
        order[i] = first[bins[i]]++;
        end[i] = second[later[i]]++;
    }
    if (n % 2 != 0)
        order[n - 1] = second[bins[n - 1]]++;
}

/* Counts four entries, one after the other, and says how often the bin of each was there before. */
static inline void count_four(uint16_t *restrict counts, const uint16_t *bins, uint16_t *before) {
    uint64_t a = counts[bins[0]]++, b = counts[bins[1]]++;
    uint64_t c = counts[bins[2]]++, d = counts[bins[3]]++;
    uint64_t four = a | b << 16 | c << 32 | d << 48; /* stores are what limits this */
    memcpy(before, &four, sizeof four);
}

/* Entries of a quarter but the last, which takes the rest. */
static int64_t quarter_of(int64_t n) {
    return n / (4 * QUARTERS) * 4;
}

static void count_quarters(const order_room *r, int64_t n, const order_shape *s) {
    int64_t quarter = quarter_of(n);
    uint16_t *restrict counts = r->quarters, *restrict before = r->before;
    for (int q = 0; q < QUARTERS; q++) {
        if (s->low <= s->high)
            memset(counts + q * STRIDE + s->low, 0, (s->high - s->low + 1) * sizeof *counts);
        memset(counts + q * STRIDE + ZERO, 0, 2 * sizeof *counts);
    }
    for (int64_t i = 0; i < quarter; i += 4)
        for (int q = 0; q < QUARTERS; q++) {
            int64_t at = q * quarter + i;
            count_four(counts + q * STRIDE, r->bins + at, before + at);
        }
    for (int64_t i = QUARTERS * quarter; i < n; i++)
        before[i] = counts[(QUARTERS - 1) * STRIDE + r->bins[i]]++;
}

/* Counts of bin b of all quarters become their first ranks; `at` entries come before. @return how many then do. */
static uint32_t place_quarters_of(uint16_t *counts, uint32_t b, uint32_t at) {
    for (int q = 0; q < QUARTERS; q++) {
        uint32_t count = counts[q * STRIDE + b];
        counts[q * STRIDE + b] = (uint16_t)at;
        at += count;
    }
    return at;
}

#ifdef __AVX512BW__
/* The same of 32 bins at a time. @return the next bin. */
static uint32_t place_quarters_wide(uint16_t *counts, uint32_t b, uint32_t end, uint32_t *at) {
    static const uint16_t lanes[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                       11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                       22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const __m512i lane = _mm512_loadu_si512(lanes);
    __m512i before = _mm512_set1_epi16((short)*at);
    for (; b + 32 <= end; b += 32) {
        uint16_t *to = counts + b;
        __m512i one = _mm512_loadu_si512(to);
        __m512i two = _mm512_add_epi16(one, _mm512_loadu_si512(to + STRIDE));
        __m512i three = _mm512_add_epi16(two, _mm512_loadu_si512(to + 2 * STRIDE));
        __m512i all = _mm512_add_epi16(three, _mm512_loadu_si512(to + 3 * STRIDE)), sum = all;
        for (int by = 1; by < 32; by *= 2)
            sum = _mm512_add_epi16(sum,
                                   _mm512_maskz_permutexvar_epi16(
                                       (__mmask32)(UINT32_MAX << by),
                                       _mm512_sub_epi16(lane, _mm512_set1_epi16((short)by)), sum));
        __m512i from = _mm512_add_epi16(before, _mm512_sub_epi16(sum, all));
        _mm512_storeu_si512(to, from);
        _mm512_storeu_si512(to + STRIDE, _mm512_add_epi16(from, one));
        _mm512_storeu_si512(to + 2 * STRIDE, _mm512_add_epi16(from, two));
        _mm512_storeu_si512(to + 3 * STRIDE, _mm512_add_epi16(from, three));
        before = _mm512_add_epi16(before, _mm512_permutexvar_epi16(_mm512_set1_epi16(31), sum));
    }
    *at = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(before)) & 0xffff;
    return b;
}
#endif

static void place_quarters(const order_room *r, const order_shape *s) {
    uint32_t at = 0, b = s->low;
#ifdef __AVX512BW__
    if (s->low <= s->high)
        b = place_quarters_wide(r->quarters, b, s->high + 1, &at);
#endif
    for (; b <= s->high; b++)
        at = place_quarters_of(r->quarters, b, at);
    place_quarters_of(r->quarters, ZERO, at);
}

/* Ranks of entries [from, to), which lie in one quarter. */
static void rank_quarter(const order_room *r, const uint16_t *first, int64_t from, int64_t to,
                         uint32_t *order) {
    int64_t i = from;
#ifdef __AVX512BW__ /* whole words: where one of 16 crosses lines of the cache, all take four times as long */
    const __m512i one = _mm512_set1_epi32(1), low = _mm512_set1_epi32(0xffff);
    for (; i + 16 <= to; i += 16) {
        __m512i bin =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(r->bins + i)));
        __m512i before = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256((const __m256i *)(const void *)(r->before + i)));
        __m512i two = _mm512_i32gather_epi32(_mm512_srli_epi32(bin, 1), (const void *)first, 4);
        __m512i half = _mm512_slli_epi32(_mm512_and_si512(bin, one), 4);
        __m512i rank = _mm512_and_si512(_mm512_srlv_epi32(two, half), low);
        _mm512_storeu_si512(order + i, _mm512_add_epi32(rank, before));
    }
#endif
    for (; i < to; i++)
        order[i] = (uint32_t)first[r->bins[i]] + r->before[i];
}

/* Ranks of a row of fewer than QUARTERED entries. */
static void rank_by_quarters(const float *x, int64_t n, const order_shape *s, const order_room *r,
                             uint32_t *order) {
    int64_t quarter = quarter_of(n);
    count_quarters(r, n, s);
    for (int64_t i = 0; i < s->fine; i++) {
        r->keys[i] = order_key(x[r->fine[i]], r->fine[i]);
        r->quarters[r->keys[i] >> 48]++;
    }
    place_quarters(r, s);
    uint64_t *keys = sort_keys(r->keys, r->spare, s->fine);
    for (int64_t i = 0; i < s->fine; i++) /* the first ones of their bins, of all quarters */
        keys[i] = (uint64_t)r->quarters[keys[i] >> 48]++ << 32 | (keys[i] & UINT32_MAX);
    for (int q = 0; q < QUARTERS; q++)
        rank_quarter(r, r->quarters + q * STRIDE, q * quarter,
                     q + 1 < QUARTERS ? (q + 1) * quarter : n, order);
    for (int64_t i = 0; i < s->fine; i++)
        order[keys[i] & UINT32_MAX] = (uint32_t)(keys[i] >> 32);
}

/* Ranks of any row. */
static void rank_by_halves(const float *x, int64_t n, const order_shape *s, const order_room *r,
                           uint32_t *order) {
    count_bins(r, n, s);
    for (int64_t i = 0; i < s->fine; i++) {
        r->keys[i] = order_key(x[r->fine[i]], r->fine[i]);
        r->first[r->keys[i] >> 48]++;
    }
    place_bins(r, s);
    uint64_t *keys = sort_keys(r->keys, r->spare, s->fine);
    for (int64_t i = 0; i < s->fine; i++) /* the first ones of their bins, of both halves */
        keys[i] = (uint64_t)r->first[keys[i] >> 48]++ << 32 | (keys[i] & UINT32_MAX);
    walk_bins(r, n, order);
    for (int64_t i = 0; i < s->fine; i++)
        order[keys[i] & UINT32_MAX] = (uint32_t)(keys[i] >> 32);
}

void dpt_edit_order_row(const float *x, int64_t n, uint32_t *order, void *room) {
    order_room r = split_room(room, n);
    if (n < FEW) {
        sort_row(x, n, order, &r);
        return;
    }
    order_shape s = bin_row(x, n, &r);
    if (s.fine > n / 4)
        sort_row(x, n, order, &r);
    else if (n < QUARTERED)
        rank_by_quarters(x, n, &s, &r, order);
    else
        rank_by_halves(x, n, &s, &r, order);
}
