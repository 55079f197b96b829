/* What inference computes on Intel CPUs with AMX and AVX-512: products with packed weights, norms,
   attention, and what stands between them. Attention of many queries serves training too.

   Products: y = after(x wT + bias) for x of any number of rows, with bfloat16 or 8-bit weights. One layout of
   the weights serves every number of rows: panels of 16 outputs, each a run of 1 KB blocks, each
   block 16 rows of 64 bytes. Row r of block b holds, output by output, the 4 bytes of the weight
   that begin at byte 64 b + 4 r of its inputs: two bfloat16 numbers or four 8-bit ones. That is a
   tile of the matrix unit, and 64 bytes at a time it is what a dot-product instruction takes.

     few rows   the weights are read once, straight from memory, by dot-product instructions
     more rows  tiles: two blocks of 16 rows by two panels at a time

   8-bit weights meet activations of 15 bits, as two parts of 8 (x = scale * (128 high + low)), so
   that rounding them is no loss worth a name; or of 8 bits where speed counts more.

   Intel 64 and IA-32 Architectures Software Developer's Manual, volumes 1 (ch. 18) and 2. */

#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

enum { FEW = 4, CHUNK = 8, FEW_GROUPS = 4 };  /* rows; groups of 16 rows */
enum { SECOND_CACHE = 1 << 20 };             /* bytes of weights that stay in it */

static inline int64_t blocks_of(const Linear *w) {
    int64_t bytes = w->in * (w->kind == BFLOAT16 ? 2 : 1);
    return (bytes + LINE - 1) / LINE;
}

static inline int64_t panels_of(const Linear *w) { return (w->out + LANES - 1) / LANES; }

/* ---- permission and configuration ------------------------------------------------------------ */

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Asks the system for the matrix unit. 1 if this process may use it. */
int32_t allow_tiles(void) {
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* ---- small things ---------------------------------------------------------------------------- */

/* 16 results from their sums: those of columns from `column` on, at `place` among all of y. */
static inline __m512 finish(const Linear *w, int64_t column, __mmask16 mask, int64_t place,
                            __m512 value) {
    if (w->bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, w->bias + column));
    if (w->after == RELU) value = _mm512_max_ps(_mm512_setzero_ps(), value); /* a NaN stays one */
    if (w->after == RELU && w->drop)
        value = _mm512_maskz_mul_ps(kept_at(w->seed, w->drop, place), value, _mm512_set1_ps(w->kept));
    if (w->after == WHERE) {
        __m256i there = _mm256_maskz_loadu_epi16(mask, w->where + place);
        value = _mm512_maskz_mul_ps(_mm256_test_epi16_mask(there, there), value, _mm512_set1_ps(w->kept));
    }
    return value;
}

static inline void put(const Linear *w, void *y, int wide, int64_t at, __mmask16 mask, __m512 value) {
    if (w->after == ADD) value = _mm512_add_ps(value, load(y, wide, at, mask));
    store(y, wide, at, mask, value);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* Lays rows of `bytes` bytes (an output's weights each) out in panels; what is missing is 0. */
void pack(const uint8_t *weight, int64_t out, int64_t bytes, uint8_t *panels) {
    int64_t blocks = (bytes + LINE - 1) / LINE, count = (out + LANES - 1) / LANES;
#pragma omp parallel for
    for (int64_t p = 0; p < count; p++)
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t r = 0; r < 16; r++)
                for (int64_t n = 0; n < LANES; n++) {
                    uint8_t four[4] = {0, 0, 0, 0};
                    int64_t row = p * LANES + n, at = b * LINE + 4 * r;
                    if (row < out && at < bytes)
                        memcpy(four, weight + row * bytes + at, bytes - at < 4 ? bytes - at : 4);
                    memcpy(panels + (p * blocks + b) * BLOCK + r * LINE + 4 * n, four, 4);
                }
}

/* ---- activations ----------------------------------------------------------------------------- */

/* A row as bfloat16, `stride` bytes between one block of 64 bytes and the next. */
static void round_row(const void *x, int wide, int64_t width, uint8_t *to, int64_t blocks,
                      int64_t stride) {
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t half = 0; half < 2; half++) {
            int64_t at = b * 32 + half * LANES;
            __m512 value = load(x, wide, at, first(width > at ? width - at : 0));
            _mm256_storeu_si256((__m256i *)(to + b * stride + half * 32),
                                (__m256i)_mm512_cvtneps_pbh(value));
        }
}

/* A row in 8 bits, or in 15 as a high and a low part; its scale. `offset` is added to each number:
   128 for instructions that want unsigned ones. */
