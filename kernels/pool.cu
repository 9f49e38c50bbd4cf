// Pooling: the largest, or the mean, of the pixels under a window, and the way back.
//
// Images are channels-last. A thread owns one number of the result, or wide sixteen bytes of
// channels of one pixel, and gathers what it needs: nothing is written twice, so no two threads
// meet. Neighbouring threads read neighbouring channels, and windows that overlap find their pixels
// in the cache. Pairs are (rows, columns): .x and .y.
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
        int reach = p + padding - kernel;              // windows that begin here have just left p
        first = reach < 0 ? 0 : reach / stride + 1;
        last = min(out - 1, (p + padding) / stride);
    }
};

// y = max under the window, tap = the first that reaches it; NaN wins. The border counts as −∞.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void max_forward(const T* x, int2 kernel, int2 stride, int2 padding, T* y, int* tap,
                            int n, int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    GRID_STRIDE(i, (long long)n * oh * ow * across) {
        Pixel out(i, oh, ow, across);
        Some<T, SIZE> largest = all<SIZE>(-infinity<T>());
        Some<int, SIZE> which = all<SIZE>(-1);
        int top = out.row * stride.x - padding.x, left = out.column * stride.y - padding.y;
        for (int u = max(0, -top); u < min(kernel.x, h - top); u++) {
            long long line = (out.image * h + top + u) * w + left;
            for (int v = max(0, -left); v < min(kernel.y, w - left); v++) {
                Some<T, SIZE> seen = read<SIZE>(x, (line + v) * across + out.channel);
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
        Some<T, SIZE> total = all<SIZE>(T(0));
        for (int a = down.last; a >= down.first; a--)
            for (int b = along.last; b >= along.first; b--) {
                long long at = ((in.image * oh + a) * ow + b) * across + in.channel;
                int t = (in.row + padding.x - a * stride.x) * kernel.y + in.column + padding.y -
                        b * stride.y;
                Some<T, SIZE> g = read<SIZE>(dy, at);
                Some<int, SIZE> which = read<SIZE>(tap, at);
                for (int k = 0; k < SIZE; k++) total.at[k] += which.at[k] == t ? g.at[k] : T(0);
            }
        write(dx, i, total);
    }
}

// y = Σ under the window / (KH KW), the border counting as 0.
// constants: (false) (true)
template <typename T, bool wide>
__global__ void average_forward(const T* x, int2 kernel, int2 stride, int2 padding, T* y, int n,
                                int h, int w, int c, int oh, int ow) {
    const int SIZE = wide ? Pack<T>::SIZE : 1;
    int across = c / SIZE;
    T count = T(kernel.x * kernel.y);
    GRID_STRIDE(i, (long long)n * oh * ow * across) {
        Pixel out(i, oh, ow, across);
        Some<T, SIZE> total = all<SIZE>(T(0));
        int top = out.row * stride.x - padding.x, left = out.column * stride.y - padding.y;
        for (int u = max(0, -top); u < min(kernel.x, h - top); u++) {
            long long line = (out.image * h + top + u) * w + left;
            for (int v = max(0, -left); v < min(kernel.y, w - left); v++) {
                Some<T, SIZE> seen = read<SIZE>(x, (line + v) * across + out.channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += seen.at[k];
            }
        }
        for (int k = 0; k < SIZE; k++) total.at[k] /= count;
        write(y, i, total);
    }
}

// dx = Σ dy over the windows that hold this pixel / (KH KW): the transpose.
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
        Some<T, SIZE> total = all<SIZE>(T(0));
        for (int a = down.last; a >= down.first; a--)
            for (int b = along.last; b >= along.first; b--) {
                Some<T, SIZE> g =
                    read<SIZE>(dy, ((in.image * oh + a) * ow + b) * across + in.channel);
                for (int k = 0; k < SIZE; k++) total.at[k] += g.at[k];
            }
        for (int k = 0; k < SIZE; k++) total.at[k] /= count;
        write(dx, i, total);
    }
}
