"""Convolution with filters of 4 × 4, stride 2, padding 1.

x (N, H, W, C), w (4, 4, C, O), y (N, OH, OW, O) with OH = ⌊H/2⌋:
y[i, j] = Σ_{u, v} x[2i + u − 1, 2j + v − 1] w[u, v]  over the taps (u, v) that lie in the image.
Each tap is a dense layer of the channels, so most of what the dense page says holds here too.
GFLOP/s count the multiply-adds of this sum, also where a rung needs fewer.
"""

import numpy as np
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.gemm_blocks import gemm
from scratchgen.kernels.minimal_filter import minimal_filter

import scratchgen as sg

from . import Ladder

K, STRIDE, PADDING = 4, 2, 1
TILE = 3             # outputs that Winograd's filtering makes at a time, along each axis
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
    border; and the patches of a few images are still in the cache when the product reads them.
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


def patches_over_threads(x, w):
    """sg.conv2d by patches: the same, over all threads

    Why: each thread takes images of its own, with a patch buffer that fits in its core's cache.
    """
    with sg.use_convolution("patches"):
        return sg.conv2d(x, w, stride=STRIDE, padding=PADDING).data


def sums(matrix, parts):
    """For each row of a small matrix, the sum of its numbers times the parts."""
    return [sum(a * part for a, part in zip(row, parts, strict=True) if a) for row in matrix]


def winograd_numpy(x, w):
    """Winograd's minimal filtering in NumPy: 3 × 3 outputs of 2 × 2 taps from 16 products, not 36

    Why: only additions and halving come before and after (docs/winograd.md derives it). To read:
    NumPy makes a dozen passes over memory for them, which cost more than the products saved.
    """
    bt, g, at = (a.astype(x.dtype) for a in minimal_filter(TILE, K // STRIDE))
    (n, h, width, c), o, z = x.shape, w.shape[3], range(len(bt))
    down, across = -(-(h // STRIDE) // TILE), -(-(width // STRIDE) // TILE)
    rows, columns = STRIDE * (TILE * down + 1), STRIDE * (TILE * across + 1)
    x = np.pad(x, ((0, 0), (PADDING, max(0, rows - h - PADDING)), (
        PADDING, max(0, columns - width - PADDING)), (0, 0)))[:, :rows, :columns]
    # A pixel of each phase, together: a grid with 4·C channels, where filters have 2 × 2 taps.
    x = x.reshape(n, rows // STRIDE, STRIDE, columns // STRIDE, STRIDE * c).swapaxes(2, 3)
    w = w.reshape(K // STRIDE, STRIDE, K // STRIDE, STRIDE * c, o).swapaxes(1, 2)
    v = [sums(bt, [line[:, :, j:j + TILE * across - 2:TILE] for j in z])          # Bᵀ x B
         for line in sums(bt, [x[:, i:i + TILE * down - 2:TILE] for i in z])]
    u = [sums(g, line) for line in sums(g, w)]                                    # G w Gᵀ
    m = [[v[p][q].reshape(-1, STRIDE**2 * c) @ u[p][q].reshape(-1, o) for q in z] for p in z]
    y = np.empty((n, TILE * down, TILE * across, o), x.dtype)
    lines = zip(*(sums(at, m[p]) for p in z), strict=True)                        # m A
    for j, line in enumerate(lines):
        for i, part in enumerate(sums(at, line)):                                 # Aᵀ (m A)
            y[:, i::TILE, j::TILE] = part.reshape(n, down, across, o)
    return np.ascontiguousarray(y[:, :h // STRIDE, :width // STRIDE])


def scratchgen_conv2d(x, w):
    """sg.conv2d with fewer products, over all threads

    Why: a few images at a time are transformed, multiplied and transformed back in the cache, row
    by row, and border tiles are no larger than they must be (kernels/winograd.py).
    """
    with sg.use_convolution("winograd"):
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
            patches_over_threads, winograd_numpy, scratchgen_conv2d), **SIZES)]
