// Convolution, channels last, forward and transposed: naive, and as implicit GEMM.
//
// y[i, j] = a(b + Σ_{u,v} x[i·s + u·d − p, j·s + v·d − p] w[u, v]), with the names of conv2d.py: x
// (N, H, W, C), w (KH·KW·C, O), y and g (N, OH, OW, O); pairs are (vertical, horizontal). A block
// computes a tile of pixels × channels of the result, with register blocking (conv2d_tile.cuh) or
// tensor cores. The sum over taps and channels is not split over blocks, so its order, and the
// bits, do not depend on the grid. Large convolutions are bounded by arithmetic. The gradient of
// the filters is in conv2d_backward_w.cu.
#include "conv2d_tile.cuh"

// --- naive: the definition -----------------------------------------------------------------------

// One thread per number of y; neighbouring threads read neighbouring w and the same x.
template <typename T>
__global__ void forward(const T* x, const T* w, const T* b, int activation, int2 kernel,
                        int2 stride, int2 padding, int2 dilation, T* y, int n, int h, int width,
                        int c, int oh, int ow, int o) {
    GRID_STRIDE(at, (long long)n * oh * ow * o) {
        int column = at % o, j = at / o % ow, i = at / o / ow % oh;
        const T* image = x + at / o / ow / oh * h * width * c;
        T total = 0;
        for (int u = 0; u < kernel.x; u++)
            for (int v = 0; v < kernel.y; v++) {
                int row = i * stride.x + u * dilation.x - padding.x;
                int place = j * stride.y + v * dilation.y - padding.y;
                if (row < 0 || row >= h || place < 0 || place >= width) continue;
                const T* pixel = image + ((long long)row * width + place) * c;
                const T* filters = w + (long long)(u * kernel.y + v) * c * o + column;
                for (int k = 0; k < c; k++) total += pixel[k] * filters[(long long)k * o];
            }
        y[at] = activate(total + b[column], activation);
    }
}

// x[i·s + u·d − p, …] = a(b + Σ g[i, j] w[u, v]ᵀ), w (O, KH·KW·C). One thread per number of x,
// which reads for each tap g at the position whose tap is this pixel, if there is one.
template <typename T>
__global__ void backward_x(const T* g, const T* w, const T* b, int activation, int2 kernel,
                           int2 stride, int2 padding, int2 dilation, T* x, int n, int h, int width,
                           int c, int oh, int ow, int o) {
    GRID_STRIDE(at, (long long)n * h * width * c) {
        int column = at % c, j = at / c % width, i = at / c / width % h;
        const T* image = g + at / c / width / h * oh * ow * o;
        T total = 0;
        for (int u = 0; u < kernel.x; u++)
            for (int v = 0; v < kernel.y; v++) {
                int row = i + padding.x - u * dilation.x, place = j + padding.y - v * dilation.y;
                if (row % stride.x || place % stride.y) continue;
                row /= stride.x, place /= stride.y;
                if (row < 0 || row >= oh || place < 0 || place >= ow) continue;
                const T* pixel = image + ((long long)row * ow + place) * o;
                const T* filters = w + (long long)(u * kernel.y + v) * c + column;
                for (int k = 0; k < o; k++)
                    total += pixel[k] * filters[(long long)k * kernel.x * kernel.y * c];
            }
        x[at] = activate(total + b[column], activation);
    }
}

// --- the factors of implicit GEMM ----------------------------------------------------------------

// The reduction: taps (u, v) of two axes, and the source's channels. It is the same for all threads
// and rarely read, so it is in shared memory and does not use registers of every thread.
struct Taps {
    Axis down, across;
    Radix radix;                      // of channel, v, u
};

// How the source is read. NUMBERS: one number at a time. PACKS: sixteen bytes at a time, all of one
// tap, if the channels are a multiple of a pack. ONE_TAP: a whole slab is of one tap, and the
// result's channels are a multiple of a pack as well; the counters of all threads are then equal,
// which needs fewer registers and branches.
const int NUMBERS = 0, PACKS = 1, ONE_TAP = 2;

