/* Attention of one new token a row to the keys so far, and root-mean-square norms, in one pass over memory each.

Compiled by kernels.py, once for float32 and once with -DBFLOAT16. Sums are float32; a result is rounded once. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES)));

#ifdef BFLOAT16
typedef uint16_t element;
typedef uint16_t elements __attribute__((vector_size(2 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

INLINE float load(element value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

INLINE element store(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* to the nearest, ties to even */
}

INLINE floats load_lanes(const element *from) {
    elements values;
    memcpy(&values, from, sizeof values);
    return (floats)(__builtin_convertvector(values, words) << 16);
}
#else
typedef float element;

INLINE float load(element value) { return value; }

INLINE element store(float value) { return value; }

INLINE floats load_lanes(const element *from) {
    floats values;
    memcpy(&values, from, sizeof values);
    return values;
}
#endif

/* The rows of a batch. Keys lie by columns (width x room), so that scores of neighbouring positions are computed
together, values by rows (room x width). Rooms are multiples of 2 x LANES. */
struct batch {
    int64_t rows, heads, key_heads, width, beginnings, shared_room, room;
    const int64_t *owner;  /* the beginning that a row goes on from */
    const int64_t *shared; /* how many positions of it the row sees */
    const int64_t *own;    /* how many positions a row has of its own, the new one included */
    float scale;
};

struct layer {
    const element *qkv, *cosine, *sine;          /* rows x (heads + 2 key heads) x width; rows x width, sines signed */
    const element *shared_keys, *shared_values;  /* key heads x beginnings */
    element *keys, *values;                      /* key heads x rows */
    element *result;                             /* rows x heads x width */
};

/* e to a number that is not positive: a power of two times the series of what is left, at most ln(2) / 2. */
INLINE float exponential(float value) {
    value = value < -87.0f ? -87.0f : value;
    float whole = value * 1.44269504f + 12582912.0f - 12582912.0f; /* 1.5 x 2^23: the sum is rounded to a whole number */
    float rest = value - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln(2) in two parts */
    float series = 1.0f / 5040;
    series = series * rest + 1.0f / 720;
    series = series * rest + 1.0f / 120;
    series = series * rest + 1.0f / 24;
    series = series * rest + 1.0f / 6;
    series = series * rest + 0.5f;
    series = series * rest + 1.0f;
    series = series * rest + 1.0f;
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return series * power;
}

/* Turn a head by its position (rotary embedding). */
INLINE void turn(const element *head, const element *cosine, const element *sine, int64_t width, float scale, float *to) {
    int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        float low = load(head[i]), high = load(head[i + half]);
        to[i] = (low * load(cosine[i]) + high * load(sine[i])) * scale;
        to[i + half] = (high * load(cosine[i + half]) + low * load(sine[i + half])) * scale;
    }
}

/* Scores of `tile` queries; up to 2 x LANES - 1 further ones are written behind the last. */
INLINE void score(
    const float *queries, int tile, const element *keys, int64_t count, int64_t room, int64_t width, float *scores,
    int64_t stride) {
    for (int64_t place = 0; place < count; place += 2 * LANES) {
        floats sums[tile][2];
        for (int g = 0; g < tile; g++) sums[g][0] = sums[g][1] = (floats){0};
        for (int64_t i = 0; i < width; i++)
            for (int part = 0; part < 2; part++) {
                floats key = load_lanes(keys + i * room + place + part * LANES);
                for (int g = 0; g < tile; g++) sums[g][part] += queries[g * width + i] * key;
            }
        for (int g = 0; g < tile; g++) memcpy(scores + g * stride + place, sums[g], sizeof sums[g]);
    }
}

/* Add weighted values of `count` positions to the sums of `tile` queries, `parts` x LANES columns at a time. */
INLINE void weigh(
    const float *weights, int64_t stride, int tile, int parts, const element *values, int64_t count, int64_t width,
    float *results) {
    for (int64_t column = 0; column < width; column += parts * LANES) {
        floats sums[tile][parts];
        for (int g = 0; g < tile; g++) memcpy(sums[g], results + g * width + column, sizeof sums[g]);
        for (int64_t place = 0; place < count; place++)
            for (int part = 0; part < parts; part++) {
                floats value = load_lanes(values + place * width + column + part * LANES);
                for (int g = 0; g < tile; g++) sums[g][part] += weights[g * stride + place] * value;
            }
        for (int g = 0; g < tile; g++) memcpy(results + g * width + column, sums[g], sizeof sums[g]);
    }
}

