// A layer's arithmetic around its attention, for CPUs with AVX-512 and its integer dot products.
//
// int8.py says what a product is, and fused.py what a layer is; this file does the same in few passes over memory. The
// integer products are exact, so they agree to the last bit with the torch form; the rest agrees up to float rounding.
// Weights lie in blocks of 32 outputs, [outputs / 32][inputs / 4][32][4], so that one instruction multiplies four inputs
// of sixteen outputs and no sum ever runs across a register.

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define BLOCK 32
#define TURN 32
#define MOST 12     // rows of a tile
#define TOGETHER 8  // queries that go through their keys side by side
#define NEAR 64     // keys that they go through at a time
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

// Room that a thread keeps from call to call, and gives back when it ends.
typedef struct { void *at; size_t size; } Scratch;
enum { LEVELS, ROWS, KEPT, TURNED, MIDDLE, GATES, KEYS, TOPS, SCORES, ROOMS };

static pthread_key_t rooms_key;
static pthread_once_t rooms_made = PTHREAD_ONCE_INIT;

static void leave(void *rooms) {
    for (int i = 0; i < ROOMS; i++) free(((Scratch *)rooms)[i].at);
    free(rooms);
}

static void make_key(void) {
    if (pthread_key_create(&rooms_key, leave)) abort();
}

static void *room(int which, size_t size) {
    static __thread Scratch *rooms;
    if (!rooms) {
        pthread_once(&rooms_made, make_key);
        rooms = calloc(ROOMS, sizeof(Scratch));
        if (!rooms || pthread_setspecific(rooms_key, rooms)) abort();
    }
    Scratch *s = rooms + which;
    if (s->size < size) {
        free(s->at);
        s->size = (size * 5 / 4 + 4095) & ~(size_t)4095;
        s->at = aligned_alloc(64, s->size);
        if (!s->at) abort();
    }
    return s->at;
}

// 2^n * 2^f, f in [-.5, .5], relative error below 2e-7. Where one of two is no number, `max` and `min` give the second.
static inline __m512 exponential(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(88.f), _mm512_max_ps(_mm512_set1_ps(-87.f), x));
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    __m512 n = _mm512_roundscale_ps(t, 0);
    __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), f);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, f), f, _mm512_add_ps(f, _mm512_set1_ps(1.f)));
    return _mm512_scalef_ps(p, n);
}

static float inverse_rms(const float *x, int64_t n, float eps) {
    __m512 sum = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m512 v = _mm512_loadu_ps(x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    float total = _mm512_reduce_add_ps(sum);
    for (; i < n; i++) total += x[i] * x[i];
    return 1.f / sqrtf(total / (float)n + eps);
}

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
#define EACH_1(F) F(0)
#define EACH_2(F) EACH_1(F) F(1)
#define EACH_3(F) EACH_2(F) F(2)
#define EACH_4(F) EACH_3(F) F(3)
#define EACH_5(F) EACH_4(F) F(4)
#define EACH_6(F) EACH_5(F) F(5)
#define EACH_7(F) EACH_6(F) F(6)
#define EACH_8(F) EACH_7(F) F(7)
#define EACH_9(F) EACH_8(F) F(8)
#define EACH_10(F) EACH_9(F) F(9)
#define EACH_11(F) EACH_10(F) F(10)
#define EACH_12(F) EACH_11(F) F(11)

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

// Where keys lie: `count` positions from `at` on in layer 0, head 0, and how many floats further the next layer, the values
// and the next head are.
typedef struct { float *at; int64_t layer, value, head, count; } Place;

// 16 sums, each over the lanes of one register, all added up in the same order.
static inline __m512 sums(const __m512 v[16]) {
    __m512 four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 *u = v + 4 * i;
        __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(u[0], u[1]), _mm512_unpackhi_ps(u[0], u[1]));
        __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(u[2], u[3]), _mm512_unpackhi_ps(u[2], u[3]));
        __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    }
    __m512 a = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x44), _mm512_shuffle_f32x4(four[0], four[1], 0xee));
    __m512 b = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x44), _mm512_shuffle_f32x4(four[2], four[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// score[0..count) = query . key / root of width, a whole register more or less; the largest of them.
static float scores(const float *query, const float **key, int64_t count, int64_t width, float *score) {
    const float root = 1.f / sqrtf((float)width);
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int64_t t = 0; t < count; t += LANES) {
        __m512 part[LANES];
        const float **some = key + t;
        if (width == 4 * LANES) {
            __m512 a = _mm512_loadu_ps(query), b = _mm512_loadu_ps(query + LANES);
            __m512 c = _mm512_loadu_ps(query + 2 * LANES), d = _mm512_loadu_ps(query + 3 * LANES);
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                __m512 x = _mm512_mul_ps(a, _mm512_loadu_ps(some[j]));
                x = _mm512_fmadd_ps(b, _mm512_loadu_ps(some[j] + LANES), x);
                x = _mm512_fmadd_ps(c, _mm512_loadu_ps(some[j] + 2 * LANES), x);
                part[j] = _mm512_fmadd_ps(d, _mm512_loadu_ps(some[j] + 3 * LANES), x);
            }
        } else {
            for (int j = 0; j < LANES; j++) {
                part[j] = _mm512_setzero_ps();
                for (int64_t i = 0; i < width; i += LANES)
                    part[j] = _mm512_fmadd_ps(_mm512_loadu_ps(query + i), _mm512_loadu_ps(some[j] + i), part[j]);
            }
        }
        __mmask16 there = count - t >= LANES ? 0xffff : (__mmask16)((1u << (count - t)) - 1);
        __m512 x = _mm512_mul_ps(sums(part), _mm512_set1_ps(root));
        x = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), there, x);
        _mm512_storeu_ps(score + t, x);
        top = _mm512_max_ps(top, x);
    }
    return _mm512_reduce_max_ps(top);
}

