// Gaussian KL divergence and log-likelihood, squared error, cross-entropy, and their gradients; the
// formula stands above each kernel. Sums over a row are computed by a group of lanes (rows.cuh):
// each adds every lanes-th number, then a tree adds the lanes. The number of lanes depends on the
// sizes only, so the bits do not depend on the grid. The gradients are elementwise, sixteen bytes
// per thread. All kernels are memory-bound.
#include "rows.cuh"

// Row and column of number i of a matrix with d columns; next() goes to number i + 1.
struct Place {
    long long row;
    int column, d;
    __device__ Place(long long i, int columns) : row(i), d(columns) { column = split(row, d); }
    __device__ void next() {
        if (++column == d) {
            column = 0;
            row++;
        }
    }
};

// --- N(mean, e^logvar) against N(0, 1) -----------------------------------------------------------

// kl_n = ½ Σ_z [m² + e^v − v − 1]. A group of lanes per row.
template <typename T>
__global__ void gaussian_kl(const T* mean, const T* logvar, T* kl, long long n, int z, int lanes) {
    Lane l = lane_of(n, lanes);
    const T *m = mean + l.row * z, *v = logvar + l.row * z;
    T total = 0;
#pragma unroll 4
    for (int j = l.lane; j < z; j += lanes) total += m[j] * m[j] + exp(v[j]) - v[j] - T(1);
    total = reduce_lanes(SUM, total, lanes);
    if (l.valid && l.lane == 0) kl[l.row] = T(0.5) * total;
}

// dm = dy m, dv = dy ½ (e^v − 1); dy (N,). A thread computes sixteen bytes of both results.
template <typename T>
__global__ void gaussian_kl_backward(const T* dy, const T* mean, const T* logvar, T* dmean,
                                     T* dlogvar, long long n, int z) {
    GRID_STRIDE(i, packs<T>(n * z)) {
        Pack<T> m = load(mean, i, n * z), v = load(logvar, i, n * z);
        Place at(i * Pack<T>::SIZE, z);
        for (int k = 0; k < Pack<T>::SIZE; k++, at.next()) {
            T g = dy[min(at.row, n - 1)];
            m.at[k] *= g;
            v.at[k] = g * (T(0.5) * expm1(v.at[k]));
        }
        store(dmean, i, n * z, m);
        store(dlogvar, i, n * z, v);
    }
}

// --- x under N(mean, e^logvar); logvar of x's shape, or one number -------------------------------

// log p_n = −½ Σ_d [ln 2π + v + (x − m)² e^−v]. A group of lanes per row.
template <typename T>
__global__ void gaussian_log_likelihood(const T* x, const T* mean, const T* logvar, T* log_p,
                                        long long n, int d, int lanes, bool one_logvar) {
    const T log_2pi = T(1.8378770664093454836);
    Lane l = lane_of(n, lanes);
    const T *seen = x + l.row * d, *m = mean + l.row * d;
    const T* v = one_logvar ? logvar : logvar + l.row * d;
    T total = 0;
#pragma unroll 4
    for (int j = l.lane; j < d; j += lanes) {
        T off = seen[j] - m[j], of = v[one_logvar ? 0 : j];
        total += log_2pi + of + off * off * exp(-of);
    }
    total = reduce_lanes(SUM, total, lanes);
    if (l.valid && l.lane == 0) log_p[l.row] = T(-0.5) * total;
}

// With r = (x − m) e^−v: dm = dy r, dv = dy ½ (r (x − m) − 1); dx is −dm. A thread computes sixteen
// bytes of both results.
template <typename T>
__global__ void gaussian_log_likelihood_backward(const T* dy, const T* x, const T* mean,
                                                 const T* logvar, T* dmean, T* dlogvar,
                                                 long long n, int d, bool one_logvar) {
    GRID_STRIDE(i, packs<T>(n * d)) {
        Pack<T> seen = load(x, i, n * d), m = load(mean, i, n * d), v = m;
        if (!one_logvar) v = load(logvar, i, n * d);
        Place at(i * Pack<T>::SIZE, d);
        for (int k = 0; k < Pack<T>::SIZE; k++, at.next()) {
            T g = dy[min(at.row, n - 1)], off = seen.at[k] - m.at[k];
            T r = off * exp(-(one_logvar ? logvar[0] : v.at[k]));
            m.at[k] = g * r;
            v.at[k] = g * T(0.5) * (r * off - T(1));
        }
        store(dmean, i, n * d, m);
        store(dlogvar, i, n * d, v);
    }
}

