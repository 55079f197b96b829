/* What training computes backwards on Intel CPUs with AMX and AVX-512, where torch takes many passes:
   attention, norms, gates. Nothing of the size of the scores is kept from the forward pass: they are
   computed again (Dao et al., 2022, "FlashAttention", algorithm 4). */

#include "common.h"

enum { PATCH = 32 };  /* keys and queries of a piece of the scores */

static inline int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* Rows as the left factor of products: bfloat16 rows one after another, `count` of them real. */
static void copy_rows(const uint16_t *x, int64_t place, int64_t count, int64_t rows, int64_t width,
                      uint16_t *to) {
    int64_t wide = up_to(width, 32);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < wide; e += 32)
            _mm512_store_si512(to + r * wide + e,
                               _mm512_maskz_loadu_epi16(r < count ? first_32(width - e) : 0,
                                                        x + r * place + e));
}

/* Rows as right factors, twice: transposed, 16 of them by 32 of the width in a tile (for products
   with them), and in pairs, 32 of them by 16 of the width (for sums over them). */
static void tile_both(const Attention *a, const uint16_t *x, int64_t place, int64_t count,
                      uint8_t *columns, uint8_t *pairs) {
    Attention rows = *a;
    rows.keys = count;
    rows.k_place = rows.v_place = place;
    if (columns) tile_keys(&rows, x, columns);
    tile_values(&rows, x, pairs);
}

