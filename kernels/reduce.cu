// Sums, means, largest and smallest numbers over the middle axis of x (A, R, B); the sum of a whole
// array; softmax and its relatives over rows. All in a fixed order, so bits repeat.
#include "rows.cuh"

const int AHEAD = 4;                  // loads that a thread has on their way before it adds

// B = 1: y_n = (op over the row) / divisor, x (N, D). `lanes` threads own a row, or if
// gridDim.y > 1 a share of it, and y is (N, shares). Neighbouring lanes read neighbouring numbers,
// also where rows are short and a warp reads several.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void rows(const T* x, T* y, int op, T divisor, long long n, long long d,
                     long long share, int lanes) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    Lane l = lane_of(n, lanes);
    const T* from = x + l.row * d;
    long long first = blockIdx.y * share / SIZE, last = min(d, (blockIdx.y + 1) * share) / SIZE;
    Some<T, SIZE> v[AHEAD], total = all<SIZE>(neutral<T>(op));
    for (long long i = first + l.lane; i < last; i += AHEAD * lanes) {
        for (int u = 0; u < AHEAD; u++)
            v[u] = i + u * lanes < last ? read<SIZE>(from, i + u * lanes)
                                        : all<SIZE>(neutral<T>(op));
        for (int u = 0; u < AHEAD; u++)
            for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v[u].at[k]);
    }
    for (int k = 1; k < SIZE; k++) total.at[0] = combine(op, total.at[0], total.at[k]);
    T result = over_lanes(op, total.at[0], lanes);
    if (l.mine && l.lane == 0) y[l.row * gridDim.y + blockIdx.y] = result / divisor;
}

// B > 1: y_ab = (op over r of x_arb) / divisor. A block owns a tile of columns of one a, or if
// gridDim.y > 1 a share of its rows, and y is (A, shares, B). Where B is small a block reads whole
// rows, one after another.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void columns(const T* x, T* y, int op, T divisor, long long r, int b, long long share,
                        int width) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = b / SIZE;
    long long a = blockIdx.x;
    Tile t = tile_of(split(a, (across + width - 1) / width), blockIdx.y, across, width, r, share);
    const T* from = x + a * r * b;
    Some<T, SIZE> v[AHEAD], total = all<SIZE>(neutral<T>(op));
    if (t.mine)
        for (long long i = t.first + t.down; i < t.last; i += AHEAD * t.high) {
            for (int u = 0; u < AHEAD; u++)
                v[u] = i + u * t.high < t.last
                           ? read<SIZE>(from, (i + u * t.high) * across + t.column)
                           : all<SIZE>(neutral<T>(op));
            for (int u = 0; u < AHEAD; u++)
                for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v[u].at[k]);
        }
    total = down_columns(op, total, t, width);
    for (int k = 0; k < SIZE; k++) total.at[k] /= divisor;
    if (t.mine && t.down == 0)
        write(y, (a * gridDim.y + blockIdx.y) * across + t.column, total);
}

// The same where R B is too little for a block: a thread owns one y_ab, or wide sixteen bytes of y.
// A warp reads the R rows of several a, which lie close together.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void each(const T* x, T* y, int op, T divisor, long long a, int r, int b) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = b / SIZE;
    GRID_STRIDE(i, a * across) {
        long long first = i;
        int column = split(first, across);
        Some<T, SIZE> total = all<SIZE>(neutral<T>(op));
#pragma unroll 4
        for (int j = 0; j < r; j++) {
            Some<T, SIZE> v = read<SIZE>(x, (first * r + j) * across + column);
            for (int k = 0; k < SIZE; k++) total.at[k] = combine(op, total.at[k], v.at[k]);
        }
        for (int k = 0; k < SIZE; k++) total.at[k] /= divisor;
        write(y, i, total);
    }
}

// --- the sum of a whole array, in double ---------------------------------------------------------

// Σ over this block's packs of x, every gridDim.x-th tile of them, in every thread.
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

// y = scale Σ x by one block: for arrays that one is quick enough for, a single launch.
template <typename T>
__global__ void __launch_bounds__(1024) sum_all(const T* x, double scale, T* y, long long n) {
    double total = sum_of_block(x, n);
    if (threadIdx.x == 0) y[0] = T(scale * total);
}

