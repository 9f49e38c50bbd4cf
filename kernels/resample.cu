// Upsampling by repeated pixels, y[i, j] = x[⌊i / scale⌋, ⌊j / scale⌋], and its transpose.
//
// Images are channels-last; a thread owns one number of the result, or wide sixteen bytes of
// channels of one pixel. scale is (rows, columns): .x and .y; h and w are those of small images.
#include "rows.cuh"

// A pixel of x is read by the scale.x scale.y threads that repeat it, from the cache but once.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void upsample_forward(const T* x, int2 scale, T* y, int n, int h, int w, int c) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    GRID_STRIDE(i, (long long)n * h * scale.x * w * scale.y * across) {
        long long rest = i;
        int channel = split(rest, across);
        int column = split(rest, w * scale.y) / scale.y;
        int row = split(rest, h * scale.x) / scale.x;
        write(y, i, read<SIZE>(x, ((rest * h + row) * w + column) * across + channel));
    }
}

// dx = Σ dy over the block of pixels that repeat it.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void upsample_backward(const T* dy, int2 scale, T* dx, int n, int h, int w, int c) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    GRID_STRIDE(i, (long long)n * h * w * across) {
        long long row = i;
        int channel = split(row, across), column = split(row, w);
        Some<T, SIZE> total = all<SIZE>(T(0));
        for (int u = 0; u < scale.x; u++) {
            long long first = ((row * scale.x + u) * w + column) * scale.y;
            for (int v = 0; v < scale.y; v++) {
                Some<T, SIZE> g = read<SIZE>(dy, (first + v) * across + channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += g.at[k];
            }
        }
        write(dx, i, total);
    }
}