static float quantise_row(const void *x, int wide, int64_t width, int exact, int offset,
                          uint8_t *high, uint8_t *low, int64_t blocks, int64_t stride) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t at = 0; at < width; at += LANES)
        most = _mm512_max_ps(most, _mm512_abs_ps(load(x, wide, at, first(width - at))));
    float largest = _mm512_reduce_max_ps(most), levels = exact ? 127.0f * 128.0f : 127.0f;
    float scale = largest > 1e-30f ? largest / levels : 1e-30f;
    __m512 shrink = _mm512_set1_ps(1.0f / scale), bound = _mm512_set1_ps(levels);
    __m512i add = _mm512_set1_epi32(offset);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t quarter = 0; quarter < 4; quarter++) {
            int64_t at = b * LINE + quarter * LANES;
            __m512 value = load(x, wide, at, first(width > at ? width - at : 0));
            value = _mm512_mul_ps(value, shrink);
            value = _mm512_max_ps(_mm512_min_ps(value, bound), _mm512_sub_ps(_mm512_setzero_ps(), bound));
            __m512i whole = _mm512_cvtps_epi32(value), up = whole;
            if (exact) {
                up = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(64)), 7);
                whole = _mm512_sub_epi32(whole, _mm512_slli_epi32(up, 7));
                _mm_storeu_si128((__m128i *)(low + b * stride + quarter * 16),
                                 _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, add)));
            }
            _mm_storeu_si128((__m128i *)(high + b * stride + quarter * 16),
                             _mm512_cvtepi32_epi8(_mm512_add_epi32(up, add)));
        }
    return scale;
}

/* ---- few rows -------------------------------------------------------------------------------- */

/* R rows by P panels from panel `p` on. x: rows of blocks * 64 bytes, high and low parts apart. */
INLINE void few(const Linear *w, const uint8_t *high, const uint8_t *low, const float *scales,
                int64_t p, void *y, int wide, const int R, const int P, const int kind,
                const int exact) {
    int64_t blocks = blocks_of(w), bytes = blocks * LINE;
    const uint8_t *panel = w->panels + p * blocks * BLOCK;
    __m512 sum[FEW][4];
    __m512i up[FEW][4], down[FEW][4];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int q = 0; q < P; q++) {
            sum[r][q] = _mm512_setzero_ps();
            up[r][q] = down[r][q] = _mm512_setzero_si512();
        }
    for (int64_t at = 0; at < blocks * 16; at++) {
        __m512i weights[4];
#pragma GCC unroll 4
        for (int q = 0; q < P; q++)
            weights[q] = _mm512_loadu_si512(panel + q * blocks * BLOCK + at * LINE);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512i x = _mm512_set1_epi32(*(const int32_t *)(high + r * bytes + 4 * at));
            __m512i x_low = _mm512_setzero_si512();
            if (exact) x_low = _mm512_set1_epi32(*(const int32_t *)(low + r * bytes + 4 * at));
#pragma GCC unroll 4
            for (int q = 0; q < P; q++) {
                if (kind == BFLOAT16) {
                    sum[r][q] = _mm512_dpbf16_ps(sum[r][q], (__m512bh)weights[q], (__m512bh)x);
                } else {
                    up[r][q] = _mm512_dpbusd_epi32(up[r][q], x, weights[q]);
                    if (exact) down[r][q] = _mm512_dpbusd_epi32(down[r][q], x_low, weights[q]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int q = 0; q < P; q++) {
        int64_t column = (p + q) * LANES;
        __mmask16 mask = first(w->out - column);
        for (int r = 0; r < R; r++) {
            __m512 value = sum[r][q];
            if (kind == INT8) {
                /* The unsigned activations are 128 too large. */
                __m512i more = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(mask, w->sums + column), 7);
                value = _mm512_cvtepi32_ps(_mm512_sub_epi32(up[r][q], more));
                if (exact) {
                    __m512 rest = _mm512_cvtepi32_ps(_mm512_sub_epi32(down[r][q], more));
                    value = _mm512_fmadd_ps(value, _mm512_set1_ps(128.0f), rest);
                }
                __m512 scale = _mm512_maskz_loadu_ps(mask, w->scale + column);
                value = _mm512_mul_ps(value, _mm512_mul_ps(scale, _mm512_set1_ps(scales[r])));
            }
            int64_t place = r * w->out + column;
            put(w, y, wide, place, mask, finish(w, column, mask, place, value));
        }
    }
}

#define FEW_KIND(R, P)                                                                   \
    do {                                                                                 \
        if (w->kind == BFLOAT16)                                                         \
            few(w, high, low, scales, p, y, wide, R, P, BFLOAT16, 0);                    \
        else if (exact)                                                                  \
            few(w, high, low, scales, p, y, wide, R, P, INT8, 1);                        \
        else                                                                             \
            few(w, high, low, scales, p, y, wide, R, P, INT8, 0);                        \
    } while (0)

static void few_panels(const Linear *w, int64_t rows, const uint8_t *high, const uint8_t *low,
                       const float *scales, int64_t p, int64_t end, void *y, int wide) {
    int exact = low != 0;
    while (p < end) {
        int four = end - p >= 4;
        switch (rows) {
        case 1: if (four) FEW_KIND(1, 4); else FEW_KIND(1, 1); break;
        case 2: if (four) FEW_KIND(2, 4); else FEW_KIND(2, 1); break;
        case 3: if (four) { FEW_KIND(3, 2); p += 2; FEW_KIND(3, 2); p -= 2; } else FEW_KIND(3, 1); break;
        default: if (four) { FEW_KIND(4, 2); p += 2; FEW_KIND(4, 2); p -= 2; } else FEW_KIND(4, 1);
        }
        p += four ? 4 : 1;
    }
}

/* ---- tiles ----------------------------------------------------------------------------------- */

/* 16 rows as the left factor: `stride` bytes from row to row, `step` from block to block. */
typedef struct {
    const uint8_t *at;
    int64_t stride, step;
} Rows;

/* Sums on their way to y: two blocks of 16 rows by two panels, as `tiles` left them. They are
   written a few rows at a time while the matrix unit makes the next ones. */
typedef struct {
    const Linear *w;
    const int32_t *sums;
    const float *scales;
    char *y;
    int64_t rows, next, column, place;  /* of the first row among all of y */
    int wide, panels, exact;
    int plain;  /* bfloat16 by bfloat16, whole, without a bias */
} Waiting;

static inline __m512 finished(const Waiting *from, int64_t r, int q) {
    const Linear *w = from->w;
    int64_t column = from->column + q * LANES, tile = from->exact ? 0 : r / LANES;
    __mmask16 mask = first(w->out - column);
    const int32_t *at = from->sums + (2 * tile + q) * LANES * LANES + r % LANES * LANES;
    __m512i sums = _mm512_load_si512(at);
    __m512 value = _mm512_castsi512_ps(sums);
    if (w->kind == INT8) {
        value = _mm512_cvtepi32_ps(sums);
        if (from->exact) {
            __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(at + 2 * LANES * LANES));
            value = _mm512_fmadd_ps(value, _mm512_set1_ps(128.0f), low);
        }
        __m512 scale = _mm512_maskz_loadu_ps(mask, w->scale + column);
        value = _mm512_mul_ps(value, _mm512_mul_ps(scale, _mm512_set1_ps(from->scales[r])));
    }
    return finish(w, column, mask, from->place + r * w->out + column, value);
}

