// Binary cross-entropy with logits: every element's loss and its gradient in one pass.
#include "rows.cuh"

// max(l, 0) − l t + ln(1 + e^−|l|); the slope is σ(l) − t. One exponential serves both.
template <typename T>
__device__ T loss_of(T l, T t, T& slope) {
    const T zero = 0, one = 1;
    T e = exp(-fabs(l));
    slope = (l >= zero ? one : e) / (one + e) - t;
    return max(l, zero) - l * t + log1p(e);
}

// partial_bj = Σ losses of rows 4b … 4b + 3. A thread owns those rows in one column, or wide in
// sixteen bytes of columns: all its loads are on their way before the first is needed.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void total(const T* logits, const T* target, T* slope, T* partial, int n, int d) {
    const int SIZE = wide ? Pack<T>::SIZE : 1, ROWS = 4;
    int across = d / SIZE;
    GRID_STRIDE(i, (n + ROWS - 1ll) / ROWS * across) {
        long long block = i;
        int column = split(block, across);
        Some<T, SIZE> l[ROWS], t[ROWS], sums = all<SIZE>(T(0));
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                l[r] = read<SIZE>(logits, (block * ROWS + r) * across + column);
                t[r] = read<SIZE>(target, (block * ROWS + r) * across + column);
            }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (block * ROWS + r < n) {
                Some<T, SIZE> s;
                for (int k = 0; k < SIZE; k++)
                    sums.at[k] += loss_of(l[r].at[k], t[r].at[k], s.at[k]);
                write(slope, (block * ROWS + r) * across + column, s);
            }
        write(partial, i, sums);
    }
}

// The losses themselves, all arrays (N, D). A thread owns sixteen bytes of each, then the next.
template <typename T>
__global__ void elements(const T* logits, const T* target, T* slope, T* losses, long long n) {
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> l = load(logits, i, n), t = load(target, i, n), s;
        for (int k = 0; k < Pack<T>::SIZE; k++) l.at[k] = loss_of(l.at[k], t.at[k], s.at[k]);
        store(slope, i, n, s);
        store(losses, i, n, l);
    }
}