// --- squared error, cross-entropy ----------------------------------------------------------------

// difference = x − t; partial_bj = Σ of its squares in rows 4b … 4b + 3. A thread computes those
// rows of one column (``wide``: sixteen bytes of columns) and issues all its loads first.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void squared_error(const T* x, const T* target, T* difference, T* partial, int n,
                              int d) {
    const int SIZE = wide ? Pack<T>::SIZE : 1, ROWS = 4;
    int across = d / SIZE;
    GRID_STRIDE(i, (n + ROWS - 1ll) / ROWS * across) {
        long long block = i;
        int column = split(block, across);
        Vec<T, SIZE> v[ROWS], t[ROWS], sums = splat<SIZE>(T(0));
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                v[r] = read<SIZE>(x, (block * ROWS + r) * across + column);
                t[r] = read<SIZE>(target, (block * ROWS + r) * across + column);
            }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                for (int k = 0; k < SIZE; k++) {
                    v[r].at[k] -= t[r].at[k];
                    sums.at[k] += v[r].at[k] * v[r].at[k];
                }
                write(difference, (block * ROWS + r) * across + column, v[r]);
            }
        write(partial, i, sums);
    }
}

// losses_n = ln Σ_k e^(l_k − m) − (l_label − m), m = max l; slope = softmax(l) − onehot(label).
// A group of lanes per row; a lane keeps IN_REGISTERS numbers in registers and reads others again.
template <typename T>
__global__ void cross_entropy(const T* logits, const long long* labels, T* losses, T* slope,
                              long long n, int k, int lanes) {
    const int IN_REGISTERS = 8;
    Lane l = lane_of(n, lanes);
    const T* from = logits + l.row * k;
    T v[IN_REGISTERS], m = -infinity<T>(), sum = 0;
    for (int u = 0; u < IN_REGISTERS; u++)
        v[u] = l.lane + u * lanes < k ? from[l.lane + u * lanes] : -infinity<T>();
    for (int u = 0; u < IN_REGISTERS; u++) m = combine(LARGEST, m, v[u]);
    int rest = l.lane + IN_REGISTERS * lanes;
    for (int j = rest; j < k; j += lanes) m = combine(LARGEST, m, from[j]);
    m = reduce_lanes(LARGEST, m, lanes);
    for (int u = 0; u < IN_REGISTERS; u++)
        if (l.lane + u * lanes < k) sum += v[u] = exp(v[u] - m);
    for (int j = rest; j < k; j += lanes) sum += exp(from[j] - m);
    sum = reduce_lanes(SUM, sum, lanes);
    if (!l.valid) return;
    int label = labels[l.row];
    if (l.lane == 0) losses[l.row] = log(sum) - (from[label] - m);
    T* to = slope + l.row * k;
    for (int u = 0; u < IN_REGISTERS; u++) {
        int j = l.lane + u * lanes;
        if (j < k) to[j] = v[u] / sum - (j == label ? T(1) : T(0));
    }
    for (int j = rest; j < k; j += lanes)
        to[j] = exp(from[j] - m) / sum - (j == label ? T(1) : T(0));
}

// out_nd = dy_n slope_nd, dy (N,) or one number. A thread computes sixteen bytes of out.
template <typename T>
__global__ void scale_rows(const T* dy, const T* slope, T* out, long long n, int d, bool one_dy) {
    GRID_STRIDE(i, packs<T>(n * d)) {
        Pack<T> v = load(slope, i, n * d);
        Place at(i * Pack<T>::SIZE, d);
        for (int k = 0; k < Pack<T>::SIZE; k++, at.next())
            v.at[k] *= dy[one_dy ? 0 : min(at.row, n - 1)];
        store(out, i, n * d, v);
    }
}
