// The matrix product in TF32 on Hopper's tensor cores: the last step of optimisation of gemm.cu. c =
// activation(a b + bias), or activation(c + a b + bias) if ``accumulate``; a (m, k), b (k, n), given
// transposed if TA, TB; bias (n,) is used if ``biased``. The order of every sum depends on the sizes
// only, so two runs give the same bits.
// architecture: sm_90a
#include "tiles.cuh"
#include "wgmma.cuh"

// A thread's part of a tile of ROWS rows × 32 k: read from global memory into registers, rounded to
// TF32, and written to shared memory with the k contiguous, as the tensor cores need them for TF32.
// If the k are contiguous in global memory (ALONG), a thread copies chunks; else it transposes
// blocks of 4 k × 4 rows.
template <int ROWS, bool ALONG, int COUNT>
struct Staged {
    static const int LENGTH = ROWS * DEPTH, SIZE = LENGTH / 4 / COUNT;        // packs of a thread
    const float* at[SIZE];
    int first_row, rows;              // of the tile; of the array
    int k, left;                      // first k of this thread in a tile; k that are left
    bool by_packs;
    Pack<float> values[SIZE];

    __device__ static int row(int i) {
        int t = threadIdx.x;
        return ALONG ? t / 8 + i * (COUNT / 8) : (t / 8 + i / 4 * (COUNT / 8)) * 4;
    }
    __device__ static int chunk() { return threadIdx.x % 8; }

    // The row of pack i in the array: any valid row behind the last one, for its sums are not stored.
    __device__ int array_row(int i) const {
        int r = first_row + row(i);
        return r < rows ? r : 0;
    }

    __device__ Staged(const float* p, int first_row, int rows, int length)
        : first_row(first_row), rows(rows), k(chunk() * CHUNK), left(length) {
        by_packs = reinterpret_cast<unsigned long long>(p) % 16 == 0
                && (ALONG ? length : rows) % 4 == 0;
#pragma unroll
        for (int i = 0; i < SIZE; i++)
            at[i] = ALONG ? p + (long long)array_row(i) * length + k
                          : p + (long long)(k + i % 4) * rows + array_row(i);
    }

    // Reads the next tile; zeros behind the last k. BY_PACKS: in accesses of sixteen bytes. A branch
    // for each access instead would make every load wait for the one before.
    template <bool BY_PACKS>
    __device__ __forceinline__ void read() {
#pragma unroll
        for (int i = 0; i < SIZE; i++) {
            int first = ALONG ? k : k + i % 4;
            if (BY_PACKS) {
                values[i] = first < left ? *reinterpret_cast<const Pack<float>*>(at[i])
                                         : Pack<float>{};
            } else {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    values[i].at[j] = first + (ALONG ? j : 0) < left
                        && (ALONG || array_row(i) + j < rows) ? at[i][j] : 0;
            }
            at[i] += ALONG ? DEPTH : (long long)DEPTH * rows;
        }
        left -= DEPTH;
    }

