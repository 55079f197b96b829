/* One new token a row through all layers of a decoder, in one call. At so few rows what lies between
   the kernels, called one by one from outside, would take a third of the time. They are the same
   kernels in the same order, so the numbers are the same to the last bit. */

#include "common.h"

int32_t linear(const Linear *, const void *, int32_t, int64_t, void *, int32_t);
void norm(const Norm *, const void *, int32_t, const void *, int32_t, float *, int64_t, int64_t,
          void *, int32_t);
void add(float *, const void *, int32_t, int64_t);
int32_t attend(const Attention *, const uint16_t *, const uint16_t *, const uint16_t *,
               const uint16_t *, const uint8_t *, uint16_t *);
void turn_and_keep(uint16_t *, int64_t, int64_t, int64_t, int64_t, const uint16_t *,
                   const uint16_t *, int64_t, uint16_t *, int64_t, int64_t, int64_t);
void gate(const uint16_t *, int64_t, int64_t, int32_t, uint16_t *);
void activate(uint16_t *, int64_t, int32_t);

enum { TURNS = 2 };                  /* ways to turn queries and keys that layers may differ in */

/* A norm without weights is none. */
typedef struct {
    Norm own, cross, feed;           /* of the stream: before each part, or of the sum behind it */
    Norm own_after, cross_after, feed_after; /* of what a part gives */
    Norm query, key;                 /* of each head */
    const Linear *qkv, *own_out;
    const Linear *q, *cross_out;     /* null without a memory */
    const Linear *up, *down;
    int64_t window;                  /* how many of the last positions are seen; 0: all */
    int32_t closes;                  /* whether `own`, `cross` and `feed` are of the sums */
    int32_t turn;                    /* which of the ways; -1: none */
    int32_t gate, active;            /* the activation of half of what `up` gives, or of all; -1 */
    float own_scale, own_cap, cross_scale, cross_cap;
} Layer;

typedef struct {
    int64_t rows, layers, width, heads, key_heads, head_width;
    int64_t start;                   /* the place of the new token in the cache */
    const uint16_t *cosines[TURNS], *sines[TURNS];
    int64_t turn_row;                /* from one row's to the next; 0: all stand at one position */
    const uint16_t *bias;            /* of each head towards each key, or null */
    int64_t bias_head;
    const uint8_t *keep;             /* rows x keys, or null: all are seen */
    int64_t keep_row;
    uint16_t *cache;                 /* strides in numbers */
    int64_t cache_layer, cache_part, cache_row, cache_head, cache_place;
    const uint16_t *const *memory;   /* the layers' keys and values in turn, each contiguous */
    int64_t sources, memory_keys;    /* rows / sources sequences read each source */
    const uint8_t *memory_keep;
    int64_t memory_keep_row;
} Step;

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* The stream between the parts, and where they read it. */
typedef struct {
    float *x;                        /* rows x width */
    int64_t rows, width;
    uint16_t *normed, *added;        /* what a part reads of it, and what it gives */
    int32_t waits;                   /* whether `added` is not yet in x */
} Stream;

/* What a part reads, and in which type. */
static const void *enter(Stream *s, const Norm *before, int32_t closes, int32_t *wide) {
    *wide = closes ? WIDE : NARROW;
    if (closes) return s->x;
    norm(before, s->x, WIDE, s->waits ? s->added : 0, NARROW, s->x, s->rows, s->width, s->normed,
         NARROW);
    s->waits = 0;
    return s->normed;
}

/* A part has given `added`. */
static void leave(Stream *s, const Norm *after, const Norm *behind, int32_t closes) {
    if (after->weight)
        norm(after, s->added, NARROW, 0, 0, 0, s->rows, s->width, s->added, NARROW);
    if (closes)
        norm(behind, s->x, WIDE, s->added, NARROW, s->x, s->rows, s->width, s->x, WIDE);
    else
        s->waits = 1;
}