/* 32 left rows times 32 right columns into c, 32 x 32. */
static void patch(const uint16_t *left, const uint8_t *right, int64_t deep, int two, float *c) {
    int64_t line = deep * LINE;
    for (int i = 0; i < 4; i++)
        if (i == 0) _tile_zero(0);
        else if (i == 1) _tile_zero(1);
        else if (i == 2) _tile_zero(2);
        else _tile_zero(3);
    for (int64_t e = 0; e < deep; e++) {
        _tile_loadd(4, left + e * 32, line);
        _tile_loadd(5, left + deep * 32 * LANES + e * 32, line);
        _tile_loadd(6, right + e * BLOCK, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        if (two) {
            _tile_loadd(7, right + (deep + e) * BLOCK, LINE);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, PATCH * 4);
    _tile_stored(1, c + LANES, PATCH * 4);
    _tile_stored(2, c + LANES * PATCH, PATCH * 4);
    _tile_stored(3, c + LANES * PATCH + LANES, PATCH * 4);
}

/* sums (32 rows of `line` numbers) += left, 32 x 32, times the 32 rows held in pairs. */
static void add_product(const uint16_t *left, const uint8_t *pairs, int64_t wide, float *sums,
                        int64_t line) {
    _tile_loadd(4, left, PATCH * 2);
    _tile_loadd(5, left + LANES * PATCH, PATCH * 2);
    for (int64_t e = 0; e < wide; e++) {
        _tile_loadd(0, sums + e * LANES, line * 4);
        _tile_loadd(1, sums + LANES * line + e * LANES, line * 4);
        _tile_loadd(6, pairs + e * BLOCK, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_stored(0, sums + e * LANES, line * 4);
        _tile_stored(1, sums + LANES * line + e * LANES, line * 4);
    }
}

static void write_rows(const float *x, int64_t line, int64_t count, int64_t width, float scale,
                       uint16_t *y, int64_t place) {
    __m512 factor = _mm512_set1_ps(scale);
    for (int64_t r = 0; r < count; r++)
        for (int64_t e = 0; e < width; e += LANES)
            store(y + r * place, NARROW, e, first(width - e),
                  _mm512_mul_ps(_mm512_load_ps(x + r * line + e), factor));
}

static inline void narrow(uint16_t *to, __m512 value) {
    _mm256_store_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(value));
}

/* The gradients of `attend_many`. The strides of dq, dk, dv and dy are those of q, k, v and y in `g`.
   `bias` and `dbias` are transposed: (heads, keys, queries), contiguous, float32; `dbias`, zeros
   before, may be null. 0 when there was no memory. */
int32_t attend_back(const Attention *a, const Attention *g, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                    const float *bias, const uint8_t *keep, int32_t causal, const uint16_t *y,
                    const uint16_t *dy, const float *logs, uint16_t *dq, uint16_t *dk, uint16_t *dv,
                    float *dbias) {
    int32_t there = 1;
    int64_t deep = (a->width + 31) / 32, wide = (a->width + LANES - 1) / LANES, line = wide * LANES;
    int64_t keys = up_to(a->keys, PATCH), queries = up_to(a->queries, PATCH);
    int64_t kinds = a->heads / a->share, behind = a->keys - a->queries;
    int64_t row_bytes = deep * LINE, pair_bytes = wide * BLOCK / 32, sum_bytes = line * 4;
    int64_t bytes = keys * (2 * row_bytes + pair_bytes + 2 * sum_bytes) +
                    queries * (2 * row_bytes + 2 * pair_bytes + sum_bytes + 8) + 20 * BLOCK;
    /* The gradient of a bias is a sum over the batch: then each thread has whole heads. */
    int64_t outer = dbias ? kinds : kinds * a->batch, inner = dbias ? a->batch : 1;
#pragma omp parallel
    {
        uint8_t *at = scratch(bytes);
        if (!at) there = 0;  /* whoever sees it does nothing; the caller is told */
        uint16_t *key_rows = (uint16_t *)at, *value_rows = (uint16_t *)(at += keys * row_bytes);
        uint8_t *key_pairs = at += keys * row_bytes;
        float *dkeys = (float *)(at += keys * pair_bytes);
        float *dvalues = (float *)(at += keys * sum_bytes);
        uint8_t *query_columns = at += keys * sum_bytes;
        uint8_t *dy_columns = at += queries * row_bytes;
        uint8_t *query_pairs = at += queries * row_bytes;
        uint8_t *dy_pairs = at += queries * pair_bytes;
        float *dqueries = (float *)(at += queries * pair_bytes);
        float *log = (float *)(at += queries * sum_bytes), *inner_sum = log + queries;
        float *s = (float *)(at += queries * 8), *p = s + PATCH * PATCH;
        uint16_t *weights = (uint16_t *)(p + PATCH * PATCH), *dscores = weights + PATCH * PATCH;
        uint16_t *dscores_by_query = dscores + PATCH * PATCH;
        __m512 scale = _mm512_set1_ps(a->scale), kept = _mm512_set1_ps(a->drop ? a->kept : 1.0f);
        configure_tiles();
#pragma omp for schedule(dynamic)
        for (int64_t o = 0; o < outer; o++)
            for (int64_t n = 0; there && n < inner; n++) {
                int64_t b = dbias ? n : o / kinds, kind = dbias ? o : o % kinds;
                const uint16_t *k_here = k + b * a->k_batch + kind * a->k_head;
                const uint16_t *v_here = v + b * a->v_batch + kind * a->v_head;
                const uint8_t *seen = keep ? keep + b * a->keep_batch : 0;
                copy_rows(k_here, a->k_place, a->keys, keys, a->width, key_rows);
                copy_rows(v_here, a->v_place, a->keys, keys, a->width, value_rows);
                tile_both(a, k_here, a->k_place, a->keys, 0, key_pairs);
                memset(dkeys, 0, 2 * keys * sum_bytes);
                for (int64_t h = kind * a->share; h < (kind + 1) * a->share; h++) {
                    const uint16_t *q_here = q + b * a->q_batch + h * a->q_head;
                    const uint16_t *y_here = y + b * a->y_batch + h * a->y_head;
                    const uint16_t *dy_here = dy + b * g->y_batch + h * g->y_head;
                    uint32_t unit = b * a->heads + h;
                    tile_both(a, q_here, a->q_place, a->queries, query_columns, query_pairs);
                    tile_both(a, dy_here, g->y_place, a->queries, dy_columns, dy_pairs);
                    memset(dqueries, 0, queries * sum_bytes);
                    for (int64_t t = 0; t < queries; t++) {
                        __m512 sum = _mm512_setzero_ps();
                        for (int64_t e = 0; t < a->queries && e < a->width; e += LANES) {
                            __mmask16 mask = first(a->width - e);
                            sum = _mm512_fmadd_ps(load(y_here + t * a->y_place, NARROW, e, mask),
                                                  load(dy_here + t * g->y_place, NARROW, e, mask), sum);
                        }
                        inner_sum[t] = _mm512_reduce_add_ps(sum);
                        log[t] = t < a->queries ? logs[unit * a->queries + t] : INFINITY;
                    }
                    for (int64_t j = 0; j < a->keys; j += PATCH)
                        for (int64_t t = 0; t < a->queries; t += PATCH) {
                            if (causal && j > t + PATCH - 1 + behind) continue;
                            int two = t + LANES < a->queries;
                            patch(key_rows + j * deep * 32, query_columns + t * row_bytes, deep, two, s);
                            patch(value_rows + j * deep * 32, dy_columns + t * row_bytes, deep, two, p);
                            for (int64_t r = 0; r < PATCH; r++)
                                for (int64_t l = 0; l < PATCH; l += LANES) {
                                    int64_t key = j + r, query = t + l, place = r * PATCH + l;
                                    __mmask16 real = first(a->queries > query ? a->queries - query : 0);
                                    if (key >= a->keys || (seen && !seen[key])) real = 0;
                                    if (causal && key > query + behind)
                                        real &= key - query - behind >= LANES
                                                    ? 0
                                                    : (__mmask16)(0xFFFF << (key - query - behind));
                                    __m512 weight = _mm512_mul_ps(_mm512_load_ps(s + place), scale);
                                    if (bias)
                                        weight = _mm512_add_ps(
                                            weight, _mm512_maskz_loadu_ps(
                                                        real, bias + (h * a->keys + key) * a->queries + query));
                                    weight = exponential(_mm512_sub_ps(weight, _mm512_load_ps(log + query)));
                                    weight = _mm512_maskz_mov_ps(real, weight);
                                    __m512 back = _mm512_load_ps(p + place), used = weight;
                                    if (a->drop) {
                                        __mmask16 stay = staying(a, unit, query * a->keys + key, a->keys);
                                        used = _mm512_maskz_mul_ps(stay, weight, kept);
                                        back = _mm512_maskz_mul_ps(stay, back, kept);
                                    }
                                    back = _mm512_sub_ps(back, _mm512_load_ps(inner_sum + query));
                                    back = _mm512_maskz_mul_ps(real, weight, back);
                                    narrow(weights + place, used);
                                    narrow(dscores + place, back);
                                    _mm512_store_ps(s + place, back);
                                    if (dbias && real) {
                                        float *to = dbias + (h * a->keys + key) * a->queries + query;
                                        __m512 sum = _mm512_maskz_loadu_ps(real, to);
                                        _mm512_mask_storeu_ps(to, real, _mm512_add_ps(sum, back));
                                    }
                                }
                            for (int64_t l = 0; l < PATCH; l += LANES)
                                for (int64_t r = 0; r < PATCH; r += LANES) {
                                    __m512i square[16];
                                    for (int i = 0; i < 16; i++)
                                        square[i] = _mm512_load_si512(s + (r + i) * PATCH + l);
                                    transpose(square);
                                    for (int i = 0; i < 16; i++)
                                        narrow(dscores_by_query + (l + i) * PATCH + r,
                                               _mm512_castsi512_ps(square[i]));
                                }
                            add_product(weights, dy_pairs + t * pair_bytes, wide, dvalues + j * line, line);
                            add_product(dscores, query_pairs + t * pair_bytes, wide, dkeys + j * line, line);
                            add_product(dscores_by_query, key_pairs + j * pair_bytes, wide,
                                        dqueries + t * line, line);
                        }
                    write_rows(dqueries, line, a->queries, a->width, a->scale,
                               dq + b * g->q_batch + h * g->q_head, g->q_place);
                }
                write_rows(dkeys, line, a->keys, a->width, a->scale,
                           dk + b * g->k_batch + kind * g->k_head, g->k_place);
                write_rows(dvalues, line, a->keys, a->width, 1.0f,
                           dv + b * g->v_batch + kind * g->v_head, g->v_place);
            }
        _tile_release();
    }
    return there;
}

/* ---- gradients of weights --------------------------------------------------------------------- */

enum { TOKENS = 384 };  /* taken at a time */

/* Rows of x, 32 at a time, as tiles of 16 numbers of the width, `next` bytes from one column of tiles
   to the next: in pairs, as a right factor, or turned so that a number's 32 rows lie side by side, as
   a left one. Each thread packs some columns. */
static void pack_rows(const uint16_t *x, int64_t count, int64_t width, int turned, uint8_t *to,
                      int64_t next) {
    int64_t columns = width / LANES, threads = omp_get_num_threads(), thread = omp_get_thread_num();
    int64_t from = columns * thread / threads, end = columns * (thread + 1) / threads;
    for (int64_t r = 0; r < count; r += 32)
        for (int64_t c = from; c < end; c++) {
            __m512i pairs[16];
            for (int i = 0; i < 16; i++) {
                const uint16_t *at = x + (r + 2 * i) * width + c * LANES;
                __m256i even = _mm256_setzero_si256(), odd = even;
                if (r + 2 * i < count) even = _mm256_loadu_si256((const __m256i *)at);
                if (r + 2 * i + 1 < count) odd = _mm256_loadu_si256((const __m256i *)(at + width));
                pairs[i] = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            }
            if (turned) transpose(pairs);
            uint8_t *tile = to + c * next + r / 32 * BLOCK;
            for (int i = 0; i < 16; i++) _mm512_store_si512(tile + i * LINE, pairs[i]);
        }
}

/* A piece of a gradient on its way to memory: 32 x 32 sums, or less. It is written a few rows at a
   time while the matrix unit makes the next one. */
typedef struct {
    const float *product;
    float *sums;
    int64_t line, next, down, across;
    int begin;
} Piece;

INLINE void write_piece(Piece *from, int64_t count) {
    int64_t end = from->next + count < from->down ? from->next + count : from->down;
    for (int64_t r = from->next; r < end; r++)
        for (int64_t c = 0; c < from->across; c++) {
            __m512 value = _mm512_load_ps(from->product + (r * 2 + c) * LANES);
            float *to = from->sums + r * from->line + c * LANES;
            if (!from->begin) value = _mm512_add_ps(value, _mm512_loadu_ps(to));
            _mm512_storeu_ps(to, value);
        }
    from->next = end;
}

/* The product of tiles over `blocks` times 32 tokens, 32 x 32 or less. The sums that it is for are
   asked for, and those `before` it written, while the tiles multiply. */
INLINE void outer(const uint8_t *left, const uint8_t *right, int64_t blocks, int64_t next,
                  const float *sums, int64_t line, Piece *before, float *product,
                  const int two_down, const int two_across) {
    const int64_t down = two_down ? 2 * LANES : LANES, across = two_across ? 2 : 1;
    int64_t share = (2 * LANES + blocks - 1) / blocks;
    _tile_zero(0);
    if (two_across) _tile_zero(1);
    if (two_down) _tile_zero(2);
    if (two_down && two_across) _tile_zero(3);
    for (int64_t b = 0; b < blocks; b++) {
        for (int64_t r = b * down / blocks; r < (b + 1) * down / blocks; r++)
            for (int64_t c = 0; c < across; c++)
                _mm_prefetch(sums + r * line + c * LANES, _MM_HINT_T0);
        _tile_loadd(4, left + b * BLOCK, LINE);
        _tile_loadd(6, right + b * BLOCK, LINE);
        _tile_dpbf16ps(0, 4, 6);
        if (two_across) _tile_loadd(7, right + next + b * BLOCK, LINE);
        if (two_across) _tile_dpbf16ps(1, 4, 7);
        if (two_down) _tile_loadd(5, left + next + b * BLOCK, LINE);
        if (two_down) _tile_dpbf16ps(2, 5, 6);
        if (two_down && two_across) _tile_dpbf16ps(3, 5, 7);
        write_piece(before, share);
    }
    write_piece(before, before->down);
    _tile_stored(0, product, 2 * LINE);
    if (two_across) _tile_stored(1, product + LANES, 2 * LINE);
    if (two_down) _tile_stored(2, product + 2 * LANES * LANES, 2 * LINE);
    if (two_down && two_across) _tile_stored(3, product + 2 * LANES * LANES + LANES, 2 * LINE);
}

/* dw (out, in) in float32 = dyT x, of bfloat16 rows; `out` and `in` are multiples of 16. 0 when there
   was no memory. */
int32_t weight_gradient(const uint16_t *dy, const uint16_t *x, int64_t rows, int64_t out, int64_t in,
                        float *dw) {
    int64_t downs = out / LANES, acrosses = in / LANES, next = TOKENS / 32 * BLOCK + LINE;
    uint8_t *left = scratch((downs + acrosses) * next), *right = left + downs * next;
    if (!left) return 0;
#pragma omp parallel
    {
        _Alignas(64) float products[2][4 * LANES * LANES];
        configure_tiles();
        for (int64_t r = 0; r < rows; r += TOKENS) {
            int64_t count = rows - r < TOKENS ? rows - r : TOKENS, blocks = (count + 31) / 32;
            pack_rows(dy + r * out, count, out, 1, left, next);
            pack_rows(x + r * in, count, in, 0, right, next);
#pragma omp barrier
            /* Pieces of the result, along the longer side. */
            int64_t strips = (acrosses + 1) / 2, lines = (downs + 1) / 2, wide = strips >= lines;
            Piece before = {0};
            int turn = 0;
#pragma omp for schedule(static) nowait
            for (int64_t s = 0; s < (wide ? strips : lines); s++)
                for (int64_t l = 0; l < (wide ? lines : strips); l++) {
                    int64_t d = 2 * (wide ? l : s), c = 2 * (wide ? s : l);
                    const uint8_t *a = left + d * next, *b = right + c * next;
                    float *to = dw + d * LANES * in + c * LANES, *p = products[turn];
                    int two_down = d + 1 < downs, two_across = c + 1 < acrosses;
                    if (two_down && two_across) outer(a, b, blocks, next, to, in, &before, p, 1, 1);
                    else if (two_down) outer(a, b, blocks, next, to, in, &before, p, 1, 0);
                    else if (two_across) outer(a, b, blocks, next, to, in, &before, p, 0, 1);
                    else outer(a, b, blocks, next, to, in, &before, p, 0, 0);
                    before = (Piece){p, to, in, 0, (1 + two_down) * LANES, 1 + two_across, r == 0};
                    turn ^= 1;
                }
            write_piece(&before, before.down);
#pragma omp barrier
        }
        _tile_release();
    }
    return 1;
}

/* ---- weights for products both ways ---------------------------------------------------------- */

static inline __m512i pairs_of_rows(const float *even, const float *odd, __mmask16 lower,
                                    __mmask16 upper) {
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
        23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(upper, odd),
                                                _mm512_maskz_loadu_ps(lower, even));
    return _mm512_permutexvar_epi16(order, both);
}

/* Lays float32 weights (out, in) out in bfloat16 panels (see kernels.c) as rows `first_row` and on, a
   multiple of 32, of a matrix of `all` outputs: `forth` for x wT, `back` for dy w, or null. */
void pack_both(const float *w, int64_t out, int64_t in, int64_t first_row, int64_t all,
               uint8_t *forth, uint8_t *back) {
    int64_t blocks = (in + 31) / 32, back_blocks = (all + 31) / 32;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < out; o += 32)
        for (int64_t b = 0; b < blocks; b++) {
            __mmask16 left = first(in - 32 * b), right = first(in - 32 * b > 16 ? in - 32 * b - 16 : 0);
            for (int64_t half = 0; half < 2; half++) {
                int64_t panel = (first_row + o) / LANES + half;
                if (panel * LANES >= all) break;
                __m512i rows[16];
                for (int64_t n = 0; n < LANES; n++) {
                    int64_t row = o + half * LANES + n;
                    const float *at = w + (row < out ? row : 0) * in + 32 * b;
                    rows[n] = (__m512i)_mm512_cvtne2ps_pbh(
                        _mm512_maskz_loadu_ps(row < out ? right : 0, at + LANES),
                        _mm512_maskz_loadu_ps(row < out ? left : 0, at));
                }
                transpose(rows);
                uint8_t *to = forth + (panel * blocks + b) * BLOCK;
                for (int r = 0; r < 16; r++) _mm512_store_si512(to + r * LINE, rows[r]);
            }
            for (int64_t half = 0; back && half < 2; half++) {
                int64_t column = 32 * b + half * LANES;
                if (column >= in) break;
                __mmask16 mask = half ? right : left;
                uint8_t *to = back + (column / LANES * back_blocks + (first_row + o) / 32) * BLOCK;
                for (int64_t r = 0; r < 16; r++) {
                    int64_t row = o + 2 * r;
                    const float *even = w + (row < out ? row : 0) * in + column;
                    const float *odd = w + (row + 1 < out ? row + 1 : 0) * in + column;
                    _mm512_store_si512(to + r * LINE,
                                       pairs_of_rows(even, odd, row < out ? mask : 0,
                                                     row + 1 < out ? mask : 0));
                }
            }
        }
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* The gradients of y = x / sqrt(mean(x^2) + epsilon) * weight, for float32 rows x and dy as it comes:
   dx, to which `skip` is added where there is one, and, where `dweight` is not null, the weight's:
   a row of sums for each of `parts` threads, zeros before. */
void norm_back(const float *x, const void *dy, int32_t dy_wide, const float *weight, float epsilon,
               const float *skip, int64_t rows, int64_t width, float *dx, float *dweight,
               int64_t parts) {
#pragma omp parallel num_threads(parts) if (parts > 1)
    {
        float *sums = dweight ? dweight + omp_get_thread_num() * width : 0;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const float *from = x + r * width;
            __m512 squares = _mm512_setzero_ps(), inner = _mm512_setzero_ps();
            for (int64_t at = 0; at < width; at += LANES) {
                __mmask16 mask = first(width - at);
                __m512 value = _mm512_maskz_loadu_ps(mask, from + at);
                __m512 back = load(dy, dy_wide, r * width + at, mask);
                squares = _mm512_fmadd_ps(value, value, squares);
                back = _mm512_mul_ps(back, _mm512_maskz_loadu_ps(mask, weight + at));
                inner = _mm512_fmadd_ps(value, back, inner);
            }
            float factor = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)width + epsilon);
            float share = -_mm512_reduce_add_ps(inner) * factor * factor * factor / (float)width;
            __m512 by = _mm512_set1_ps(factor), of = _mm512_set1_ps(share);
            for (int64_t at = 0; at < width; at += LANES) {
                __mmask16 mask = first(width - at);
                __m512 value = _mm512_maskz_loadu_ps(mask, from + at);
                __m512 back = _mm512_mul_ps(load(dy, dy_wide, r * width + at, mask), by);
                if (sums) {
                    __m512 sum = _mm512_maskz_loadu_ps(mask, sums + at);
                    _mm512_mask_storeu_ps(sums + at, mask, _mm512_fmadd_ps(back, value, sum));
                }
                back = _mm512_mul_ps(back, _mm512_maskz_loadu_ps(mask, weight + at));
                back = _mm512_fmadd_ps(value, of, back);
                if (skip) back = _mm512_add_ps(back, _mm512_maskz_loadu_ps(mask, skip + r * width + at));
                _mm512_mask_storeu_ps(dx + r * width + at, mask, back);
            }
        }
    }
}

