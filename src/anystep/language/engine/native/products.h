// A layer's arithmetic around its attention, for CPUs with AVX-512 and its integer dot products.
//
// int8.py says what a product is, and fused.py what a layer is; this file does the same in few passes over memory. The
// integer products are exact, so they agree to the last bit with the torch form; the rest agrees up to float rounding.
// Weights lie in blocks of 32 outputs, [outputs / 32][inputs / 4][32][4], so that one instruction multiplies four inputs
// of sixteen outputs and no sum ever runs across a register.

#include "shared.h"

#define BLOCK 32
#define TURN 32
#define MOST 12     // rows of a tile
#define AHEAD 4096  // bytes of weights asked for before they are wanted

typedef struct {
    int64_t inputs, outputs, columns, turned, normed;
    float eps;
    const uint8_t *weight;   // in blocks, 128 more than they are: the instruction wants one unsigned side
    const float *scale;      // of each output, over 127
    const float *gain;       // of each input, or null
    const int64_t *outliers; // which inputs are multiplied in floating point
    const uint16_t *kept;    // (columns, outputs) their weights in fp16
    const float *bias;       // or null
} Product;

typedef struct {
    Product qkv, o, gate_up, down;
    int64_t heads, kinds, width, hidden, dim, silu, normed;
    float eps;
    const float *gain;                           // (kinds, width) of queries and keys, or null
    const float *after_attention, *after_gates;  // norms of what each half adds, or null
} Block;

typedef struct { int32_t value; } __attribute__((packed, may_alias)) Four;

// One block of TURN values through a Hadamard matrix over sqrt(TURN), by butterflies: across two registers, then within.
static inline void turn(float *y) {
    __m512 u = _mm512_loadu_ps(y), v = _mm512_loadu_ps(y + LANES), one = _mm512_set1_ps(0.17677669529663688f);
    __m512 sum = _mm512_mul_ps(_mm512_add_ps(u, v), one), gap = _mm512_mul_ps(_mm512_sub_ps(u, v), one);
    for (int i = 0; i < 2; i++) {
        __m512 x = i ? gap : sum, swapped;
        swapped = _mm512_shuffle_f32x4(x, x, 0x4e);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), 0xff00, swapped, x);
        swapped = _mm512_shuffle_f32x4(x, x, 0xb1);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), 0xf0f0, swapped, x);
        swapped = _mm512_permute_ps(x, 0x4e);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), 0xcccc, swapped, x);
        swapped = _mm512_permute_ps(x, 0xb1);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), 0xaaaa, swapped, x);
        _mm512_storeu_ps(y + i * LANES, x);
    }
}

// What a product needs of a row beside its levels: 128 times their sum, and the factor of what they give.
typedef struct { int32_t excess; float factor; } Row;

// A row's levels, four inputs in every `apart` bytes; and its outliers, with the norm's factor.
static Row levels_of(const Product *p, const float *x, float *y, int8_t *levels, int64_t apart, float *kept) {
    int64_t n = p->inputs;
    if (p->gain) {
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * p->gain[i];
    } else {
        memcpy(y, x, n * sizeof(float));
    }
    if (p->turned)
        for (int64_t i = 0; i < n; i += TURN) turn(y + i);
    // magnitudes compared as integers, whose order is the same but for what is no number, which is above all
    __m512i most = _mm512_castps_si512(_mm512_set1_ps(1e-20f));
    for (int64_t i = 0; i < n; i += LANES)
        most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(_mm512_loadu_ps(y + i))));
    float top = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epi32(most))));
    __m512 step = _mm512_set1_ps(127.f / top);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += LANES) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(y + i), step));
        __m128i bytes = _mm512_cvtepi32_epi8(q);
        int8_t *to = levels + i / 4 * apart;
        sum = _mm512_add_epi32(sum, q);
        ((Four *)to)->value = _mm_extract_epi32(bytes, 0);
        ((Four *)(to + apart))->value = _mm_extract_epi32(bytes, 1);
        ((Four *)(to + 2 * apart))->value = _mm_extract_epi32(bytes, 2);
        ((Four *)(to + 3 * apart))->value = _mm_extract_epi32(bytes, 3);
    }
    float factor = p->normed ? inverse_rms(x, n, p->eps) : 1.f;
    for (int64_t c = 0; c < p->columns; c++) kept[c] = x[p->outliers[c]] * factor;
    return (Row){(int32_t)(128u * (uint32_t)_mm512_reduce_add_epi32(sum)), top * factor};
}