// The left factor: rows are pixels of the result, k are taps and channels of the source. A warp
// reads 32 bytes of 16 pixels, or 8 numbers of 4 pixels. An address is the sum of a pointer for the
// pixel (origin) and an offset for the tap (tap_offset).
template <typename T, typename TILE, int BM, int READ>
struct Pixels {
    static const int SIZE = READ == NUMBERS ? 1 : TILE::PACK, LOW = READ == NUMBERS ? 8 : 2,
                     COUNT = BM * TILE::K / SIZE / THREADS,
                     ROWS = LOW * BM > THREADS ? LOW * BM / THREADS : 1,
                     GROUPS = LOW * BM > THREADS ? 1 : THREADS / (LOW * BM),
                     SPACING = GROUPS * LOW * SIZE, PACKS_OF_ROW = COUNT / ROWS,
                     PLACES = READ == ONE_TAP ? 1 : PACKS_OF_ROW;
    const Taps& taps;
    int channels;
    bool by_packs;
    int top[ROWS], left[ROWS], tap_offset[PLACES];
    const T* origin[ROWS];            // may be outside x; ``inside`` is checked before a read
    Counter place[PLACES];            // channel, v, u
    bool inside[PLACES][ROWS];
    T values[COUNT * SIZE];

    __device__ static int row(int r) {
        int i = threadIdx.x / LOW + r * (THREADS / LOW);
        return GROUPS > 1 ? i % BM : i;
    }
    __device__ static int k() {
        return ((GROUPS > 1 ? threadIdx.x / (LOW * BM) * LOW : 0) + threadIdx.x % LOW) * SIZE;
    }

    __device__ Pixels(const T* p, const Taps& t, int channels, int first, int pixels)
            : taps(t), channels(channels), by_packs(aligned(p)) {
        const Axis &down = taps.down, &across = taps.across;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int pixel = first + row(r), j = pixel % across.count, i = pixel / across.count;
            left[r] = across.source(j, 0);
            top[r] = pixel < pixels ? down.source(i % down.count, 0) : -(1 << 30);
            long long line = (long long)(i / down.count) * down.size + top[r];
            origin[r] = p + (line * across.size + left[r]) * channels
                        + (READ == ONE_TAP ? k() : 0);
        }
#pragma unroll
        for (int q = 0; q < PLACES; q++) {
            place[q].start(READ == ONE_TAP ? 0 : k() + q * SPACING, taps.radix);
            locate(q);
        }
    }

    // The offset of a new tap, and for which pixels it is inside the source.
    __device__ void locate(int q) {
        int down = place[q].high * taps.down.step, across = place[q].mid * taps.across.step;
        tap_offset[q] = (down * taps.across.size + across) * channels + place[q].low;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            inside[q][r] = place[q].high < taps.down.taps && taps.down.inside(top[r] + down)
                           && taps.across.inside(left[r] + across);
    }

    __device__ void fetch() {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int r = i % ROWS, q = i / ROWS % PLACES;
            T* to = values + i * SIZE;
#pragma unroll
            for (int s = 0; s < SIZE; s++) to[s] = 0;
            if (inside[q][r])
                read_values<T, SIZE>(
                    origin[r] + tap_offset[q] + (READ == ONE_TAP ? i / ROWS * SPACING : 0),
                    by_packs, to);
        }
#pragma unroll
        for (int q = 0; q < PLACES; q++)
            if (READ == ONE_TAP ? place[q].next(TILE::K, channels, taps.radix.mid)
                                : place[q].advance(taps.radix)) tap_offset[q] += TILE::K;
            else locate(q);
    }

    __device__ void store_tile(T* shared) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
#pragma unroll
            for (int s = 0; s < SIZE; s++)
                shared[(k() + i / ROWS * SPACING + s) * TILE::ROW_A + row(i % ROWS)] =
                    TILE::rounded(values[i * SIZE + s]);
    }
};

// The right factor, (taps and channels of the source, channels of the result): tap t and channel k
// of the filters are at w + t·of_tap + k·of_channel. With ONE_TAP it has no counter but uses
// ``lead``, the left factor's, which has already advanced to the next slab.
template <typename T, typename TILE, int BN, int READ>
struct Filters {
    static const int SIZE = TILE::PACK, WIDTH = BN / SIZE, SPACING = THREADS / WIDTH,
                     COUNT = TILE::K > SPACING ? TILE::K / SPACING : 1,
                     PLACES = READ == ONE_TAP ? 1 : COUNT;
    static const bool SPARE = TILE::K < SPACING;        // some threads have no row
    const T* w;
    const Taps& taps;
    const Counter& lead;
    int kernel_width, of_tap, of_channel, columns, column, row, tap_offset[PLACES];
    bool by_packs, inside[PLACES];
    Counter place[PLACES];
    T values[COUNT * SIZE];

