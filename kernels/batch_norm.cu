// Batch normalisation of the columns of x (M, C): statistics, forward, backward (see BatchNorm).
//
// A block computes a tile of columns and rows (see rows.cuh): blockIdx.x is the tile of columns,
// blockIdx.y the share of rows. A thread stays in one column (``wide``: sixteen bytes of columns),
// so it reads the column's mean and scale once. Sums over rows have a fixed order that depends on
// the sizes only: within a thread, then a tree within the block, then in double over the shares.
// All kernels are memory-bound.
#include "rows.cuh"

const int AHEAD = 4;                  // rows that a thread loads before it adds them

template <typename T, bool wide>
__device__ Tile block_tile(long long m, int c, long long share, int width) {
    return tile_of(blockIdx.x, blockIdx.y, c / (wide ? Pack<T>::SIZE : 1), width, m, share);
}

// --- statistics ----------------------------------------------------------------------------------

// The mean of n numbers and Σ (x − mean)². Merging two of these (Chan, Golub & LeVeque 1983) avoids
// the cancellation of Σ x² − n mean².
struct Spread {
    double n, mean, square;
};

__device__ inline Spread merge(const Spread& a, const Spread& b) {
    if (b.n == 0) return a;
    double n = a.n + b.n, off = b.mean - a.mean;
    return {n, a.mean + off * (b.n / n), a.square + b.square + off * off * (a.n * b.n / n)};
}

// Merges the spreads of the threads of a column; the result is valid in the thread with down = 0.
__device__ inline Spread merge_column(Spread v, const Tile& t, int width) {
    __shared__ Spread of_thread[BLOCK];
    __syncthreads();                  // of_thread may still be read in the previous call
    of_thread[threadIdx.x] = v;
    for (int left = t.high; left > 1; left = (left + 1) / 2) {
        int half = (left + 1) / 2;
        __syncthreads();
        if (t.down + half < left) {
            v = merge(v, of_thread[threadIdx.x + half * width]);
            of_thread[threadIdx.x] = v;
        }
    }
    return v;
}

// Mean and biased variance of every column. x is read once: Welford's update for each row, of the
// differences from the share's first row, which keeps the digits of a large mean. With several
// shares, mean and square of each are written to partial (2, SHARES, C), for merge_statistics.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void statistics(const T* x, T* mean, T* var, long long m, int c, long long share,
                           int width, double* partial) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    Tile t = block_tile<T, wide>(m, c, share, width);
    int across = c / SIZE;
    Vec<T, SIZE> v[AHEAD], origin = splat<SIZE>(T(0)), centre = origin, square = origin;
    int n = 0;
    if (t.valid && t.first < t.last) {
        origin = read<SIZE>(x, t.first * across + t.column);
        for (long long i = t.first + t.down; i < t.last; i += AHEAD * t.high) {
            for (int u = 0; u < AHEAD; u++)
                if (i + u * t.high < t.last)
                    v[u] = read<SIZE>(x, (i + u * t.high) * across + t.column);
            for (int u = 0; u < AHEAD; u++)
                if (i + u * t.high < t.last) {
                    T part = T(1) / T(++n);
                    for (int k = 0; k < SIZE; k++) {
                        T off = v[u].at[k] - origin.at[k], before = off - centre.at[k];
                        centre.at[k] += before * part;
                        square.at[k] += before * (off - centre.at[k]);
                    }
                }
        }
    }
    for (int k = 0; k < SIZE; k++) {
        Spread s = merge_column({(double)n, (double)centre.at[k], (double)square.at[k]}, t, width);
        if (!t.valid || t.down > 0) continue;
        long long j = (long long)t.column * SIZE + k, shares = gridDim.y;
        if (shares == 1) {
            mean[j] = T(origin.at[k] + s.mean);
            var[j] = T(s.square / m);
        } else {
            partial[blockIdx.y * (long long)c + j] = origin.at[k] + s.mean;
            partial[(shares + blockIdx.y) * c + j] = s.square;
        }
    }
}

// Merges mean and variance of the shares. A block computes 8 columns, with 32 threads per column.
template <typename T>
__global__ void merge_statistics(const double* partial, T* mean, T* var, long long m, int c,
                                 long long share, int shares) {
    const int width = 8;
    Tile t = tile_of(blockIdx.x, 0, c, width, shares, shares);
    Spread s = {0, 0, 0};
    if (t.valid)
        for (long long i = t.down; i < shares; i += t.high)
            s = merge(s, {(double)(min(m, (i + 1) * share) - i * share), partial[i * c + t.column],
                           partial[(shares + i) * c + t.column]});
    s = merge_column(s, t, width);
    if (!t.valid || t.down > 0) return;
    mean[t.column] = T(s.mean);
    var[t.column] = T(s.square / m);
}

// running += momentum (batch − running), with the unbiased variance, × M/(M − 1); one thread per
// column.
template <typename T>
__global__ void running(T* running_mean, T* running_var, T momentum, const T* mean, const T* var,
                        long long rows, int c) {
    GRID_STRIDE(j, c) {
        T unbiased = var[j] * T((double)rows / (double)(rows - 1));
        running_mean[j] += momentum * (mean[j] - running_mean[j]);
        running_var[j] += momentum * (unbiased - running_var[j]);
    }
}

// inverse = 1/√(var + ε); one thread per column.
template <typename T>
__global__ void inverse(const T* var, T eps, T* inverse, int c) {
    GRID_STRIDE(j, c) inverse[j] = T(1) / sqrt(var[j] + eps);
}

// --- forward and backward ------------------------------------------------------------------------