/* ---- what stands between products ------------------------------------------------------------ */

/* total = x + dropout(y), of float32 x and bfloat16 y. */
void add_dropped(const float *x, const uint16_t *y, int64_t count, uint32_t drop, uint32_t seed,
                 float kept, float *total) {
    __m512 factor = _mm512_set1_ps(kept);
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        __m512 value = load(y, NARROW, at, mask);
        if (drop) value = _mm512_maskz_mul_ps(kept_at(seed, drop, at), value, factor);
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, x + at));
        _mm512_mask_storeu_ps(total + at, mask, value);
    }
}

/* y = dropout(x); its gradient too. */
void dropped(const void *x, int32_t x_wide, int64_t count, uint32_t drop, uint32_t seed, float kept,
             void *y, int32_t y_wide) {
    __m512 factor = _mm512_set1_ps(kept);
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        __m512 value = load(x, x_wide, at, mask);
        if (drop) value = _mm512_maskz_mul_ps(kept_at(seed, drop, at), value, factor);
        store(y, y_wide, at, mask, value);
    }
}

/* x = dropout(max(x, 0)), bfloat16, in place. */
void relu_drop(uint16_t *x, int64_t count, uint32_t drop, uint32_t seed, float kept) {
    __m512 factor = _mm512_set1_ps(kept);
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        __m512 value = _mm512_max_ps(_mm512_setzero_ps(), load(x, NARROW, at, mask));
        if (drop) value = _mm512_maskz_mul_ps(kept_at(seed, drop, at), value, factor);
        store(x, NARROW, at, mask, value);
    }
}

