// Implicit GEMM: tiles of the im2col matrix are read from the images directly into shared memory.
// The matrix itself would be KH·KW/stride² times as large as x and is never stored; what is read
// several times comes from the caches.
//
// A block of 256 threads computes a tile of the result, BM rows × BN columns; a thread has TM × TN
// sums in registers: TM·TN multiply-adds for TM + TN numbers from shared memory. If the tile needs
// fewer than 8 warps, the warps form SLICES, each with its part of every slab of the reduction, and
// the slices are added in their order at the end. While a slab is multiplied, the next one is
// loaded into registers, and then stored to the other half of shared memory: one barrier per slab.
// Offsets within an image and within the filters are ints: each has less than 2^31 numbers.
#pragma once
#include "mma.cuh"

const int THREADS = 256;

// Blocks per multiprocessor for __launch_bounds__, which limits the registers of a thread.
template <typename T> const int RESIDENT = 2;
template <> const int RESIDENT<double> = 1;

template <typename T, int BM, int BN, int TM, int TN, int DEPTH>
struct Tile {
    static const int PACK = Pack<T>::SIZE, K = DEPTH * PACK;       // K: the height of a slab
    static const int LANES_N = BN / TN < 8 ? BN / TN : 8, LANES_M = WARP / LANES_N;
    static const int WARPS_N = BN / (TN * LANES_N), WARPS_M = BM / (TM * LANES_M);
    static const int SLICES = THREADS / WARP / (WARPS_M * WARPS_N), K_OF_SLICE = K / SLICES;
    // Padding avoids bank conflicts when packs along k are transposed: eight lanes in a row of
    // threads write to 8 × 4 different banks.
    static const int ROW_A = BM + PACK, ROW_B = BN + PACK, SLAB = K * (ROW_A + ROW_B);
    static const int EPILOGUE = SLICES * (BM / TM) * PACK * BN;    // sums that are stored at a time
    static const int SHARED = (2 * SLAB > EPILOGUE ? 2 * SLAB : EPILOGUE) / PACK;
    typedef T Sums[TM][TN];

    __device__ static T rounded(T v) { return v; }    // applied before a store to shared memory

    // A thread's slice, and the position of its warp and of its lane in the tile.
    __device__ static int slice() {
        return SLICES > 1 ? threadIdx.x / WARP / (WARPS_M * WARPS_N) : 0;
    }
    __device__ static int warp_m() {
        int i = threadIdx.x / WARP / WARPS_N;
        return SLICES > 1 ? i % WARPS_M : i;
    }
    __device__ static int warp_n() { return threadIdx.x / WARP % WARPS_N; }
    __device__ static int lane_m() { return threadIdx.x % WARP / LANES_N; }
    __device__ static int lane_n() { return threadIdx.x % LANES_N; }
};

// The same on tensor cores, in TF32: a warp computes DOWN × ACROSS products of 16 × 8 sums, and
// numbers are rounded when they are stored to shared memory. The assignment of the tile's rows to
// rows of the fragment is free: a lane takes two neighbouring rows, which it reads in one access.
// Rows in shared memory are padded by 8 numbers, so that the lanes of an access read different
// banks.
template <int BM, int BN, int DOWN, int ACROSS, int DEPTH>
struct TensorTile {
    static const int PACK = 4, K = DEPTH * PACK, WARPS_M = BM / (16 * DOWN),
                     WARPS_N = BN / (8 * ACROSS);
    static_assert(WARPS_M * WARPS_N * WARP == THREADS && K % 8 == 0, "a warp for each part");
    static const int ROW_A = BM + 8, ROW_B = BN + 8, SLAB = K * (ROW_A + ROW_B);
    static const int HIGH = 16 * WARPS_M, EPILOGUE = HIGH * ROW_B;  // sums stored at a time
    static const int SHARED = (2 * SLAB > EPILOGUE ? 2 * SLAB : EPILOGUE) / PACK;
    typedef float Sums[DOWN][ACROSS][4];

    __device__ static float rounded(float v) { return __uint_as_float(cvt_rna_tf32(v)); }
    __device__ static int warp_m() { return threadIdx.x / WARP / WARPS_N; }
    __device__ static int warp_n() { return threadIdx.x / WARP % WARPS_N; }
    __device__ static int group() { return threadIdx.x % WARP / 4; }          // g of lane 4 g + t
    __device__ static int along() { return threadIdx.x % 4; }                 // t: which k
};

// Reads SIZE numbers at p, in one access if ``by_packs``, which requires an aligned p.
template <typename T, int SIZE>
__device__ void read_values(const T* p, bool by_packs, T* values) {
    if (SIZE > 1 && by_packs) {
        Pack<T> v = *reinterpret_cast<const Pack<T>*>(p);
#pragma unroll
        for (int k = 0; k < SIZE; k++) values[k] = v.at[k];
    } else {
#pragma unroll
        for (int k = 0; k < SIZE; k++) values[k] = p[k];
    }
}

