// Shared by all kernels: loops over arrays, vectorised loads and stores, block sums, activations.
//
// T is float or double. Every result is computed by one thread or summed in a fixed order, so two
// runs give the same bits; no sum uses atomic additions of floating point.
#pragma once

const int WARP = 32;
const unsigned EVERY_LANE = 0xffffffffu;

// ``name``: the dynamic shared memory of a block, of which the launch asks for ``size`` bytes.
#ifndef EMULATED
#define DYNAMIC_SHARED(name, size) extern __shared__ char name[]
#endif

// --- vectorised loads and stores -----------------------------------------------------------------

// A grid-stride loop: for (i = global thread index; i < n; i += threads of the grid)
#define GRID_STRIDE(i, n)                                                                    \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (long long)(n); \
         i += (long long)gridDim.x * blockDim.x)

// Sixteen bytes, the widest access of a thread: four floats or two doubles.
template <typename T>
struct alignas(16) Pack {
    static const int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

// The number of packs for n numbers; the last one may be partly filled.
template <typename T>
__device__ long long packs(long long n) {
    return (n + Pack<T>::SIZE - 1) / Pack<T>::SIZE;
}

// Loads pack i of the n numbers at p: in one access if p is aligned, else number by number; zeros
// after the end.
template <typename T>
__device__ Pack<T> load(const T* p, long long i, long long n) {
    const int size = Pack<T>::SIZE;
    long long first = i * size;
    if (first + size <= n && reinterpret_cast<unsigned long long>(p) % 16 == 0)
        return *reinterpret_cast<const Pack<T>*>(p + first);
    Pack<T> v;
    for (int k = 0; k < size; k++) v.at[k] = first + k < n ? p[first + k] : T(0);
    return v;
}

template <typename T>
__device__ void store(T* p, long long i, long long n, const Pack<T>& v) {
    const int size = Pack<T>::SIZE;
    long long first = i * size;
    if (first + size <= n && reinterpret_cast<unsigned long long>(p) % 16 == 0) {
        *reinterpret_cast<Pack<T>*>(p + first) = v;
        return;
    }
    for (int k = 0; k < size; k++)
        if (first + k < n) p[first + k] = v.at[k];
}

// --- NumPy's functions that C++ lacks or defines otherwise; maximum and minimum propagate NaN ----

template <typename T>
__device__ T maximum(T a, T b) { return a > b || a != a ? a : b; }

template <typename T>
__device__ T minimum(T a, T b) { return a < b || a != a ? a : b; }

template <typename T>
__device__ T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }

template <typename T>
__device__ T square(T x) { return x * x; }

// --- sums within a block -------------------------------------------------------------------------

// Σ over the lanes of a warp, returned to every lane; all lanes must call it.
template <typename T>
__device__ T warp_sum(T v) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        v += __shfl_xor_sync(EVERY_LANE, v, distance);
    return v;
}

// Σ over the block, returned to every thread; all threads must call it, blockDim.x % 32 == 0.
template <typename T>
__device__ T block_sum(T v) {
    __shared__ T of_warp[32];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    v = warp_sum(v);
    __syncthreads();                  // of_warp may still be read in the previous call
    if (lane == 0) of_warp[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? of_warp[lane] : T(0));
}

// --- activations: numbered as in dense.py; a' is a function of the output y ----------------------

const int IDENTITY = 0, RELU = 1, LEAKY_RELU = 2, ELU = 3, SIGMOID = 4, TANH = 5, SOFTPLUS = 6;

// a(v)
template <typename T>
__device__ T activate(T v, int activation) {
    const T zero = 0, one = 1, slope = T(0.2);
    switch (activation) {
        case RELU: return v > zero ? v : zero;
        case LEAKY_RELU: return v > zero ? v : v * slope;
        case ELU: return v > zero ? v : expm1(min(v, zero));
        case SIGMOID: return one / (one + exp(-v));
        case TANH: return tanh(v);
        case SOFTPLUS: return max(v, zero) + log1p(exp(-fabs(v)));
        default: return v;
    }
}

// The gradient of the activation: dy a'(·)
template <typename T>
__device__ T activation_gradient(T dy, T y, int activation) {
    const T zero = 0, one = 1, slope = T(0.2);
    switch (activation) {
        case RELU: return y > zero ? dy : zero;
        case LEAKY_RELU: return y > zero ? dy : dy * slope;
        case ELU: return y > zero ? dy : dy * (y + one);
        case SIGMOID: return dy * (y * (one - y));
        case TANH: return dy * (one - y * y);
        case SOFTPLUS: return dy * (one - exp(-y));
        default: return dy;
    }
}
