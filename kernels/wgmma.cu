// The matrix product in TF32 on Hopper's tensor cores: the last step of optimisation of gemm.cu, in
// two kernels. ``pack`` rounds each factor to TF32 and stores it in tiles, as the tensor cores read
// them from shared memory; ``product`` copies tiles and multiplies. c = activation(a b + bias), or
// activation(c + a b + bias) if ``accumulate``; bias (n,) is used if ``biased``. The order of every
// sum depends on the sizes only, so two runs give the same bits.
//
// One kernel that reads the factors into registers, rounds and writes them to shared memory was
// right too, and took five times as long as cuBLAS: the loads of one step, all that fit into the
// registers, do not hide their own latency (4096 × 4096 × 4096 on an H200: 1.55 ms, without these
// loads 0.56 ms, the multiplications alone 0.31 ms; cuBLAS 0.34 ms).
// architecture: sm_90a
#include "tiles.cuh"
#include "wgmma.cuh"

const int ROWS = 128, THREADS = 256, TILE = ROWS * DEPTH;

// A thread's part of a tile of 128 rows × 32 k, which is rounded to TF32 and written with the k
// contiguous: for TF32 the tensor cores read nothing else. If the k are contiguous in the array
// (ALONG), a thread copies chunks; else it transposes a block of 4 k × 4 rows.
template <bool ALONG>
struct Packed {
    static const int SIZE = TILE / 4 / THREADS;        // packs of a thread
    const float* at[SIZE];
    int first_row, rows;              // of the tile; of the array
    int k, left;                      // first k of this thread in the tile; k that are left
    bool by_packs;
    Pack<float> values[SIZE];

    __device__ static int row(int i) {
        int t = threadIdx.x;
        return ALONG ? t / 8 + i * (THREADS / 8) : t / 8 * 4;
    }
    __device__ static int chunk() { return threadIdx.x % 8; }

    // The row of pack i in the array: any valid row behind the last one, for its sums are not stored.
    __device__ int array_row(int i) const {
        int r = first_row + row(i);
        return r < rows ? r : 0;
    }

    __device__ Packed(const float* p, int first_row, int rows, int first_k, int length)
        : first_row(first_row), rows(rows), k(chunk() * CHUNK), left(length - first_k) {
        by_packs = reinterpret_cast<unsigned long long>(p) % 16 == 0
                && (ALONG ? length : rows) % 4 == 0;
#pragma unroll
        for (int i = 0; i < SIZE; i++)
            at[i] = ALONG ? p + (long long)array_row(i) * length + first_k + k
                          : p + (long long)(first_k + k + i) * rows + array_row(i);
    }

    // Reads the tile; zeros behind the last k. BY_PACKS: in accesses of sixteen bytes. A branch for
    // each access instead would make every load wait for the one before.
    template <bool BY_PACKS>
    __device__ __forceinline__ void read() {
#pragma unroll
        for (int i = 0; i < SIZE; i++) {
            int first = ALONG ? k : k + i;
            if (BY_PACKS) {
                values[i] = first < left ? *reinterpret_cast<const Pack<float>*>(at[i])
                                         : Pack<float>{};
            } else {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    values[i].at[j] = first + (ALONG ? j : 0) < left
                        && (ALONG || array_row(i) + j < rows) ? at[i][j] : 0;
            }
        }
    }

    __device__ __forceinline__ void write(float* tile) {
#pragma unroll
        for (int i = 0; i < SIZE; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                values[i].at[j] = __uint_as_float(cvt_rna_tf32(values[i].at[j]));
#pragma unroll
        for (int i = 0; i < SIZE; i++) {
            Pack<float> v = values[i];
            int r = row(i);
            if (!ALONG) {             // row i of the transposed block
                r += i;
#pragma unroll
                for (int j = 0; j < 4; j++) v.at[j] = values[j].at[i];
            }
            *reinterpret_cast<Pack<float>*>(tile + chunk_place(r, chunk())) = v;
        }
    }
};

// packed (tiles of rows, tiles of k, 128 × 32): a factor x of ``rows`` rows with sums of ``length``
// terms; ALONG: x (rows, length), otherwise x (length, rows). A block packs a tile.
// constants: (0) (1)
template <int ALONG>
__global__ void __launch_bounds__(256) pack(const float* x, float* packed, int rows, int length) {
    int steps = (length + DEPTH - 1) / DEPTH;
    Packed<ALONG> tile(x, blockIdx.x / steps * ROWS, rows, blockIdx.x % steps * DEPTH, length);
    if (tile.by_packs) tile.template read<true>(); else tile.template read<false>();
    tile.write(packed + (long long)blockIdx.x * TILE);
}

// Copies COUNT packed tiles, which lie ``distance`` numbers apart, to shared memory.
template <int COUNT>
__device__ __forceinline__ void copy_tiles(float* shared, const float* packed, long long distance) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
        for (int e = threadIdx.x * 4; e < TILE; e += THREADS * 4)
            copy_async_16(shared + i * TILE + e, packed + i * distance + e);
}