/* Writes up to `count` of the rows that wait. */
INLINE void write_rows(Waiting *from, int64_t count) {
    const Linear *w = from->w;
    int64_t end = from->next + count < from->rows ? from->next + count : from->rows;
    int64_t r = from->next;
    from->next = end;
    if (from->plain) {
        const int32_t *sums = from->sums;
        uint16_t *y = (uint16_t *)from->y + from->column;
        __m512i least = _mm512_set1_epi16(w->after == RELU ? 0 : INT16_MIN);
        __m512 kept = _mm512_set1_ps(w->kept);
        for (; r < end; r++) {
            const int32_t *at = sums + r / LANES * (2 * LANES * LANES) + r % LANES * LANES;
            int64_t place = from->place + from->column + r * w->out;
            __m512 left = _mm512_load_ps(at), right = _mm512_load_ps(at + LANES * LANES);
            if (w->after == ADD) {
                left = _mm512_add_ps(left, load(y, NARROW, r * w->out, 0xFFFF));
                right = _mm512_add_ps(right, load(y, NARROW, r * w->out + LANES, 0xFFFF));
            } else if (w->after == WHERE || w->drop) {
                left = _mm512_mul_ps(left, kept);
                right = _mm512_mul_ps(right, kept);
            }
            __mmask32 stay = 0xFFFFFFFF;
            if (w->after == WHERE) {
                __m512i there = _mm512_loadu_si512(w->where + place);
                stay = _mm512_test_epi16_mask(there, there);
            } else if (w->drop) {
                stay = _mm512_kunpackw(kept_at(w->seed, w->drop, place + LANES),
                                       kept_at(w->seed, w->drop, place));
            }
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(right, left);
            _mm512_storeu_si512(y + r * w->out, _mm512_maskz_max_epi16(stay, both, least));
        }
        return;
    }
    for (; r < end; r++)
        for (int q = 0; q < from->panels; q++)
            put(w, from->y, from->wide, r * w->out + from->column + q * LANES,
                first(w->out - from->column - q * LANES), finished(from, r, q));
}

/* Two blocks of rows (or one) by two panels (or one). Tiles 0-3 sum, 4 and 5 hold rows, 6 and 7
   weights. In exact products the two blocks of rows are the high and the low part of one. Weights
   that are `cold` come from memory: those of the next two panels are asked for. */
INLINE void tiles(Rows a0, Rows a1, const uint8_t *b0, const uint8_t *b1, int64_t blocks, int cold,
                  Waiting *before, int64_t share, const int kind, const int two_rows,
                  const int two_panels) {
    _tile_zero(0);
    if (two_panels) _tile_zero(1);
    if (two_rows) _tile_zero(2);
    if (two_rows && two_panels) _tile_zero(3);
    for (int64_t b = 0; b < blocks; b++) {
        if (cold)
            for (int i = 0; i < BLOCK; i += LINE) {
                _mm_prefetch(b0 + (2 * blocks + b) * BLOCK + i, _MM_HINT_T1);
                if (two_panels) _mm_prefetch(b1 + (2 * blocks + b) * BLOCK + i, _MM_HINT_T1);
            }
        _tile_loadd(6, b0 + b * BLOCK, LINE);
        _tile_loadd(4, a0.at + b * a0.step, a0.stride);
        if (two_panels) _tile_loadd(7, b1 + b * BLOCK, LINE);
        if (two_rows) _tile_loadd(5, a1.at + b * a1.step, a1.stride);
        if (kind == BFLOAT16) {
            _tile_dpbf16ps(0, 4, 6);
            if (two_panels) _tile_dpbf16ps(1, 4, 7);
            if (two_rows) _tile_dpbf16ps(2, 5, 6);
            if (two_rows && two_panels) _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_dpbssd(0, 4, 6);
            if (two_panels) _tile_dpbssd(1, 4, 7);
            if (two_rows) _tile_dpbssd(2, 5, 6);
            if (two_rows && two_panels) _tile_dpbssd(3, 5, 7);
        }
        write_rows(before, share);
    }
    write_rows(before, before->rows);
}

