// Tensor cores of Hopper (compute capability 9.0): products by a warpgroup, four warps, whose factors
// are read from shared memory by the tensor cores themselves. A kernel that uses them is compiled
// for sm_90a and runs on no other GPU. PTX ISA, "Asynchronous warpgroup level matrix instructions".
#pragma once
#include "mma.cuh"

const int WARPGROUP = 128;

// --- a tile of a factor in shared memory ---------------------------------------------------------

// A tile of ROWS × 32 numbers, whose k are contiguous: a row has 128 bytes, in eight chunks of
// sixteen. Chunk c of row r lies at place c ^ r % 8 (the swizzle "128 bytes"), so that neither the
// tensor cores, which read eight rows of one chunk, nor the threads that write meet in one bank. The
// tile begins at a multiple of 1024 bytes.
const int DEPTH = 32, CHUNK = 4;

__device__ int chunk_place(int row, int chunk) { return row * DEPTH + (chunk ^ row % 8) * CHUNK; }

#ifndef EMULATED
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ON_HOPPER(...) __VA_ARGS__
#else
#define ON_HOPPER(...) __trap()
#endif

// The matrix descriptor of a factor in shared memory: its address and the distance of eight rows
// (1024 bytes), both in units of sixteen bytes, and the swizzle "128 bytes" (1 in bits 62 and 63).
__device__ unsigned long long descriptor(const float* tile) {
    unsigned address = (unsigned)__cvta_generic_to_shared(tile);
    return 1ull << 62 | (unsigned long long)(1024 >> 4) << 32 | 1ull << 16 | address >> 4;
}

// Makes this thread's stores to shared memory visible to the tensor cores; a barrier must follow.
__device__ void fence_shared() {
    ON_HOPPER(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
}

// Before the first product, and after the sums were changed by other instructions.
__device__ void wgmma_fence() { ON_HOPPER(asm volatile("wgmma.fence.sync.aligned;" ::: "memory")); }

// The products since the last commit form a group; wait until at most N groups are in flight.
__device__ void wgmma_commit() {
    ON_HOPPER(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}

template <int N>
__device__ void wgmma_wait() {
    ON_HOPPER(asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory"));
}

#define FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(d, i) FOUR(d, i), FOUR(d, i + 4), FOUR(d, i + 8), FOUR(d, i + 12)

// d += a b: a 64 × 8, b 8 × COLUMNS numbers in TF32. Lane 4 g + t of warp w holds rows 16 w + g and
// 16 w + g + 8: d[4 j …] are (g, 8 j + 2 t), (g, 8 j + 2 t + 1), (g + 8, 8 j + 2 t), (g + 8, 8 j +
// 2 t + 1). The product runs asynchronously.
template <int COLUMNS>
__device__ void wgmma_tf32(float (&d)[COLUMNS / 2], unsigned long long a, unsigned long long b);

template <>
__device__ __forceinline__ void wgmma_tf32<128>(float (&d)[64], unsigned long long a,
                                               unsigned long long b) {
    ON_HOPPER(asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1;"
        :
          SIXTEEN(d, 0),
          SIXTEEN(d, 16),
          SIXTEEN(d, 32),
          SIXTEEN(d, 48)
        : "l"(a), "l"(b)));
}

template <>
__device__ __forceinline__ void wgmma_tf32<256>(float (&d)[128], unsigned long long a,
                                               unsigned long long b) {
    ON_HOPPER(asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k8.f32.tf32.tf32 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, "
        "%104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, "
        "%120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, 1, 1, 1;"
        :
          SIXTEEN(d, 0),
          SIXTEEN(d, 16),
          SIXTEEN(d, 32),
          SIXTEEN(d, 48),
          SIXTEEN(d, 64),
          SIXTEEN(d, 80),
          SIXTEEN(d, 96),
          SIXTEEN(d, 112)
        : "l"(a), "l"(b)));
}

// The same from tiles: of a the 64 rows from ``a`` on, of b COLUMNS rows from ``b`` on, both at the
// k where they begin.
template <int COLUMNS>
__device__ __forceinline__ void multiply_eight(float (&d)[COLUMNS / 2], const float* a,
                                               const float* b) {
    wgmma_tf32<COLUMNS>(d, descriptor(a), descriptor(b));
}
#endif
