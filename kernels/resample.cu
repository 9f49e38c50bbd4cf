// Upsampling by repeated pixels, y[i, j] = x[⌊i / scale⌋, ⌊j / scale⌋], and its transpose.
//
// Images are channels-last; a thread computes one number of the result (``wide``: sixteen bytes of
// channels of one pixel), sums in a fixed order, so the bits do not depend on the grid.
// Memory-bound. scale is (rows, columns): .x and .y; h and w are the sizes of the smaller images.
#include "rows.cuh"

// scale.x · scale.y threads read each pixel of x, all but the first from the cache.
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
        Vec<T, SIZE> total = splat<SIZE>(T(0));
        for (int u = 0; u < scale.x; u++) {
            long long first = ((row * scale.x + u) * w + column) * scale.y;
            for (int v = 0; v < scale.y; v++) {
                Vec<T, SIZE> g = read<SIZE>(dy, (first + v) * across + channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += g.at[k];
            }
        }
        write(dx, i, total);
    }
}
