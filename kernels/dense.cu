// Bias and activation of the dense layer, y = a(y + b) in place, and their gradients dx = dy a'(·)
// and db = Σ dx over the rows. The matrix product itself is in gemm.cu, with the same epilogue. The
// derivative of every activation is a function of its output y. Sums over rows are split into
// shares of ROWS_PER_SHARE rows (dense.py), which add_shares adds in their order, so the bits do
// not depend on the grid. All kernels are memory-bound.
#include "rows.cuh"

// y = a(y + b), y (N, O), b (O,). A thread updates sixteen bytes of y per iteration.
template <typename T>
__global__ void bias_activation(T* y, const T* b, int activation, long long n, int o) {
    GRID_STRIDE(i, packs<T>(n * o)) {
        Pack<T> v = load(y, i, n * o);
        int j = i * Pack<T>::SIZE % o;
        for (int k = 0; k < Pack<T>::SIZE; k++) {
            v.at[k] = activate(v.at[k] + b[j], activation);
            j = j + 1 == o ? 0 : j + 1;
        }
        store(y, i, n * o, v);
    }
}

// dx = dy a'(·) from y; db (SHARES, O) = Σ of dx over the rows of each share. dx may be dy, and is
// not written if a is the identity as well. A block computes 32 columns (``wide``: 32 packs) of one
// share, a thread every blockDim.y-th row of one column or pack, with the loads of AHEAD rows in
// flight. Then a warp adds the sums of the threads of each column.
const int AHEAD = 4;

// constants: (false) (true)
template <typename T, bool wide>
__global__ void __launch_bounds__(1024) activation_backward(
        const T* dy, const T* y, int activation, T* dx, T* db, int n, int o, int share) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    __shared__ T sums[WARP][WARP * SIZE + 1];
    int high = blockDim.y, across = o / SIZE, column = blockIdx.x * WARP + threadIdx.x;
    int first = blockIdx.y * share, last = min(n, first + share);
    Vec<T, SIZE> total = splat<SIZE>(T(0));
    if (column < across)
        for (int row = first + threadIdx.y; row < last; row += AHEAD * high) {
            Vec<T, SIZE> g[AHEAD], out[AHEAD];
            for (int u = 0; u < AHEAD; u++) {
                long long i = (long long)(row + u * high) * across + column;
                g[u] = row + u * high < last ? read<SIZE>(dy, i) : splat<SIZE>(T(0));
                if (activation != IDENTITY)
                    out[u] = row + u * high < last ? read<SIZE>(y, i) : splat<SIZE>(T(0));
            }
            for (int u = 0; u < AHEAD; u++) {
                if (row + u * high >= last) break;
                if (activation != IDENTITY)
                    for (int k = 0; k < SIZE; k++)
                        g[u].at[k] = activation_gradient(g[u].at[k], out[u].at[k], activation);
                if (activation != IDENTITY || dx != dy)
                    write(dx, (long long)(row + u * high) * across + column, g[u]);
                for (int k = 0; k < SIZE; k++) total.at[k] += g[u].at[k];
            }
        }
    for (int k = 0; k < SIZE; k++) sums[threadIdx.y][threadIdx.x * SIZE + k] = total.at[k];
    __syncthreads();
    for (int j = threadIdx.y; j < WARP * SIZE; j += high) {
        T sum = warp_sum(threadIdx.x < high ? sums[threadIdx.x][j] : T(0));
        int mine = blockIdx.x * WARP * SIZE + j;
        if (threadIdx.x == 0 && mine < o) db[(long long)blockIdx.y * o + mine] = sum;
    }
}

// out_j = Σ over the shares, in their order; one thread per column.
template <typename T>
__global__ void add_shares(const T* partial, T* out, int shares, int o) {
    GRID_STRIDE(j, o) {
        T total = 0;
        for (int s = 0; s < shares; s++) total += partial[s * (long long)o + j];
        out[j] = total;
    }
}