template <typename T>
__device__ bool aligned(const T* p) { return reinterpret_cast<unsigned long long>(p) % 16 == 0; }

// --- index counters without divisions ------------------------------------------------------------

// The radices of a counter of three digits, and the digits of its step.
struct Radix {
    int low, mid, step, add_low, add_mid, add_high;
};

__device__ Radix radix_of(int low, int mid, int step) {
    low = max(low, 1), mid = max(mid, 1);             // digits of an empty sum
    return {low, mid, step, step % low, step / low % mid, step / low / mid};
}

struct Counter {
    int low, mid, high;
    __device__ void start(int i, const Radix& r) {
        low = i % r.low, mid = i / r.low % r.mid, high = i / r.low / r.mid;
    }
    // Adds the step; returns whether only the lowest digit has changed, the common case.
    __device__ bool advance(const Radix& r) {
        if (low + r.step < r.low) {
            low += r.step;
            return true;
        }
        low += r.add_low, mid += r.add_mid, high += r.add_high;
        if (low >= r.low) low -= r.low, mid++;
        if (mid >= r.mid) mid -= r.mid, high++;
        return false;
    }
    // The same if the step divides the radix of the lowest digit.
    __device__ bool next(int step, int of_low, int of_mid) {
        low += step;
        if (low < of_low) return true;
        low = 0;
        if (++mid == of_mid) mid = 0, high++;
        return false;
    }
};

// --- geometry ------------------------------------------------------------------------------------

// One axis of a convolution. Position i < count of the result, at start + i·spacing, reads the
// source at i·stride + offset + t·step, t < taps, and multiplies it by tap first + t·every of the
// filters.
struct Axis {
    int size, count, start, spacing, stride, offset, taps, step, first, every;
    __device__ int source(int i, int t) const { return i * stride + offset + t * step; }
    __device__ bool inside(int place) const { return (unsigned)place < (unsigned)size; }
};

// The axis of a convolution: every position has every tap.
__device__ Axis convolution_axis(int size, int out, int kernel, int stride, int padding,
                                 int dilation) {
    return {size, out, 0, 1, stride, -padding, kernel, dilation, 0, 1};
}

// The axis of its transpose, from g (size) to x (out). x at h receives g at i if h = i·stride +
// u·dilation − padding. So the taps u are the same for all h of one phase, h ≡ phase modulo stride:
// those for which h + padding − u·dilation is a multiple of stride. They are at a distance of
// ``every``, or there are none.
__device__ Axis transposed_axis(int size, int out, int kernel, int stride, int padding,
                                int dilation, int phase) {
    int every = 1, first = 0;
    while (every * dilation % stride) every++;
    while (first < every && (phase + padding - first * dilation) % stride) first++;
    int taps = first < min(every, kernel) ? (kernel - first + every - 1) / every : 0;
    return {size, (out - phase + stride - 1) / stride, phase, stride, 1,
            (phase + padding - first * dilation) / stride, taps, -every * dilation / stride, first,
            every};
}

// --- a tile of the result ------------------------------------------------------------------------

// sums += a b over ``slabs`` slabs. A factor's fetch() reads its next slab into registers, and
// store_tile() stores it to shared memory.
template <typename TILE, typename T, int TM, int TN, typename A, typename B>
__device__ void multiply(A& a, B& b, int slabs, T* shared, T (&sums)[TM][TN]) {
    const int pack = TILE::PACK;
    int first = TILE::slice() * TILE::K_OF_SLICE;
    int my_a = first * TILE::ROW_A + TILE::warp_m() * (TM * TILE::LANES_M) + TILE::lane_m() * pack;
    int my_b = (TILE::K * TILE::ROW_A + first * TILE::ROW_B)
               + TILE::warp_n() * (TN * TILE::LANES_N) + TILE::lane_n() * pack;
    if (slabs > 0) {
        a.fetch();
        b.fetch();
        a.store_tile(shared);
        b.store_tile(shared + TILE::K * TILE::ROW_A);
    }
    __syncthreads();
    int now = 0;
    for (int s = 1; s <= slabs; s++) {
        if (s < slabs) {
            a.fetch();
            b.fetch();
        }
#pragma unroll
        for (int k = 0; k < TILE::K_OF_SLICE; k++) {
            Pack<T> left[TM / pack], right[TN / pack];
#pragma unroll
            for (int i = 0; i < TM / pack; i++)
                left[i] = *reinterpret_cast<const Pack<T>*>(
                    shared + now + my_a + k * TILE::ROW_A + i * pack * TILE::LANES_M);
#pragma unroll
            for (int j = 0; j < TN / pack; j++)
                right[j] = *reinterpret_cast<const Pack<T>*>(
                    shared + now + my_b + k * TILE::ROW_B + j * pack * TILE::LANES_N);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++)
                    sums[i][j] += left[i / pack].at[i % pack] * right[j / pack].at[j % pack];
        }
        now = TILE::SLAB - now;
        if (s < slabs) {
            a.store_tile(shared + now);
            b.store_tile(shared + now + TILE::K * TILE::ROW_A);
        }
        __syncthreads();
    }
}

