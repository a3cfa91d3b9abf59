// Attention of queries over lists of keys, for CPUs with AVX-512: attention.py says what a list is.

#include "shared.h"

#define TOGETHER 8  // queries that go through their keys side by side
#define NEAR 64     // keys that they go through at a time

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