/* Rows to multiply: as they lie in x (`whole` groups of 16), or laid out in blocks in `high` and,
   in exact products, `low`. */
typedef struct {
    const uint8_t *x, *high, *low;
    const float *scales;
    int64_t rows, whole, width;  /* of x, in bytes */
} Left;

static inline Rows group(const Left *x, const uint8_t *laid, int64_t i, int64_t bytes) {
    if (i < x->whole) return (Rows){x->x + i * LANES * x->width, x->width, LINE};
    return (Rows){laid + (i - x->whole) * bytes, LINE, BLOCK};
}

#define TILES_KIND(kind)                                                                            \
    do {                                                                                            \
        if (two_rows && two_panels) tiles(a0, a1, b0, b1, blocks, cold, &before, share, kind, 1, 1); \
        else if (two_rows) tiles(a0, a1, b0, b1, blocks, cold, &before, share, kind, 1, 0);          \
        else if (two_panels) tiles(a0, a1, b0, b1, blocks, cold, &before, share, kind, 0, 1);        \
        else tiles(a0, a1, b0, b1, blocks, cold, &before, share, kind, 0, 0);                        \
    } while (0)

/* The groups [from, to) of 16 rows by panels [p, end). */
static void tile_panels(const Linear *w, const Left *x, int64_t from, int64_t to, int64_t p,
                        int64_t end, void *y, int wide) {
    int64_t blocks = blocks_of(w), bytes = blocks * BLOCK, share = (2 * LANES + blocks - 1) / blocks;
    int step = x->low ? 1 : 2, turn = 0;
    _Alignas(64) int32_t sums[2][4 * LANES * LANES];
    int plain = w->kind == BFLOAT16 && !w->bias && !wide;
    Waiting before = {.w = w};
    for (; p < end; p += 2) {
        const uint8_t *b0 = w->panels + p * bytes, *b1 = b0 + bytes;
        int two_panels = p + 1 < end;
        for (int64_t i = from; i < to; i += step) {
            int two_rows = x->low || i + 1 < to, cold = i == from && to - from <= FEW_GROUPS;
            Rows a0 = group(x, x->high, i, bytes);
            Rows a1 = x->low ? group(x, x->low, i, bytes) : group(x, x->high, i + 1, bytes);
            if (w->kind == BFLOAT16) TILES_KIND(BFLOAT16);
            else TILES_KIND(INT8);
            int32_t *c = sums[turn];
            _tile_stored(0, c, LINE);
            if (two_panels) _tile_stored(1, c + LANES * LANES, LINE);
            if (two_rows) _tile_stored(2, c + 2 * LANES * LANES, LINE);
            if (two_rows && two_panels) _tile_stored(3, c + 3 * LANES * LANES, LINE);
            int64_t row = i * LANES, left = x->rows - row, most = step * LANES;
            before = (Waiting){w, c, x->scales + row, (char *)y + row * w->out * (wide ? 4 : 2),
                               left < most ? left : most, 0, p * LANES, row * w->out, wide,
                               1 + two_panels,
                               x->low != 0, plain && (p + 2) * LANES <= w->out};
            turn ^= 1;
        }
    }
    write_rows(&before, before.rows);
}

/* ---- the product ----------------------------------------------------------------------------- */

/* y (rows, out) of x (rows, in), both contiguous. 0 when there was no memory. */
int32_t linear(const Linear *w, const void *x, int32_t x_wide, int64_t rows, void *y,
               int32_t y_wide) {
    if (rows == 0) return 1;
    int64_t blocks = blocks_of(w), panels = panels_of(w), groups = (rows + LANES - 1) / LANES;
    int exact = w->kind == INT8 && rows <= w->exact_rows, in_tiles = rows > FEW;
    /* Rows that are made of whole blocks already are read where they lie. */
    int direct = in_tiles && w->kind == BFLOAT16 && !x_wide && w->in % 32 == 0;
    int64_t whole = direct ? rows / LANES : 0, before = whole * LANES;
    int64_t held = (in_tiles ? groups * LANES : rows) - before, part = held * blocks * LINE;
    uint8_t *high = scratch(part * (1 + exact) + held * sizeof(float) + LINE);
    if (!high) return 0;
    uint8_t *low = exact ? high + part : 0;
    float *scales = (float *)(high + part * (1 + exact));
    int64_t stride = in_tiles ? BLOCK : LINE;
    int offset = in_tiles ? 0 : 128;
    size_t wide_bytes = x_wide ? 4 : 2;
    int64_t chunks = (groups + CHUNK - 1) / CHUNK;
    const Left left = {x, high, low, scales, rows, whole, w->in * (int64_t)wide_bytes};
#pragma omp parallel
    {
        int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
#pragma omp for schedule(static)
        for (int64_t r = 0; r < held; r++) {
            int64_t at = in_tiles ? (r / LANES) * blocks * BLOCK + (r % LANES) * LINE : r * blocks * LINE;
            const char *row = (const char *)x + (before + r) * w->in * wide_bytes;
            int64_t width = before + r < rows ? w->in : 0;
            if (w->kind == BFLOAT16)
                round_row(row, x_wide, width, high + at, blocks, stride);
            else
                scales[r] = quantise_row(row, x_wide, width, exact, offset, high + at,
                                         exact ? low + at : 0, blocks, stride);
        }
        if (!in_tiles) {
            int64_t fours = (panels + 3) / 4;
            int64_t p = fours * thread / threads * 4, end = fours * (thread + 1) / threads * 4;
            few_panels(w, rows, high, low, scales, p, end < panels ? end : panels, y, y_wide);
        } else {
            configure_tiles();
            if (chunks >= 2 * threads) {
                /* As many panels at a time as stay in a core's second cache. */
                int64_t few = SECOND_CACHE / (2 * BLOCK * blocks) * 2, wide = few ? few : 2;
                int64_t columns = (panels + wide - 1) / wide;
#pragma omp for schedule(dynamic)
                for (int64_t k = 0; k < chunks * columns; k++) {
                    int64_t from = k % chunks * CHUNK, to = from + CHUNK, p = k / chunks * wide;
                    tile_panels(w, &left, from, to < groups ? to : groups, p,
                                p + wide < panels ? p + wide : panels, y, y_wide);
                }
            } else {
                int64_t pairs = (panels + 1) / 2;
                int64_t p = pairs * thread / threads * 2, end = pairs * (thread + 1) / threads * 2;
                tile_panels(w, &left, 0, groups, p, end < panels ? end : panels, y, y_wide);
            }
            _tile_release();
        }
    }
    return 1;
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + epsilon) * weight + bias of rows, or the same of x - mean(x); before it,
   where `added` is given, total = x + added, and total is what is normed. y may be x or total. */