// The same by tensor cores.
template <typename TILE, int DOWN, int ACROSS, typename A, typename B>
__device__ void multiply(A& a, B& b, int slabs, float* shared, float (&sums)[DOWN][ACROSS][4]) {
    int my_a = TILE::along() * TILE::ROW_A + TILE::warp_m() * 16 * DOWN + 2 * TILE::group();
    int my_b = (TILE::K * TILE::ROW_A + TILE::along() * TILE::ROW_B)
               + TILE::warp_n() * 8 * ACROSS + TILE::group();
    if (slabs > 0) {
        a.fetch();
        b.fetch();
        a.store_tile(shared);
        b.store_tile(shared + TILE::K * TILE::ROW_A);
    }
    __syncthreads();
    int now = 0;
    for (int s = 1; s <= slabs; s++) {
        if (s < slabs) {
            a.fetch();
            b.fetch();
        }
#pragma unroll
        for (int k = 0; k < TILE::K; k += 8) {
            unsigned x[DOWN][4], y[ACROSS][2];
            const float* left = shared + now + my_a + k * TILE::ROW_A;
            const float* right = shared + now + my_b + k * TILE::ROW_B;
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int h = 0; h < 2; h++) {         // the k t, and the k t + 4
                    uint2 two = *reinterpret_cast<const uint2*>(left + 4 * h * TILE::ROW_A + 16 * i);
                    x[i][2 * h] = two.x, x[i][2 * h + 1] = two.y;
                }
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    y[j][h] = __float_as_uint(right[4 * h * TILE::ROW_B + 8 * j]);
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int j = 0; j < ACROSS; j++)
                    mma_m16n8k8_tf32(sums[i][j], x[i], y[j], sums[i][j]);
        }
        now = TILE::SLAB - now;
        if (s < slabs) {
            a.store_tile(shared + now);
            b.store_tile(shared + now + TILE::K * TILE::ROW_A);
        }
        __syncthreads();
    }
}

// Passes the sums through shared memory, a pack of each thread's rows at a time: store_pack(row,
// column, sums) is called once for each pack along the tile's rows, by neighbouring threads for
// neighbouring packs (coalesced); a thread's column is always the same.
template <typename TILE, typename T, int TM, int TN, typename Store>
__device__ void store_sums(T (&sums)[TM][TN], T* shared, Store store_pack) {
    const int pack = TILE::PACK, high = TILE::LANES_M * TILE::WARPS_M * pack;
    const int width = TILE::LANES_N * TILE::WARPS_N * TN, wide = width / pack;
    int first = TILE::slice() * high + (TILE::warp_m() * TILE::LANES_M + TILE::lane_m()) * pack;
    T* mine = shared + first * width + TILE::warp_n() * (TN * TILE::LANES_N)
              + TILE::lane_n() * pack;
#pragma unroll
    for (int i = 0; i < TM; i += pack) {
#pragma unroll
        for (int r = 0; r < pack; r++)
#pragma unroll
            for (int j = 0; j < TN; j += pack) {
                Pack<T> v;
#pragma unroll
                for (int k = 0; k < pack; k++) v.at[k] = sums[i + r][j + k];
                *reinterpret_cast<Pack<T>*>(mine + r * width + j * TILE::LANES_N) = v;
            }
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < high * wide; e += THREADS) {
            Pack<T> total = reinterpret_cast<Pack<T>*>(shared)[e];
#pragma unroll
            for (int s = 1; s < TILE::SLICES; s++) {
                Pack<T> more = reinterpret_cast<Pack<T>*>(shared)[s * high * wide + e];
                for (int k = 0; k < pack; k++) total.at[k] += more.at[k];
            }
            int row = e / wide, m = row / pack;
            store_pack(m / TILE::LANES_M * (TM * TILE::LANES_M) + i * TILE::LANES_M
                + m % TILE::LANES_M * pack + row % pack, e % wide * pack, total);
        }
        __syncthreads();
    }
}

// The same for fragments: 16 of each warp's rows at a time.
template <typename TILE, int DOWN, int ACROSS, typename Store>
__device__ void store_sums(float (&sums)[DOWN][ACROSS][4], float* shared, Store store_pack) {
    const int wide = (TILE::ROW_B - 8) / TILE::PACK;
    float* mine = shared + (TILE::warp_m() * 16 + 2 * TILE::group()) * TILE::ROW_B
                  + TILE::warp_n() * 8 * ACROSS + 2 * TILE::along();
#pragma unroll
    for (int i = 0; i < DOWN; i++) {
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                mine[e / 2 * TILE::ROW_B + 8 * j + e % 2] = sums[i][j][e];
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < TILE::HIGH * wide; e += THREADS) {
            int row = e / wide, column = e % wide * TILE::PACK;
            store_pack(row / 16 * 16 * DOWN + i * 16 + row % 16, column,
                *reinterpret_cast<Pack<float>*>(shared + row * TILE::ROW_B + column));
        }
        __syncthreads();
    }
}
