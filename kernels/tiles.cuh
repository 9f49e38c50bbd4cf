// Tiles of a matrix product: how factors come into shared memory, how register tiles multiply, and
// how the sums leave, through bias and activation, or split over blocks and added in their order.
#pragma once
#include "common.cuh"

// --- the result: c = a(Σ + bias), or a(c + Σ + bias) ---------------------------------------------

template <typename T>
struct Output {
    T* c;                             // (m, n)
    const T* bias;                    // (n,), or none
    int activation;
    bool accumulate;
    int m, n;

    __device__ T finished(T v, int row, int column) const {
        if (accumulate) v += c[(long long)row * n + column];
        if (bias) v += bias[column];
        return activate(v, activation);
    }

    __device__ void put(Pack<T> v, int row, int column) const {
        if (row >= m) return;
        T* at = c + (long long)row * n + column;
        for (int k = 0; k < Pack<T>::SIZE; k++)
            if (column + k < n) v.at[k] = finished(v.at[k], row, column + k);
        store(at, 0, n - column, v);
    }
};

// Where tile i of rows × columns tiles lies: bands of BAND rows, each walked column by column, so
// that the blocks at work together share rows of a and columns of b in the L2 cache.
const int BAND = 16;

__device__ int2 tile_place(int i, int rows, int columns) {
    int top = i / (BAND * columns) * BAND, high = min(BAND, rows - top);
    int within = i - top * columns;
    int2 place;
    place.x = top + within % high;
    place.y = within / high;
    return place;
}

// Where share i of n shares of k begins, in whole steps.
__device__ int share_begin(int i, int n, int k, int step) {
    long long steps = (k - 1) / step + 1;
    return min((long long)k, steps * i / n * step);
}

// --- a factor on its way into shared memory ------------------------------------------------------

// A thread's share of tiles of ROWS × STEP numbers, (k, row) of them at shared[k * LENGTH + row].
// In memory either a row's k lie side by side (along), or the rows of one k. It reads sixteen bytes
// at a time where the array allows. Four numbers of padding keep the 32 banks of shared memory
// apart when packs along k are turned: eight lanes write 32 different banks, whatever T is.
template <typename T, int ROWS, int STEP, int THREADS>
struct Factor {
    static const int SIZE = Pack<T>::SIZE, LENGTH = ROWS + 4, APART = THREADS * SIZE / ROWS,
                     PACKS = STEP / APART, DEEP = STEP;
    const T* at;
    int stride, room;                 // from k to k + 1; how many rows of the array follow ours
    int k, place;
    bool along, whole;
    Pack<T> held[PACKS];

    __device__ Factor(const T* p, bool is_along, int first_row, int rows, int length, int first_k) {
        int t = threadIdx.x;
        along = is_along;
        int row = along ? t / 2 % ROWS : t % (ROWS / SIZE) * SIZE;
        k = along ? (t % 2 + t / (2 * ROWS) * 2) * SIZE : t / (ROWS / SIZE);
        place = k * LENGTH + row;
        row += first_row;
        if (row >= rows) row = 0;     // any row will do: its sums are not kept
        room = along ? SIZE : min(SIZE, rows - 1 - row);
        whole = reinterpret_cast<unsigned long long>(p) % 16 == 0
                && (along ? length : rows) % SIZE == 0;
        stride = along ? 1 : rows;
        at = p + (along ? (long long)row * length + first_k + k
                        : (long long)(first_k + k) * rows + row);
    }

    // Reads the first ``count`` k of a tile, and zeros behind; the next tile begins after them.
    __device__ void read(int count) {
#pragma unroll
        for (int i = 0; i < PACKS; i++)
#pragma unroll
            for (int j = 0; j < SIZE; j++)
                held[i].at[j] = k + i * APART + (along ? j : 0) < count && j <= room
                    ? at[(long long)i * APART * stride + j] : T(0);
        at += (long long)count * stride;
    }

    // Reads a tile that is full; BY_PACKS where the array allows.
    template <bool BY_PACKS>
    __device__ void read() {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const T* from = along ? at + i * APART : at + (long long)i * APART * stride;
            if (BY_PACKS) {
                held[i] = *reinterpret_cast<const Pack<T>*>(from);
            } else {
#pragma unroll
                for (int j = 0; j < SIZE; j++) held[i].at[j] = j <= room ? from[j] : T(0);
            }
        }
        at += (long long)STEP * stride;
    }

    __device__ void write(T* shared) const {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            T* to = shared + place + i * APART * LENGTH;
            if (along) {
#pragma unroll
                for (int j = 0; j < SIZE; j++) to[j * LENGTH] = held[i].at[j];
            } else {
                *reinterpret_cast<Pack<T>*>(to) = held[i];
            }
        }
    }
};