void norm(const Norm *n, const void *x, int32_t x_wide, const void *added, int32_t added_wide,
          float *total, int64_t rows, int64_t width, void *y, int32_t y_wide) {
    const void *from = added ? total : x;
    const int32_t wide = added ? WIDE : x_wide;
#pragma omp parallel for schedule(static) if (rows * width > 65536)
    for (int64_t r = 0; r < rows; r++) {
        __m512 sum = _mm512_setzero_ps(), squares = sum;
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            __m512 value = load(x, x_wide, r * width + at, mask);
            if (added) {
                value = _mm512_add_ps(value, load(added, added_wide, r * width + at, mask));
                _mm512_mask_storeu_ps(total + r * width + at, mask, value);
            }
            sum = _mm512_add_ps(sum, value);
            squares = _mm512_fmadd_ps(value, value, squares);
        }
        __m512 middle = _mm512_setzero_ps();
        if (n->centred) {
            middle = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)width);
            squares = _mm512_setzero_ps();
            for (int64_t at = 0; at < width; at += LANES) {
                __mmask16 mask = first(width - at);
                __m512 value = load(from, wide, r * width + at, mask);
                value = _mm512_maskz_sub_ps(mask, value, middle);
                squares = _mm512_fmadd_ps(value, value, squares);
            }
        }
        float mean = _mm512_reduce_add_ps(squares) / (float)width;
        __m512 factor = _mm512_set1_ps(1.0f / sqrtf(mean + n->epsilon));
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            __m512 value = _mm512_sub_ps(load(from, wide, r * width + at, mask), middle);
            value = _mm512_mul_ps(value, factor);
            value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, n->weight + at));
            if (n->bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, n->bias + at));
            store(y, y_wide, r * width + at, mask, value);
        }
    }
}

/* x += y, for `count` numbers: x in float32, y as it comes. */
void add(float *x, const void *y, int32_t y_wide, int64_t count) {
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + at), load(y, y_wide, at, mask));
        _mm512_mask_storeu_ps(x + at, mask, sum);
    }
}

/* ---- attention of few queries ---------------------------------------------------------------- */

INLINE __m512 products(const uint16_t *a, const uint16_t *b, const int64_t width) {
    __m512 sum = _mm512_setzero_ps();
    int64_t at = 0;
    for (; at + 32 <= width; at += 32)
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(a + at),
                               (__m512bh)_mm512_loadu_si512(b + at));
    if (at < width) {
        __mmask32 mask = (__mmask32)((1ull << (width - at)) - 1);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(mask, a + at),
                               (__m512bh)_mm512_maskz_loadu_epi16(mask, b + at));
    }
    return sum;
}

/* The sums of four vectors. */
static inline __m128 totals(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 low = _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0));
    __m512 all = _mm512_add_ps(low, _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* scale q kT + bias for one query; -infinity where `keep` hides a key. Room for whole fours. */
INLINE void multiply_keys(const Attention *a, const uint16_t *q, const uint16_t *k, float *scores,
                          const int64_t width) {
    int64_t quarter = (a->keys + 3) / 4;
    for (int64_t s = 0; s < quarter; s++) {
        __m512 sums[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            int64_t key = i * quarter + s;
            sums[i] = products(q, k + (key < a->keys ? key : a->keys - 1) * a->k_place, width);
        }
        float four[4];
        _mm_storeu_ps(four, totals(sums[0], sums[1], sums[2], sums[3]));
        for (int i = 0; i < 4; i++) scores[i * quarter + s] = four[i];
    }
}

static void score(const Attention *a, const uint16_t *q, const uint16_t *k, const uint16_t *bias,
                  const uint8_t *keep, float *scores) {
    if (a->width == 64) multiply_keys(a, q, k, scores, 64);
    else multiply_keys(a, q, k, scores, a->width);
    __m512 scale = _mm512_set1_ps(a->scale);
    for (int64_t s = 0; s < a->keys; s += LANES) {
        __mmask16 mask = first(a->keys - s);
        __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scores + s), scale);
        if (a->cap > 0) {
            float one[LANES];
            _mm512_storeu_ps(one, value);
            for (int i = 0; i < LANES; i++) one[i] = a->cap * tanhf(one[i] / a->cap);
            value = _mm512_loadu_ps(one);
        }
        if (bias) value = _mm512_add_ps(value, load(bias, NARROW, s, mask));
        if (keep) {
            __mmask16 seen = _mm_test_epi8_mask(_mm_maskz_loadu_epi8(mask, keep + s), _mm_set1_epi8(-1));
            value = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, value);
        }
        _mm512_mask_storeu_ps(scores + s, mask, value);
    }
}

