// The dense layer's second half: bias and activation in place, and the activation's way back.
// The product itself is in gemm.cu. Every activation has a derivative that its output y gives.
#include "common.cuh"

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

// dx = dy a'(·) from y, or left alone if it is dy and a the identity; db_j = Σ over rows, within shares of rows: db (SHARES, O).
// A block owns 32 columns of one share, a thread every eighth row of it in one column.
template <typename T>
__global__ void activation_backward(const T* dy, const T* y, int activation, T* dx, T* db, int n,
                                    int o, int share) {
    __shared__ T sums[8][WARP];
    int column = blockIdx.x * WARP + threadIdx.x;
    int first = blockIdx.y * share, last = min(n, first + share);
    T total = 0;
    if (column < o)
        for (int row = first + threadIdx.y; row < last; row += 8) {
            long long i = (long long)row * o + column;
            T v = dy[i];
            if (activation != IDENTITY) v = through(v, y[i], activation);
            if (activation != IDENTITY || dx != dy) dx[i] = v;
            total += v;
        }
    sums[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < o) {
        for (int k = 1; k < 8; k++) total += sums[k][threadIdx.x];
        db[(long long)blockIdx.y * o + column] = total;
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