// A block of two warpgroups computes a tile of 128 × COLUMNS, a warpgroup 64 of its rows. While the
// tensor cores multiply step s, the tiles of the next steps arrive, and those of step s + STAGES − 2
// are requested: their stage held step s − 2, and step s − 1 may still be multiplied by the other
// warpgroup. ``a``, ``b`` are packed; b's rows, the columns of the product, up to a multiple of 256.
// constants: (128, 6) (256, 4)
template <int COLUMNS, int STAGES>
__global__ void __launch_bounds__(256, 1) product(
        const float* a, const float* b, float* c, const float* bias, int activation, bool biased,
        bool accumulate, int m, int n, int k) {
    const int of_b = COLUMNS / ROWS, stage = (1 + of_b) * TILE, ahead = STAGES - 2;
    DYNAMIC_SHARED(memory, STAGES * (1 + COLUMNS / ROWS) * TILE * 4 + 1024);
    float* shared = reinterpret_cast<float*>(
        (reinterpret_cast<unsigned long long>(memory) + 1023) / 1024 * 1024);
    int2 place = tile_place(blockIdx.x, (m + ROWS - 1) / ROWS, (n + COLUMNS - 1) / COLUMNS);
    int top = place.x * ROWS, begin = place.y * COLUMNS, steps = (k + DEPTH - 1) / DEPTH;
    long long distance = (long long)steps * TILE;      // between tiles of other rows
    a += place.x * distance, b += place.y * of_b * distance;
    int own = threadIdx.x / WARPGROUP * 64;            // the first row of this warpgroup

    float sums[COLUMNS / 2] = {};
    for (int s = 0; s < ahead; s++) {
        if (s < steps) {
            copy_tiles<1>(shared + s * stage, a + s * TILE, distance);
            copy_tiles<of_b>(shared + s * stage + TILE, b + s * TILE, distance);
        }
        copy_async_commit();
    }
    float *now = shared, *next = shared + ahead * stage, *last = shared + (STAGES - 1) * stage;
    for (int s = 0; s < steps; s++) {
        copy_async_wait<ahead - 1>();                  // one group for each step, empty at the end
        fence_shared();
        __syncthreads();
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < DEPTH; i += 8)
            multiply_eight<COLUMNS>(sums, now + own * DEPTH + i, now + TILE + i);
        wgmma_commit();
        if (s + ahead < steps) {
            copy_tiles<1>(next, a + (s + ahead) * TILE, distance);
            copy_tiles<of_b>(next + TILE, b + (s + ahead) * TILE, distance);
        }
        copy_async_commit();
        wgmma_wait<1>();
        now = now == last ? shared : now + stage;
        next = next == last ? shared : next + stage;
    }
    wgmma_wait<0>();

    // Through shared memory: the loop over the results is short, and its stores are coalesced. With
    // bias and activation unrolled for every sum the code did not fit into the instruction cache.
    const int length = COLUMNS + 8;
    int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    float* mine = shared + (own + 16 * warp + lane / 4) * length + lane % 4 * 2;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) mine[e / 2 * 8 * length + 8 * j + e % 2] = sums[4 * j + e];
    __syncthreads();
    Output<float> out = {c, biased ? bias : nullptr, activation, accumulate, m, n};
#pragma unroll 1
    for (int e = threadIdx.x; e < ROWS * COLUMNS / 4; e += THREADS) {
        int row = e / (COLUMNS / 4), column = e % (COLUMNS / 4) * 4;
        out.store_pack(*reinterpret_cast<Pack<float>*>(shared + row * length + column), top + row,
                       begin + column);
    }
}