// R rows times 32 outputs from output `at` on. Sums stay in registers, which takes a function for each R; what is left of
// a product (factors, bias, outliers) is done before anything is written.
#define BEGIN(r) __m512i a##r = _mm512_setzero_si512(), b##r = a##r;
#define STEP(r) \
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(a##r) : "v"(left), "m"(((const Four *)levels)[r])); \
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(b##r) : "v"(right), "m"(((const Four *)levels)[r]));
#define SCALE(r) \
    __m512i excess##r = _mm512_set1_epi32(row[r].excess); \
    __m512 t##r = _mm512_set1_ps(row[r].factor); \
    __m512 x##r = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(a##r, excess##r)), scale); \
    __m512 y##r = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(b##r, excess##r)), scale2); \
    x##r = _mm512_fmadd_ps(x##r, t##r, bias); \
    y##r = _mm512_fmadd_ps(y##r, t##r, bias2);
#define OUTLIER(r) { \
    __m512 value = _mm512_set1_ps(kept[r * columns + c]); \
    x##r = _mm512_fmadd_ps(value, near, x##r); \
    y##r = _mm512_fmadd_ps(value, far, y##r); }
#define WRITE(r) \
    _mm512_storeu_ps(out + r * outputs + at, x##r); \
    _mm512_storeu_ps(out + r * outputs + at + LANES, y##r);

#define TILE(R) \
static void tile_##R(const Product *p, int64_t at, const int8_t *levels, const Row *row, const float *kept, float *out) { \
    const int64_t inputs = p->inputs, outputs = p->outputs, columns = p->columns; \
    const uint8_t *weight = p->weight + at * inputs; \
    EACH_##R(BEGIN) \
    for (int64_t k = 0; k < inputs; k += 4) { \
        __m512i left = _mm512_loadu_si512(weight + k * BLOCK), right = _mm512_loadu_si512(weight + k * BLOCK + 64); \
        EACH_##R(STEP) \
        levels += 4 * R; \
        _mm_prefetch(weight + k * BLOCK + AHEAD, _MM_HINT_T0); \
        _mm_prefetch(weight + k * BLOCK + AHEAD + 64, _MM_HINT_T0); \
    } \
    __m512 scale = _mm512_loadu_ps(p->scale + at), scale2 = _mm512_loadu_ps(p->scale + at + LANES); \
    __m512 bias = p->bias ? _mm512_loadu_ps(p->bias + at) : _mm512_setzero_ps(); \
    __m512 bias2 = p->bias ? _mm512_loadu_ps(p->bias + at + LANES) : bias; \
    EACH_##R(SCALE) \
    for (int64_t c = 0; c < columns; c++) { \
        const uint16_t *w = p->kept + c * outputs + at; \
        __m512 near = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)w)); \
        __m512 far = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w + LANES))); \
        EACH_##R(OUTLIER) \
    } \
    EACH_##R(WRITE) \
}

TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)

typedef void Tile(const Product *, int64_t, const int8_t *, const Row *, const float *, float *);
static Tile *const TILES[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};

// Rows are cut into tiles of nearly equal height; the levels of a tile lie together, four inputs of all its rows at a time.
static int64_t height(int64_t rows, int64_t done, int64_t tile) {
    int64_t left = (rows + MOST - 1) / MOST - tile;
    return (rows - done + left - 1) / left;
}

// All rows times 32 outputs.
static void strip(const Product *p, int64_t rows, int64_t at, const int8_t *levels, const Row *row, const float *kept,
                  float *out) {
    for (int64_t r = 0, i = 0; r < rows; i++) {
        int64_t some = height(rows, r, i);
        TILES[some - 1](p, at, levels + r * p->inputs, row + r, kept + r * p->columns, out + r * p->outputs);
        r += some;
    }
}

