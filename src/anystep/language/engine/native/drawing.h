// Logits to a token: softmax in double precision and its inverse distribution, at the draw of a key and a position.
//
// sampling.py says what is drawn; this gives the same tokens, up to the rounding of sums of doubles. keys.py says what the
// draws are; these are the same to the last bit.

#include "shared.h"

#define DOUBLES 8
#define SOME 512  // probabilities that are added up together

// 2^(i / 16)
static const double ROOTS[16] = {
    0x1p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
    0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
    0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
    0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};

// 2^x for x <= 0, within four units in the last place: 2^n * 2^f, n a multiple of 1 / 16. What is no number stays so.
static inline __m512d power(__m512d x) {
    const __m512d shift = _mm512_set1_pd(0x1.8p48);  // so large that a sum with it ends in sixteenths
    x = _mm512_max_pd(_mm512_set1_pd(-1100.), x);
    __m512d sum = _mm512_add_pd(x, shift), n = _mm512_sub_pd(sum, shift), f = _mm512_sub_pd(x, n);
    __m512d p = _mm512_set1_pd(0x1.430912f86c787p-13);  // (ln 2)^k / k!
    p = _mm512_fmadd_pd(p, f, _mm512_set1_pd(0x1.5d87fe78a6731p-10));
    p = _mm512_fmadd_pd(p, f, _mm512_set1_pd(0x1.3b2ab6fba4e77p-7));
    p = _mm512_fmadd_pd(p, f, _mm512_set1_pd(0x1.c6b08d704a0c0p-5));
    p = _mm512_fmadd_pd(p, f, _mm512_set1_pd(0x1.ebfbdff82c58fp-3));
    p = _mm512_fmadd_pd(p, f, _mm512_set1_pd(0x1.62e42fefa39efp-1));
    __m512i which = _mm512_castpd_si512(sum);
    __m512d root = _mm512_permutex2var_pd(_mm512_loadu_pd(ROOTS), which, _mm512_loadu_pd(ROOTS + DOUBLES));
    return _mm512_scalef_pd(_mm512_fmadd_pd(_mm512_mul_pd(root, f), p, root), n);
}

static float largest(const float *x, int64_t n) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) most = _mm512_max_ps(most, _mm512_loadu_ps(x + i));
    float top = _mm512_reduce_max_ps(most);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

static int64_t many(int64_t vocab, int64_t block) {
    return vocab - block * SOME < SOME ? vocab - block * SOME : SOME;
}

// to[0..n) = e^((x - top) * heat), n at most SOME; their sum.
static double masses(const float *x, int64_t n, double top, double heat, double *to) {
    double turns = heat * 0x1.71547652b82fep+0;  // powers of 2
    __m512d sum = _mm512_setzero_pd(), factor = _mm512_set1_pd(turns), high = _mm512_set1_pd(-top * turns);
    int64_t i = 0;
    for (; i + DOUBLES <= n; i += DOUBLES) {
        __m512d e = power(_mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x + i)), factor, high));
        _mm512_storeu_pd(to + i, e);
        sum = _mm512_add_pd(sum, e);
    }
    if (i < n) {
        __mmask8 there = (__mmask8)((1u << (n - i)) - 1);
        __m512d e = power(_mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(there, x + i)), factor, high));
        e = _mm512_maskz_mov_pd(there, e);
        _mm512_storeu_pd(to + i, e);
        sum = _mm512_add_pd(sum, e);
    }
    return _mm512_reduce_add_pd(sum);
}

// The first token whose cumulative mass exceeds u of the whole, and its share of it. Where a logit is no number, or none is
// finite, token 0 and a share that is no number.
static void draw_one(const float *x, int64_t vocab, double u, double heat, int64_t *token, double *share) {
    double *sum = room(PARTS, (vocab / SOME + 1) * sizeof(double)), some[SOME + DOUBLES];
    double top = largest(x, vocab), total = 0, before = 0;
    int64_t block = 0, last = (vocab - 1) / SOME;
    for (int64_t b = 0; b <= last; b++) total += sum[b] = masses(x + b * SOME, many(vocab, b), top, heat, some);
    *token = 0, *share = NAN;
    if (!(total > 0 && total < INFINITY)) return;
    double target = u * total;
    while (block < last && before + sum[block] <= target) before += sum[block++];
    for (; block <= last; block++) {  // a second one only where rounding has left none in the first
        int64_t n = many(vocab, block);
        masses(x + block * SOME, n, top, heat, some);
        for (int64_t i = 0; i < n; i++) {
            if (!(some[i] > 0)) continue;
            *token = block * SOME + i, *share = some[i] / total;
            before += some[i];
            if (before > target) return;
        }
    }
}

// One token for each row of x (rows, vocab), whose rows are `apart` floats apart, at u (rows) in [0, 1): heat is one over
// the temperature. token and share (rows).
void draw(const float *x, int64_t apart, int64_t rows, int64_t vocab, const double *u, double heat, int64_t *token,
          double *share, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t r = 0; r < rows; r++) draw_one(x + r * apart, vocab, u[r], heat, token + r, share + r);
}

// keys.uniforms, lane 0: Philox4x32-10 at counter (position, position >> 32, 0, 2) under each key, 53 bits of it.
void uniforms(const uint64_t *key, const uint64_t *position, int64_t n, double *out) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t c[4] = {(uint32_t)position[i], (uint32_t)(position[i] >> 32), 0, 2};
        uint32_t k0 = (uint32_t)key[i], k1 = (uint32_t)(key[i] >> 32);
        for (int turn = 0; turn < 10; turn++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
            uint32_t next[4] = {(uint32_t)(q >> 32) ^ c[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ c[3] ^ k1, (uint32_t)p};
            memcpy(c, next, sizeof c);
        }
        out[i] = ((double)(c[0] >> 5) * 67108864. + (double)(c[1] >> 6)) / 9007199254740992.;
    }
}
