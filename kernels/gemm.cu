// The matrix product in four steps of optimisation: naive, tiled, register_tiled (also split over
// blocks), tensor_core. c = activation(a b + bias), or activation(c + a b + bias) if
// ``accumulate``; a (m, k), b (k, n), given transposed if ``ta``, ``tb``; bias (n,) is used if
// ``biased``. A block computes a tile of c; with split-k, gridDim.y blocks compute partial sums of
// the same tile, and the last of them adds these in a fixed order. The order of every sum depends
// on the sizes only, so two runs give the same bits. Large products are bounded by arithmetic,
// small ones by latency. The next step, for Hopper alone, is in wgmma.cu.
#include "tiles.cuh"
#include "mma.cuh"

// c_ij = Σ_k a_ik b_kj. One thread per number of c; neighbouring threads read neighbouring columns.
template <typename T>
__global__ void naive(const T* a, const T* b, T* c, bool ta, bool tb, const T* bias, int activation,
                      bool biased, bool accumulate, int m, int n, int k) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= (long long)m * n) return;
    int row = at / n, column = at % n;
    long long a_step = ta ? m : 1, b_step = tb ? 1 : n;
    const T* x = a + (ta ? row : (long long)row * k);
    const T* y = b + (tb ? (long long)column * k : column);
    T total = 0;
    for (int i = 0; i < k; i++) total += x[i * a_step] * y[i * b_step];
    Output<T> out = {c, biased ? bias : nullptr, activation, accumulate, m, n};
    c[at] = out.epilogue(total, row, column);
}

// The same; a block of 16 × 16 threads computes 16 × 16 numbers of c and goes along k in steps of
// 16: each number of a and b is read from memory once per block instead of sixteen times.
template <typename T>
__global__ void tiled(const T* a, const T* b, T* c, bool ta, bool tb, const T* bias, int activation,
                      bool biased, bool accumulate, int m, int n, int k) {
    const int side = 16;
    __shared__ T rows[side][side + 1], columns[side][side + 1];     // (row, k) and (column, k)
    int x = threadIdx.x, y = threadIdx.y, row = blockIdx.x * side, column = blockIdx.y * side;
    T total = 0;
    for (int first = 0; first < k; first += side) {
        int i = row + (ta ? x : y), j = column + (tb ? y : x);      // x runs along memory
        int ki = first + (ta ? y : x), kj = first + (tb ? x : y);
        rows[ta ? x : y][ta ? y : x] = i < m && ki < k
            ? a[ta ? (long long)ki * m + i : (long long)i * k + ki] : T(0);
        columns[tb ? y : x][tb ? x : y] = j < n && kj < k
            ? b[tb ? (long long)j * k + kj : (long long)kj * n + j] : T(0);
        __syncthreads();
        for (int s = 0; s < side; s++) total += rows[y][s] * columns[x][s];
        __syncthreads();
    }
    Output<T> out = {c, biased ? bias : nullptr, activation, accumulate, m, n};
    if (row + y < m && column + x < n)
        c[(long long)(row + y) * n + column + x] = out.epilogue(total, row + y, column + x);
}

// sums += a b over ``length`` k. While a step is multiplied, the next one is loaded into registers,
// and then stored to the other half of shared memory (double buffering): one barrier per step. The
// incomplete step comes first, so that the loop needs no bounds checks.
template <bool BY_PACKS, typename T, int TN, int COUNT, typename A, typename B>
__device__ __forceinline__ void multiply_steps(A& from_a, B& from_b, T* shared, const T* my_a,
                                               const T* my_b, int length, T (&sums)[8][TN]) {
    const int step = A::DEEP, half = step * (A::LENGTH + B::LENGTH);
    int odd = length > 0 ? (length - 1) % step + 1 : 0, now = 0;
    from_a.read(odd);
    from_b.read(odd);
    from_a.write(shared);
    from_b.write(shared + step * A::LENGTH);
    __syncthreads();
    for (int left = (length - odd) / step; left > 0; left--) {
        from_a.template read<BY_PACKS>();
        from_b.template read<BY_PACKS>();
        multiply<T, TN, COUNT, A::LENGTH, B::LENGTH>(my_a + now, my_b + now, sums);
        now = half - now;
        from_a.write(shared + now);
        from_b.write(shared + now + step * A::LENGTH);
        __syncthreads();
    }
    multiply<T, TN, COUNT, A::LENGTH, B::LENGTH>(my_a + now, my_b + now, sums);
}

