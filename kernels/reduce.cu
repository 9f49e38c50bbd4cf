// Sum, mean, maximum and minimum over the middle axis of x (A, R, B); the sum of a whole array;
// softmax, log-softmax, logsumexp over rows, and their gradients. Rows (B = 1) are reduced by
// groups of lanes, columns by tiles (rows.cuh); a long sum is split into shares over blockIdx.y,
// whose results a second launch reduces. The order depends on the sizes only, so two runs give the
// same bits. All kernels are memory-bound.
#include "rows.cuh"

const int AHEAD = 4;                  // loads that a thread issues before it adds

// B = 1: y_n = (op over the row) / divisor, x (N, D). `lanes` threads reduce a row, or if
// gridDim.y > 1 a share of it, and y is (N, shares). Loads are coalesced, also for short rows, of
// which a warp reads several.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void rows(const T* x, T* y, int op, T divisor, long long n, long long d,
                     long long share, int lanes) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    Lane l = lane_of(n, lanes);
    const T* from = x + l.row * d;
    long long first = blockIdx.y * share / SIZE, last = min(d, (blockIdx.y + 1) * share) / SIZE;
    Vec<T, SIZE> v[AHEAD], total = splat<SIZE>(neutral<T>(op));
    for (long long i = first + l.lane; i < last; i += AHEAD * lanes) {
        for (int u = 0; u < AHEAD; u++)
            v[u] = i + u * lanes < last ? read<SIZE>(from, i + u * lanes)
                                        : splat<SIZE>(neutral<T>(op));
        for (int u = 0; u < AHEAD; u++)
            for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v[u].at[k]);
    }
    for (int k = 1; k < SIZE; k++) total.at[0] = combine(op, total.at[0], total.at[k]);
    T result = reduce_lanes(op, total.at[0], lanes);
    if (l.valid && l.lane == 0) y[l.row * gridDim.y + blockIdx.y] = result / divisor;
}

// B > 1: y_ab = (op over r of x_arb) / divisor. A block reduces a tile of columns of one a, or if
// gridDim.y > 1 a share of its rows, and y is (A, shares, B). If B is small, a block reads whole
// rows, which are contiguous.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void columns(const T* x, T* y, int op, T divisor, long long r, int b, long long share,
                        int width) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = b / SIZE;
    long long a = blockIdx.x;
    Tile t = tile_of(split(a, (across + width - 1) / width), blockIdx.y, across, width, r, share);
    const T* from = x + a * r * b;
    Vec<T, SIZE> v[AHEAD], total = splat<SIZE>(neutral<T>(op));
    if (t.valid)
        for (long long i = t.first + t.down; i < t.last; i += AHEAD * t.high) {
            for (int u = 0; u < AHEAD; u++)
                v[u] = i + u * t.high < t.last
                           ? read<SIZE>(from, (i + u * t.high) * across + t.column)
                           : splat<SIZE>(neutral<T>(op));
            for (int u = 0; u < AHEAD; u++)
                for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v[u].at[k]);
        }
    total = reduce_columns(op, total, t, width);
    for (int k = 0; k < SIZE; k++) total.at[k] /= divisor;
    if (t.valid && t.down == 0)
        write(y, (a * gridDim.y + blockIdx.y) * across + t.column, total);
}

// The same if R B is too small for a block: a thread computes one y_ab (``wide``: sixteen bytes of
// y). A warp reads the R rows of several a, which are close together in memory.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void each(const T* x, T* y, int op, T divisor, long long a, int r, int b) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = b / SIZE;
    GRID_STRIDE(i, a * across) {
        long long first = i;
        int column = split(first, across);
        Vec<T, SIZE> total = splat<SIZE>(neutral<T>(op));
#pragma unroll 4
        for (int j = 0; j < r; j++) {
            Vec<T, SIZE> v = read<SIZE>(x, (first * r + j) * across + column);
            for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v.at[k]);
        }
        for (int k = 0; k < SIZE; k++) total.at[k] /= divisor;
        write(y, i, total);
    }
}

// --- the sum of a whole array, in double ---------------------------------------------------------

// Σ over this block's packs of x, in a grid-stride loop; returned to every thread.
template <typename T>
__device__ double sum_of_block(const T* x, long long n) {
    const int SIZE = Pack<T>::SIZE;
    long long step = (long long)gridDim.x * blockDim.x;
    double total = 0;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < packs<T>(n);
         i += AHEAD * step) {
        Pack<T> v[AHEAD];
        for (int u = 0; u < AHEAD; u++) v[u] = load(x, i + u * step, n);
        for (int u = 0; u < AHEAD; u++)
            for (int k = 0; k < SIZE; k++) total += v[u].at[k];
    }
    return block_sum(total);
}

// y = scale Σ x by one block, for small arrays: a single launch.
template <typename T>
__global__ void __launch_bounds__(1024) sum_all(const T* x, double scale, T* y, long long n) {
    double total = sum_of_block(x, n);
    if (threadIdx.x == 0) y[0] = T(scale * total);
}

