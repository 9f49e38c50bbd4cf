// The random generator Philox 4×32-10, and uniform and normal numbers from its bits. A thread
// computes one block of four words, a function of its index alone, so the bits do not depend on the
// grid and are those of the other backends. The counter is read from the GPU's memory, because it
// changes between the replays of a captured step. Bounded by arithmetic (draw_normal) or by stores.
#include "common.cuh"

// The constants of philox.py, to the last bit.
const float SQRT_HALF = 0x1.6a09e60000000p-1f, LN2 = 0x1.62e4300000000p-1f,
            QUARTER_TURN = 0x1.921fb60000000p+0f, L3 = 0x1.5555560000000p-2f,
            L5 = 0x1.99999a0000000p-3f, L7 = 0x1.24924a0000000p-3f, L9 = 0x1.c71c720000000p-4f,
            S3 = -0x1.5555560000000p-3f, S5 = 0x1.1111120000000p-7f,
            S7 = -0x1.a01a020000000p-13f, S9 = 0x1.71de3a0000000p-19f,
            C4 = 0x1.5555560000000p-5f, C6 = -0x1.6c16c20000000p-10f,
            C8 = 0x1.a01a020000000p-16f, C10 = -0x1.27e4fc0000000p-22f;

// Ten rounds: four words of counter and two of key become four random words.
__device__ uint4 philox(unsigned long long index, unsigned long long stream,
                        unsigned long long seed) {
    const unsigned M0 = 0xD2511F53u, M1 = 0xCD9E8D57u, W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;
    unsigned c0 = (unsigned)index, c1 = (unsigned)(index >> 32);
    unsigned c2 = (unsigned)stream, c3 = (unsigned)(stream >> 32);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(M0, c0), low0 = M0 * c0;
        unsigned high1 = __umulhi(M1, c2), low1 = M1 * c2;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += W0, k1 += W1;
    }
    return make_uint4(c0, c1, c2, c3);
}

// Block i of four words from counter + i; one thread per block, the last may be incomplete.
__global__ void bits(unsigned long long seed, unsigned long long stream,
                     const unsigned long long* counter, unsigned* out, long long n) {
    GRID_STRIDE(i, (n + 3) / 4) {
        uint4 words = philox(counter[0] + i, stream, seed);
        if (4 * i + 4 <= n && reinterpret_cast<unsigned long long>(out) % 16 == 0) {
            reinterpret_cast<uint4*>(out)[i] = words;
            continue;
        }
        unsigned each[4] = {words.x, words.y, words.z, words.w};
        for (int k = 0; k < 4; k++)
            if (4 * i + k < n) out[4 * i + k] = each[k];
    }
}

// Multiples of 2⁻²⁴ in [0, 1), from the upper 24 bits.
__device__ float unit(unsigned word) { return __fmul_rn((float)(word >> 8), 5.9604644775390625e-8f); }

// A thread handles four numbers, here and below: one access of sixteen bytes if p is aligned.
__device__ uint4 four_words(const unsigned* p, long long i, long long n) {
    if (4 * i + 4 <= n && reinterpret_cast<unsigned long long>(p) % 16 == 0)
        return reinterpret_cast<const uint4*>(p)[i];
    unsigned each[4];
    for (int k = 0; k < 4; k++) each[k] = 4 * i + k < n ? p[4 * i + k] : 0;
    return make_uint4(each[0], each[1], each[2], each[3]);
}

__device__ void store_four(float* out, long long i, long long n, float4 v) {
    if (4 * i + 4 <= n && reinterpret_cast<unsigned long long>(out) % 16 == 0) {
        reinterpret_cast<float4*>(out)[i] = v;
        return;
    }
    float each[4] = {v.x, v.y, v.z, v.w};
    for (int k = 0; k < 4; k++)
        if (4 * i + k < n) out[4 * i + k] = each[k];
}

