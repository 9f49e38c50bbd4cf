// Tiles of a matrix product: loads of the factors into shared memory, products of register tiles,
// and the epilogue with bias and activation, or with partial sums added in a fixed order (split-k).
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

    __device__ T epilogue(T v, int row, int column) const {
        if (accumulate) v += c[(long long)row * n + column];
        if (bias) v += bias[column];
        return activate(v, activation);
    }

    __device__ void store_pack(Pack<T> v, int row, int column) const {
        if (row >= m) return;
        T* at = c + (long long)row * n + column;
        for (int k = 0; k < Pack<T>::SIZE; k++)
            if (column + k < n) v.at[k] = epilogue(v.at[k], row, column + k);
        store(at, 0, n - column, v);
    }
};

// The row and column of tile i: tiles are numbered in bands of BAND rows, column by column, so that
// blocks that run at the same time share rows of a and columns of b in the L2 cache.
const int BAND = 16;

__device__ int2 tile_place(int i, int rows, int columns) {
    int top = i / (BAND * columns) * BAND, high = min(BAND, rows - top);
    int within = i - top * columns;
    int2 place;
    place.x = top + within % high;
    place.y = within / high;
    return place;
}

// The first k of share i of n (split-k), a multiple of ``step``.
__device__ int share_begin(int i, int n, int k, int step) {
    long long steps = (k - 1) / step + 1;
    return min((long long)k, steps * i / n * step);
}

// --- loading a factor into shared memory ---------------------------------------------------------

// The part of a thread in loading tiles of ROWS × STEP numbers; (k, row) goes to shared[k * LENGTH
// + row]. In global memory either the k of a row are contiguous (``along``), or the rows of one k.
// A thread reads sixteen bytes at a time if the array is aligned. Rows are padded by four numbers
// to avoid bank conflicts when packs along k are transposed: eight lanes write 32 different banks
// for every T.
template <typename T, int ROWS, int STEP, int THREADS>
struct Factor {
    static const int SIZE = Pack<T>::SIZE, LENGTH = ROWS + 4, SPACING = THREADS * SIZE / ROWS,
                     PACKS = STEP / SPACING, DEEP = STEP;
    const T* at;
    int stride, room;                 // from k to k + 1; the rows of the array after this one
    int k, place;
    bool along, by_packs;
    Pack<T> values[PACKS];

    __device__ Factor(const T* p, bool is_along, int first_row, int rows, int length, int first_k) {
        int t = threadIdx.x;
        along = is_along;
        int row = along ? t / 2 % ROWS : t % (ROWS / SIZE) * SIZE;
        k = along ? (t % 2 + t / (2 * ROWS) * 2) * SIZE : t / (ROWS / SIZE);
        place = k * LENGTH + row;
        row += first_row;
        if (row >= rows) row = 0;     // any valid row: its sums are not stored
        room = along ? SIZE : min(SIZE, rows - 1 - row);
        by_packs = reinterpret_cast<unsigned long long>(p) % 16 == 0
                && (along ? length : rows) % SIZE == 0;
        stride = along ? 1 : rows;
        at = p + (along ? (long long)row * length + first_k + k
                        : (long long)(first_k + k) * rows + row);
    }

    // Reads the first ``count`` k of a tile, then zeros; the next tile begins after these k.
    __device__ void read(int count) {
#pragma unroll
        for (int i = 0; i < PACKS; i++)
#pragma unroll
            for (int j = 0; j < SIZE; j++)
                values[i].at[j] = k + i * SPACING + (along ? j : 0) < count && j <= room
                    ? at[(long long)i * SPACING * stride + j] : T(0);
        at += (long long)count * stride;
    }

    // Reads a full tile; BY_PACKS: in accesses of sixteen bytes.
    template <bool BY_PACKS>
    __device__ void read() {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const T* from = along ? at + i * SPACING : at + (long long)i * SPACING * stride;
            if (BY_PACKS) {
                values[i] = *reinterpret_cast<const Pack<T>*>(from);
            } else {
#pragma unroll
                for (int j = 0; j < SIZE; j++) values[i].at[j] = j <= room ? from[j] : T(0);
            }
        }
        at += (long long)STEP * stride;
    }

    __device__ void write(T* shared) const {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            T* to = shared + place + i * SPACING * LENGTH;
            if (along) {
#pragma unroll
                for (int j = 0; j < SIZE; j++) to[j * LENGTH] = values[i].at[j];
            } else {
                *reinterpret_cast<Pack<T>*>(to) = values[i];
            }
        }
    }
};

// --- a thread's tile in registers ----------------------------------------------------------------

// A warp computes 32 rows × 8 COLUMNS columns with 4 × 8 lanes; a lane computes 8 × COLUMNS of
// them, in packs at a distance of 4 (rows) and 8 (columns) packs. Lanes are numbered so that half a
// warp reads at most 128 different bytes: one access of shared memory.
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

// --- storing the sums ----------------------------------------------------------------------------

// A tile of the result, of ROWS × COLUMNS numbers, whose sums are split over gridDim.y blocks.
template <typename T, int ROWS, int COLUMNS, int THREADS>
struct Tile {
    static const int SIZE = Pack<T>::SIZE, LENGTH = COLUMNS + 8, WIDE = COLUMNS / SIZE;
    Output<T> out;
    int row, column;                  // of the tile's first number in the result
    T* partial;                       // (tiles, gridDim.y, ROWS, COLUMNS)
    unsigned* tickets;                // (tiles,), zeros before and after

    // Adds SLICES copies of a part of the tile in shared memory (rows of LENGTH numbers) and stores
    // it. The part has HIGH of every BAND_HEIGHT rows of the tile, from ``offset`` on.
    template <int SLICES, int HIGH, int BAND_HEIGHT>
    __device__ void store_part(const T* shared, int offset) const {
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
                out.store_pack(v, row + r, column + c);
        }
    }

    __device__ T* partial_at(int share) const {
        return partial + ((long long)blockIdx.x * gridDim.y + share) * (ROWS * COLUMNS);
    }

    // The block that finishes last adds the partial sums of all blocks, always in the order of the
    // shares; ``word`` is a word of shared memory.
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
            out.store_pack(v, row + e / WIDE, column + e % WIDE * SIZE);
        }
    }
};
