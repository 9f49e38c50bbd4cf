// One optimiser step over the parameters of a network; the formulas are in optimizer.py. A thread
// updates sixteen bytes of every array; the updates are elementwise, so the bits do not depend on
// the grid. The numbers that change from step to step (learning rate, Adam's bias corrections) are
// read from the GPU's memory, so that a step can be captured once and replayed. Memory-bound.
#include "common.cuh"

template <typename T>
__global__ void sgd(T* p, const T* g, T* m, const T* numbers, bool nesterov, long long n) {
    const T lr = numbers[0], momentum = numbers[1], decay = numbers[2];
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> pp = load(p, i, n), gg = load(g, i, n), mm = load(m, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) {
            T step = gg.at[k] + decay * pp.at[k];
            if (momentum != 0) {
                mm.at[k] = momentum * mm.at[k] + step;
                step = nesterov ? step + momentum * mm.at[k] : mm.at[k];
            }
            pp.at[k] -= lr * step;
        }
        store(p, i, n, pp);
        if (momentum != 0) store(m, i, n, mm);
    }
}

template <typename T>
__global__ void adagrad(T* p, const T* g, T* v, const T* numbers, long long n) {
    const T lr = numbers[0], eps = numbers[1], decay = numbers[2];
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> pp = load(p, i, n), gg = load(g, i, n), vv = load(v, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) {
            T step = gg.at[k] + decay * pp.at[k];
            vv.at[k] += step * step;
            pp.at[k] -= lr * step / (sqrt(vv.at[k]) + eps);
        }
        store(p, i, n, pp);
        store(v, i, n, vv);
    }
}

template <typename T>
__global__ void rmsprop(T* p, const T* g, T* v, const T* numbers, long long n) {
    const T lr = numbers[0], alpha = numbers[1], rest = numbers[2], eps = numbers[3],
            decay = numbers[4];
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> pp = load(p, i, n), gg = load(g, i, n), vv = load(v, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) {
            T step = gg.at[k] + decay * pp.at[k];
            vv.at[k] = alpha * vv.at[k] + rest * (step * step);
            pp.at[k] -= lr * step / (sqrt(vv.at[k]) + eps);
        }
        store(p, i, n, pp);
        store(v, i, n, vv);
    }
}

template <typename T>
__global__ void adam(T* p, const T* g, T* m, T* v, const T* numbers, long long n) {
    const T lr = numbers[0], beta1 = numbers[1], rest1 = numbers[2], beta2 = numbers[3],
            rest2 = numbers[4], unbias = numbers[5], eps = numbers[6], decay = numbers[7],
            shrink = numbers[8];
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> pp = load(p, i, n), gg = load(g, i, n), mm = load(m, i, n), vv = load(v, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) {
            T old = pp.at[k] * shrink, step = gg.at[k] + decay * old;
            mm.at[k] = beta1 * mm.at[k] + rest1 * step;
            vv.at[k] = beta2 * vv.at[k] + rest2 * (step * step);
            pp.at[k] = old - lr * mm.at[k] / (sqrt(vv.at[k]) * unbias + eps);
        }
        store(p, i, n, pp);
        store(m, i, n, mm);
        store(v, i, n, vv);
    }
}

// partial_b = Σ g² over the elements of block b, in double; clip_norm adds them in their order.
template <typename T>
__global__ void clip_squares(const T* g, double* partial, long long n) {
    double total = 0;
    GRID_STRIDE(i, n) total += (double)g[i] * (double)g[i];
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// norm = ‖g‖;  g ×= limit/norm if that is below 1. Every block adds all partial sums.
template <typename T>
__global__ void clip_norm(T* g, double limit, double* norm, long long n, const double* partial,
                          int parts) {
    double total = 0;
    for (int b = 0; b < parts; b++) total += partial[b];
    double length = sqrt(total);
    T scale = (T)(limit / length);
    if (blockIdx.x == 0 && threadIdx.x == 0) norm[0] = length;
    if (length > limit)
        GRID_STRIDE(i, n) g[i] *= scale;
}
