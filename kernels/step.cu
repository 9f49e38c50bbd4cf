// Reads the values of the current step from a table, and records its losses, in a captured step
// that is replayed. One small block each; bounded by the launch. See capture.py.
#include "common.cuh"

// current = table[row], row += 1: the first kernel of every replay. One block; table (ROWS, W).
__global__ void take_row(const unsigned long long* table, unsigned long long* row,
                         unsigned long long* current, int w) {
    unsigned long long r = row[0];
    for (int j = threadIdx.x; j < w; j += blockDim.x) current[j] = table[r * w + j];
    __syncthreads();
    if (threadIdx.x == 0) row[0] = r + 1;
}

// Records losses: history[row, j] = the j-th of up to eight numbers; history (ROWS, W).
template <typename T>
__global__ void keep(const T* a, const T* b, const T* c, const T* d, const T* e, const T* f,
                     const T* g, const T* h, const unsigned long long* row, T* history, int w) {
    const T* numbers[8] = {a, b, c, d, e, f, g, h};
    if ((int)threadIdx.x < w) history[row[0] * w + threadIdx.x] = numbers[threadIdx.x][0];
}