/* The softmax of a row of scores, in place; all zeros where every score is -infinity. */
static void softmax(float *scores, int64_t keys) {
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t at = 0; at < keys; at += LANES)
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(most, first(keys - at), scores + at));
    float largest = _mm512_reduce_max_ps(most);
    __mmask16 seen = largest > -INFINITY ? 0xFFFF : 0;
    most = _mm512_set1_ps(largest);
    for (int64_t at = 0; at < keys; at += LANES) {
        __m512 score = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), first(keys - at), scores + at);
        __mmask16 real = seen & _mm512_cmp_ps_mask(score, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
        __m512 value = _mm512_maskz_mov_ps(real, exponential(_mm512_sub_ps(score, most)));
        sum = _mm512_add_ps(sum, value);
        _mm512_mask_storeu_ps(scores + at, first(keys - at), value);
    }
    __m512 share = _mm512_set1_ps(seen ? 1.0f / _mm512_reduce_add_ps(sum) : 0.0f);
    for (int64_t at = 0; at < keys; at += LANES) {
        __mmask16 mask = first(keys - at);
        _mm512_mask_storeu_ps(scores + at, mask,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scores + at), share));
    }
}

/* y[t] = the sum of weights[t][s] v[s] for T queries, 64 numbers of the width at a time. */
INLINE void average(const Attention *a, const float *weights, int64_t stride, const uint16_t *v,
                    uint16_t *y, const int T, const int64_t width) {
    for (int64_t from = 0; from < width; from += 64) {
        __m512 sums[4][4];
        __mmask16 masks[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            int64_t left = width - from - i * LANES;
            masks[i] = first(left > 0 ? left : 0);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) sums[t][i] = _mm512_setzero_ps();
        }
        int64_t quarter = (a->keys + 3) / 4;
        for (int64_t part = 0; part < quarter; part++)
#pragma GCC unroll 4
            for (int64_t s = part; s < part + 4 * quarter; s += quarter) {
                if (s >= a->keys) break;
                __m512 share[4];
#pragma GCC unroll 4
                for (int t = 0; t < T; t++) share[t] = _mm512_set1_ps(weights[t * stride + s]);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    __m512 value = load(v + s * a->v_place + from, NARROW, i * LANES, masks[i]);
#pragma GCC unroll 4
                    for (int t = 0; t < T; t++)
                        sums[t][i] = _mm512_fmadd_ps(share[t], value, sums[t][i]);
                }
            }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                store(y + t * a->y_place + from, NARROW, i * LANES, masks[i], sums[t][i]);
    }
}

#define AVERAGE(T)                                                                    \
    do {                                                                              \
        if (a->width == 64) average(a, scores, stride, values, out, T, 64);     \
        else average(a, scores, stride, values, out, T, a->width);              \
    } while (0)

/* softmax(scale q kT + bias, keys that `keep` hides left out) v, in bfloat16 with float32 inside.
   Keys that are hidden before all others or behind them are not read. A query that sees no key
   gives zeros. 0 when there was no memory. */
int32_t attend(const Attention *whole, const uint16_t *q, const uint16_t *k, const uint16_t *v,
               const uint16_t *bias, const uint8_t *keep, uint16_t *y) {
    int32_t there = 1;
    int64_t units = whole->batch * whole->heads;
    int64_t stride = (whole->keys + LANES - 1) / LANES * LANES;
#pragma omp parallel for schedule(static) if (units * whole->keys > 512)
    for (int64_t unit = 0; unit < units; unit++) {
        Attention part = *whole, *a = &part;
        int64_t b = unit / a->heads, h = unit % a->heads, shared = h / a->share, from = 0;
        if (keep) {
            const uint8_t *seen = keep + b * a->keep_batch;
            while (a->keys && !seen[a->keys - 1]) a->keys--;
            while (from < a->keys && !seen[from]) from++;
            a->keys -= from;
        }
        const uint16_t *keys = k + b * a->k_batch + shared * a->k_head + from * a->k_place;
        const uint16_t *values = v + b * a->v_batch + shared * a->v_head + from * a->v_place;
        float *scores = scratch(4 * stride * sizeof(float));
        if (!scores) {
            there = 0;
            continue;
        }
        for (int64_t t = 0; t < a->queries; t += 4) {
            int64_t count = a->queries - t < 4 ? a->queries - t : 4;
            const uint16_t *query = q + b * a->q_batch + h * a->q_head + t * a->q_place;
            uint16_t *out = y + b * a->y_batch + h * a->y_head + t * a->y_place;
            for (int64_t i = 0; i < count; i++) {
                score(a, query + i * a->q_place, keys, bias ? bias + h * a->bias_head + from : 0,
                      keep ? keep + b * a->keep_batch + from : 0, scores + i * stride);
                softmax(scores + i * stride, a->keys);
            }
            switch (count) {
            case 1: AVERAGE(1); break;
            case 2: AVERAGE(2); break;
            case 3: AVERAGE(3); break;
            default: AVERAGE(4);
            }
        }
    }
    return there;
}