    __device__ Filters(const T* p, const Taps& t, const Counter& lead, int kernel_width, int of_tap,
                       int of_channel, int first, int columns)
            : w(p), taps(t), lead(lead), kernel_width(kernel_width), of_tap(of_tap),
              of_channel(of_channel), columns(columns) {
        column = first + threadIdx.x % WIDTH * SIZE;
        row = threadIdx.x / WIDTH;
        by_packs = aligned(p) && (READ == ONE_TAP || (columns % SIZE == 0 && column < columns));
#pragma unroll
        for (int q = 0; q < PLACES; q++) {
            if (READ != ONE_TAP) place[q].start(row + q * SPACING, taps.radix);
            locate(q);
        }
    }

    __device__ void locate(int q) {
        const Counter& at = READ == ONE_TAP ? lead : place[q];
        int tap = (taps.down.first + at.high * taps.down.every) * kernel_width
                  + taps.across.first + at.mid * taps.across.every;
        tap_offset[q] = tap * of_tap + (READ == ONE_TAP ? row : at.low) * of_channel + column;
        inside[q] = (!SPARE || row < TILE::K)
                    && (READ == ONE_TAP ? column < columns : at.high < taps.down.taps);
    }

    __device__ void fetch() {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const T* from = w + tap_offset[i % PLACES]
                            + (READ == ONE_TAP ? i * SPACING * of_channel : 0);
#pragma unroll
            for (int s = 0; s < SIZE; s++) values[i * SIZE + s] = 0;
            if (inside[i % PLACES]) {
                if (READ == ONE_TAP || by_packs)
                    read_values<T, SIZE>(from, by_packs, values + i * SIZE);
                else
#pragma unroll
                    for (int s = 0; s < SIZE; s++)
                        if (column + s < columns) values[i * SIZE + s] = from[s];
            }
        }
#pragma unroll
        for (int q = 0; q < PLACES; q++)
            if (READ == ONE_TAP ? lead.low > 0 : place[q].advance(taps.radix))
                tap_offset[q] += TILE::K * of_channel;
            else
                locate(q);
    }

    __device__ void store_tile(T* shared) const {
        if (!SPARE || row < TILE::K)
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                Pack<T> v;
#pragma unroll
                for (int s = 0; s < SIZE; s++) v.at[s] = TILE::rounded(values[i * SIZE + s]);
                *reinterpret_cast<Pack<T>*>(
                    shared + (row + i * SPACING) * TILE::ROW_B + threadIdx.x % WIDTH * SIZE) = v;
            }
    }
};

// --- implicit GEMM -------------------------------------------------------------------------------

