/* One new token a row through all layers of a decoder, in one call. At so few rows what lies between
   the kernels, called one by one from outside, would take a third of the time. They are the same
   kernels in the same order, so the numbers are the same to the last bit. */

#include "common.h"

int32_t linear(const Linear *, const void *, int32_t, int64_t, void *, int32_t);
void rms_norm(const float *, const void *, int32_t, float *, const float *, float, int64_t, int64_t,
              void *, int32_t);
void add(float *, const void *, int32_t, int64_t);
int32_t attend(const Attention *, const uint16_t *, const uint16_t *, const uint16_t *,
               const uint16_t *, const uint8_t *, uint16_t *);
void turn_and_keep(uint16_t *, int64_t, int64_t, int64_t, int64_t, const uint16_t *,
                   const uint16_t *, int64_t, uint16_t *, int64_t, int64_t, int64_t);
void gate(const uint16_t *, int64_t, int64_t, int32_t, uint16_t *);

typedef struct {
    const float *weight;
    float epsilon;
} Norm;

typedef struct {
    Norm own, cross, feed;           /* of the stream, before each part */
    const Linear *qkv, *own_out;
    const Linear *q, *cross_out;     /* null without a memory */
    const Linear *up, *down;
    int64_t window;                  /* how many of the last positions are seen; 0: all */
    int32_t turned;                  /* whether queries and keys are */
    int32_t gate;                    /* its activation; -1: `down` reads what `up` gives */
    float own_scale, cross_scale;
} Layer;

typedef struct {
    int64_t rows, layers, width, heads, key_heads, head_width;
    int64_t start;                   /* the place of the new token in the cache */
    const uint16_t *cosines, *sines; /* null where no layer turns anything */
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

/* x (rows, width), float32, becomes the stream behind the last layer. 0 where there was no memory. */
int32_t decode_step(const Layer *layers, const Step *s, float *x) {
    int64_t rows = s->rows, width = s->width, E = s->head_width, group = s->heads / s->key_heads;
    int64_t every = (s->heads + 2 * s->key_heads) * E, inner = s->heads * E;
    int64_t wide = larger(every, inner);
    for (int64_t l = 0; l < s->layers; l++) wide = larger(wide, layers[l].up->out);
    /* `scratch` of this file is not that of the kernels' files, which hold theirs meanwhile. */
    uint16_t *normed = scratch(sizeof(uint16_t) * rows * (2 * width + 2 * wide));
    if (!normed) return 0;
    uint16_t *added = normed + rows * width, *both = added + rows * width, *one = both + rows * wide;

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
    int32_t done = 1;
    const uint16_t *behind = 0; /* what the part before gave, not yet in the stream */
    for (int64_t l = 0; l < s->layers && done; l++) {
        const Layer *layer = layers + l;
        uint16_t *keys = s->cache + l * s->cache_layer, *values = keys + s->cache_part;
        rms_norm(x, behind, NARROW, x, layer->own.weight, layer->own.epsilon, rows, width, normed,
                 NARROW);
        done &= linear(layer->qkv, normed, NARROW, rows, both, NARROW);
        turn_and_keep(both, rows, s->heads, s->key_heads, E, layer->turned ? s->cosines : 0, s->sines,
                      s->turn_row, keys + s->start * s->cache_place, s->cache_row, s->cache_part,
                      s->cache_head);
        own.scale = layer->own_scale;
        own.keys = layer->window ? smaller(layer->window, s->start + 1) : s->start + 1;
        int64_t from = s->start + 1 - own.keys, skipped = from * s->cache_place;
        done &= attend(&own, both, keys + skipped, values + skipped, s->bias ? s->bias + from : 0,
                       s->keep ? s->keep + from : 0, one);
        done &= linear(layer->own_out, one, NARROW, rows, added, NARROW);
        behind = added;
        if (layer->q) {
            rms_norm(x, behind, NARROW, x, layer->cross.weight, layer->cross.epsilon, rows, width,
                     normed, NARROW);
            done &= linear(layer->q, normed, NARROW, rows, both, NARROW);
            cross.scale = layer->cross_scale;
            done &= attend(&cross, both, s->memory[2 * l], s->memory[2 * l + 1], 0, s->memory_keep,
                           one);
            done &= linear(layer->cross_out, one, NARROW, rows, added, NARROW);
        }
        rms_norm(x, behind, NARROW, x, layer->feed.weight, layer->feed.epsilon, rows, width, normed,
                 NARROW);
        done &= linear(layer->up, normed, NARROW, rows, both, NARROW);
        if (layer->gate >= 0) gate(both, rows, layer->up->out / 2, layer->gate, one);
        done &= linear(layer->down, layer->gate >= 0 ? one : both, NARROW, rows, added, NARROW);
    }
    add(x, behind, NARROW, rows * width);
    return done;
}