// x (rows, inputs) -> out (rows, outputs)
void product(const Product *p, const float *x, int64_t rows, float *out, int threads) {
    int8_t *levels = room(LEVELS, rows * p->inputs);
    Row *row = room(ROWS, rows * sizeof(Row));
    float *kept = room(KEPT, (rows * p->columns + 1) * sizeof(float));
    float *y = room(TURNED, p->inputs * sizeof(float));
    for (int64_t r = 0, i = 0; r < rows; i++) {
        int64_t some = height(rows, r, i);
        for (int64_t j = 0; j < some; j++, r++) {
            int8_t *to = levels + (r - j) * p->inputs + 4 * j;
            row[r] = levels_of(p, x + r * p->inputs, y, to, 4 * some, kept + r * p->columns);
        }
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t at = 0; at < p->outputs; at += BLOCK) strip(p, rows, at, levels, row, kept, out);
}

static void add_normed(float *out, const float *gain, float eps, const float *x, int64_t rows, int64_t dim) {
    for (int64_t r = 0; r < rows; r++, out += dim, x += dim) {
        if (gain) {
            float factor = inverse_rms(out, dim, eps);
            for (int64_t i = 0; i < dim; i++) out[i] = x[i] + out[i] * factor * gain[i];
        } else {
            for (int64_t i = 0; i < dim; i++) out[i] += x[i];
        }
    }
}

// Queries, keys and values of x (rows, dim) into out (rows, (kinds + kv) * width), queries and keys rotated.
// cos and sin: (rows, width), sin negative in its first half.
void before_attention(const Block *b, const float *x, int64_t rows, const float *cos, const float *sin, float *out,
                      int threads) {
    product(&b->qkv, x, rows, out, threads);
    int64_t width = b->width, half = width / 2;
    for (int64_t r = 0; r < rows; r++) {
        const float *c = cos + r * width, *s = sin + r * width;
        for (int64_t h = 0; h < b->kinds; h++) {
            float *v = out + r * b->qkv.outputs + h * width;
            if (b->normed) {
                float factor = inverse_rms(v, width, b->eps);
                for (int64_t i = 0; i < width; i++) v[i] *= factor;
            }
            if (b->gain)
                for (int64_t i = 0; i < width; i++) v[i] *= b->gain[h * width + i];
            for (int64_t i = 0; i < half; i++) {
                float low = v[i], high = v[half + i];
                v[i] = low * c[i] + high * s[i];
                v[half + i] = high * c[half + i] + low * s[half + i];
            }
        }
    }
}

// What a layer gives: out (rows, dim) from its input x and what its queries saw (rows, heads * width).
void after_attention(const Block *b, const float *x, const float *seen, int64_t rows, float *out, int threads) {
    float *mid = room(MIDDLE, rows * b->dim * sizeof(float));
    float *both = room(GATES, rows * 2 * b->hidden * sizeof(float));
    product(&b->o, seen, rows, mid, threads);
    add_normed(mid, b->after_attention, b->eps, x, rows, b->dim);
    product(&b->gate_up, mid, rows, both, threads);
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = both + r * 2 * b->hidden, *up = gate + b->hidden;
        float *to = both + r * b->hidden;  // rows close up as they are done: nothing is written that is still read
        for (int64_t i = 0; i < b->hidden; i += LANES) {
            __m512 g = _mm512_loadu_ps(gate + i), u = _mm512_loadu_ps(up + i), z = g;
            if (!b->silu) {  // gelu's tanh form is g * sigmoid of twice its argument
                __m512 cube = _mm512_mul_ps(_mm512_mul_ps(g, g), g);
                z = _mm512_mul_ps(_mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), g), _mm512_set1_ps(1.5957691216f));
            }
            __m512 e = exponential(_mm512_sub_ps(_mm512_setzero_ps(), z));
            __m512 gated = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.f), e));
            _mm512_storeu_ps(to + i, _mm512_mul_ps(gated, u));
        }
    }
    product(&b->down, both, rows, out, threads);
    add_normed(out, b->after_gates, b->eps, mid, rows, b->dim);
}

// Each row of x (rows, width) through an RMS norm.
void normed(const float *x, const float *gain, float eps, int64_t rows, int64_t width, float *out) {
    for (int64_t r = 0; r < rows; r++, x += width, out += width) {
        float factor = inverse_rms(x, width, eps);
        for (int64_t i = 0; i < width; i++) out[i] = x[i] * factor * gain[i];
    }
}
