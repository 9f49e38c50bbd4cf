// Tensor cores: products of 16 × 8 by 8 × 8 numbers in TF32 (ten bits of mantissa), one per warp,
// and asynchronous copies to shared memory. Both need compute capability 8.0; on older GPUs a
// kernel that uses them compiles, and stops with a trap.
#pragma once
#include "common.cuh"

#ifndef EMULATED
#if __CUDA_ARCH__ >= 800
#define ON_AMPERE(...) __VA_ARGS__
#else
#define ON_AMPERE(...) __trap()
#endif

// d = a b + c; the fragments of lane 4 g + t: a (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4),
// b (t, g), (t + 4, g), c and d (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ void mma_m16n8k8_tf32(float d[4], const unsigned a[4], const unsigned b[2],
                                 const float c[4]) {
    ON_AMPERE(asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]),
          "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3])));
}

// v rounded to ten bits of mantissa, ties away from zero. The tensor core drops the lower thirteen
// bits itself, so half of what they can hold is added; max keeps a NaN of all ones from becoming 0.
__device__ unsigned cvt_rna_tf32(float v) {
    int bits = __float_as_int(v);
    return max((int)((unsigned)bits + 0x1000u), bits);
}

// Copies sixteen bytes from global to shared memory, without registers.
__device__ void copy_async_16(void* shared, const void* global) {
    ON_AMPERE(asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;"
        :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global) : "memory"));
}

// The copies since the last commit form a group; wait until at most N groups are in flight.
__device__ void copy_async_commit() {
    ON_AMPERE(asm volatile("cp.async.commit_group;" ::: "memory"));
}

template <int N>
__device__ void copy_async_wait() {
    ON_AMPERE(asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"));
}
#endif

// --- a tile of a factor in shared memory ---------------------------------------------------------

// A tile of ROWS × 16 numbers, copied by THREADS threads. If the k of a row are contiguous in
// memory (ALONG), they are so in the tile; else the rows of one k are, permuted by an exclusive or
// (swizzled). The 32 lanes of a fragment read 32 different banks either way.
template <int ROWS, bool ALONG, int THREADS>
struct Copied {
    static const int DEEP = 16, SIZE = ROWS * DEEP, CHUNKS = SIZE / 4 / THREADS;
    const float* p;
    int first_row, rows, length, end; // of the array; zeros are used for k ≥ end
    bool by_packs;

    __device__ Copied(const float* p, int first_row, int rows, int length, int end)
        : p(p), first_row(first_row), rows(rows), length(length), end(end) {
        by_packs = reinterpret_cast<unsigned long long>(p) % 16 == 0
                && (ALONG ? length : rows) % 4 == 0;
    }

    // The place of chunk i of this thread, four numbers, in the tile.
    __device__ static int row(int i) {
        int e = threadIdx.x + i * THREADS;
        return ALONG ? e / 4 : e % (ROWS / 4) * 4;
    }
    __device__ static int k(int i) {
        return ALONG ? threadIdx.x % 4 * 4 : (threadIdx.x + i * THREADS) / (ROWS / 4);
    }
    __device__ static float* to(float* shared, int i) {
        return shared + (ALONG ? row(i) * DEEP + k(i) : k(i) * ROWS + (row(i) ^ k(i) / 4 * 8));
    }
    __device__ const float* from(int i, int first_k) const {
        int r = first_row + row(i);
        if (r >= rows) r = 0;                             // any valid row: its sums are not stored
        return p + (ALONG ? (long long)r * length + k(i) + first_k
                          : (long long)(k(i) + first_k) * rows + r);
    }

    __device__ void copy(float* shared, int first_k) const {
        if (by_packs && first_k + DEEP <= end) {
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) copy_async_16(to(shared, i), from(i, first_k));
        } else {
#pragma unroll 1
            for (int i = 0; i < CHUNKS; i++)
                for (int j = 0; j < 4; j++)
                    to(shared, i)[j] = first_k + k(i) + (ALONG ? j : 0) < end
                        && (ALONG || first_row + row(i) + j < rows) ? from(i, first_k)[j] : 0;
        }
    }

    // Row number e of lane 4 g + t in a warp's part. The assignment of the tile's rows to rows of
    // the fragment is free, so if the rows of one k are contiguous, a lane has four contiguous
    // rows.
    __device__ static int place(int e, int g) {
        return ALONG ? 8 * e + g : e / 4 * 32 + 4 * g + e % 4;
    }

    // The k = 4 t … 4 t + 3 of its COUNT rows, rounded to TF32; ``first``, the first row of the
    // warp's part, is a multiple of 32.
    template <int COUNT>
    __device__ static void fragments(const float* shared, int first, int g, int t,
                                     unsigned (&v)[COUNT][4]) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float* from = shared + (ALONG ? (first + place(i, g)) * DEEP + 4 * t
                : (4 * t + i % 4) * ROWS + (first + place(i / 4 * 4, g) ^ 8 * t));
            Pack<float> four = *reinterpret_cast<const Pack<float>*>(from);
#pragma unroll
            for (int j = 0; j < 4; j++)
                (ALONG ? v[i][j] : v[i / 4 * 4 + j][i % 4]) = cvt_rna_tf32(four.at[j]);
        }
    }
};
