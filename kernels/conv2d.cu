// Convolution, channels last, forwards and transposed: naive, and as an implicit product.
//
// Names are those of conv2d.py: x (N, H, W, C), w (KH·KW·C, O), y and g (N, OH, OW, O); pairs are
// (vertical, horizontal). The gradient of the filters is in conv2d_backward_w.cu.
#include "conv2d_tile.cuh"

// --- naive: the definition, and the ladder's first rung ------------------------------------------

// y[i, j] = a(b + Σ_{u,v} x[i·s + u·d − p, j·s + v·d − p] w[u, v]). A thread owns one number of y;
// threads side by side read w side by side, and the same x.
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

// x[i·s + u·d − p, …] = a(b + Σ g[i, j] w[u, v]ᵀ), w (O, KH·KW·C). A thread owns one number of x
// and gathers: of each tap, g at the position from which the tap leads here, if there is one.
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

// --- the factors of the implicit product ---------------------------------------------------------

// The reduction: taps (u, v) of two axes, and the source's channels. It is the same for all threads
// and mostly at rest, so it lies in shared memory, not in everybody's registers.
struct Taps {
    Axis down, across;
    Radix radix;                      // of channel, v, u
};

// How the source is read. NUMBERS: one by one. PACKS: sixteen bytes at a time, which are of one
// tap, for channels are a multiple of a pack. ONE_TAP: so is a whole slab, and the result's
// channels are a multiple of a pack as well; all threads count alike then, and have less to decide.
const int NUMBERS = 0, PACKS = 1, ONE_TAP = 2;

// The left factor, rows of it: pixels of the result; along k: taps and channels of the source. A
// warp reads 16 pixels' 32 bytes, or 4 pixels' 8 numbers. What a pixel (origin) and what a tap
// (away) has to do with an address is kept apart.
template <typename T, typename TILE, int BM, int READ>
struct Pixels {
    static const int SIZE = READ == NUMBERS ? 1 : TILE::PACK, LOW = READ == NUMBERS ? 8 : 2,
                     COUNT = BM * TILE::K / SIZE / THREADS,
                     ROWS = LOW * BM > THREADS ? LOW * BM / THREADS : 1,
                     GROUPS = LOW * BM > THREADS ? 1 : THREADS / (LOW * BM),
                     APART = GROUPS * LOW * SIZE, PACKS_OF_ROW = COUNT / ROWS,
                     PLACES = READ == ONE_TAP ? 1 : PACKS_OF_ROW;
    const Taps& taps;
    int channels;
    bool whole;
    int top[ROWS], left[ROWS], away[PLACES];
    const T* origin[ROWS];            // may lie outside; what is inside is known before it is read
    Counter place[PLACES];            // channel, v, u
    bool inside[PLACES][ROWS];
    T held[COUNT * SIZE];

    __device__ static int row(int r) {
        int i = threadIdx.x / LOW + r * (THREADS / LOW);
        return GROUPS > 1 ? i % BM : i;
    }
    __device__ static int k() {
        return ((GROUPS > 1 ? threadIdx.x / (LOW * BM) * LOW : 0) + threadIdx.x % LOW) * SIZE;
    }

    __device__ Pixels(const T* p, const Taps& t, int channels, int first, int pixels)
            : taps(t), channels(channels), whole(aligned(p)) {
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
            place[q].start(READ == ONE_TAP ? 0 : k() + q * APART, taps.radix);
            look(q);
        }
    }

    // Where a new tap leads, and from which pixels it leads outside.
    __device__ void look(int q) {
        int down = place[q].high * taps.down.step, across = place[q].mid * taps.across.step;
        away[q] = (down * taps.across.size + across) * channels + place[q].low;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            inside[q][r] = place[q].high < taps.down.taps && taps.down.inside(top[r] + down)
                           && taps.across.inside(left[r] + across);
    }

    __device__ void fetch() {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int r = i % ROWS, q = i / ROWS % PLACES;
            T* to = held + i * SIZE;
#pragma unroll
            for (int s = 0; s < SIZE; s++) to[s] = 0;
            if (inside[q][r])
                take<T, SIZE>(origin[r] + away[q] + (READ == ONE_TAP ? i / ROWS * APART : 0), whole,
                              to);
        }
#pragma unroll
        for (int q = 0; q < PLACES; q++)
            if (READ == ONE_TAP ? place[q].next(TILE::K, channels, taps.radix.mid)
                                : place[q].advance(taps.radix)) away[q] += TILE::K;
            else look(q);
    }

    __device__ void put(T* shared) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
#pragma unroll
            for (int s = 0; s < SIZE; s++)
                shared[(k() + i / ROWS * APART + s) * TILE::ROW_A + row(i % ROWS)] =
                    TILE::kept(held[i * SIZE + s]);
    }
};

// The right factor, (taps and channels of the source, channels of the result): tap t and channel k
// of the filters are at w + t·of_tap + k·of_channel. With ONE_TAP it has no count of its own but
// follows ``lead``, the left factor's, which has just gone on to the slab after the one fetched.
template <typename T, typename TILE, int BN, int READ>
struct Filters {
    static const int SIZE = TILE::PACK, WIDTH = BN / SIZE, APART = THREADS / WIDTH,
                     COUNT = TILE::K > APART ? TILE::K / APART : 1,
                     PLACES = READ == ONE_TAP ? 1 : COUNT;
    static const bool SPARE = TILE::K < APART;        // some threads have no row
    const T* w;
    const Taps& taps;
    const Counter& lead;
    int kernel_width, of_tap, of_channel, columns, column, row, away[PLACES];
    bool whole, inside[PLACES];
    Counter place[PLACES];
    T held[COUNT * SIZE];