/* ---- attention of many queries --------------------------------------------------------------- */

/* exp of a row's scores less their largest, as bfloat16, zeros behind and where dropout takes one;
   1 / the sum of all, or 0 where no key is seen. `after` is how many of the first keys the query
   sees, `log` gets the logarithm of the sum of exp(scores), `unit` and `t` say which row it is. */
static float weigh(const Attention *a, const float *scores, const void *bias, int bias_wide,
                   const uint8_t *keep, int64_t after, int64_t unit, int64_t t, float *held,
                   uint16_t *weights, float *log) {
    __m512 most = _mm512_set1_ps(-INFINITY), scale = _mm512_set1_ps(a->scale);
    const __m512 none = most;
    for (int64_t s = 0; s < a->keys; s += LANES) {
        __mmask16 mask = first(after > s ? after - s : 0);
        if (keep)
            mask &= _mm_test_epi8_mask(_mm_maskz_loadu_epi8(first(a->keys - s), keep + s),
                                       _mm_set1_epi8(-1));
        __m512 value = _mm512_mul_ps(_mm512_load_ps(scores + s), scale);
        if (bias) value = _mm512_add_ps(value, load(bias, bias_wide, s, first(a->keys - s)));
        value = _mm512_mask_mov_ps(none, mask, value);
        most = _mm512_max_ps(most, value);
        _mm512_store_ps(held + s, value);
    }
    float largest = _mm512_reduce_max_ps(most);
    int64_t end = (a->keys + 31) / 32 * 32, s = 0;
    if (largest == -INFINITY) {
        memset(weights, 0, end * 2);
        *log = INFINITY;
        return 0;
    }
    __m512 sum = _mm512_setzero_ps();
    most = _mm512_set1_ps(largest);
    for (; s < a->keys; s += LANES) {
        __m512 value = _mm512_load_ps(held + s);
        __mmask16 seen = _mm512_cmp_ps_mask(value, none, _CMP_GT_OQ);
        value = _mm512_maskz_mov_ps(seen, exponential(_mm512_sub_ps(value, most)));
        sum = _mm512_add_ps(sum, value);
        if (a->drop)
            value = _mm512_maskz_mov_ps(staying(a, unit, t * a->keys + s, 1), value);
        _mm256_store_si256((__m256i *)(weights + s), (__m256i)_mm512_cvtneps_pbh(value));
    }
    for (; s < end; s += LANES)
        _mm256_store_si256((__m256i *)(weights + s), _mm256_setzero_si256());
    float total = _mm512_reduce_add_ps(sum);
    *log = largest + logf(total);
    return (a->drop ? a->kept : 1.0f) / total;
}

/* As `attend`, without a cap, by tiles: 16 queries at a time against all keys. `causal` lets query
   t see the first keys - queries + t + 1 keys. In training `logs` (batch, heads, queries) gets
   what `attend_back` needs of each softmax; null otherwise. */
