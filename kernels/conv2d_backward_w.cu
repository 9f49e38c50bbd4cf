// The gradient of a convolution's filters: dw = columns(x)ᵀ g, (KH·KW·C, O), a sum over all
// positions of all images, with the names of conv2d.py; naive, and as implicit GEMM. A block
// computes a tile of dw (conv2d_tile.cuh), for one share of the positions. add_shares adds the
// shares in a fixed order; their number depends on the sizes only, so two runs give the same bits.
// Large sums are bounded by arithmetic.
#include "conv2d_tile.cuh"

// dw[u, v] = Σ over images and positions of x[i·s + u·d − p, j·s + v·d − p]ᵀ g[i, j].
// Naive: one thread per number of dw.
template <typename T>
__global__ void backward_w(const T* x, const T* g, int2 kernel, int2 stride, int2 padding,
                           int2 dilation, T* dw, int n, int h, int width, int c, int oh, int ow,
                           int o) {
    GRID_STRIDE(at, (long long)kernel.x * kernel.y * c * o) {
        int column = at % o, channel = at / o % c, tap = at / o / c;
        int down = tap / kernel.y * dilation.x - padding.x;
        int right = tap % kernel.y * dilation.y - padding.y;
        T total = 0;
        for (int image = 0; image < n; image++)
            for (int i = 0; i < oh; i++)
                for (int j = 0; j < ow; j++) {
                    int row = i * stride.x + down, place = j * stride.y + right;
                    if (row < 0 || row >= h || place < 0 || place >= width) continue;
                    total += x[(((long long)image * h + row) * width + place) * c + channel]
                             * g[(((long long)image * oh + i) * ow + j) * o + column];
                }
        dw[at] = total;
    }
}

// --- the factors of implicit GEMM ----------------------------------------------------------------

// The positions that are summed over. They are the same for all threads, so they are in shared
// memory; only what is read most often is copied to registers.
struct Positions {
    Axis down, across;
    Radix radix;                      // of column, row, image
};

// The left factor, transposed: rows are elements of a patch (tap and channel), k are positions. A
// thread reads the same tap and channel (a pack of channels if EVEN) of different positions.
template <typename T, typename TILE, int BM, bool EVEN>
struct Patches {
    static const int SIZE = EVEN ? TILE::PACK : 1, WIDTH = BM / SIZE, SPACING = THREADS / WIDTH,
                     COUNT = TILE::K / SPACING, OUTSIDE = -(1 << 30);
    const T* x;
    const Positions& all;
    Radix radix;
    int channels, channel, u, v, images;
    bool by_packs, valid;
    Counter place[COUNT];             // j, i, image
    int column[COUNT];                // of x, or far outside if the row is outside
    const T* at[COUNT];
    T values[COUNT * SIZE];

    __device__ Patches(const T* p, const Positions& all, int channels, int images, int row,
                       int first)
            : x(p), all(all), radix(all.radix), channels(channels), images(images) {
        int mine = row + threadIdx.x % WIDTH * SIZE, tap = mine / channels;
        channel = mine % channels;
        u = tap / all.across.taps, v = tap % all.across.taps;
        valid = u < all.down.taps;
        by_packs = aligned(p);
#pragma unroll
        for (int q = 0; q < COUNT; q++) {
            place[q].start(first + threadIdx.x / WIDTH + q * SPACING, radix);
            locate(q);
        }
    }

    __device__ void locate(int q) {
        int row = all.down.source(place[q].mid, u), line = place[q].high * all.down.size + row;
        bool inside = valid && place[q].high < images && all.down.inside(row);
        column[q] = all.across.source(place[q].low, v);
        at[q] = x + ((long long)line * all.across.size + column[q]) * channels + channel;
        if (!inside) column[q] = OUTSIDE;
    }

    __device__ void fetch() {
#pragma unroll
        for (int q = 0; q < COUNT; q++) {
            T* to = values + q * SIZE;
#pragma unroll
            for (int s = 0; s < SIZE; s++) to[s] = 0;
            if (all.across.inside(column[q])) read_values<T, SIZE>(at[q], by_packs, to);
            if (place[q].advance(radix)) {
                column[q] += TILE::K * all.across.stride;
                at[q] += TILE::K * all.across.stride * channels;
            } else {
                locate(q);
            }
        }
    }

    __device__ void store_tile(T* shared) const {
#pragma unroll
        for (int q = 0; q < COUNT; q++) {
            T* to = shared + (threadIdx.x / WIDTH + q * SPACING) * TILE::ROW_A
                    + threadIdx.x % WIDTH * SIZE;
#pragma unroll
            for (int s = 0; s < SIZE; s++) to[s] = TILE::rounded(values[q * SIZE + s]);
        }
    }
};

// The right factor: rows of g, from row ``first`` on.
template <typename T, typename TILE, int BN, bool EVEN>
struct Gradients {
    static const int SIZE = TILE::PACK, WIDTH = BN / SIZE, SPACING = THREADS / WIDTH,
                     COUNT = TILE::K / SPACING;
    const T* at;
    int columns, column, left;        // left: rows of g from ours on
    bool by_packs;
    T values[COUNT * SIZE];

    __device__ Gradients(const T* g, int rows, int columns, int column, int first)
            : columns(columns), column(column + threadIdx.x % WIDTH * SIZE) {
        int row = first + threadIdx.x / WIDTH;
        at = g + (long long)row * columns + this->column;
        left = this->column < columns ? rows - row : 0;
        by_packs = aligned(g);
    }