// --- a thread's tile in registers ----------------------------------------------------------------

// A warp owns 32 rows × 8 COLUMNS columns, four lanes high and eight wide; a lane owns 8 × COLUMNS
// of them, in packs that lie 4 and 8 packs apart. Lanes are numbered so that each half of a warp
// reads 128 different bytes at most: one access of shared memory.
__device__ int lane_row() { return threadIdx.x % WARP / 16 * 2 + threadIdx.x % 2; }
__device__ int lane_column() { return threadIdx.x % 16 / 2; }

// sums += a(:, k) b(k, :) for COUNT k; rows of a and b in shared memory are LA and LB long.
template <typename T, int COLUMNS, int COUNT, int LA, int LB>
__device__ void multiply(const T* a, const T* b, T (&sums)[8][COLUMNS]) {
    const int size = Pack<T>::SIZE;
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        Pack<T> x[8 / size], y[COLUMNS / size];
#pragma unroll
        for (int i = 0; i < 8 / size; i++)
            x[i] = *reinterpret_cast<const Pack<T>*>(a + k * LA + i * 4 * size);
#pragma unroll
        for (int j = 0; j < COLUMNS / size; j++)
            y[j] = *reinterpret_cast<const Pack<T>*>(b + k * LB + j * 8 * size);
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                sums[i][j] += x[i / size].at[i % size] * y[j / size].at[j % size];
    }
}

// --- sums on their way out -----------------------------------------------------------------------

// A tile of the result, of ROWS × COLUMNS numbers, and the blocks (gridDim.y) that share its sum.
template <typename T, int ROWS, int COLUMNS, int THREADS>
struct Tile {
    static const int SIZE = Pack<T>::SIZE, LENGTH = COLUMNS + 8, WIDE = COLUMNS / SIZE;
    Output<T> out;
    int row, column;                  // of the result, where the tile begins
    T* partial;                       // (tiles, gridDim.y, ROWS, COLUMNS)
    unsigned* tickets;                // (tiles,), zeros before and after

    // Σ over SLICES copies of a part of the tile in shared memory, whose rows are LENGTH long. Of
    // every BAND_HEIGHT rows of the tile the part has HIGH, which begin at ``offset``.
    template <int SLICES, int HIGH, int BAND_HEIGHT>
    __device__ void drain(const T* shared, int offset) const {
        const int rows = ROWS / BAND_HEIGHT * HIGH;
#pragma unroll 1
        for (int e = threadIdx.x; e < rows * WIDE; e += THREADS) {
            int r = e / WIDE, c = e % WIDE * SIZE;
            const T* from = shared + r * LENGTH + c;
            Pack<T> v = *reinterpret_cast<const Pack<T>*>(from);
#pragma unroll
            for (int s = 1; s < SLICES; s++) {
                Pack<T> w = *reinterpret_cast<const Pack<T>*>(from + s * rows * LENGTH);
                for (int k = 0; k < SIZE; k++) v.at[k] += w.at[k];
            }
            r = r / HIGH * BAND_HEIGHT + offset + r % HIGH;
            if (gridDim.y > 1)
                *reinterpret_cast<Pack<T>*>(partial_at(blockIdx.y) + r * COLUMNS + c) = v;
            else
                out.put(v, row + r, column + c);
        }
    }

    __device__ T* partial_at(int share) const {
        return partial + ((long long)blockIdx.x * gridDim.y + share) * (ROWS * COLUMNS);
    }

    // The block that comes last adds all blocks' partial sums, in the order of the shares whichever
    // block it is; ``word`` is a word of shared memory.
    __device__ void add_partials(unsigned* word) const {
        if (gridDim.y == 1) return;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) *word = atomicAdd(tickets + blockIdx.x, 1u);
        __syncthreads();
        if (*word != gridDim.y - 1) return;
        __threadfence();
        if (threadIdx.x == 0) tickets[blockIdx.x] = 0;
#pragma unroll 1
        for (int e = threadIdx.x; e < ROWS * WIDE; e += THREADS) {
            Pack<T> v = reinterpret_cast<const Pack<T>*>(partial_at(0))[e];
#pragma unroll 4
            for (int s = 1; s < (int)gridDim.y; s++) {
                Pack<T> w = reinterpret_cast<const Pack<T>*>(partial_at(s))[e];
                for (int k = 0; k < SIZE; k++) v.at[k] += w.at[k];
            }
            out.put(v, row + e / WIDE, column + e % WIDE * SIZE);
        }
    }
};
