/* What the kernels share: rows of numbers, tiles of the matrix unit, attention's shapes. */

#ifndef MAINSPRING_COMMON_H
#define MAINSPRING_COMMON_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

enum { LANES = 16, BLOCK = 1024, LINE = 64 };
enum { NARROW = 0, WIDE = 1 };              /* activations and results: bfloat16 or float32 */
/* x logistic(x); 1/2 x (1 + tanh u) = x logistic(2 u); x times the normal distribution's share */
enum { SILU = 0, TANH_GELU = 1, GELU = 2 };

#define INLINE static inline __attribute__((always_inline))

/* ---- the matrix unit ------------------------------------------------------------------------- */

typedef struct __attribute__((packed)) {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileConfig;

static inline void configure_tiles(void) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = LINE;
        config.rows[i] = LANES;
    }
    _tile_loadconfig(&config);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static inline __mmask16 first(int64_t n) {
    return n >= LANES ? 0xFFFF : (__mmask16)((1u << n) - 1);
}

static inline __m512 load(const void *x, int wide, int64_t at, __mmask16 mask) {
    if (wide) return _mm512_maskz_loadu_ps(mask, (const float *)x + at);
    __m256i narrow = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)x + at);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

static inline void store(void *y, int wide, int64_t at, __mmask16 mask, __m512 value) {
    if (wide)
        _mm512_mask_storeu_ps((float *)y + at, mask, value);
    else
        _mm256_mask_storeu_epi16((uint16_t *)y + at, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

/* Scratch memory of the calling thread, aligned, grown and kept. */
static inline void *scratch(size_t bytes) {
    static _Thread_local void *held;
    static _Thread_local size_t size;
    if (bytes > size) {
        free(held);
        size = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
        held = aligned_alloc(4096, size);
        if (!held) size = 0;
    }
    return held;
}

/* exp of numbers of at most 0, to 2e-7 of it: 2 to a whole power, times a polynomial. A NaN stays
   one: of two numbers that cannot be compared `max` gives the second. */
static inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
    __m512 powers = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    __m512 whole = _mm512_roundscale_ps(powers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), rest);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    const float terms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                           5.0000001201e-1f, 1.0f, 1.0f};
    for (int i = 0; i < 7; i++) y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(terms[i]));
    return _mm512_scalef_ps(y, whole);
}

/* 1 / (1 + exp(-x)). */
static inline __m512 logistic(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 small = exponential(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
    __mmask16 falls = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_div_ps(_mm512_mask_mov_ps(one, falls, small), _mm512_add_ps(one, small));
}

/* How much of the normal distribution lies below x (Abramowitz and Stegun, 7.1.26): to 1e-7. */
static inline __m512 normal_share(__m512 x) {
    const float terms[] = {-0.726576014f, 0.7107068707f, -0.142248368f, 0.127414796f};
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    __m512 above = _mm512_set1_ps(0.5307027145f);
    for (int i = 0; i < 4; i++) above = _mm512_fmadd_ps(above, t, _mm512_set1_ps(terms[i]));
    above = _mm512_mul_ps(_mm512_mul_ps(above, t),
                          exponential(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z))));
    __mmask16 falls = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_sub_ps(one, above), falls, above);
}

static inline __m512 activated(__m512 x, int32_t kind) {
    if (kind == GELU) return _mm512_mul_ps(x, normal_share(x));
    __m512 inner = x;
    if (kind == TANH_GELU) {
        __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
        inner = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x);
        inner = _mm512_mul_ps(inner, _mm512_set1_ps(1.5957691216f));
    }
    return _mm512_mul_ps(x, logistic(inner));
}

typedef struct {
    const float *weight, *bias;         /* no bias: null */
    float epsilon;
    int32_t centred;                    /* whether the mean is taken away first */
} Norm;

/* ---- products -------------------------------------------------------------------------------- */

enum { BFLOAT16 = 0, INT8 = 1 };            /* kinds of weights */
/* After a product: ADD adds to what y holds, WHERE keeps what lies where another array is not 0. */
enum { NONE = 0, RELU = 1, ADD = 2, WHERE = 3 };