// For larger arrays, first one partial sum per block…
template <typename T>
__global__ void sum_shares(const T* x, long long n, double* partial) {
    double total = sum_of_block(x, n);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// …then y = scale Σ of the partial sums.
template <typename T>
__global__ void add_shares(const double* partial, double scale, T* y, int n) {
    double total = sum_of_block(partial, n);
    if (threadIdx.x == 0) y[0] = T(scale * total);
}

// --- softmax over rows ---------------------------------------------------------------------------

const int SOFTMAX = 0, LOG_SOFTMAX = 1, LOGSUMEXP = 2;
const int IN_REGISTERS = 8;                   // numbers of a row that a lane keeps in registers

// With m = max x over the row: softmax e^(x − m) / Σ e^(x − m), its logarithm, or the logarithm of
// the sum, plus m. A group of lanes per row; a lane keeps IN_REGISTERS numbers in registers, and
// reads the others again.
template <int MODE, typename T>
__device__ void softmax_forward(const T* x, T* y, long long n, int d, int lanes) {
    Lane l = lane_of(n, lanes);
    const T* from = x + l.row * d;
    T v[IN_REGISTERS], m = -infinity<T>(), sum = 0;
    for (int k = 0; k < IN_REGISTERS; k++)
        v[k] = l.lane + k * lanes < d ? from[l.lane + k * lanes] : -infinity<T>();
    for (int k = 0; k < IN_REGISTERS; k++) m = combine(LARGEST, m, v[k]);
    int rest = l.lane + IN_REGISTERS * lanes;
    for (int j = rest; j < d; j += lanes) m = combine(LARGEST, m, from[j]);
    m = reduce_lanes(LARGEST, m, lanes);
    if (MODE == LOGSUMEXP && !(fabs(m) < infinity<T>())) m = 0;
    for (int k = 0; k < IN_REGISTERS; k++)
        if (l.lane + k * lanes < d) {
            v[k] -= m;
            T e = exp(v[k]);
            sum += e;
            if (MODE == SOFTMAX) v[k] = e;
        }
    for (int j = rest; j < d; j += lanes) sum += exp(from[j] - m);
    sum = reduce_lanes(SUM, sum, lanes);
    if (!l.valid) return;
    if (MODE == LOGSUMEXP) {
        if (l.lane == 0) y[l.row] = log(sum) + m;
        return;
    }
    T shift = log(sum), *to = y + l.row * d;
    for (int k = 0; k < IN_REGISTERS; k++)
        if (l.lane + k * lanes < d)
            to[l.lane + k * lanes] = MODE == SOFTMAX ? v[k] / sum : v[k] - shift;
    for (int j = rest; j < d; j += lanes)
        to[j] = MODE == SOFTMAX ? exp(from[j] - m) / sum : from[j] - m - shift;
}

template <typename T>
__global__ void softmax(const T* x, T* y, long long n, int d, int lanes) {
    softmax_forward<SOFTMAX>(x, y, n, d, lanes);
}

template <typename T>
__global__ void log_softmax(const T* x, T* y, long long n, int d, int lanes) {
    softmax_forward<LOG_SOFTMAX>(x, y, n, d, lanes);
}

template <typename T>
__global__ void logsumexp(const T* x, T* y, long long n, int d, int lanes) {
    softmax_forward<LOGSUMEXP>(x, y, n, d, lanes);
}

// dx = y (dy − Σ dy y) for softmax, dx = dy − e^y Σ dy for its logarithm, Σ over the row; lanes and
// registers as above.
template <int MODE, typename T>
__device__ void softmax_gradient(const T* dy, const T* y, T* dx, long long n, int d, int lanes) {
    Lane l = lane_of(n, lanes);
    long long start = l.row * d;
    T g[IN_REGISTERS], v[IN_REGISTERS], sum = 0;
    for (int k = 0; k < IN_REGISTERS; k++) {
        int j = l.lane + k * lanes;
        g[k] = j < d ? dy[start + j] : T(0);
        v[k] = j < d ? y[start + j] : T(0);
    }
    for (int k = 0; k < IN_REGISTERS; k++) sum += MODE == SOFTMAX ? g[k] * v[k] : g[k];
    int rest = l.lane + IN_REGISTERS * lanes;
    for (int j = rest; j < d; j += lanes)
        sum += MODE == SOFTMAX ? dy[start + j] * y[start + j] : dy[start + j];
    sum = reduce_lanes(SUM, sum, lanes);
    if (!l.valid) return;
    for (int k = 0; k < IN_REGISTERS; k++)
        if (l.lane + k * lanes < d)
            dx[start + l.lane + k * lanes] =
                MODE == SOFTMAX ? v[k] * (g[k] - sum) : g[k] - exp(v[k]) * sum;
    for (int j = rest; j < d; j += lanes) {
        T gradient = dy[start + j], output = y[start + j];
        dx[start + j] =
            MODE == SOFTMAX ? output * (gradient - sum) : gradient - exp(output) * sum;
    }
}

template <typename T>
__global__ void softmax_backward(const T* dy, const T* y, T* dx, long long n, int d, int lanes) {
    softmax_gradient<SOFTMAX>(dy, y, dx, n, d, lanes);
}

template <typename T>
__global__ void log_softmax_backward(const T* dy, const T* y, T* dx, long long n, int d,
                                     int lanes) {
    softmax_gradient<LOG_SOFTMAX>(dy, y, dx, n, d, lanes);
}
