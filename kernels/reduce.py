"""Reductions: over the middle axis of an array (A, R, B), over all of it, and over rows.

On the CPU the sums and maxima are NumPy's, which need one pass each and add in the same order on
every processor. NaN propagates in ``max`` and ``min``.
"""

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, empty, launch
from .vector_math import exp, log

ENOUGH_THREADS = 1 << 17              # threads that fully use a large GPU
ENOUGH_BLOCKS = 1056                  # of 256 threads; eight for each of 132 multiprocessors
ONE_BLOCK = 1 << 15                   # numbers that one block adds as fast as many blocks
LITTLE = 2048                         # numbers too few for a block of threads
OPERATIONS = SUM, LARGEST, SMALLEST = range(3)         # as in rows.cuh
MISSING = {
    "sum_numba": "NumPy's own sum is one pass already",
    "mean_numba": "NumPy's own mean is one pass already",
    "max_numba": "NumPy's own max is one pass already",
    "min_numba": "NumPy's own min is one pass already",
    "sum_all_numba": "NumPy's own sum is one pass already",
    "softmax_backward_numba": "the rule of the op, which is NumPy's, serves both backends of the "
                              "CPU",
    "log_softmax_backward_numba": "the rule of the op, which is NumPy's, serves both backends of "
                                  "the CPU",
}


# --- sum, mean, max, min (x, y): over R, x (A, R, B), y (A, B) -----------------------------------

def sum_numpy(x, y):
    np.sum(x, axis=1, out=y)


def sum_cuda(x, y):
    reduce(x, y, SUM)


def mean_numpy(x, y):
    np.mean(x, axis=1, out=y)


def mean_cuda(x, y):
    reduce(x, y, SUM, x.shape[1])


def max_numpy(x, y):
    np.max(x, axis=1, out=y)


def max_cuda(x, y):
    reduce(x, y, LARGEST)


def min_numpy(x, y):
    np.min(x, axis=1, out=y)


def min_cuda(x, y):
    reduce(x, y, SMALLEST)


def reduce(x, y, operation, divisor=1):
    """Reduce on the GPU; in two launches if there are too few results for one block each."""
    a, r, b = x.shape
    if b == 1:
        reduce_rows(x.reshape(a, r), y, operation, divisor)
    else:
        reduce_columns(x, y, operation, divisor)