typedef struct {
    const uint8_t *panels;
    const float *scale;      /* of each output; 8-bit weights only */
    const int32_t *sums;     /* of each output's 8-bit weights */
    const float *bias;       /* of each output, or null */
    int64_t out, in;
    int32_t kind, after;
    int64_t exact_rows;      /* 8-bit weights: up to so many rows, activations in two parts */
    const uint16_t *where;   /* of y's shape */
    uint32_t drop, seed;     /* RELU: zero by dropout where a random number is below `drop` */
    float kept;              /* RELU with `drop`, WHERE: what the others are multiplied by */
} Linear;

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct {
    int64_t batch, heads, queries, keys, width;
    int64_t q_batch, q_head, q_place;    /* strides in numbers; the width is contiguous */
    int64_t k_batch, k_head, k_place;
    int64_t v_batch, v_head, v_place;
    int64_t y_batch, y_head, y_place;
    int64_t bias_head, bias_query;       /* strides; a bias holds for all rows of the batch */
    int64_t keep_batch;
    int64_t share;                       /* query heads that read one key head */
    float scale, cap;                    /* cap 0: none */
    float kept;                          /* training: what weights are multiplied by that stay ... */
    uint32_t drop, seed;                 /* ... where a random number is at least `drop` */
} Attention;

/* Random numbers as a function of their place (Wellons' hash of 32 bits, "lowbias32"). */
static inline uint32_t mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static inline __m512i mix_lanes(__m512i x) {
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7feb352d));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int32_t)0x846ca68bu));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

/* 16 numbers that stay or are dropped by their place among all. */
static inline __mmask16 kept_at(uint32_t seed, uint32_t drop, int64_t at) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t base = mix(seed ^ mix((uint32_t)(at >> 32))) + (uint32_t)at;
    __m512i place = _mm512_add_epi32(_mm512_set1_epi32((int32_t)base), lanes);
    return _mm512_cmpge_epu32_mask(mix_lanes(place), _mm512_set1_epi32((int32_t)drop));
}

/* Which of 16 weights stay: those at `at`, `at` + `step`, ... among all of a row and head. */
static inline __mmask16 staying(const Attention *a, uint32_t unit, uint32_t at, uint32_t step) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t base = mix(a->seed ^ mix(unit)) + at;
    __m512i place = _mm512_add_epi32(_mm512_set1_epi32((int32_t)base),
                                     _mm512_mullo_epi32(lanes, _mm512_set1_epi32((int32_t)step)));
    return _mm512_cmpge_epu32_mask(mix_lanes(place), _mm512_set1_epi32((int32_t)a->drop));
}

/* The 16 rows of 16 four-byte numbers at x, as columns. */
static inline void transpose(__m512i x[16]) {
    __m512i y[16];
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
    }
}

static inline __mmask32 first_32(int64_t n) {
    return n >= 32 ? 0xFFFFFFFF : n <= 0 ? 0 : (__mmask32)((1ull << n) - 1);
}

/* Keys as the right factor of scores: tile [16 keys][32 of the width], transposed. */
static inline void tile_keys(const Attention *a, const uint16_t *k, uint8_t *to) {
    int64_t deep = (a->width + 31) / 32;
    for (int64_t s = 0; s < a->keys; s += LANES)
        for (int64_t e = 0; e < deep; e++, to += BLOCK) {
            __m512i rows[16];
            __mmask32 mask = first_32(a->width - 32 * e);
            for (int i = 0; i < 16; i++)
                rows[i] = s + i < a->keys
                              ? _mm512_maskz_loadu_epi16(mask, k + (s + i) * a->k_place + 32 * e)
                              : _mm512_setzero_si512();
            transpose(rows);
            for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * LINE, rows[i]);
        }
}

/* Values as the right factor of the average: tile [32 keys][16 of the width], keys in pairs. */
static inline void tile_values(const Attention *a, const uint16_t *v, uint8_t *to) {
    int64_t wide = (a->width + LANES - 1) / LANES;
    for (int64_t s = 0; s < a->keys; s += 32)
        for (int64_t e = 0; e < wide; e++, to += BLOCK) {
            __mmask16 mask = first(a->width - LANES * e);
            for (int i = 0; i < 16; i++) {
                const uint16_t *at = v + (s + 2 * i) * a->v_place + LANES * e;
                __m256i even = _mm256_setzero_si256(), odd = even;
                if (s + 2 * i < a->keys) even = _mm256_maskz_loadu_epi16(mask, at);
                if (s + 2 * i + 1 < a->keys) odd = _mm256_maskz_loadu_epi16(mask, at + a->v_place);
                __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                                               _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
                _mm512_store_si512(to + i * LINE, pair);
            }
        }
}

#endif