/* The gradient of `relu_drop`, in place: `kept` dy where y is not 0. */
void relu_back(const uint16_t *y, int64_t count, float kept, uint16_t *dy) {
    __m512 factor = _mm512_set1_ps(kept);
#pragma omp parallel for schedule(static) if (count > 65536)
    for (int64_t at = 0; at < count; at += LANES) {
        __mmask16 mask = first(count - at);
        __m256i there = _mm256_maskz_loadu_epi16(mask, y + at);
        __mmask16 stays = _mm256_test_epi16_mask(there, there);
        store(dy, NARROW, at, mask, _mm512_maskz_mul_ps(stays, load(dy, NARROW, at, mask), factor));
    }
}

/* The gradients of y = activation(gate) up, for rows of gate and up side by side; dx likewise. Where
   `y` is not null it is computed again too. All in bfloat16. */
void gate_back(const uint16_t *x, const uint16_t *dy, int64_t rows, int64_t width,
               int32_t activation, uint16_t *dx, uint16_t *y) {
    const __m512 one = _mm512_set1_ps(1.0f);
#pragma omp parallel for schedule(static) if (rows * width > 65536)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            int64_t left = 2 * r * width + at, right = left + width;
            __m512 value = load(x, NARROW, left, mask), up = load(x, NARROW, right, mask);
            __m512 back = load(dy, NARROW, r * width + at, mask), inner = value, slope = one;
            if (activation == TANH_GELU) {
                __m512 square = _mm512_mul_ps(value, value);
                __m512 by = _mm512_set1_ps(1.5957691216f), third = _mm512_set1_ps(0.044715f);
                inner = _mm512_fmadd_ps(_mm512_mul_ps(square, value), third, value);
                inner = _mm512_mul_ps(inner, by);
                slope = _mm512_fmadd_ps(square, _mm512_set1_ps(3 * 0.044715f), one);
                slope = _mm512_mul_ps(slope, by);
            }
            __m512 open = logistic(inner), active = _mm512_mul_ps(value, open);
            slope = _mm512_mul_ps(slope, _mm512_sub_ps(one, open));
            slope = _mm512_fmadd_ps(slope, active, open);
            store(dx, NARROW, right, mask, _mm512_mul_ps(back, active));
            store(dx, NARROW, left, mask, _mm512_mul_ps(_mm512_mul_ps(back, up), slope));
            if (y) store(y, NARROW, r * width + at, mask, _mm512_mul_ps(active, up));
        }
}

