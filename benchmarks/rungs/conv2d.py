"""Convolution with filters of 4 × 4, stride 2, padding 1.

x (N, H, W, C), w (4, 4, C, O), y (N, OH, OW, O) with OH = ⌊H/2⌋:
y[i, j] = Σ_{u, v} x[2i + u − 1, 2j + v − 1] w[u, v]  over the taps (u, v) that lie in the image.
Each tap is a dense layer of the channels, so most of what the dense page says holds here too.
"""

import numpy as np
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.gemm import gemm

import scratchgen as sg

from . import Ladder

K, STRIDE, PADDING = 4, 2, 1
# A negative index counts from the end. One that cannot be negative needs no such check, and the
# loop becomes vector instructions.
unsigned = np.uint64


def tap(x, u, v):
    """What tap (u, v) sees of x with its border: (N, OH, OW, C), a view."""
    oh, ow = (x.shape[1] - K) // STRIDE + 1, (x.shape[2] - K) // STRIDE + 1
    return x[:, u:u + STRIDE * oh - 1:STRIDE, v:v + STRIDE * ow - 1:STRIDE]


def border(x):
    return np.pad(x, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))


def formula(x, w):
    x = border(x)
    return sum(tap(x, u, v) @ w[u, v] for u in range(K) for v in range(K))


@compiled
def seven_loops(x, w):
    """Seven loops: the definition, a sum for each output

    Why: slow, for it walks through w in strides of O, asks for each tap whether it lies in the
    image, and each addition waits for the one before.
    """
    (n, h, width, c), o = x.shape, w.shape[3]
    y = np.empty((n, h // STRIDE, width // STRIDE, o), x.dtype)
    for image, i, j in np.ndindex(y.shape[:3]):
        for out in range(o):
            total = x.dtype.type(0)
            for u in range(K):
                for v in range(K):
                    row, column = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
                    if 0 <= row < h and 0 <= column < width:
                        for k in range(c):
                            total += x[image, row, column, k] * w[u, v, k, out]
            y[image, i, j, out] = total
    return y


@compiled
def filters_innermost(x, w):
    """The loop over the filters innermost: all O sums of a position grow together

    Why: the innermost loop runs along rows of w and y and becomes vector instructions, and whether
    a tap lies in the image is asked once for C·O multiplications.
    """
    (n, h, width, c), o = x.shape, w.shape[3]
    y = np.zeros((n, h // STRIDE, width // STRIDE, o), x.dtype)
    for image, i, j in np.ndindex(y.shape[:3]):
        sums = y[image, i, j]
        for u in range(K):
            for v in range(K):
                row, column = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
                if 0 <= row < h and 0 <= column < width:
                    for k in range(c):
                        factor, filters = x[image, row, column, k], w[u, v, k]
                        for out in range(o):
                            sums[out] += factor * filters[out]
    return y


def patches_by_slices(x, w):
    """im2col in NumPy: every patch becomes a row, then one product with BLAS

    Why: the product is one large matrix product, where BLAS is at its best; that pays for writing
    each pixel into memory four times.
    """
    x = border(x)
    views = [tap(x, u, v) for u in range(K) for v in range(K)]
    return np.stack(views, axis=3).reshape(*views[0].shape[:3], -1) @ w.reshape(-1, w.shape[3])


@compiled
def im2col(x, columns):
    """Rows of patches: channels last make a row of a patch one run of 4·C numbers in x as well."""
    n, h, width, c = x.shape
    oh, ow = h // STRIDE, width // STRIDE
    lines, zero = x.reshape(n * h, width * c), x.dtype.type(0)
    for image, i, j in np.ndindex((n, oh, ow)):
        patch = columns[(image * oh + i) * ow + j].reshape(K, K * c)
        start = (STRIDE * j - PADDING) * c
        for u in range(K):
            row, target = STRIDE * i + u - PADDING, patch[u]
            there = 0 <= row < h
            line = lines[image * h + row if there else 0]
            first = max(0, -start) if there else K * c
            last = max(first, min(K * c, width * c - start))
            for k in range(first):
                target[k] = zero
            for k in range(first, last):
                target[unsigned(k)] = line[unsigned(start + k)]
            for k in range(last, K * c):
                target[unsigned(k)] = zero


@compiled
def patches_in_runs(x, w):
    """im2col in whole runs, a few images at a time

    Why: a patch is copied as four runs, not as sixteen strided pieces, without a copy of x with its
    border; and the patches of a few images are still in the cache when BLAS reads them.
    """
    (n, h, width, c), o = x.shape, w.shape[3]
    positions = (h // STRIDE) * (width // STRIDE)
    y = np.empty((n, h // STRIDE, width // STRIDE, o), x.dtype)
    rows, filters = y.reshape(n * positions, o), w.reshape(K * K * c, o)
    few = max(1, 512 // positions)
    columns = np.empty((min(n, few) * positions, K * K * c), x.dtype)
    for first in range(0, n, few):
        last = min(n, first + few)
        count = (last - first) * positions
        im2col(x[first:last], columns)
        gemm(columns[:count], filters, rows[first * positions:last * positions], False, False, 0)
    return y


def conv2d_in_the_house(x, w):
    """sg.conv2d: the same, over all threads

    Why: each thread takes images of its own, with a patch buffer that fits in its core's cache.
    """
    return sg.conv2d(x, w, stride=STRIDE, padding=PADDING).data


# --- the ladder ----------------------------------------------------------------------------------

def arguments(*names):
    """Arrays of these names, standard normal; w scaled so that y has the scale of x."""
    def draw(rng, n, h, w, c, o):
        shapes = {"x": (n, h, w, c), "w": (K, K, c, o), "dy": (n, h // STRIDE, w // STRIDE, o)}
        return [rng.standard_normal(shapes[name]) / (K * np.sqrt(c) if name == "w" else 1)
                for name in names]
    return draw


def work(n, h, w, c, o):
    return 2 * n * (h // STRIDE) * (w // STRIDE) * K * K * c * o


SIZES = {"size": (64, 14, 14, 32, 64),
         "ragged": ((3, 10, 8, 5, 7), (70, 6, 4, 2, 3), (1, 4, 2, 1, 9))}
LADDERS = [
    Ladder("conv2d", "y = conv2d(x, w), x (N, H, W, C), w (4, 4, C, O), stride 2", "GFLOP/s", work,
           arguments("x", "w"), formula,
           (seven_loops, filters_innermost, patches_by_slices, patches_in_runs,
            conv2d_in_the_house), **SIZES)]