INLINE void soften(float *scores, int64_t count) {
    float most = -INFINITY, total = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = scores[i] > most ? scores[i] : most;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) total += scores[i] = exponential(scores[i] - most);
    float factor = 1 / total;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) scores[i] *= factor;
}

/* Attend `tile` query heads that share one key head, from head `first` on. */
INLINE void attend_heads(
    const struct batch *batch, const struct layer *layer, int64_t row, int64_t first, int tile, int64_t width) {
    int64_t group = batch->heads / batch->key_heads, key_head = first / group;
    int64_t shared = batch->shared[row], own = batch->own[row];
    int64_t beginning = (key_head * batch->beginnings + batch->owner[row]) * batch->shared_room * width;
    int64_t rest = (key_head * batch->rows + row) * batch->room * width;
    int64_t stride = shared + own + 2 * LANES; /* the shared scores' surplus is overwritten by the own ones */
    float scores[tile * stride], queries[tile * width], sums[tile * width];
    const element *head = layer->qkv + (row * (batch->heads + 2 * batch->key_heads) + first) * width;
    for (int g = 0; g < tile; g++)
        turn(head + g * width, layer->cosine + row * width, layer->sine + row * width, width, batch->scale,
             queries + g * width);
    score(queries, tile, layer->shared_keys + beginning, shared, batch->shared_room, width, scores, stride);
    score(queries, tile, layer->keys + rest, own, batch->room, width, scores + shared, stride);
    for (int g = 0; g < tile; g++) soften(scores + g * stride, shared + own);
    int parts = width % (4 * LANES) ? 1 : 4;
    memset(sums, 0, sizeof sums);
    weigh(scores, stride, tile, parts, layer->shared_values + beginning, shared, width, sums);
    weigh(scores + shared, stride, tile, parts, layer->values + rest, own, width, sums);
    element *result = layer->result + (row * batch->heads + first) * width;
    for (int64_t i = 0; i < tile * width; i++) result[i] = store(sums[i]);
}

/* Write a row's new key and value, then attend all query heads of that key head. */
INLINE void attend_row(
    const struct batch *batch, const struct layer *layer, int64_t row, int64_t key_head, int64_t width) {
    int64_t group = batch->heads / batch->key_heads, place = batch->own[row] - 1;
    int64_t rest = (key_head * batch->rows + row) * batch->room * width;
    const element *key = layer->qkv + (row * (batch->heads + 2 * batch->key_heads) + batch->heads + key_head) * width;
    float turned[width];
    turn(key, layer->cosine + row * width, layer->sine + row * width, width, 1, turned);
    for (int64_t i = 0; i < width; i++) layer->keys[rest + i * batch->room + place] = store(turned[i]);
    memcpy(layer->values + rest + place * width, key + batch->key_heads * width, width * sizeof(element));
    int64_t head = key_head * group, end = head + group;
    for (; head + 3 <= end; head += 3) attend_heads(batch, layer, row, head, 3, width);
    for (; head < end; head++) attend_heads(batch, layer, row, head, 1, width);
}

void attend_rows(const struct batch *batch, const struct layer *layer) {
#pragma omp parallel for collapse(2)
    for (int64_t row = 0; row < batch->rows; row++)
        for (int64_t key_head = 0; key_head < batch->key_heads; key_head++) {
            /* A width that is known when this is compiled keeps the sums in registers. */
            if (batch->width == 64)
                attend_row(batch, layer, row, key_head, 64);
            else
                attend_row(batch, layer, row, key_head, batch->width);
        }
}

void norm_rows(
    const element *states, const element *weight, element *result, int64_t rows, int64_t width, float epsilon) {
#pragma omp parallel for if (rows * width > 1 << 16)
    for (int64_t row = 0; row < rows; row++) {
        const element *from = states + row * width;
        element *to = result + row * width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += load(from[i]) * load(from[i]);
        float factor = 1 / sqrtf(sum / width + epsilon);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] = store(load(from[i]) * factor * load(weight[i]));
    }
}