/* Turns heads by half cosines and sines (of each place, width / 2): out = x cos + (halves exchanged,
   the new left one negative) sin; the other way round where `back` is true. Strides of batch, place
   and head, in numbers, `x` and `out` each; `turn_batch` is 0 where all rows stand alike. */
void turn_heads(const uint16_t *x, const int64_t *x_strides, int64_t batch, int64_t places,
                int64_t heads, int64_t width, const uint16_t *cosines, const uint16_t *sines,
                int64_t turn_batch, int32_t back, uint16_t *out, const int64_t *out_strides) {
    int64_t half = width / 2;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t t = 0; t < places; t++) {
            const uint16_t *c = cosines + b * turn_batch + t * half;
            const uint16_t *s = sines + b * turn_batch + t * half;
            for (int64_t h = 0; h < heads; h++) {
                const uint16_t *from = x + b * x_strides[0] + t * x_strides[1] + h * x_strides[2];
                uint16_t *to = out + b * out_strides[0] + t * out_strides[1] + h * out_strides[2];
                for (int64_t at = 0; at < half; at += LANES) {
                    __mmask16 mask = first(half - at);
                    __m512 left = load(from, NARROW, at, mask), right = load(from, NARROW, half + at, mask);
                    __m512 cosine = load(c, NARROW, at, mask), sine = load(s, NARROW, at, mask);
                    if (back) sine = _mm512_sub_ps(_mm512_setzero_ps(), sine);
                    store(to, NARROW, at, mask,
                          _mm512_fnmadd_ps(right, sine, _mm512_mul_ps(left, cosine)));
                    store(to, NARROW, half + at, mask,
                          _mm512_fmadd_ps(left, sine, _mm512_mul_ps(right, cosine)));
                }
            }
        }
}

