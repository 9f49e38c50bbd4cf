// The dense layer's second half: bias and activation in place, and the activation's way back.
// The product itself is in gemm.cu. Every activation has a derivative that its output y gives.
#include "rows.cuh"

// y = a(y + b), y (N, O), b (O,). A thread owns sixteen bytes of y, then the next share.
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

// dx = dy a'(·) from y, or left alone if it is dy and a the identity; db_j = Σ over rows, within
// shares of rows: db (SHARES, O). A block owns 32 columns of one share, wide 32 packs of them; a
// thread every blockDim.y-th row in one column or pack, of which AHEAD are on their way at once. Then
// a warp adds up what the threads of a column have. dx may be dy.
const int AHEAD = 4;

// constants: (false) (true)
template <typename T, bool wide>
__global__ void __launch_bounds__(1024) activation_backward(
        const T* dy, const T* y, int activation, T* dx, T* db, int n, int o, int share) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    __shared__ T sums[WARP][WARP * SIZE + 1];
    int high = blockDim.y, across = o / SIZE, column = blockIdx.x * WARP + threadIdx.x;
    int first = blockIdx.y * share, last = min(n, first + share);
    Some<T, SIZE> total = all<SIZE>(T(0));
    if (column < across)
        for (int row = first + threadIdx.y; row < last; row += AHEAD * high) {
            Some<T, SIZE> g[AHEAD], out[AHEAD];
            for (int u = 0; u < AHEAD; u++) {
                long long i = (long long)(row + u * high) * across + column;
                g[u] = row + u * high < last ? read<SIZE>(dy, i) : all<SIZE>(T(0));
                if (activation != IDENTITY)
                    out[u] = row + u * high < last ? read<SIZE>(y, i) : all<SIZE>(T(0));
            }
            for (int u = 0; u < AHEAD; u++) {
                if (row + u * high >= last) break;
                if (activation != IDENTITY)
                    for (int k = 0; k < SIZE; k++)
                        g[u].at[k] = through(g[u].at[k], out[u].at[k], activation);
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

// out_j = Σ over the shares, in their order; a thread owns a column.
template <typename T>
__global__ void add_shares(const T* partial, T* out, int shares, int o) {
    GRID_STRIDE(j, o) {
        T total = 0;
        for (int s = 0; s < shares; s++) total += partial[s * (long long)o + j];
        out[j] = total;
    }
}
