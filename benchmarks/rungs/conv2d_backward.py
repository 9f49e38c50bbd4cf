"""The convolution's two derivatives, for filters of 4 × 4, stride 2 and padding 1.

dx: every output gives back to the pixels of its patch. dw: a sum over all images and positions.
Shapes and names as in ``conv2d.py``.
"""

import numpy as np
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.gemm_blocks import gemm

import scratchgen as sg

from . import Ladder
from .conv2d import PADDING, SIZES, STRIDE, K, arguments, border, im2col, tap, unsigned, work

# --- dx: the transposed convolution --------------------------------------------------------------

def input_formula(dy, w):
    (n, oh, ow, _), c = dy.shape, w.shape[2]
    dx = np.zeros((n, STRIDE * oh + 2 * PADDING, STRIDE * ow + 2 * PADDING, c), dy.dtype)
    for u in range(K):
        for v in range(K):
            tap(dx, u, v)[...] += dy @ w[u, v].T
    return dx[:, PADDING:-PADDING, PADDING:-PADDING]


@compiled
def zeros_between(dy, w):
    """The definition: dy with zeros between its pixels, convolved with w rotated by 180°

    Why: slow, for three of four multiplications are by those zeros (stride² − 1 of stride²); they
    are not counted as work here.
    """
    (n, oh, ow, o), c = dy.shape, w.shape[2]
    wide = np.zeros((n, STRIDE * oh + K - 1, STRIDE * ow + K - 1, o), dy.dtype)
    for image, i, j in np.ndindex((n, oh, ow)):
        for out in range(o):
            wide[image, STRIDE * i + K - 1 - PADDING, STRIDE * j + K - 1 - PADDING, out] = dy[
                image, i, j, out]
    dx = np.empty((n, STRIDE * oh, STRIDE * ow, c), dy.dtype)
    for image, row, column in np.ndindex(dx.shape[:3]):
        for k in range(c):
            total = dy.dtype.type(0)
            for u in range(K):
                for v in range(K):
                    g, filters = wide[image, row + u, column + v], w[K - 1 - u, K - 1 - v, k]
                    for out in range(o):
                        total += g[out] * filters[out]
            dx[image, row, column, k] = total
    return dx


@compiled
def scatter(dy, w):
    """Each output adds its contribution to each pixel of its patch

    Why: nothing is multiplied by zero. But two outputs may add to one pixel, so threads would have
    to take turns, and each pixel's sum is one sum, without vector instructions.
    """
    (n, oh, ow, o), c = dy.shape, w.shape[2]
    h, width = STRIDE * oh, STRIDE * ow
    dx = np.zeros((n, h, width, c), dy.dtype)
    for image, i, j in np.ndindex((n, oh, ow)):
        g = dy[image, i, j]
        for u in range(K):
            for v in range(K):
                row, column = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
                if 0 <= row < h and 0 <= column < width:
                    for k in range(c):
                        total, filters = dy.dtype.type(0), w[u, v, k]
                        for out in range(o):
                            total += g[out] * filters[out]
                        dx[image, row, column, k] += total
    return dx


def product_and_slices(dy, w):
    """The contributions of all outputs by one product with BLAS; then NumPy adds tap by tap

    Why: the product makes full use of the registers. But all patches of the batch are written to
    memory, and read again in sixteen strided passes.
    """
    (n, oh, ow, o), c = dy.shape, w.shape[2]
    owed = (dy.reshape(-1, o) @ w.reshape(-1, o).T).reshape(n, oh, ow, K, K, c)
    dx = np.zeros((n, STRIDE * oh + 2 * PADDING, STRIDE * ow + 2 * PADDING, c), dy.dtype)
    for u in range(K):
        for v in range(K):
            tap(dx, u, v)[...] += owed[:, :, :, u, v]
    return dx[:, PADDING:-PADDING, PADDING:-PADDING]


@compiled
def gather(owed, dx):
    """col2im by the pixels: each line of dx asks the two lines of outputs above it, whole runs."""
    n, h, width, c = dx.shape
    oh, ow = h // STRIDE, width // STRIDE
    lines = dx.reshape(n * h, width * c)
    for index in range(n * h):
        image, row, line = index // h, index % h, lines[index]
        for k in range(width * c):
            line[k] = dx.dtype.type(0)
        for u in range((row + PADDING) % STRIDE, K, STRIDE):
            i = (row + PADDING - u) // STRIDE
            if 0 <= i < oh:
                for j in range(ow):
                    run = owed[(image * oh + i) * ow + j].reshape(K, K * c)[u]
                    start = (STRIDE * j - PADDING) * c
                    for k in range(max(0, -start), min(K * c, width * c - start)):
                        line[unsigned(start + k)] += run[unsigned(k)]