/* ---- the loss -------------------------------------------------------------------------------- */

static inline __m512 logit(const uint16_t *row, const float *bias, __m512 scale, int64_t at,
                           __mmask16 mask) {
    __m512 value = _mm512_mul_ps(load(row, NARROW, at, mask), scale);
    return bias ? _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, bias + at)) : value;
}

/* The cross-entropy in nats of each row's label, of logits = scale x + bias in bfloat16 rows; `logs`
   gets the logarithm of each row's sum of exp(logits). */
void token_nats(const uint16_t *x, const float *bias, float scale, const int64_t *labels,
                int64_t rows, int64_t width, float *logs, float *nats) {
    __m512 by = _mm512_set1_ps(scale);
    const __m512 none = _mm512_set1_ps(-INFINITY);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const uint16_t *row = x + r * width;
        __m512 most = none, sum = _mm512_setzero_ps();
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            most = _mm512_mask_max_ps(most, mask, most, logit(row, bias, by, at, mask));
        }
        float largest = _mm512_reduce_max_ps(most);
        most = _mm512_set1_ps(largest);
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            __m512 value = exponential(_mm512_sub_ps(logit(row, bias, by, at, mask), most));
            sum = _mm512_mask_add_ps(sum, mask, sum, value);
        }
        float found[LANES];
        int64_t label = labels[r], block = label / LANES * LANES;
        _mm512_storeu_ps(found, logit(row, bias, by, block, first(width - block)));
        logs[r] = largest + logf(_mm512_reduce_add_ps(sum));
        nats[r] = logs[r] - found[label - block];
    }
}