__device__ float4 units(uint4 w) {
    return make_float4(unit(w.x), unit(w.y), unit(w.z), unit(w.w));
}

__global__ void uniform(const unsigned* __restrict__ bits, float* __restrict__ out, long long n) {
    GRID_STRIDE(i, (n + 3) / 4) store_four(out, i, n, units(four_words(bits, i, n)));
}

// √(−2 ln u) (cos 2πv, sin 2πv), step by step as in philox.py: every operation is rounded
// separately (the _rn functions are never fused), so the bits are those of the other backends.
__device__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ float times(float a, float b) { return __fmul_rn(a, b); }

__device__ float2 box_muller(unsigned b0, unsigned b1) {
    float u = plus(unit(b0), 5.9604644775390625e-8f), v = unit(b1);
    // ln u = e ln 2 + 2 artanh((m − 1)/(m + 1)),  u = 2ᵉ m,  √½ ≤ m < √2
    int pattern = __float_as_int(u);
    float e = (float)((pattern >> 23) - 126);
    float m = __int_as_float((pattern & 0x007FFFFF) | 0x3F000000);
    if (m < SQRT_HALF) e = plus(e, -1.0f), m = times(m, 2.0f);
    float s = __fdiv_rn(plus(m, -1.0f), plus(m, 1.0f)), q = times(s, s);
    float series = plus(times(L9, q), L7);
    series = plus(times(series, q), L5);
    series = plus(times(series, q), L3);
    float log_u = plus(times(e, LN2), times(2.0f, plus(s, times(times(s, q), series))));
    float radius = __fsqrt_rn(times(-2.0f, log_u));
    // 2πv = k π/2 + a with |a| ≤ π/4; the quadrant k swaps and signs sine and cosine
    float k = floorf(plus(times(4.0f, v), 0.5f));
    float a = times(plus(times(4.0f, v), -k), QUARTER_TURN), p = times(a, a);
    float sine = plus(times(S9, p), S7);
    sine = plus(times(sine, p), S5);
    sine = plus(times(sine, p), S3);
    sine = plus(a, times(times(a, p), sine));
    float cosine = plus(times(C10, p), C8);
    cosine = plus(times(cosine, p), C6);
    cosine = plus(times(cosine, p), C4);
    cosine = plus(plus(1.0f, -times(0.5f, p)), times(times(p, p), cosine));
    int quadrant = (int)k & 3;
    bool odd = quadrant & 1;
    float cos_sign = quadrant == 1 || quadrant == 2 ? -1.0f : 1.0f;
    float sin_sign = quadrant >= 2 ? -1.0f : 1.0f;
    return make_float2(times(times(radius, cos_sign), odd ? sine : cosine),
                       times(times(radius, sin_sign), odd ? cosine : sine));
}

__device__ float4 normals(uint4 w) {
    float2 a = box_muller(w.x, w.y), b = box_muller(w.z, w.w);
    return make_float4(a.x, a.y, b.x, b.y);
}

// Box-Muller: two normals from two words; the number of words is even.
__global__ void normal(const unsigned* __restrict__ bits, float* __restrict__ out, long long n) {
    GRID_STRIDE(i, (n + 3) / 4)
        store_four(out, i, n, normals(four_words(bits, i, (n + 1) / 2 * 2)));
}

// The same two distributions directly from the counter, without storing the words.
__global__ void draw_uniform(unsigned long long seed, unsigned long long stream,
                             const unsigned long long* counter, float* out, long long n) {
    GRID_STRIDE(i, (n + 3) / 4) {
        store_four(out, i, n, units(philox(counter[0] + i, stream, seed)));
    }
}

__global__ void draw_normal(unsigned long long seed, unsigned long long stream,
                            const unsigned long long* counter, float* out, long long n) {
    GRID_STRIDE(i, (n + 3) / 4) {
        store_four(out, i, n, normals(philox(counter[0] + i, stream, seed)));
    }
}