// y = a(γ (x − mean)·inverse + β)
// constants: (false) (true)
template <typename T, bool wide>
__global__ void normalize(const T* x, const T* mean, const T* inverse, const T* gamma,
                          const T* beta, int activation, T* y, long long m, int c,
                          long long share, int width) {
    const int SIZE = wide ? Pack<T>::SIZE : 1, TOGETHER = 2;
    Tile t = block_tile<T, wide>(m, c, share, width);
    if (!t.valid) return;
    int across = c / SIZE;
    Vec<T, SIZE> centre = read<SIZE>(mean, t.column), scale = read<SIZE>(inverse, t.column),
                  factor = read<SIZE>(gamma, t.column), shift = read<SIZE>(beta, t.column);
    for (int k = 0; k < SIZE; k++) scale.at[k] *= factor.at[k];
    for (long long i = t.first + t.down; i < t.last; i += TOGETHER * t.high) {
        Vec<T, SIZE> v[TOGETHER];
        for (int u = 0; u < TOGETHER; u++)
            if (i + u * t.high < t.last)
                v[u] = read<SIZE>(x, (i + u * t.high) * across + t.column);
        for (int u = 0; u < TOGETHER; u++)
            if (i + u * t.high < t.last) {
                for (int k = 0; k < SIZE; k++)
                    v[u].at[k] = activate((v[u].at[k] - centre.at[k]) * scale.at[k] + shift.at[k],
                                          activation);
                write(y, (i + u * t.high) * across + t.column, v[u]);
            }
    }
}

// dγ = Σ dh x̂, dβ = Σ dh, with dh = dy a'(·) from y and x̂ = (x − mean)·inverse. With several
// shares, the sums of each are written to partial (2, SHARES, C), for add_shares.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void backward_parameters(const T* dy, const T* y, int activation, const T* x,
                                    const T* mean, const T* inverse, T* dgamma, T* dbeta,
                                    long long m, int c, long long share, int width, T* partial) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    Tile t = block_tile<T, wide>(m, c, share, width);
    int across = c / SIZE;
    Vec<T, SIZE> products = splat<SIZE>(T(0)), sums = products;
    if (t.valid) {
        Vec<T, SIZE> centre = read<SIZE>(mean, t.column), scale = read<SIZE>(inverse, t.column);
        for (long long i = t.first + t.down; i < t.last; i += t.high) {
            long long at = i * across + t.column;
            Vec<T, SIZE> g = read<SIZE>(dy, at), out = read<SIZE>(y, at), in = read<SIZE>(x, at);
            for (int k = 0; k < SIZE; k++) {
                T dh = activation_gradient(g.at[k], out.at[k], activation);
                products.at[k] += dh * ((in.at[k] - centre.at[k]) * scale.at[k]);
                sums.at[k] += dh;
            }
        }
    }
    products = reduce_columns(SUM, products, t, width);
    sums = reduce_columns(SUM, sums, t, width);
    if (!t.valid || t.down > 0) return;
    if (gridDim.y == 1) {
        write(dgamma, t.column, products);
        write(dbeta, t.column, sums);
    } else {
        write(partial, blockIdx.y * (long long)across + t.column, products);
        write(partial, (gridDim.y + (long long)blockIdx.y) * across + t.column, sums);
    }
}

// Adds dγ (blockIdx.y = 0) or dβ of the shares, in double. A block computes 8 columns, with 32
// threads per column.
template <typename T>
__global__ void add_shares(const T* partial, T* dgamma, T* dbeta, int c, int shares) {
    const int width = 8;
    Tile t = tile_of(blockIdx.x, 0, c, width, shares, shares);
    const T* from = partial + blockIdx.y * (long long)shares * c;
    Vec<double, 1> total = {0};
    if (t.valid)
        for (long long i = t.down; i < shares; i += t.high) total.at[0] += from[i * c + t.column];
    total = reduce_columns(SUM, total, t, width);
    if (t.valid && t.down == 0) (blockIdx.y == 0 ? dgamma : dbeta)[t.column] = T(total.at[0]);
}

// dx = γ·inverse (dh − dβ/M − x̂ dγ/M)
// constants: (false) (true)
template <typename T, bool wide>
__global__ void backward_x(const T* dy, const T* y, int activation, const T* x, const T* mean,
                           const T* inverse, const T* gamma, const T* dgamma, const T* dbeta,
                           T* dx, long long m, int c, long long share, int width) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    Tile t = block_tile<T, wide>(m, c, share, width);
    if (!t.valid) return;
    int across = c / SIZE;
    Vec<T, SIZE> centre = read<SIZE>(mean, t.column), scale = read<SIZE>(inverse, t.column),
                  slope = read<SIZE>(dgamma, t.column), shift = read<SIZE>(dbeta, t.column),
                  factor = read<SIZE>(gamma, t.column);
    for (int k = 0; k < SIZE; k++) {
        slope.at[k] = scale.at[k] * slope.at[k] / T(m);
        shift.at[k] /= T(m);
        scale.at[k] *= factor.at[k];
    }
    for (long long i = t.first + t.down; i < t.last; i += t.high) {
        long long at = i * across + t.column;
        Vec<T, SIZE> g = read<SIZE>(dy, at), out = read<SIZE>(y, at), in = read<SIZE>(x, at);
        for (int k = 0; k < SIZE; k++) {
            T dh = activation_gradient(g.at[k], out.at[k], activation);
            g.at[k] = scale.at[k] *
                      (dh - shift.at[k] - (in.at[k] - centre.at[k]) * slope.at[k]);
        }
        write(dx, at, g);
    }
}