/* x = scale dnats (exp(logits - log) - 1 at the label), in bfloat16. */
void token_nats_back(uint16_t *x, const float *bias, float scale, const int64_t *labels,
                     const float *logs, const float *dnats, int64_t rows, int64_t width) {
    __m512 by = _mm512_set1_ps(scale);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        uint16_t *row = x + r * width;
        __m512 share = _mm512_set1_ps(scale * dnats[r]), log = _mm512_set1_ps(logs[r]);
        for (int64_t at = 0; at < width; at += LANES) {
            __mmask16 mask = first(width - at);
            __m512 below = _mm512_sub_ps(logit(row, bias, by, at, mask), log);
            /* What is next to nothing is nothing: denormal numbers take a hundred times as long. */
            __mmask16 counts = _mm512_cmp_ps_mask(below, _mm512_set1_ps(-60.0f), _CMP_GT_OQ);
            __m512 value = _mm512_maskz_mov_ps(counts, exponential(below));
            if (labels[r] >= at && labels[r] < at + LANES)
                value = _mm512_mask_sub_ps(value, (__mmask16)(1u << (labels[r] - at)), value,
                                           _mm512_set1_ps(1.0f));
            store(row, NARROW, at, mask, _mm512_mul_ps(value, share));
        }
    }
}