// Both convolutions above are y = a(b + patches of x · w), pixels of y × channels of y, reduced
// over taps and channels of x (if ``transposed``, x is g and y is x): one function, two geometries.
// The transposed one has separate blocks (blockIdx.y, z) for the stride·stride phases of y's
// pixels. All pixels of a phase use the same taps, so nothing is multiplied by the zeros between
// strides, for any stride and dilation. blockIdx.x is the tile; tiles of the same pixels are
// neighbours.
template <typename TILE, typename T, int BM, int BN, int READ>
__device__ __forceinline__ void implicit_product(
        const T* x, const T* w, const T* b, int activation, int2 kernel, int2 stride, int2 padding,
        int2 dilation, T* y, bool transposed, int pixels, int h, int width, int c, int oh, int ow,
        int o) {
    __shared__ Pack<T> memory[TILE::SHARED];
    __shared__ long long places[BM];                  // of the tile's pixels in y
    T* shared = reinterpret_cast<T*>(memory);
    __shared__ Taps taps;
    if (threadIdx.x == 0) {
        taps.down = transposed
            ? transposed_axis(h, oh, kernel.x, stride.x, padding.x, dilation.x, blockIdx.y)
            : convolution_axis(h, oh, kernel.x, stride.x, padding.x, dilation.x);
        taps.across = transposed
            ? transposed_axis(width, ow, kernel.y, stride.y, padding.y, dilation.y, blockIdx.z)
            : convolution_axis(width, ow, kernel.y, stride.y, padding.y, dilation.y);
        taps.radix = radix_of(c, taps.across.taps, TILE::K);
    }
    __syncthreads();
    const Axis &down = taps.down, &across = taps.across;
    int rows = pixels / (oh * ow) * down.count * across.count, tiles = (o + BN - 1) / BN;
    int first = blockIdx.x / tiles * BM, column = blockIdx.x % tiles * BN;
    if (first >= rows) return;

    if (threadIdx.x < BM) {
        int pixel = first + threadIdx.x, j = pixel % across.count, i = pixel / across.count;
        long long line = i / down.count * (long long)oh + down.start
                         + i % down.count * down.spacing;
        long long place = (line * ow + across.start + j * across.spacing) * o;
        places[threadIdx.x] = pixel < rows ? place : -1;
    }
    Pixels<T, TILE, BM, READ> left(x, taps, c, first, rows);
    Filters<T, TILE, BN, READ> right(w, taps, left.place[0], kernel.y, transposed ? o : c * o,
                               transposed ? kernel.x * kernel.y * o : o, column, o);
    typename TILE::Sums sums = {};
    int sum = down.taps * across.taps * c;
    multiply<TILE>(left, right, (sum + TILE::K - 1) / TILE::K, shared, sums);

    int mine = column + threadIdx.x % (BN / TILE::PACK) * TILE::PACK;
    Pack<T> bias = load(b + mine, 0, o - mine);       // of the columns that this thread stores
    store_sums<TILE>(sums, shared, [&](int row, int, Pack<T> v) {
        if (places[row] < 0 || mine >= o) return;
        for (int k = 0; k < TILE::PACK; k++)
            v.at[k] = activate(v.at[k] + bias.at[k], activation);
        store(y + places[row] + mine, 0, o - mine, v);
    });
}

// constants: (128, 128, 8, 8, 4, 2) (128, 64, 8, 8, 4, 2) (64, 64, 8, 8, 8, 2) (64, 32, 8, 4, 8, 2) (32, 32, 8, 4, 8, 2) (64, 64, 8, 4, 8, 1) (32, 32, 8, 4, 8, 1) (128, 4, 4, 4, 8, 1) (64, 64, 8, 4, 4, 0) (32, 32, 8, 4, 8, 0) (128, 4, 4, 4, 4, 0)
template <typename T, int BM, int BN, int TM, int TN, int DEPTH, int READ>
__global__ void __launch_bounds__(256, RESIDENT<T>) implicit_gemm(
        const T* x, const T* w, const T* b, int activation, int2 kernel, int2 stride, int2 padding,
        int2 dilation, T* y, bool transposed, int pixels, int h, int width, int c, int oh, int ow,
        int o) {
    implicit_product<Tile<T, BM, BN, TM, TN, DEPTH>, T, BM, BN, READ>(
        x, w, b, activation, kernel, stride, padding, dilation, y, transposed, pixels, h, width, c,
        oh, ow, o);
}

// The same in TF32 on tensor cores: factors rounded to ten bits of mantissa, sums in float.
// constants: (128, 128, 4, 4, 4, 2) (128, 64, 2, 4, 4, 2) (64, 64, 2, 2, 8, 2) (64, 64, 2, 2, 8, 1)
template <int BM, int BN, int DOWN, int ACROSS, int DEPTH, int READ>
__global__ void __launch_bounds__(256, 2) tensor_core(
        const float* x, const float* w, const float* b, int activation, int2 kernel, int2 stride,
        int2 padding, int2 dilation, float* y, bool transposed, int pixels, int h, int width, int c,
        int oh, int ow, int o) {
    implicit_product<TensorTile<BM, BN, DOWN, ACROSS, DEPTH>, float, BM, BN, READ>(
        x, w, b, activation, kernel, stride, padding, dilation, y, transposed, pixels, h, width, c,
        oh, ow, o);
}