    __device__ Filters(const T* p, const Taps& t, const Counter& lead, int kernel_width, int of_tap,
                       int of_channel, int first, int columns)
            : w(p), taps(t), lead(lead), kernel_width(kernel_width), of_tap(of_tap),
              of_channel(of_channel), columns(columns) {
        column = first + threadIdx.x % WIDTH * SIZE;
        row = threadIdx.x / WIDTH;
        whole = aligned(p) && (READ == ONE_TAP || (columns % SIZE == 0 && column < columns));
#pragma unroll
        for (int q = 0; q < PLACES; q++) {
            if (READ != ONE_TAP) place[q].start(row + q * APART, taps.radix);
            look(q);
        }
    }

    __device__ void look(int q) {
        const Counter& at = READ == ONE_TAP ? lead : place[q];
        int tap = (taps.down.first + at.high * taps.down.every) * kernel_width
                  + taps.across.first + at.mid * taps.across.every;
        away[q] = tap * of_tap + (READ == ONE_TAP ? row : at.low) * of_channel + column;
        inside[q] = (!SPARE || row < TILE::K)
                    && (READ == ONE_TAP ? column < columns : at.high < taps.down.taps);
    }

    __device__ void fetch() {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const T* from = w + away[i % PLACES] + (READ == ONE_TAP ? i * APART * of_channel : 0);
#pragma unroll
            for (int s = 0; s < SIZE; s++) held[i * SIZE + s] = 0;
            if (inside[i % PLACES]) {
                if (READ == ONE_TAP || whole)
                    take<T, SIZE>(from, whole, held + i * SIZE);
                else
#pragma unroll
                    for (int s = 0; s < SIZE; s++)
                        if (column + s < columns) held[i * SIZE + s] = from[s];
            }
        }
#pragma unroll
        for (int q = 0; q < PLACES; q++)
            if (READ == ONE_TAP ? lead.low > 0 : place[q].advance(taps.radix))
                away[q] += TILE::K * of_channel;
            else
                look(q);
    }

    __device__ void put(T* shared) const {
        if (!SPARE || row < TILE::K)
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                Pack<T> v;
#pragma unroll
                for (int s = 0; s < SIZE; s++) v.at[s] = TILE::kept(held[i * SIZE + s]);
                *reinterpret_cast<Pack<T>*>(
                    shared + (row + i * APART) * TILE::ROW_B + threadIdx.x % WIDTH * SIZE) = v;
            }
    }
};

// --- implicit product ----------------------------------------------------------------------------

// Both maps above are y = a(b + gathered x · w), pixels of y × channels of y, reduced over taps and
// channels of x (if ``transposed``, x is g and y is x): one function, two geometries. The transposed
// one has blocks for each of the stride·stride phases of y's pixels (blockIdx.y, z), in which the
// taps that count are the same: no multiplication by the zeros between strides, for any stride and
// dilation. blockIdx.x says which tile; the tiles of the same pixels are neighbours.
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
            ? spreading(h, oh, kernel.x, stride.x, padding.x, dilation.x, blockIdx.y)
            : sliding(h, oh, kernel.x, stride.x, padding.x, dilation.x);
        taps.across = transposed
            ? spreading(width, ow, kernel.y, stride.y, padding.y, dilation.y, blockIdx.z)
            : sliding(width, ow, kernel.y, stride.y, padding.y, dilation.y);
        taps.radix = radix_of(c, taps.across.taps, TILE::K);
    }
    __syncthreads();
    const Axis &down = taps.down, &across = taps.across;
    int rows = pixels / (oh * ow) * down.count * across.count, tiles = (o + BN - 1) / BN;
    int first = blockIdx.x / tiles * BM, column = blockIdx.x % tiles * BN;
    if (first >= rows) return;

    if (threadIdx.x < BM) {
        int pixel = first + threadIdx.x, j = pixel % across.count, i = pixel / across.count;
        long long line = i / down.count * (long long)oh + down.start + i % down.count * down.apart;
        places[threadIdx.x] = pixel < rows ? (line * ow + across.start + j * across.apart) * o : -1;
    }
    Pixels<T, TILE, BM, READ> left(x, taps, c, first, rows);
    Filters<T, TILE, BN, READ> right(w, taps, left.place[0], kernel.y, transposed ? o : c * o,
                               transposed ? kernel.x * kernel.y * o : o, column, o);
    typename TILE::Sums sums = {};
    int sum = down.taps * across.taps * c;
    multiply<TILE>(left, right, (sum + TILE::K - 1) / TILE::K, shared, sums);

    int mine = column + threadIdx.x % (BN / TILE::PACK) * TILE::PACK;
    Pack<T> bias = load(b + mine, 0, o - mine);       // of the columns that a thread delivers
    deliver<TILE>(sums, shared, [&](int row, int, Pack<T> v) {
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