    __device__ void fetch() {
#pragma unroll
        for (int q = 0; q < COUNT; q++) {
            const T* from = at + (long long)q * SPACING * columns;
#pragma unroll
            for (int s = 0; s < SIZE; s++) values[q * SIZE + s] = 0;
            if (q * SPACING < left) {
                if (EVEN)
                    read_values<T, SIZE>(from, by_packs, values + q * SIZE);
                else
#pragma unroll
                    for (int s = 0; s < SIZE; s++)
                        if (column + s < columns) values[q * SIZE + s] = from[s];
            }
        }
        at += (long long)TILE::K * columns;
        left -= TILE::K;
    }

    __device__ void store_tile(T* shared) const {
#pragma unroll
        for (int q = 0; q < COUNT; q++) {
            Pack<T> v;
#pragma unroll
            for (int s = 0; s < SIZE; s++) v.at[s] = TILE::rounded(values[q * SIZE + s]);
            *reinterpret_cast<Pack<T>*>(shared + (threadIdx.x / WIDTH + q * SPACING) * TILE::ROW_B
                                        + threadIdx.x % WIDTH * SIZE) = v;
        }
    }
};

// --- implicit GEMM -------------------------------------------------------------------------------

// dw, or with several shares (gridDim.y) their partial sums (SHARES, KH·KW·C, O) in ``out``. The
// sum over positions is long and the result small, so the sum is split over blocks (split-k): share
// s has ``slabs`` slabs of positions from s·slabs on. blockIdx.x is the tile. EVEN: channels of x
// and of g are multiples of a pack, and are read in packs.
template <typename TILE, typename T, int BM, int BN, bool EVEN>
__device__ __forceinline__ void implicit_product(
        const T* x, const T* g, int2 kernel, int2 stride, int2 padding, int2 dilation, T* out,
        int n, int positions, int slabs, int h, int width, int c, int oh, int ow, int o) {
    __shared__ Pack<T> memory[TILE::SHARED];
    T* shared = reinterpret_cast<T*>(memory);
    __shared__ Positions all;
    if (threadIdx.x == 0) {
        all.down = convolution_axis(h, oh, kernel.x, stride.x, padding.x, dilation.x);
        all.across = convolution_axis(width, ow, kernel.y, stride.y, padding.y, dilation.y);
        all.radix = radix_of(ow, oh, TILE::K);
    }
    __syncthreads();
    int rows = kernel.x * kernel.y * c, tiles = (o + BN - 1) / BN;
    int row = blockIdx.x / tiles * BM, column = blockIdx.x % tiles * BN;
    int first = blockIdx.y * slabs;
    slabs = max(0, min(slabs, (positions + TILE::K - 1) / TILE::K - first));
    Patches<T, TILE, BM, EVEN> left(x, all, c, n, row, first * TILE::K);
    Gradients<T, TILE, BN, EVEN> right(g, positions, o, column, first * TILE::K);
    typename TILE::Sums sums = {};
    multiply<TILE>(left, right, slabs, shared, sums);

    T* share = out + (long long)blockIdx.y * rows * o;
    store_sums<TILE>(sums, shared, [&](int r, int k, Pack<T> v) {
        if (row + r < rows)
            store(share + (long long)(row + r) * o + column + k, 0, o - column - k, v);
    });
}

// constants: (128, 128, 8, 8, 4, true) (64, 64, 8, 8, 8, true) (32, 32, 8, 4, 16, true) (64, 64, 8, 4, 4, false) (32, 32, 8, 4, 8, false)
template <typename T, int BM, int BN, int TM, int TN, int DEPTH, bool EVEN>
__global__ void __launch_bounds__(256, RESIDENT<T>) implicit_gemm(
        const T* x, const T* g, int2 kernel, int2 stride, int2 padding, int2 dilation, T* out,
        int n, int positions, int slabs, int h, int width, int c, int oh, int ow, int o) {
    implicit_product<Tile<T, BM, BN, TM, TN, DEPTH>, T, BM, BN, EVEN>(
        x, g, kernel, stride, padding, dilation, out, n, positions, slabs, h, width, c, oh, ow, o);
}

// The same in TF32 on tensor cores: factors rounded to ten bits of mantissa, sums in float.
// constants: (128, 128, 4, 4, 4, true) (64, 64, 2, 2, 8, true)
template <int BM, int BN, int DOWN, int ACROSS, int DEPTH, bool EVEN>
__global__ void __launch_bounds__(256, 2) tensor_core(
        const float* x, const float* g, int2 kernel, int2 stride, int2 padding, int2 dilation,
        float* out, int n, int positions, int slabs, int h, int width, int c, int oh, int ow,
        int o) {
    implicit_product<TensorTile<BM, BN, DOWN, ACROSS, DEPTH>, float, BM, BN, EVEN>(
        x, g, kernel, stride, padding, dilation, out, n, positions, slabs, h, width, c, oh, ow, o);
}

// out_i = Σ over the shares. A block of 32 × 8 threads computes 32 numbers; a row of threads adds
// every eighth share, then the first row adds the eight sums, always in this order.
template <typename T>
__global__ void add_shares(const T* partial, T* out, int shares, long long n) {
    __shared__ T sums[8][WARP];
    long long i = blockIdx.x * (long long)WARP + threadIdx.x;
    T total = 0;
    if (i < n)
#pragma unroll 4
        for (int s = threadIdx.y; s < shares; s += 8) total += partial[s * n + i];
    sums[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && i < n) {
        for (int k = 1; k < 8; k++) total += sums[k][threadIdx.x];
        out[i] = total;
    }
}
