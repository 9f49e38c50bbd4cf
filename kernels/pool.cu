// Max and average pooling, and their gradients.
//
// Images are channels-last. A thread computes one number of the result (``wide``: sixteen bytes of
// channels of one pixel) and reads all its inputs, the gradients too: no two threads write the same
// number, each sum has a fixed order, and the bits do not depend on the grid. Neighbouring threads
// read neighbouring channels; pixels of overlapping windows come from the cache. Memory-bound.
// Pairs are (rows, columns): .x and .y.
#include "rows.cuh"

// Pixel (row, column) of image `image`, and pack `channel` of it.
struct Pixel {
    long long image;
    int row, column, channel;
    __device__ Pixel(long long i, int rows, int columns, int channels) {
        channel = split(i, channels);
        column = split(i, columns);
        row = split(i, rows);
        image = i;
    }
};

// The outputs along one axis whose window holds pixel p: first … last; an output at i has the pixel
// as its tap p + padding − i stride.
struct Outputs {
    int first, last;
    __device__ Outputs(int p, int kernel, int stride, int padding, int out) {
        int reach = p + padding - kernel;              // a window that begins here ends before p
        first = reach < 0 ? 0 : reach / stride + 1;
        last = min(out - 1, (p + padding) / stride);
    }
};

// y = max over the window, tap = the first position of the maximum; NaN propagates. The border
// counts as −∞.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void max_forward(const T* x, int2 kernel, int2 stride, int2 padding, T* y, int* tap,
                            int n, int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    GRID_STRIDE(i, (long long)n * oh * ow * across) {
        Pixel out(i, oh, ow, across);
        Vec<T, SIZE> largest = splat<SIZE>(-infinity<T>());
        Vec<int, SIZE> which = splat<SIZE>(-1);
        int top = out.row * stride.x - padding.x, left = out.column * stride.y - padding.y;
        for (int u = max(0, -top); u < min(kernel.x, h - top); u++) {
            long long line = (out.image * h + top + u) * w + left;
            for (int v = max(0, -left); v < min(kernel.y, w - left); v++) {
                Vec<T, SIZE> seen = read<SIZE>(x, (line + v) * across + out.channel);
                for (int k = 0; k < SIZE; k++) {
                    T s = seen.at[k];
                    if (s > largest.at[k] || s != s || which.at[k] < 0) {
                        largest.at[k] = s;
                        which.at[k] = u * kernel.y + v;
                    }
                }
            }
        }
        write(y, i, largest);
        write(tap, i, which);
    }
}

// dx = Σ dy over the windows whose tap is this pixel.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void max_backward(const T* dy, const int* tap, int2 kernel, int2 stride, int2 padding,
                             T* dx, int n, int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    GRID_STRIDE(i, (long long)n * h * w * across) {
        Pixel in(i, h, w, across);
        Outputs down(in.row, kernel.x, stride.x, padding.x, oh);
        Outputs along(in.column, kernel.y, stride.y, padding.y, ow);
        Vec<T, SIZE> total = splat<SIZE>(T(0));
        for (int a = down.last; a >= down.first; a--)
            for (int b = along.last; b >= along.first; b--) {
                long long at = ((in.image * oh + a) * ow + b) * across + in.channel;
                int t = (in.row + padding.x - a * stride.x) * kernel.y + in.column + padding.y -
                        b * stride.y;
                Vec<T, SIZE> g = read<SIZE>(dy, at);
                Vec<int, SIZE> which = read<SIZE>(tap, at);
                for (int k = 0; k < SIZE; k++) total.at[k] += which.at[k] == t ? g.at[k] : T(0);
            }
        write(dx, i, total);
    }
}

// y = Σ over the window / (KH KW); the border counts as 0.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void average_forward(const T* x, int2 kernel, int2 stride, int2 padding, T* y, int n,
                                int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    T count = T(kernel.x * kernel.y);
    GRID_STRIDE(i, (long long)n * oh * ow * across) {
        Pixel out(i, oh, ow, across);
        Vec<T, SIZE> total = splat<SIZE>(T(0));
        int top = out.row * stride.x - padding.x, left = out.column * stride.y - padding.y;
        for (int u = max(0, -top); u < min(kernel.x, h - top); u++) {
            long long line = (out.image * h + top + u) * w + left;
            for (int v = max(0, -left); v < min(kernel.y, w - left); v++) {
                Vec<T, SIZE> seen = read<SIZE>(x, (line + v) * across + out.channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += seen.at[k];
            }
        }
        for (int k = 0; k < SIZE; k++) total.at[k] /= count;
        write(y, i, total);
    }
}

// dx = Σ dy over the windows that contain this pixel / (KH KW).
// constants: (false) (true)
template <typename T, bool wide>
__global__ void average_backward(const T* dy, int2 kernel, int2 stride, int2 padding, T* dx, int n,
                                 int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    T count = T(kernel.x * kernel.y);
    GRID_STRIDE(i, (long long)n * h * w * across) {
        Pixel in(i, h, w, across);
        Outputs down(in.row, kernel.x, stride.x, padding.x, oh);
        Outputs along(in.column, kernel.y, stride.y, padding.y, ow);
        Vec<T, SIZE> total = splat<SIZE>(T(0));
        for (int a = down.last; a >= down.first; a--)
            for (int b = along.last; b >= along.first; b--) {
                Vec<T, SIZE> g =
                    read<SIZE>(dy, ((in.image * oh + a) * ow + b) * across + in.channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += g.at[k];
            }
        for (int k = 0; k < SIZE; k++) total.at[k] /= count;
        write(dx, i, total);
    }
}