/* x (rows, width), float32, becomes the stream behind the last layer. 0 where there was no memory. */
int32_t decode_step(const Layer *layers, const Step *s, float *x) {
    int64_t rows = s->rows, width = s->width, E = s->head_width, group = s->heads / s->key_heads;
    int64_t every = (s->heads + 2 * s->key_heads) * E, inner = s->heads * E;
    int64_t wide = larger(every, inner);
    for (int64_t l = 0; l < s->layers; l++) wide = larger(wide, layers[l].up->out);
    /* `scratch` of this file is not that of the kernels' files, which hold theirs meanwhile. */
    uint16_t *room = scratch(sizeof(uint16_t) * rows * (2 * width + 2 * wide));
    if (!room) return 0;
    Stream stream = {.x = x, .rows = rows, .width = width, .normed = room,
                     .added = room + rows * width};
    uint16_t *both = stream.added + rows * width, *one = both + rows * wide;

    Attention own = {.batch = rows, .heads = s->key_heads, .queries = group, .width = E,
                     .q_batch = every, .q_head = group * E, .q_place = E,
                     .k_batch = s->cache_row, .k_head = s->cache_head, .k_place = s->cache_place,
                     .v_batch = s->cache_row, .v_head = s->cache_head, .v_place = s->cache_place,
                     .y_batch = inner, .y_head = group * E, .y_place = E,
                     .bias_head = s->bias_head, .keep_batch = s->keep_row, .share = 1};
    int64_t beams = s->sources ? rows / s->sources : 0, part = s->memory_keys * E;
    Attention cross = {.batch = s->sources, .heads = s->heads, .queries = beams,
                       .keys = s->memory_keys, .width = E,
                       .q_batch = beams * inner, .q_head = E, .q_place = inner,
                       .k_batch = s->heads * part, .k_head = part, .k_place = E,
                       .v_batch = s->heads * part, .v_head = part, .v_place = E,
                       .y_batch = beams * inner, .y_head = E, .y_place = inner,
                       .keep_batch = s->memory_keep_row, .share = 1};
    int32_t done = 1, kind;
    for (int64_t l = 0; l < s->layers && done; l++) {
        const Layer *layer = layers + l;
        const int32_t closes = layer->closes, turn = layer->turn;
        uint16_t *keys = s->cache + l * s->cache_layer, *values = keys + s->cache_part;
        const void *read = enter(&stream, &layer->own, closes, &kind);
        done &= linear(layer->qkv, read, kind, rows, both, NARROW);
        for (int64_t r = 0; layer->query.weight && r < rows; r++) {
            uint16_t *q = both + r * every, *k = q + inner;
            norm(&layer->query, q, NARROW, 0, 0, 0, s->heads, E, q, NARROW);
            norm(&layer->key, k, NARROW, 0, 0, 0, s->key_heads, E, k, NARROW);
        }
        turn_and_keep(both, rows, s->heads, s->key_heads, E, turn < 0 ? 0 : s->cosines[turn],
                      turn < 0 ? 0 : s->sines[turn], s->turn_row, keys + s->start * s->cache_place,
                      s->cache_row, s->cache_part, s->cache_head);
        own.scale = layer->own_scale;
        own.cap = layer->own_cap;
        own.keys = layer->window ? smaller(layer->window, s->start + 1) : s->start + 1;
        int64_t from = s->start + 1 - own.keys, skipped = from * s->cache_place;
        done &= attend(&own, both, keys + skipped, values + skipped, s->bias ? s->bias + from : 0,
                       s->keep ? s->keep + from : 0, one);
        done &= linear(layer->own_out, one, NARROW, rows, stream.added, NARROW);
        leave(&stream, &layer->own_after, &layer->own, closes);
        if (layer->q) {
            read = enter(&stream, &layer->cross, closes, &kind);
            done &= linear(layer->q, read, kind, rows, both, NARROW);
            cross.scale = layer->cross_scale;
            cross.cap = layer->cross_cap;
            done &= attend(&cross, both, s->memory[2 * l], s->memory[2 * l + 1], 0, s->memory_keep,
                           one);
            done &= linear(layer->cross_out, one, NARROW, rows, stream.added, NARROW);
            leave(&stream, &layer->cross_after, &layer->cross, closes);
        }
        read = enter(&stream, &layer->feed, closes, &kind);
        done &= linear(layer->up, read, kind, rows, both, NARROW);
        if (layer->gate >= 0) gate(both, rows, layer->up->out / 2, layer->gate, one);
        if (layer->active >= 0) activate(both, rows * layer->up->out, layer->active);
        done &= linear(layer->down, layer->gate >= 0 ? one : both, NARROW, rows, stream.added,
                       NARROW);
        leave(&stream, &layer->feed_after, &layer->feed, closes);
    }
    if (stream.waits) add(x, stream.added, NARROW, rows * width);
    return done;
}