// Stores the sums of 8 × TN registers through shared memory, a pack of each thread's rows at a
// time: the slices are added there, and the stores to c are coalesced. ``mine`` is the place of a
// thread's first number in shared memory.
template <int SLICES, int HIGH, typename C, typename T, int TN>
__device__ __forceinline__ void store_sums(const C& tile, T* shared, T* mine, T (&sums)[8][TN]) {
    const int size = Pack<T>::SIZE;
#pragma unroll 1
    for (int p = 0; p < 8 / size; p++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i / size == p)
#pragma unroll
                for (int j = 0; j < TN; j += size)
                    *reinterpret_cast<Pack<T>*>(mine + i % size * C::LENGTH + j * 8) =
                        *reinterpret_cast<Pack<T>*>(&sums[i][j]);
        __syncthreads();
        tile.template store_part<SLICES, HIGH, 32>(shared, p * HIGH);
    }
    __syncthreads();
    tile.add_partials(reinterpret_cast<unsigned*>(shared));
}

// The same with register blocking; a block of 256 threads computes the tile blockIdx.x of ROWS ×
// COLUMNS numbers of c, and share blockIdx.y of its sums. A thread has 8 × TN sums in registers:
// 8 TN multiply-adds for 8 + TN numbers from shared memory. If the tile needs fewer than 8 warps,
// the warps form slices, each with a part of every step along k. A step has FLOATS k (half as many
// in double).
// constants: (128, 128, 16, 8) (64, 64, 16, 4) (32, 32, 32, 4)
template <typename T, int ROWS, int COLUMNS, int FLOATS, int TN>
__global__ void __launch_bounds__(256, Pack<T>::SIZE / 2) register_tiled(
        const T* a, const T* b, T* c, bool ta, bool tb, const T* bias, int activation, bool biased,
        bool accumulate, int m, int n, int k, T* partial, unsigned* tickets) {
    const int step = FLOATS * 4 / sizeof(T);
    typedef Factor<T, ROWS, step, 256> A;
    typedef Factor<T, COLUMNS, step, 256> B;
    typedef Tile<T, ROWS, COLUMNS, 256> C;
    const int size = Pack<T>::SIZE, high = 4 * size, across = COLUMNS / (8 * TN),
              warps = ROWS / 32 * across, slices = 8 / warps, count = step / slices;
    const int stage = step * (A::LENGTH + B::LENGTH),
              part = slices * (ROWS / 32 * high) * C::LENGTH;
    __shared__ Pack<T> memory[(2 * stage > part ? 2 * stage : part) / size];
    T* shared = reinterpret_cast<T*>(memory);

    int2 place = tile_place(blockIdx.x, (m + ROWS - 1) / ROWS, (n + COLUMNS - 1) / COLUMNS);
    int first = share_begin(blockIdx.y, gridDim.y, k, step);
    int end = share_begin(blockIdx.y + 1, gridDim.y, k, step);
    A from_a(a, !ta, place.x * ROWS, m, k, first);
    B from_b(b, tb, place.y * COLUMNS, n, k, first);

    int warp = threadIdx.x / WARP, slice = warp / warps;
    int down = warp % warps / across, right = warp % warps % across;
    T* my_a = shared + slice * count * A::LENGTH + down * 32 + lane_row() * size;
    T* my_b = shared + step * A::LENGTH + slice * count * B::LENGTH + right * 8 * TN
              + lane_column() * size;
    T sums[8][TN] = {};
    if (from_a.by_packs && from_b.by_packs)
        multiply_steps<true, T, TN, count>(from_a, from_b, shared, my_a, my_b, end - first, sums);
    else
        multiply_steps<false, T, TN, count>(from_a, from_b, shared, my_a, my_b, end - first, sums);

    C tile = {{c, biased ? bias : nullptr, activation, accumulate, m, n},
              place.x * ROWS, place.y * COLUMNS, partial, tickets};
    T* mine = shared + (slice * (ROWS / 32) + down) * high * C::LENGTH
              + lane_row() * size * C::LENGTH + right * 8 * TN + lane_column() * size;
    store_sums<slices, high>(tile, shared, mine, sums);
}

// sums += a b for sixteen k, by one warp, whose rows of a begin at ``row`` and columns of b at
// ``column``.
template <typename A, typename B, int DOWN, int ACROSS>
__device__ void multiply_sixteen(const float* a, const float* b, int row, int column, int g, int t,
                                 float (&sums)[DOWN][ACROSS][4]) {
    unsigned x[2 * DOWN][4], y[ACROSS][4];
    A::template fragments<2 * DOWN>(a, row, g, t, x);
    B::template fragments<ACROSS>(b, column, g, t, y);
#pragma unroll
    for (int h = 0; h < 4; h += 2)
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++) {
                unsigned u[4] = {x[2 * i][h], x[2 * i + 1][h], x[2 * i][h + 1],
                                 x[2 * i + 1][h + 1]};
                unsigned v[2] = {y[j][h], y[j][h + 1]};
                mma_m16n8k8_tf32(sums[i][j], u, v, sums[i][j]);
            }
}