@compiled
def product_and_gather(dy, w):
    """The same product for a few images at a time; then each line of dx gathers its contributions

    Why: the contributions are still in the cache when read; runs of 4·C numbers become vector
    instructions; and a line of dx belongs to one iteration, so threads need not wait.
    """
    (n, oh, ow, o), c = dy.shape, w.shape[2]
    positions, dx = oh * ow, np.empty((n, STRIDE * oh, STRIDE * ow, c), dy.dtype)
    rows, filters = dy.reshape(n * positions, o), w.reshape(K * K * c, o)
    few = max(1, 512 // positions)
    owed = np.empty((min(n, few) * positions, K * K * c), dy.dtype)
    for first in range(0, n, few):
        last = min(n, first + few)
        count = (last - first) * positions
        gemm(rows[first * positions:last * positions], filters, owed[:count], False, True, 0)
        gather(owed, dx[first:last])
    return dx


def gather_over_threads(dy, w):
    """sg.conv2d_input by patches: the same, over all threads

    Why: each thread takes images of its own; so does conv_transpose2d, which is the same map.
    """
    size = (STRIDE * dy.shape[1], STRIDE * dy.shape[2])
    with sg.use_convolution("patches"):
        return sg.conv2d_input(dy, w, size, stride=STRIDE, padding=PADDING).data


def scratchgen_input(dy, w):
    """sg.conv2d_input with fewer products: Winograd's filtering, transposed

    Why: y = Aᵀ((G w) ∘ (Bᵀ x)) is linear in x; its transpose, x = B((G w) ∘ (A y)), saves as many
    products, and nothing is multiplied by zero here either (docs/winograd.md).
    """
    size = (STRIDE * dy.shape[1], STRIDE * dy.shape[2])
    with sg.use_convolution("winograd"):
        return sg.conv2d_input(dy, w, size, stride=STRIDE, padding=PADDING).data


# --- dw[u, v] = Σ over images and positions of xᵀ dy ---------------------------------------------

def weight_formula(x, dy):
    x, (c, o) = border(x), (x.shape[3], dy.shape[3])
    return np.stack([tap(x, u, v).reshape(-1, c).T @ dy.reshape(-1, o)
                     for u in range(K) for v in range(K)]).reshape(K, K, c, o)


@compiled
def sum_for_each_weight(x, dy):
    """A sum over all images and positions for each weight

    Why: slow, for it walks through all of x and dy, in strides of C and O, once for each of the
    16·C·O weights.
    """
    (n, h, width, c), (oh, ow, o) = x.shape, dy.shape[1:]
    dw = np.empty((K, K, c, o), x.dtype)
    for u, v, k, out in np.ndindex(dw.shape):
        total = x.dtype.type(0)
        for image in range(n):
            for i in range(oh):
                row = STRIDE * i + u - PADDING
                if 0 <= row < h:
                    for j in range(ow):
                        column = STRIDE * j + v - PADDING
                        if 0 <= column < width:
                            total += x[image, row, column, k] * dy[image, i, j, out]
        dw[u, v, k, out] = total
    return dw


@compiled
def outer_products(x, dy):
    """Each position adds an outer product of x and dy to each tap

    Why: x and dy are read in order and once, and the innermost loop over the filters becomes vector
    instructions; dw comes and goes once for each position instead.
    """
    (n, h, width, c), (oh, ow, o) = x.shape, dy.shape[1:]
    dw = np.zeros((K, K, c, o), x.dtype)
    for image, i, j in np.ndindex((n, oh, ow)):
        g = dy[image, i, j]
        for u in range(K):
            for v in range(K):
                row, column = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
                if 0 <= row < h and 0 <= column < width:
                    for k in range(c):
                        factor, sums = x[image, row, column, k], dw[u, v, k]
                        for out in range(o):
                            sums[out] += factor * g[out]
    return dw


@compiled
def patches_transposed(x, dy):
    """The patches of a few images as rows, then one matrix product, added to dw

    Why: a tile of dw stays in registers for hundreds of positions, and the patches are still in the
    cache when the product reads them.
    """
    n, c, (oh, ow, o) = x.shape[0], x.shape[3], dy.shape[1:]
    positions, dw = oh * ow, np.zeros((K * K * c, o), x.dtype)
    rows = dy.reshape(n * positions, o)
    few = max(1, 512 // positions)
    columns = np.empty((min(n, few) * positions, K * K * c), x.dtype)
    for first in range(0, n, few):
        last = min(n, first + few)
        im2col(x[first:last], columns)
        gemm(columns[:(last - first) * positions], rows[first * positions:last * positions], dw,
             True, False, 1)
    return dw.reshape(K, K, c, o)


def weight_over_threads(x, dy):
    """sg.conv2d_weight by patches: the same, over all threads

    Why: each part of the images has a sum of its own, and the sums are added in a fixed order, so
    that the bits do not depend on the number of threads.
    """
    with sg.use_convolution("patches"):
        return sg.conv2d_weight(x, dy, (K, K), stride=STRIDE, padding=PADDING).data


def scratchgen_weight(x, dy):
    """sg.conv2d_weight with fewer products: the third map of the same kind

    Why: dw = Gᵀ((Bᵀ x) ∘ (A dy)): both factors are transformed as for y and dx, and a point's
    matrix stays in a thread's cache while the images go by (docs/winograd.md).
    """
    with sg.use_convolution("winograd"):
        return sg.conv2d_weight(x, dy, (K, K), stride=STRIDE, padding=PADDING).data


# --- the ladders ---------------------------------------------------------------------------------

LADDERS = [
    Ladder("conv2d, dx", "dx from dy (N, H/2, W/2, O) and w; also conv_transpose2d", "GFLOP/s",
           work, arguments("dy", "w"), input_formula,
           (zeros_between, scatter, product_and_slices, product_and_gather, gather_over_threads,
            scratchgen_input),
           **SIZES),
    Ladder("conv2d, dw", "dw from x (N, H, W, C) and dy (N, H/2, W/2, O)", "GFLOP/s", work,
           arguments("x", "dy"), weight_formula,
           (sum_for_each_weight, outer_products, patches_transposed, weight_over_threads,
            scratchgen_weight),
           **SIZES)]
