// What the compiled kernels share: room for a thread, a few functions over registers, and macros that repeat.

#pragma once

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16

// Room that a thread keeps from call to call, and gives back when it ends.
typedef struct { void *at; size_t size; } Scratch;
enum { LEVELS, ROWS, KEPT, TURNED, MIDDLE, GATES, KEYS, TOPS, SCORES, PARTS, ROOMS };

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

// F(0) to F(n - 1).
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