def reduce_rows(x, y, operation, divisor):
    """y (A,) from x (A, R)."""
    a, r = x.shape
    wide, shares = r % (16 // x.itemsize) == 0, 1
    lanes = lanes_for(a, r * x.itemsize // 16, numbers=4) if wide else lanes_for(a, r)
    if a and lanes == 256 and r > 8192:
        shares = min(blocks_for(r, 4096), blocks_for(ENOUGH_BLOCKS, a))
    share = 4 * max(1, blocks_for(r, 4 * shares))      # whole packs
    shares = max(1, blocks_for(r, share))
    sums = y if shares == 1 else empty((a, shares), x.dtype)
    grid, block = row_grid(a, lanes)
    launch("reduce.rows", (grid, shares), block, x, sums, operation,
           divisor if shares == 1 else 1, a, r, share, lanes, constants=(wide,))
    if shares > 1:
        reduce_rows(sums, y, operation, divisor)


def reduce_columns(x, y, operation, divisor):
    """y (A, B) from x (A, R, B)."""
    a, r, b = x.shape
    if r * b < LITTLE:
        wide = b % (16 // x.itemsize) == 0 and a * b >= ENOUGH_THREADS
        threads = a * b * x.itemsize // 16 if wide else a * b
        launch("reduce.each", blocks_for(threads, 128), 128, x, y, operation, divisor, a, r, b,
               constants=(wide,))
        return
    wide, across, width, share, shares = tiles_for(r, b, x.itemsize, a)
    sums = y if shares == 1 else empty((a, shares, b), x.dtype)
    launch("reduce.columns", (a * blocks_for(across, width), shares), 256, x, sums, operation,
           divisor if shares == 1 else 1, r, b, share, width, constants=(wide,))
    if shares > 1:
        reduce_columns(sums, y, operation, divisor)


def lanes_for(rows, length, most=256, numbers=8):
    """The number of threads per row, a power of two: about eight numbers per thread, or fewer if
    there are few rows."""
    lanes = 1
    while lanes < min(most, length) and (lanes * numbers < length
                                         or rows * lanes < ENOUGH_THREADS):
        lanes *= 2
    return lanes


def tiles_for(m, c, itemsize, matrices=1, rows=8):
    """The tiles of a reduction of the columns of matrices (M, C): (whether a thread reads packs,
    columns or packs of a matrix, of a tile, rows of a share, number of shares). A thread has at
    least ``rows`` rows if there are so many; small matrices have narrow tiles, for more blocks.
    """
    small = matrices * m * c < 1 << 18
    wide = not small and c % (16 // itemsize) == 0
    across = c * itemsize // 16 if wide else c
    width = max(1, min(across, 8 if small else 32))
    shares = min(blocks_for(m, 256 // width * rows),
                 blocks_for(ENOUGH_BLOCKS, max(1, matrices * blocks_for(across, width))))
    share = blocks_for(m, max(1, shares)) or 1
    return wide, across, width, share, max(1, blocks_for(m, share))


# --- sum_all(x, scale, y): y = scale Σ x, in double and in a fixed order; x of any shape, y (1,) -

def sum_all_numpy(x, scale, y):
    y[0] = scale * np.sum(x, dtype=np.float64)


def sum_all_cuda(x, scale, y):
    if x.size <= ONE_BLOCK:
        launch("reduce.sum_all", 1, 1024, x, scale, y, x.size)
        return
    shares = min(blocks_for(x.size, 8192), ENOUGH_BLOCKS)
    partial = empty(shares, np.float64)
    launch("reduce.sum_shares", shares, 256, x, x.size, partial)
    launch("reduce.add_shares", 1, 256, partial, scale, y, shares)


# --- softmax, log_softmax (x, y) over rows, x and y (N, D); logsumexp(x, y), y (N,) --------------

def softmax_numpy(x, y):
    np.exp(x - np.max(x, axis=1, keepdims=True), out=y)
    y /= np.sum(y, axis=1, keepdims=True)


@compiled(parallel=True)
def softmax_numba(x, y):
    for i in prange(x.shape[0]):                       # each iteration owns a row of y
        total = exponentials(x[i], largest(x[i]), y[i])
        for j in range(x.shape[1]):
            y[i, j] /= total


@compiled
def largest(row):
    """The largest number, NaN if there is one."""
    found = row[0]
    for j in range(row.size):
        found = row[j] if row[j] > found or row[j] != row[j] else found
    return found


@compiled
def exponentials(x, shift, y):
    """y = eˣ⁻ˢ for one row; returns their sum, which is taken in float64."""
    for j in range(x.size):
        y[j] = exp(x[j] - shift)
    total = 0.0
    for j in range(x.size):
        total += y[j]
    return y.dtype.type(total)


def softmax_cuda(x, y):
    launch_softmax("softmax", x, y)


def log_softmax_numpy(x, y):
    np.subtract(x, np.max(x, axis=1, keepdims=True), out=y)
    y -= np.log(np.sum(np.exp(y), axis=1, keepdims=True))


@compiled(parallel=True)
def log_softmax_numba(x, y):
    for i in prange(x.shape[0]):                       # each iteration owns a row of y
        shift = largest(x[i])
        rest = log(exponentials(x[i], shift, y[i]))
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - shift - rest


def log_softmax_cuda(x, y):
    launch_softmax("log_softmax", x, y)


def logsumexp_numpy(x, y):
    m = np.max(x, axis=1, keepdims=True)
    m = np.where(np.isfinite(m), m, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):                 # ln 0: every x is −∞, and so is y
        y[...] = (np.log(np.sum(np.exp(x - m), axis=1, keepdims=True)) + m)[:, 0]


@compiled(parallel=True)
def logsumexp_numba(x, y):
    for i in prange(x.shape[0]):                       # each iteration owns a number of y
        shift = largest(x[i])
        shift = shift if abs(shift) < np.inf else x.dtype.type(0)
        y[i] = log(exponentials(x[i], shift, np.empty(x.shape[1], x.dtype))) + shift


def logsumexp_cuda(x, y):
    launch_softmax("logsumexp", x, y)


# --- softmax_backward, log_softmax_backward (dy, y, dx): from the output, all (N, D) -------------

def softmax_backward_numpy(dy, y, dx):
    dx[...] = y * (dy - np.sum(dy * y, axis=1, keepdims=True))


def softmax_backward_cuda(dy, y, dx):
    launch_softmax("softmax_backward", dy, y, dx)


def log_softmax_backward_numpy(dy, y, dx):
    dx[...] = dy - np.exp(y) * np.sum(dy, axis=1, keepdims=True)


def log_softmax_backward_cuda(dy, y, dx):
    launch_softmax("log_softmax_backward", dy, y, dx)


def launch_softmax(kernel, *arrays):
    """Launch a kernel with a group of lanes per row of the first array."""
    n, d = arrays[0].shape
    lanes = lanes_for(n, d, most=512)                  # each of which may use 128 registers
    grid, block = row_grid(n, lanes)
    launch(f"reduce.{kernel}", grid, block, *arrays, n, d, lanes)


def row_grid(n, lanes):
    """(grid, block) for ``lanes`` threads a row."""
    block = max(256, lanes) if lanes <= 32 else lanes
    return blocks_for(n * lanes, block), block
