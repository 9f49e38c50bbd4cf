// Corruptions, the noise being an argument, and the batches of a shuffled data set.
#include "rows.cuh"

// Pack i of the noise that goes with pack i of the data: float, whatever T is.
template <typename T>
__device__ Some<float, Pack<T>::SIZE> noise_of(const float* p, long long i, long long n) {
    const int SIZE = Pack<T>::SIZE;
    if ((i + 1) * SIZE <= n) return read<SIZE>(p, i);
    Some<float, SIZE> v;
    for (int k = 0; k < SIZE; k++) v.at[k] = i * SIZE + k < n ? p[i * SIZE + k] : 0.0f;
    return v;
}

// All four are one pass: a thread owns sixteen bytes of the result. x is finite.

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

// noisy = [u < fraction/2] where u < fraction, else x: given u < fraction, its half is a fair coin.
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

// Four grey values, read in one access where their place allows it.
__device__ inline Some<unsigned char, 4> four(const unsigned char* p) {
    Some<unsigned char, 4> v;
    if (reinterpret_cast<unsigned long long>(p) % 4 == 0) {
        unsigned all_four = *reinterpret_cast<const unsigned*>(p);
        for (int k = 0; k < 4; k++) v.at[k] = all_four >> 8 * k & 255;
    } else {
        for (int k = 0; k < 4; k++) v.at[k] = p[k];
    }
    return v;
}

// out_i = images[order[first + i]] / scale, rows of D grey values; zeros for rows behind the end of
// the order, of which nothing is read. A division: its result is the float next to v/255. A thread
// owns four numbers of a row (the last of a row perhaps fewer).
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

// The same for images that are numbers already. A thread owns sixteen bytes of a row, or if D does
// not divide into them one number.
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
        Some<T, SIZE> v = all<SIZE>(T(0));
        if (next + row < count) {
            v = read<SIZE>(images, order[next + row] * across + column);
            for (int k = 0; k < SIZE; k++) v.at[k] /= scale;
        }
        write(out, i, v);
    }
}