// Like ``store_sums`` above, for fragments: 32 of each warp's rows at a time, from ``mine`` on.
template <typename A, typename B, typename C, int DOWN, int ACROSS>
__device__ __forceinline__ void store_sums(const C& tile, float* shared, float* mine, int g, int t,
                                      float (&sums)[DOWN][ACROSS][4]) {
#pragma unroll 1
    for (int p = 0; p < DOWN / 2; p++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < DOWN; i++)
            if (i / 2 == p)
#pragma unroll
                for (int j = 0; j < ACROSS; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        mine[(A::place(2 * i + e / 2, g) - 32 * p) * C::LENGTH
                             + B::place(j, 2 * t + e % 2)] = sums[i][j][e];
        __syncthreads();
        tile.template store_part<1, 32, 16 * DOWN>(shared, p * 32);
    }
    __syncthreads();
    tile.add_partials(reinterpret_cast<unsigned*>(shared));
}

// The same in TF32 on tensor cores: factors rounded to ten bits of mantissa, sums in float. A block
// of HIGH × WIDE warps computes the tile, a warp DOWN × ACROSS products of 16 × 8 for each 8 k.
// Tiles of 16 k are copied asynchronously, two steps ahead. Within the 16 k any order is right if
// both factors use the same: lane 4 g + t takes k = 4 t to 4 t + 3, one access of sixteen bytes if
// the k of a row are contiguous.
// constants: (0,0,4,8,2,2) (0,1,4,8,2,2) (1,0,4,8,2,2) (1,1,4,8,2,2) (0,0,2,4,2,2) (0,1,2,4,2,2) (1,0,2,4,2,2) (1,1,2,4,2,2)
template <bool TA, bool TB, int DOWN, int ACROSS, int HIGH, int WIDE>
__global__ void __launch_bounds__(32 * HIGH * WIDE, 2) tensor_core(
        const float* a, const float* b, float* c, const float* bias, int activation, bool biased,
        bool accumulate, int m, int n, int k, float* partial, unsigned* tickets) {
    const int rows = 16 * DOWN * HIGH, columns = 8 * ACROSS * WIDE, threads = WARP * HIGH * WIDE;
    typedef Copied<rows, !TA, threads> A;
    typedef Copied<columns, TB, threads> B;
    typedef Tile<float, rows, columns, threads> C;
    const int stage = A::SIZE + B::SIZE;
    __shared__ Pack<float> memory[3 * stage / 4];
    float* shared = reinterpret_cast<float*>(memory);

    int2 place = tile_place(blockIdx.x, (m + rows - 1) / rows, (n + columns - 1) / columns);
    int first = share_begin(blockIdx.y, gridDim.y, k, A::DEEP);
    int end = min(k, share_begin(blockIdx.y + 1, gridDim.y, k, A::DEEP));
    int steps = (end - first + A::DEEP - 1) / A::DEEP;
    A from_a(a, place.x * rows, m, k, end);
    B from_b(b, place.y * columns, n, k, end);
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    int down = threadIdx.x / WARP / WIDE, right = threadIdx.x / WARP % WIDE;
    int row = down * 16 * DOWN, column = right * 8 * ACROSS;

    float sums[DOWN][ACROSS][4] = {};
    float *fill = shared, *now = shared + stage, *last = shared + 2 * stage;
    for (int s = 0; s < steps + 2; s++) {                 // copies step s, multiplies step s − 2
        if (s >= 2) copy_async_wait<1>();                 // one group for each s, empty at the end
        __syncthreads();
        if (s < steps) {
            from_a.copy(fill, first + s * A::DEEP);
            from_b.copy(fill + A::SIZE, first + s * A::DEEP);
        }
        copy_async_commit();
        if (s >= 2)
            multiply_sixteen<A, B>(now, now + A::SIZE, row, column, g, t, sums);
        fill = fill == last ? shared : fill + stage;
        now = now == last ? shared : now + stage;
    }

    C tile = {{c, biased ? bias : nullptr, activation, accumulate, m, n},
              place.x * rows, place.y * columns, partial, tickets};
    store_sums<A, B>(tile, shared, shared + down * 32 * C::LENGTH + column, g, t, sums);
}