// For larger ones, first one number a block…
template <typename T>
__global__ void sum_shares(const T* x, long long n, double* partial) {
    double total = sum_of_block(x, n);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// …then y = scale Σ of those.
template <typename T>
__global__ void add_shares(const double* partial, double scale, T* y, int n) {
    double total = sum_of_block(partial, n);
    if (threadIdx.x == 0) y[0] = T(scale * total);
}

// --- exponentials over rows ----------------------------------------------------------------------

const int SOFTMAX = 0, LOG_SOFTMAX = 1, LOGSUMEXP = 2;
const int HELD = 8;                   // numbers of a row that a lane keeps in registers

// With m = max x over the row: softmax e^(x − m) / Σ e^(x − m), its logarithm, or the logarithm of
// the sum, plus m. Lanes own a row and read it once; what goes beyond HELD numbers a lane they read
// again.
template <int what, typename T>
__device__ void exponentials(const T* x, T* y, long long n, int d, int lanes) {
    Lane l = lane_of(n, lanes);
    const T* from = x + l.row * d;
    T v[HELD], m = -infinity<T>(), sum = 0;
    for (int k = 0; k < HELD; k++)
        v[k] = l.lane + k * lanes < d ? from[l.lane + k * lanes] : -infinity<T>();
    for (int k = 0; k < HELD; k++) m = combine(LARGEST, m, v[k]);
    int rest = l.lane + HELD * lanes;
    for (int j = rest; j < d; j += lanes) m = combine(LARGEST, m, from[j]);
    m = over_lanes(LARGEST, m, lanes);
    if (what == LOGSUMEXP && !(fabs(m) < infinity<T>())) m = 0;
    for (int k = 0; k < HELD; k++)
        if (l.lane + k * lanes < d) {
            v[k] -= m;
            T e = exp(v[k]);
            sum += e;
            if (what == SOFTMAX) v[k] = e;
        }
    for (int j = rest; j < d; j += lanes) sum += exp(from[j] - m);
    sum = over_lanes(SUM, sum, lanes);
    if (!l.mine) return;
    if (what == LOGSUMEXP) {
        if (l.lane == 0) y[l.row] = log(sum) + m;
        return;
    }
    T shift = log(sum), *to = y + l.row * d;
    for (int k = 0; k < HELD; k++)
        if (l.lane + k * lanes < d)
            to[l.lane + k * lanes] = what == SOFTMAX ? v[k] / sum : v[k] - shift;
    for (int j = rest; j < d; j += lanes)
        to[j] = what == SOFTMAX ? exp(from[j] - m) / sum : from[j] - m - shift;
}

template <typename T>
__global__ void softmax(const T* x, T* y, long long n, int d, int lanes) {
    exponentials<SOFTMAX>(x, y, n, d, lanes);
}

template <typename T>
__global__ void log_softmax(const T* x, T* y, long long n, int d, int lanes) {
    exponentials<LOG_SOFTMAX>(x, y, n, d, lanes);
}

template <typename T>
__global__ void logsumexp(const T* x, T* y, long long n, int d, int lanes) {
    exponentials<LOGSUMEXP>(x, y, n, d, lanes);
}

// dx = y (dy − Σ dy y) for softmax, dx = dy − e^y Σ dy for its logarithm, Σ over the row that the
// lanes own; read once, again only what HELD registers do not hold.
template <int what, typename T>
__device__ void back(const T* dy, const T* y, T* dx, long long n, int d, int lanes) {
    Lane l = lane_of(n, lanes);
    long long start = l.row * d;
    T g[HELD], v[HELD], sum = 0;
    for (int k = 0; k < HELD; k++) {
        int j = l.lane + k * lanes;
        g[k] = j < d ? dy[start + j] : T(0);
        v[k] = j < d ? y[start + j] : T(0);
    }
    for (int k = 0; k < HELD; k++) sum += what == SOFTMAX ? g[k] * v[k] : g[k];
    int rest = l.lane + HELD * lanes;
    for (int j = rest; j < d; j += lanes)
        sum += what == SOFTMAX ? dy[start + j] * y[start + j] : dy[start + j];
    sum = over_lanes(SUM, sum, lanes);
    if (!l.mine) return;
    for (int k = 0; k < HELD; k++)
        if (l.lane + k * lanes < d)
            dx[start + l.lane + k * lanes] =
                what == SOFTMAX ? v[k] * (g[k] - sum) : g[k] - exp(v[k]) * sum;
    for (int j = rest; j < d; j += lanes) {
        T gradient = dy[start + j], output = y[start + j];
        dx[start + j] =
            what == SOFTMAX ? output * (gradient - sum) : gradient - exp(output) * sum;
    }
}

template <typename T>
__global__ void softmax_backward(const T* dy, const T* y, T* dx, long long n, int d, int lanes) {
    back<SOFTMAX>(dy, y, dx, n, d, lanes);
}

template <typename T>
__global__ void log_softmax_backward(const T* dy, const T* y, T* dx, long long n, int d,
                                     int lanes) {
    back<LOG_SOFTMAX>(dy, y, dx, n, d, lanes);
}
