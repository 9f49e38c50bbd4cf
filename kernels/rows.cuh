// What kernels over the rows and columns of a matrix share: the numbers of a thread, a row reduced
// by the lanes that own it, columns reduced by a block, indices taken apart.
#pragma once
#include "common.cuh"

// --- the numbers of a thread ---------------------------------------------------------------------

// SIZE numbers: sixteen bytes in a wide kernel, which is for rows of whole packs, else one number.
template <typename T, int SIZE>
struct Some {
    T at[SIZE];
};

// Numbers i SIZE … i SIZE + SIZE − 1 at p: one access if they are sixteen bytes and p allows it.
template <int SIZE, typename T>
__device__ Some<T, SIZE> read(const T* p, long long i) {
    Some<T, SIZE> v;
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
__device__ void write(T* p, long long i, const Some<T, SIZE>& v) {
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
__device__ Some<T, SIZE> all(T value) {
    Some<T, SIZE> v;
    for (int k = 0; k < SIZE; k++) v.at[k] = value;
    return v;
}

// i = quotient n + remainder: gives the remainder and leaves the quotient in i. Division of 64 bits
// is slow and hardly ever needed.
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

// --- sums, largest and smallest numbers; NaN wins, as in NumPy -----------------------------------

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

// What changes nothing.
template <typename T>
__device__ T neutral(int op) {
    return op == SUM ? T(0) : op == LARGEST ? -infinity<T>() : infinity<T>();
}

// --- rows: each is owned by `lanes` threads, a power of two: up to 32, or a whole block ----------

struct Lane {
    long long row;                    // the row of this thread, or the last one behind the end
    bool mine;                        // whether there is such a row
    int lane;                         // which of the row's threads this is
};

__device__ inline Lane lane_of(long long rows, int lanes) {
    long long row = blockIdx.x * (long long)(blockDim.x / lanes) + threadIdx.x / lanes;
    return {min(row, rows - 1), row < rows, (int)(threadIdx.x % lanes)};
}

// The lanes' values combined, in every lane; all threads of the block must take part.
template <typename T>
__device__ T over_lanes(int op, T v, int lanes) {
    for (int distance = min(lanes, WARP) / 2; distance > 0; distance /= 2)
        v = combine(op, v, __shfl_xor_sync(EVERY_LANE, v, distance));
    if (lanes <= WARP) return v;
    __shared__ T of_warp[32];
    int lane = threadIdx.x % WARP;
    __syncthreads();                  // of_warp may still be read from the call before
    if (lane == 0) of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
    v = lane < lanes / WARP ? of_warp[lane] : neutral<T>(op);
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        v = combine(op, v, __shfl_xor_sync(EVERY_LANE, v, distance));
    return v;
}

// --- columns: a block owns a tile, a thread one column of it or a pack, in every high-th row -----

const int BLOCK = 256;                // threads of the blocks that own tiles

struct Tile {
    int column, down, high;           // this thread's column, its first row in the tile, its step
    bool mine;                        // whether there is such a column
    long long first, last;            // the tile's rows, first … last − 1
};

// Tile number `across` of columns and `share` of rows: `width` columns, `rows` rows of m.
__device__ inline Tile tile_of(int across, long long share, int columns, int width, long long m,
                               long long rows) {
    Tile t;
    t.column = across * width + threadIdx.x % width;
    t.down = threadIdx.x / width;
    t.high = blockDim.x / width;
    t.mine = t.column < columns && t.down < t.high;
    t.first = share * rows;
    t.last = min(m, t.first + rows);
    return t;
}

// The values of a column's threads combined, in the thread with down = 0; all threads of the block
// must take part.
template <typename T, int SIZE>
__device__ Some<T, SIZE> down_columns(int op, Some<T, SIZE> v, const Tile& t, int width) {
    __shared__ Some<T, SIZE> of_thread[BLOCK];
    __syncthreads();                  // of_thread may still be read from the call before
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
