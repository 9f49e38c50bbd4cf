// Corruptions of a batch, with the noise as an argument, and the gathering of shuffled batches. The
// formula stands above each kernel. A thread computes sixteen bytes of the result and nothing is
// summed, so the bits do not depend on the grid. All kernels are memory-bound.
#include "rows.cuh"

// The noise for pack i of the data; it is float for every T.
template <typename T>
__device__ Vec<float, Pack<T>::SIZE> noise_of(const float* p, long long i, long long n) {
    const int SIZE = Pack<T>::SIZE;
    if ((i + 1) * SIZE <= n) return read<SIZE>(p, i);
    Vec<float, SIZE> v;
    for (int k = 0; k < SIZE; k++) v.at[k] = i * SIZE + k < n ? p[i * SIZE + k] : 0.0f;
    return v;
}

// x is finite in the corruptions.

// noisy = x [u ≥ fraction]
template <typename T>
__global__ void masking(const T* x, const float* uniform, float fraction, T* noisy, long long n) {
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> v = load(x, i, n);
        auto u = noise_of<T>(uniform, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) v.at[k] *= u.at[k] >= fraction ? T(1) : T(0);
        store(noisy, i, n, v);
    }
}

// noisy = [u < fraction/2] where u < fraction, else x: given u < fraction, [u < fraction/2] is 0 or
// 1 with equal probability.
template <typename T>
__global__ void salt_and_pepper(const T* x, const float* uniform, float fraction, T* noisy,
                                long long n) {
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> v = load(x, i, n);
        auto u = noise_of<T>(uniform, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++)
            if (u.at[k] < fraction) v.at[k] = u.at[k] < 0.5f * fraction ? T(1) : T(0);
        store(noisy, i, n, v);
    }
}

// noisy = x + std·normal
template <typename T>
__global__ void gaussian(const T* x, const float* normal, T std, T* noisy, long long n) {
    GRID_STRIDE(i, packs<T>(n)) {
        Pack<T> v = load(x, i, n);
        auto e = noise_of<T>(normal, i, n);
        for (int k = 0; k < Pack<T>::SIZE; k++) v.at[k] += std * T(e.at[k]);
        store(noisy, i, n, v);
    }
}

// --- batches -------------------------------------------------------------------------------------

// Reads four grey values, in one access if p is aligned.
__device__ inline Vec<unsigned char, 4> four(const unsigned char* p) {
    Vec<unsigned char, 4> v;
    if (reinterpret_cast<unsigned long long>(p) % 4 == 0) {
        unsigned all_four = *reinterpret_cast<const unsigned*>(p);
        for (int k = 0; k < 4; k++) v.at[k] = all_four >> 8 * k & 255;
    } else {
        for (int k = 0; k < 4; k++) v.at[k] = p[k];
    }
    return v;
}

// out_i = images[order[first + i]] / scale, rows of D grey values; zeros for rows after the end of
// ``order``. A division, so that the result is v/255 correctly rounded. A thread computes four
// numbers of a row (the last one of a row may have fewer).
template <typename T>
__global__ void gather(const unsigned char* images, const long long* order,
                       const unsigned long long* first, T scale, T* out, long long count,
                       long long b, int d) {
    int quarters = (d + 3) / 4;
    GRID_STRIDE(i, b * quarters) {
        long long row = i, next = *first;
        int j = split(row, quarters) * 4;
        T v[4] = {0, 0, 0, 0}, *to = out + row * d + j;
        bool inside = next + row < count, whole = j + 4 <= d;
        const unsigned char* from = images + (inside ? order[next + row] * d + j : 0);
        if (inside && whole) {
            auto grey = four(from);
            for (int k = 0; k < 4; k++) v[k] = T(grey.at[k]) / scale;
        } else if (inside) {
            for (int k = 0; k < 4; k++)
                if (j + k < d) v[k] = T(from[k]) / scale;
        }
        if (whole && reinterpret_cast<unsigned long long>(to) % 16 == 0)
            for (int k = 0; k < 4; k += Pack<T>::SIZE) {
                Pack<T> pack;
                for (int e = 0; e < Pack<T>::SIZE; e++) pack.at[e] = v[k + e];
                *reinterpret_cast<Pack<T>*>(to + k) = pack;
            }
        else
            for (int k = 0; k < 4; k++)
                if (j + k < d) to[k] = v[k];
    }
}

// The same for images of dtype T. A thread computes sixteen bytes of a row (``wide``), or one
// number if D is not a multiple.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void gather_numbers(const T* images, const long long* order,
                               const unsigned long long* first, T scale, T* out, long long count,
                               long long b, int d) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = d / SIZE;
    GRID_STRIDE(i, b * across) {
        long long row = i, next = *first;
        int column = split(row, across);
        Vec<T, SIZE> v = splat<SIZE>(T(0));
        if (next + row < count) {
            v = read<SIZE>(images, order[next + row] * across + column);
            for (int k = 0; k < SIZE; k++) v.at[k] /= scale;
        }
        write(out, i, v);
    }
}
