// Shared by kernels over rows and columns of a matrix: vector loads, reductions of a row by lanes
// and of columns by a block, index arithmetic.
//
// A *share* is the part of a long sum that one block computes, where a sum is split over several
// blocks. A second kernel adds the partial sums of the shares in a fixed order.
#pragma once
#include "common.cuh"

// --- vector loads and stores ---------------------------------------------------------------------

// SIZE numbers: sixteen bytes in a ``wide`` kernel (rows must be whole packs), else one number.
template <typename T, int SIZE>
struct Vec {
    T at[SIZE];
};

// Reads numbers i SIZE … i SIZE + SIZE − 1 at p, in one access if they are sixteen aligned bytes.
template <int SIZE, typename T>
__device__ Vec<T, SIZE> read(const T* p, long long i) {
    Vec<T, SIZE> v;
    if constexpr (SIZE > 1 && SIZE * sizeof(T) == 16)
        if (reinterpret_cast<unsigned long long>(p) % 16 == 0) {
            Pack<T> pack = *reinterpret_cast<const Pack<T>*>(p + i * SIZE);
            for (int k = 0; k < SIZE; k++) v.at[k] = pack.at[k];
            return v;
        }
    for (int k = 0; k < SIZE; k++) v.at[k] = p[i * SIZE + k];
    return v;
}

template <int SIZE, typename T>
__device__ void write(T* p, long long i, const Vec<T, SIZE>& v) {
    if constexpr (SIZE > 1 && SIZE * sizeof(T) == 16)
        if (reinterpret_cast<unsigned long long>(p) % 16 == 0) {
            Pack<T> pack;
            for (int k = 0; k < SIZE; k++) pack.at[k] = v.at[k];
            *reinterpret_cast<Pack<T>*>(p + i * SIZE) = pack;
            return;
        }
    for (int k = 0; k < SIZE; k++) p[i * SIZE + k] = v.at[k];
}

template <int SIZE, typename T>
__device__ Vec<T, SIZE> splat(T value) {
    Vec<T, SIZE> v;
    for (int k = 0; k < SIZE; k++) v.at[k] = value;
    return v;
}

// i = quotient n + remainder: returns the remainder and stores the quotient in i. 64-bit division
// is slow, so it is used for large i only.
__device__ inline int split(long long& i, int n) {
    if (i < 0x100000000ll) {
        unsigned whole = (unsigned)i / (unsigned)n, rest = (unsigned)i - whole * n;
        i = whole;
        return rest;
    }
    long long whole = i / n;
    int rest = i - whole * n;
    i = whole;
    return rest;
}

// --- sum, maximum, minimum; NaN propagates, as in NumPy ------------------------------------------

const int SUM = 0, LARGEST = 1, SMALLEST = 2;

template <typename T>
__device__ T infinity() {
    return -log(T(0));                // folded by the compiler
}

template <typename T>
__device__ T combine(int op, T a, T b) {
    if (op == SUM) return a + b;
    return (op == LARGEST ? b > a : b < a) || b != b ? b : a;
}

// The neutral element of the operation.
template <typename T>
__device__ T neutral(int op) {
    return op == SUM ? T(0) : op == LARGEST ? -infinity<T>() : infinity<T>();
}

// --- rows: `lanes` threads per row, a power of two: up to 32, or a whole block -------------------

struct Lane {
    long long row;                    // the row of this thread; clamped to the last row
    bool valid;                       // whether there is such a row
    int lane;                         // the thread's index among those of the row
};

__device__ inline Lane lane_of(long long rows, int lanes) {
    long long row = blockIdx.x * (long long)(blockDim.x / lanes) + threadIdx.x / lanes;
    return {min(row, rows - 1), row < rows, (int)(threadIdx.x % lanes)};
}

// The reduction over the lanes of a row, returned to every lane; all threads of the block call it.
template <typename T>
__device__ T reduce_lanes(int op, T v, int lanes) {
    for (int distance = min(lanes, WARP) / 2; distance > 0; distance /= 2)
        v = combine(op, v, __shfl_xor_sync(EVERY_LANE, v, distance));
    if (lanes <= WARP) return v;
    __shared__ T of_warp[32];
    int lane = threadIdx.x % WARP;
    __syncthreads();                  // of_warp may still be read in the previous call
    if (lane == 0) of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
    v = lane < lanes / WARP ? of_warp[lane] : neutral<T>(op);
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        v = combine(op, v, __shfl_xor_sync(EVERY_LANE, v, distance));
    return v;
}

// --- columns: a tile per block; a thread has one column (or pack) and every high-th row ----------

const int BLOCK = 256;                // threads of a block that computes a tile

struct Tile {
    int column, down, high;           // this thread's column, its first row in the tile, row step
    bool valid;                       // whether there is such a column
    long long first, last;            // the tile's rows, first … last − 1
};

// The tile with index `across` in the columns and `share` in the rows: `width` columns, and `rows`
// of the m rows.
__device__ inline Tile tile_of(int across, long long share, int columns, int width, long long m,
                               long long rows) {
    Tile t;
    t.column = across * width + threadIdx.x % width;
    t.down = threadIdx.x / width;
    t.high = blockDim.x / width;
    t.valid = t.column < columns && t.down < t.high;
    t.first = share * rows;
    t.last = min(m, t.first + rows);
    return t;
}

// The reduction over the threads of a column, valid in the thread with down = 0; all threads of the
// block must call it.
template <typename T, int SIZE>
__device__ Vec<T, SIZE> reduce_columns(int op, Vec<T, SIZE> v, const Tile& t, int width) {
    __shared__ Vec<T, SIZE> of_thread[BLOCK];
    __syncthreads();                  // of_thread may still be read in the previous call
    of_thread[threadIdx.x] = v;
    for (int left = t.high; left > 1; left = (left + 1) / 2) {
        int half = (left + 1) / 2;
        __syncthreads();
        if (t.down + half < left)
            for (int k = 0; k < SIZE; k++) {
                v.at[k] = combine(op, v.at[k], of_thread[threadIdx.x + half * width].at[k]);
                of_thread[threadIdx.x].at[k] = v.at[k];
            }
    }
    return v;
}