    __device__ __forceinline__ void write(float* tile) {
#pragma unroll
        for (int i = 0; i < SIZE; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                values[i].at[j] = __uint_as_float(cvt_rna_tf32(not_before(values[i].at[j])));
#pragma unroll
        for (int i = 0; i < SIZE; i++) {
            Pack<float> v = values[i];
            int r = row(i);
            if (!ALONG) {             // row i % 4 of the transposed block
                r += i % 4;
#pragma unroll
                for (int j = 0; j < 4; j++) v.at[j] = values[i / 4 * 4 + j].at[i % 4];
            }
            *reinterpret_cast<Pack<float>*>(tile + chunk_place(r, chunk())) = v;
        }
    }
};

// sums += a b over ``steps`` steps of 32 k, by a warpgroup whose rows of a begin at ``row``. Three
// stages of shared memory: while the tensor cores multiply step s, the threads write step s + 1
// into the next stage and read step s + 2 into registers. The third stage is for step s − 1, which
// the other warpgroup may still multiply.
template <bool BY_PACKS, int COLUMNS, typename A, typename B>
__device__ __forceinline__ void multiply_steps(A& from_a, B& from_b, float* shared, int row,
                                               int steps, float (&sums)[COLUMNS / 2]) {
    const int b_begins = A::LENGTH, length = A::LENGTH + B::LENGTH;
    float *now = shared, *next = shared + length, *last = shared + 2 * length;
    from_a.template read<BY_PACKS>();
    from_b.template read<BY_PACKS>();
    from_a.write(now);
    from_b.write(now + b_begins);
    from_a.template read<BY_PACKS>();                  // zeros if there is one step only
    from_b.template read<BY_PACKS>();
    for (int s = 0; s < steps; s++) {
        fence_shared();
        __syncthreads();
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < DEPTH; i += 8)
            multiply_eight<COLUMNS>(sums, now + row * DEPTH + i, now + b_begins + i);
        wgmma_commit();
        from_a.write(next);                            // behind the last step: zeros, not used
        from_b.write(next + b_begins);
        from_a.template read<BY_PACKS>();
        from_b.template read<BY_PACKS>();
        wgmma_wait<1>();
        float* before = now;
        now = next, next = last, last = before;
    }
    wgmma_wait<0>();
}

// A block of two warpgroups computes a tile of 128 × COLUMNS, a warpgroup 64 of its rows.
// constants: (0,0,128) (0,1,128) (1,0,128) (1,1,128) (0,0,256) (0,1,256) (1,0,256) (1,1,256)
template <int TA, int TB, int COLUMNS>
__global__ void __launch_bounds__(256, 1) product(
        const float* a, const float* b, float* c, const float* bias, int activation, bool biased,
        bool accumulate, int m, int n, int k) {
    const int rows = 128, threads = 256;
    DYNAMIC_SHARED(memory, 3 * (rows + COLUMNS) * DEPTH * 4 + 1024);
    float* shared = reinterpret_cast<float*>(
        (reinterpret_cast<unsigned long long>(memory) + 1023) / 1024 * 1024);
    int2 place = tile_place(blockIdx.x, (m + rows - 1) / rows, (n + COLUMNS - 1) / COLUMNS);
    int top = place.x * rows, begin = place.y * COLUMNS, steps = (k + DEPTH - 1) / DEPTH;
    Staged<rows, !TA, threads> from_a(a, top, m, k);
    Staged<COLUMNS, TB, threads> from_b(b, begin, n, k);
    int own = threadIdx.x / WARPGROUP * 64;            // the first row of this warpgroup

    float sums[COLUMNS / 2] = {};
    if (from_a.by_packs && from_b.by_packs)
        multiply_steps<true, COLUMNS>(from_a, from_b, shared, own, steps, sums);
    else
        multiply_steps<false, COLUMNS>(from_a, from_b, shared, own, steps, sums);

    Output<float> out = {c, biased ? bias : nullptr, activation, accumulate, m, n};
    int lane = threadIdx.x % WARP, warp = threadIdx.x % WARPGROUP / WARP;
    int row = top + own + 16 * warp + lane / 4, column = begin + lane % 4 * 2;
    bool in_pairs = n % 2 == 0 && reinterpret_cast<unsigned long long>(c) % 8 == 0;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = row + 8 * h, i = column + 8 * j;
            if (r >= m || i >= n) continue;
            float* to = c + (long long)r * n + i;
            float2 v;
            v.x = out.epilogue(sums[4 * j + 2 * h], r, i);
            v.y = i + 1 < n ? out.epilogue(sums[4 * j + 2 * h + 1], r, i + 1) : 0;
            if (in_pairs) {
                *reinterpret_cast<float2*>(to) = v;
            } else {
                to[0] = v.x;
                if (i + 1 < n) to[1] = v.y;
            }
        }
}