// G heads at once: out (G, width) += the sum of values, each times its weight; the weights of the next head are `apart`
// floats further.
#define SUMS(g) \
    float *to##g = out + g * width + i; \
    __m512 a##g = _mm512_loadu_ps(to##g), b##g = _mm512_loadu_ps(to##g + LANES); \
    __m512 c##g = _mm512_loadu_ps(to##g + 2 * LANES), d##g = _mm512_loadu_ps(to##g + 3 * LANES);
#define ADD(g) { \
    __m512 w = _mm512_set1_ps(weight[g * apart + t]); \
    a##g = _mm512_fmadd_ps(w, v0, a##g), b##g = _mm512_fmadd_ps(w, v1, b##g); \
    c##g = _mm512_fmadd_ps(w, v2, c##g), d##g = _mm512_fmadd_ps(w, v3, d##g); }
#define STORE(g) \
    _mm512_storeu_ps(to##g, a##g), _mm512_storeu_ps(to##g + LANES, b##g); \
    _mm512_storeu_ps(to##g + 2 * LANES, c##g), _mm512_storeu_ps(to##g + 3 * LANES, d##g);
#define WEIGH(G) \
static void weigh_##G(const float *weight, int64_t apart, const float **value, int64_t count, int64_t width, float *out) { \
    int64_t i = 0; \
    for (; i + 4 * LANES <= width; i += 4 * LANES) { \
        EACH_##G(SUMS) \
        for (int64_t t = 0; t < count; t++) { \
            const float *v = value[t] + i; \
            __m512 v0 = _mm512_loadu_ps(v), v1 = _mm512_loadu_ps(v + LANES); \
            __m512 v2 = _mm512_loadu_ps(v + 2 * LANES), v3 = _mm512_loadu_ps(v + 3 * LANES); \
            EACH_##G(ADD) \
        } \
        EACH_##G(STORE) \
    } \
    for (; i < width; i += LANES) \
        for (int g = 0; g < G; g++) { \
            __m512 a = _mm512_loadu_ps(out + g * width + i); \
            for (int64_t t = 0; t < count; t++) \
                a = _mm512_fmadd_ps(_mm512_set1_ps(weight[g * apart + t]), _mm512_loadu_ps(value[t] + i), a); \
            _mm512_storeu_ps(out + g * width + i, a); \
        } \
}

WEIGH(1) WEIGH(2) WEIGH(3) WEIGH(4)

typedef void Weigh(const float *, int64_t, const float **, int64_t, int64_t, float *);
static Weigh *const WEIGHS[] = {weigh_1, weigh_2, weigh_3, weigh_4};

// Scores to their exponentials, `top` taken off; the sum.
static float weights(float *score, float top, int64_t count) {
    __m512 total = _mm512_setzero_ps(), high = _mm512_set1_ps(top);
    for (int64_t i = 0; i < count; i += LANES) {
        __mmask16 there = count - i >= LANES ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512 e = _mm512_maskz_mov_ps(there, exponential(_mm512_sub_ps(_mm512_loadu_ps(score + i), high)));
        _mm512_storeu_ps(score + i, e);
        total = _mm512_add_ps(total, e);
    }
    return _mm512_reduce_add_ps(total);
}

// n queries, all their heads, over the keys at their places, in their order. They go side by side through blocks of NEAR
// keys, so that keys which they share are read from memory once.
static void see(const float *q, int64_t qs, int64_t layer, const int64_t *starts, const Place *places, int64_t n,
                int64_t heads, int64_t kinds, int64_t width, float *out) {
    int64_t group = heads / kinds, longest = 0, count[TOGETHER] = {0};
    for (int64_t i = 0; i < n; i++) {
        for (int64_t p = starts[i]; p < starts[i + 1]; p++) count[i] += places[p].count;
        if (count[i] > longest) longest = count[i];
    }
    int64_t apart = longest + LANES;
    const float **keys = room(KEYS, n * apart * sizeof(float *));
    float *score = room(SCORES, n * group * apart * sizeof(float)), *top = room(TOPS, n * group * sizeof(float));
    memset(out, 0, n * heads * width * sizeof(float));
    for (int64_t h = 0; h < kinds; h++) {
        for (int64_t i = 0; i < n; i++) {
            const float **key = keys + i * apart;
            for (int64_t p = starts[i]; p < starts[i + 1]; p++) {
                const float *k = places[p].at + layer * places[p].layer + h * places[p].head;
                for (int64_t j = 0; j < places[p].count; j++, k += width) *key++ = k;
            }
            for (int64_t j = 0; j < LANES; j++) key[j] = key[-1];  // read and not used
        }
        for (int64_t t = 0; t < longest; t += NEAR)
            for (int64_t i = 0; i < n; i++)
                for (int64_t g = 0; g < group && t < count[i]; g++) {
                    int64_t at = i * group + g, some = count[i] - t < NEAR ? count[i] - t : NEAR;
                    const float *query = q + i * qs + (h * group + g) * width;
                    float most = scores(query, keys + i * apart + t, some, width, score + at * apart + t);
                    top[at] = t ? fmaxf(top[at], most) : most;
                }
        for (int64_t i = 0; i < n; i++) {
            for (int64_t g = i * group; g < (i + 1) * group; g++) top[g] = 1.f / weights(score + g * apart, top[g], count[i]);
            const float **key = keys + i * apart;
            for (int64_t p = starts[i]; p < starts[i + 1]; p++)
                for (int64_t j = 0; j < places[p].count; j++) *key++ += places[p].value;
        }
        for (int64_t t = 0; t < longest; t += NEAR)
            for (int64_t i = 0; i < n; i++)
                for (int64_t g = 0; g < group && t < count[i]; g += 4) {
                    int64_t some = count[i] - t < NEAR ? count[i] - t : NEAR, wide = group - g < 4 ? group - g : 4;
                    float *to = out + (i * heads + h * group + g) * width;
                    WEIGHS[wide - 1](score + (i * group + g) * apart + t, apart, keys + i * apart + t, some, width, to);
                }
        for (int64_t i = 0; i < n; i++)
            for (int64_t g = 0; g < group; g++) {
                float *to = out + (i * heads + h * group + g) * width, share = top[i * group + g];
                for (int64_t j = 0; j < width; j++) to[j] *= share;
            }
    }
}

// Puts each query's own key and value where `target` says, then lets query i see places[starts[i]..starts[i + 1]). q, k and
// v: a query's heads side by side, the next query so many floats further. out (queries, heads, width). What a query gets
// hangs on nothing but its keys and their order: not on how they are stored, nor on what else is asked.
void attend(const float *q, int64_t qs, const float *k, int64_t ks, const float *v, int64_t vs, int64_t layer,
            const Place *target, const int64_t *starts, const Place *places, int64_t queries, int64_t heads,
            int64_t kinds, int64_t width, float *out, int threads) {
    for (int64_t i = 0; i < queries; i++)
        for (int64_t h = 0; h < kinds; h++) {
            float *to = target[i].at + layer * target[i].layer + h * target[i].head;
            memcpy(to, k + i * ks + h * width, width * sizeof(float));
            memcpy(to + target[i].value, v + i * vs + h * width, width * sizeof(float));
        }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (int64_t i = 0; i < queries; i += TOGETHER) {
        int64_t some = queries - i < TOGETHER ? queries - i : TOGETHER;
        see(q + i * qs, qs, layer, starts + i, places, some, heads, kinds, width, out + i * heads * width);
    }
}

// Each row of x (rows, width) through an RMS norm.
void normed(const float *x, const float *gain, float eps, int64_t rows, int64_t width, float *out) {
    for (int64_t r = 0; r < rows; r++, x += width, out += width) {
        float factor = inverse_rms(x, width, eps);
        for (int64_t i = 0; i < width; i++) out[i] = x[i] * factor * gain[i];
    }
}