int32_t attend_many(const Attention *a, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                    const void *bias, int32_t bias_wide, const uint8_t *keep, int32_t causal,
                    uint16_t *y, float *logs) {
    int32_t there = 1;
    int64_t deep = (a->width + 31) / 32, wide = (a->width + LANES - 1) / LANES;
    int64_t key_tiles = (a->keys + LANES - 1) / LANES, pairs = (a->keys + 31) / 32;
    int64_t row = pairs * 32, units = a->batch * a->heads;
    int64_t keys_size = key_tiles * deep * BLOCK, values_size = pairs * wide * BLOCK;
    int64_t query_size = deep * BLOCK, scores_size = LANES * row * 4, weights_size = LANES * row * 2;
    int64_t bytes = keys_size + values_size + query_size + scores_size + weights_size + row * 4 + BLOCK;
#pragma omp parallel
    {
        uint8_t *held = scratch(bytes);
        if (!held) there = 0;
        uint8_t *keys = held, *values = keys + keys_size, *query = values + values_size;
        float *scores = (float *)(query + query_size);
        uint16_t *weights = (uint16_t *)((uint8_t *)scores + scores_size);
        float *line = (float *)((uint8_t *)weights + weights_size), *sums = line + row;
        configure_tiles();
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < units; unit++) {
            if (!held) continue;
            int64_t b = unit / a->heads, h = unit % a->heads, shared = h / a->share;
            tile_keys(a, k + b * a->k_batch + shared * a->k_head, keys);
            tile_values(a, v + b * a->v_batch + shared * a->v_head, values);
            for (int64_t t = 0; t < a->queries; t += LANES) {
                int64_t count = a->queries - t < LANES ? a->queries - t : LANES;
                const uint16_t *from = q + b * a->q_batch + h * a->q_head + t * a->q_place;
                for (int64_t e = 0; e < deep; e++)
                    for (int64_t i = 0; i < LANES; i++)
                        _mm512_store_si512(
                            query + e * BLOCK + i * LINE,
                            _mm512_maskz_loadu_epi16(i < count ? first_32(a->width - 32 * e) : 0,
                                                     from + i * a->q_place + 32 * e));
                for (int64_t j = 0; j < key_tiles; j += 2) {
                    int two = j + 1 < key_tiles;
                    _tile_zero(0);
                    _tile_zero(1);
                    for (int64_t e = 0; e < deep; e++) {
                        _tile_loadd(4, query + e * BLOCK, LINE);
                        _tile_loadd(6, keys + (j * deep + e) * BLOCK, LINE);
                        _tile_dpbf16ps(0, 4, 6);
                        if (two) {
                            _tile_loadd(7, keys + ((j + 1) * deep + e) * BLOCK, LINE);
                            _tile_dpbf16ps(1, 4, 7);
                        }
                    }
                    _tile_stored(0, scores + j * LANES, row * 4);
                    if (two) _tile_stored(1, scores + (j + 1) * LANES, row * 4);
                }
                float shares[LANES], log;
                for (int64_t i = 0; i < count; i++) {
                    int64_t after = causal ? a->keys - a->queries + t + i + 1 : a->keys;
                    const void *added = 0;
                    if (bias)
                        added = (const char *)bias + (h * a->bias_head + (t + i) * a->bias_query) *
                                                         (bias_wide ? 4 : 2);
                    shares[i] = weigh(a, scores + i * row, added, bias_wide,
                                      keep ? keep + b * a->keep_batch : 0, after, unit, t + i,
                                      line, weights + i * row, &log);
                    if (logs) logs[unit * a->queries + t + i] = log;
                }
                uint16_t *to = y + b * a->y_batch + h * a->y_head + t * a->y_place;
                for (int64_t e = 0; e < wide; e++) {
                    _tile_zero(0);
                    for (int64_t p = 0; p < pairs; p++) {
                        _tile_loadd(4, weights + p * 32, row * 2);
                        _tile_loadd(6, values + (p * wide + e) * BLOCK, LINE);
                        _tile_dpbf16ps(0, 4, 6);
                    }
                    _tile_stored(0, sums, LINE);
                    for (int64_t i = 0; i < count; i++)
                        store(to + i * a->y_place, NARROW, e * LANES, first(a->width - e * LANES),
                              _mm512_mul_ps(_mm512_load_ps(sums + i * LANES),
                                            _mm512_set1_ps(shares[i])));
                }
            }
        }
        _tile_release();
    }
    return there;
}

/* ---- what stands between products ------------------------------------------------------------ */

/* Of rows of heads side by side (queries, keys, values; one new position each), turns queries and
   keys in place by x cos + (halves exchanged) sin, where cosines are given, and copies keys and
   values into a cache. The sines of the left half are negative already. `turn_row` is 0 where all
   rows stand at one position. Strides are in numbers. */
void turn_and_keep(uint16_t *qkv, int64_t rows, int64_t heads, int64_t key_heads, int64_t width,
                   const uint16_t *cosines, const uint16_t *sines, int64_t turn_row,
                   uint16_t *place, int64_t place_row, int64_t place_part, int64_t place_head) {
    int64_t every = heads + 2 * key_heads, half = width / 2;
    for (int64_t r = 0; r < rows; r++) {
        uint16_t *row = qkv + r * every * width;
        const uint16_t *c = cosines + r * turn_row, *s = sines + r * turn_row;
        for (int64_t n = 0; cosines && n < heads + key_heads; n++) {
            uint16_t *x = row + n * width;
            for (int64_t at = 0; at < half; at += LANES) {
                __mmask16 mask = first(half - at);
                __m512 left = load(x, NARROW, at, mask), right = load(x, NARROW, half + at, mask);
                __m512 new_left = _mm512_mul_ps(left, load(c, NARROW, at, mask));
                __m512 new_right = _mm512_mul_ps(right, load(c, NARROW, half + at, mask));
                new_left = _mm512_fmadd_ps(right, load(s, NARROW, at, mask), new_left);
                new_right = _mm512_fmadd_ps(left, load(s, NARROW, half + at, mask), new_right);
                store(x, NARROW, at, mask, new_left);
                store(x, NARROW, half + at, mask, new_right);
            }
        }
        for (int64_t n = 0; n < 2 * key_heads; n++)
            memcpy(place + r * place_row + n / key_heads * place_part + n % key_heads * place_head,
                   row + (heads + n) * width, width * 2);
    }
}

/* y = activation(gate) up for rows of gate and up side by side. */
void gate(const uint16_t *x, int64_t rows, int64_t width, int32_t activation, uint16_t *y) {
#pragma omp parallel for schedule(static) if (rows * width > 65536)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            __m512 open = activated(load(x, NARROW, 2 * r * width + at, mask), activation);
            __m512 up = load(x, NARROW, (2 * r + 1) * width + at, mask);
            store(y, NARROW, r * width + at, mask, _mm512_mul_ps(open, up));
        }
}

/* x = activation(x), for `count` numbers. */
void activate(uint16_t *x, int64_t count, int32_t activation) {
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        store(x, NARROW, at, mask, activated(load(x, NARROW, at, mask), activation));
    }
}