/* ---- clipping -------------------------------------------------------------------------------- */

enum { PIECE = 16384 };  /* numbers whose squares are summed in single precision */

/* The sum of the squares of all numbers of `count` arrays: one order of adding, whatever threads. */
double sum_of_squares(const float *const *arrays, const int64_t *lengths, int64_t count) {
    double total = 0.0;
    for (int64_t n = 0; n < count; n++) {
        const float *x = arrays[n];
        int64_t pieces = (lengths[n] + PIECE - 1) / PIECE;
        if (!pieces) continue;
        double *sums = scratch(pieces * sizeof(double));
        if (!sums) return NAN;
#pragma omp parallel for schedule(static) if (pieces > 4)
        for (int64_t p = 0; p < pieces; p++) {
            int64_t end = (p + 1) * PIECE < lengths[n] ? (p + 1) * PIECE : lengths[n];
            __m512 sum[4];
            for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
            for (int64_t at = p * PIECE; at < end; at += 4 * LANES)
                for (int i = 0; i < 4; i++) {
                    int64_t left = end - at - i * LANES;
                    __m512 value = _mm512_maskz_loadu_ps(first(left > 0 ? left : 0), x + at + i * LANES);
                    sum[i] = _mm512_fmadd_ps(value, value, sum[i]);
                }
            sums[p] = 0.0;
            for (int i = 0; i < 4; i++) sums[p] += (double)_mm512_reduce_add_ps(sum[i]);
        }
        for (int64_t p = 0; p < pieces; p++) total += sums[p];
    }
    return total;
}

/* Multiplies all numbers of `count` arrays, in place. */
void scale_all(float *const *arrays, const int64_t *lengths, int64_t count, float factor) {
    __m512 by = _mm512_set1_ps(factor);
    for (int64_t n = 0; n < count; n++) {
        float *x = arrays[n];
#pragma omp parallel for schedule(static) if (lengths[n] > 65536)
        for (int64_t at = 0; at < lengths[n]; at += LANES) {
            __mmask16 mask = first(lengths[n] - at);
            _mm512_mask_storeu_ps(x + at, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + at), by));
        }
    }
}
