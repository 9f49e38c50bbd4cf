// Binary cross-entropy with logits, loss and gradient in one pass: with logits l and targets t, the
// loss is max(l, 0) − l t + ln(1 + e^−|l|) and the slope σ(l) − t. Each thread computes its own
// elements; ``total`` adds the losses of four rows in a thread in a fixed order, and the caller
// adds these partial sums. So the bits do not depend on the grid. Memory-bound.
#include "rows.cuh"

// The loss; sets the slope. Both use the same exponential.
template <typename T>
__device__ T loss_of(T l, T t, T& slope) {
    const T zero = 0, one = 1;
    T e = exp(-fabs(l));
    slope = (l >= zero ? one : e) / (one + e) - t;
    return max(l, zero) - l * t + log1p(e);
}

// partial_bj = Σ losses of rows 4b … 4b + 3. A thread computes those rows of one column (``wide``:
// sixteen bytes of columns) and issues all its loads before it uses the first value.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void total(const T* logits, const T* target, T* slope, T* partial, int n, int d) {
    const int SIZE = wide ? Pack<T>::SIZE : 1, ROWS = 4;
    int across = d / SIZE;
    GRID_STRIDE(i, (n + ROWS - 1ll) / ROWS * across) {
        long long block = i;
        int column = split(block, across);
        Vec<T, SIZE> l[ROWS], t[ROWS], sums = splat<SIZE>(T(0));
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                l[r] = read<SIZE>(logits, (block * ROWS + r) * across + column);
                t[r] = read<SIZE>(target, (block * ROWS + r) * across + column);
            }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                Vec<T, SIZE> s;
                for (int k = 0; k < SIZE; k++)
                    sums.at[k] += loss_of(l[r].at[k], t[r].at[k], s.at[k]);
                write(slope, (block * ROWS + r) * across + column, s);
            }
        write(partial, i, sums);
    }
}

// The losses themselves, all arrays (N, D). A thread computes sixteen bytes per iteration.
template <typename T>
__global__ void elements(const T* logits, const T* target, T* slope, T* losses, long long n) {
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> l = load(logits, i, n), t = load(target, i, n), s;
        for (int k = 0; k < Pack<T>::SIZE; k++) l.at[k] = loss_of(l.at[k], t.at[k], s.at[k]);
        store(slope, i, n, s);
        store(losses, i, n, l);
    }
}
