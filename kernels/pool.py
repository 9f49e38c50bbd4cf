"""Max and average pooling, and their gradients.

``kernel``, ``stride`` and ``padding`` are pairs of ints; tap t = u·KW + v of a window at output
position (i, j) is the pixel (i·stride + u − padding, j·stride + v − padding). Every window contains
at least one pixel of the image. The backward functions sum, for each row of dx, over the windows
that contain it, so each iteration writes only its own row.
"""

import itertools

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, launch


def taps(kernel, stride, out):
    """(t, index of the pixels of tap t in the padded images), for the NumPy versions."""
    (sh, sw), (oh, ow) = stride, out
    for t, (u, v) in enumerate(itertools.product(range(kernel[0]), range(kernel[1]))):
        yield t, (slice(None), slice(u, u + (oh - 1) * sh + 1, sh),
                  slice(v, v + (ow - 1) * sw + 1, sw))


def padded(x, padding, value):
    """x (N, H, W, C) with a border of ``value``, for the NumPy versions."""
    return np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)), constant_values=value)


# --- max_forward(x, kernel, stride, padding, y, tap): y = max, tap = the first that reaches it ---

def max_forward_numpy(x, kernel, stride, padding, y, tap):
    """x (N, H, W, C); fills y and tap (int32), both (N, OH, OW, C). NaN propagates, as in
    np.maximum."""
    inside = padded(np.ones((1, *x.shape[1:3], 1), bool), padding, False)
    border = padded(x, padding, -np.inf)
    y[...], tap[...] = -np.inf, -1
    for t, index in taps(kernel, stride, y.shape[1:3]):
        seen = border[index]
        better = inside[index] & ((seen > y) | (seen != seen) | (tap < 0))
        np.copyto(y, seen, where=better)
        np.copyto(tap, np.int32(t), where=better)


@compiled(parallel=True)
def max_forward_numba(x, kernel, stride, padding, y, tap):
    n, h, w, c = x.shape
    oh, ow = y.shape[1], y.shape[2]
    for block in prange(n * oh):                       # each iteration owns one row of y and tap
        image, i = block // oh, block % oh
        for j in range(ow):
            largest, which, first = y[image, i, j], tap[image, i, j], True
            for u in range(kernel[0]):
                for v in range(kernel[1]):
                    row = i * stride[0] + u - padding[0]
                    column = j * stride[1] + v - padding[1]
                    if row < 0 or row >= h or column < 0 or column >= w:
                        continue
                    seen, t = x[image, row, column], np.int32(u * kernel[1] + v)
                    for k in range(c):
                        better = first or seen[k] > largest[k] or seen[k] != seen[k]
                        largest[k] = seen[k] if better else largest[k]
                        which[k] = t if better else which[k]
                    first = False


def max_forward_cuda(x, kernel, stride, padding, y, tap):
    wide, grid = vector_grid(y)
    launch("pool.max_forward", grid, 256, x, kernel, stride, padding, y, tap, *x.shape,
           *y.shape[1:3], constants=(wide,))


def vector_grid(result):
    """(whether a thread computes sixteen bytes of channels, number of blocks of 256 threads)."""
    wide = result.shape[3] % (16 // result.itemsize) == 0
    threads = result.size * result.itemsize // 16 if wide else result.size
    return wide, blocks_for(threads, 256)


# --- max_backward(dy, tap, kernel, stride, padding, dx): dy goes to the pixel that was largest ---

def max_backward_numpy(dy, tap, kernel, stride, padding, dx):
    """dy, tap (N, OH, OW, C); fills dx (N, H, W, C)."""
    border = padded(np.zeros_like(dx), padding, 0)
    for t, index in taps(kernel, stride, dy.shape[1:3]):
        border[index] += np.where(tap == t, dy, 0)
    (ph, pw), (h, w) = padding, dx.shape[1:3]
    dx[...] = border[:, ph:ph + h, pw:pw + w]


@compiled(parallel=True)
def max_backward_numba(dy, tap, kernel, stride, padding, dx):
    n, h, w, c = dx.shape
    oh, ow = dy.shape[1], dy.shape[2]
    zero = dx.dtype.type(0)
    for block in prange(n * h):                        # each iteration owns one row of dx
        image, row = block // h, block % h
        dx[image, row] = zero
        for u in range(kernel[0]):
            steps = row + padding[0] - u
            i = steps // stride[0]
            if steps < 0 or i * stride[0] != steps or i >= oh:
                continue
            for j in range(ow):
                for v in range(kernel[1]):
                    column = j * stride[1] + v - padding[1]
                    if 0 <= column < w:
                        line, t = dx[image, row, column], np.int32(u * kernel[1] + v)
                        gradient, which = dy[image, i, j], tap[image, i, j]
                        for k in range(c):
                            line[k] += gradient[k] if which[k] == t else zero


def max_backward_cuda(dy, tap, kernel, stride, padding, dx):
    wide, grid = vector_grid(dx)
    launch("pool.max_backward", grid, 256, dy, tap, kernel, stride, padding, dx, *dx.shape,
           *dy.shape[1:3], constants=(wide,))


# --- average_forward(x, kernel, stride, padding, y): y = Σ / (KH·KW), the border counting as 0 ---

def average_forward_numpy(x, kernel, stride, padding, y):
    """x (N, H, W, C); fills y (N, OH, OW, C)."""
    border = padded(x, padding, 0)
    y[...] = 0
    for _, index in taps(kernel, stride, y.shape[1:3]):
        y += border[index]
    y /= kernel[0] * kernel[1]


@compiled(parallel=True)
def average_forward_numba(x, kernel, stride, padding, y):
    n, h, w, c = x.shape
    oh, ow = y.shape[1], y.shape[2]
    count = y.dtype.type(kernel[0] * kernel[1])
    for block in prange(n * oh):                       # each iteration owns one row of y
        image, i = block // oh, block % oh
        y[image, i] = y.dtype.type(0)
        for j in range(ow):
            total = y[image, i, j]
            for u in range(kernel[0]):
                for v in range(kernel[1]):
                    row = i * stride[0] + u - padding[0]
                    column = j * stride[1] + v - padding[1]
                    if 0 <= row < h and 0 <= column < w:
                        seen = x[image, row, column]
                        for k in range(c):
                            total[k] += seen[k]
            for k in range(c):
                total[k] /= count


def average_forward_cuda(x, kernel, stride, padding, y):
    wide, grid = vector_grid(y)
    launch("pool.average_forward", grid, 256, x, kernel, stride, padding, y, *x.shape,
           *y.shape[1:3], constants=(wide,))


# --- average_backward(dy, kernel, stride, padding, dx): its transpose; dy / (KH·KW) to each pixel -

def average_backward_numpy(dy, kernel, stride, padding, dx):
    """dy (N, OH, OW, C); fills dx (N, H, W, C)."""
    border = padded(np.zeros_like(dx), padding, 0)
    for _, index in taps(kernel, stride, dy.shape[1:3]):
        border[index] += dy
    (ph, pw), (h, w) = padding, dx.shape[1:3]
    dx[...] = border[:, ph:ph + h, pw:pw + w]
    dx /= kernel[0] * kernel[1]


@compiled(parallel=True)
def average_backward_numba(dy, kernel, stride, padding, dx):
    n, h, w, c = dx.shape
    oh, ow = dy.shape[1], dy.shape[2]
    count = dx.dtype.type(kernel[0] * kernel[1])
    for block in prange(n * h):                        # each iteration owns one row of dx
        image, row = block // h, block % h
        dx[image, row] = dx.dtype.type(0)
        for u in range(kernel[0]):
            steps = row + padding[0] - u
            i = steps // stride[0]
            if steps < 0 or i * stride[0] != steps or i >= oh:
                continue
            for j in range(ow):
                for v in range(kernel[1]):
                    column = j * stride[1] + v - padding[1]
                    if 0 <= column < w:
                        line, gradient = dx[image, row, column], dy[image, i, j]
                        for k in range(c):
                            line[k] += gradient[k]
        for column in range(w):
            line = dx[image, row, column]
            for k in range(c):
                line[k] /= count


def average_backward_cuda(dy, kernel, stride, padding, dx):
    wide, grid = vector_grid(dx)
    launch("pool.average_backward", grid, 256, dy, kernel, stride, padding, dx, *dx.shape,
           *dy.shape[1:3], constants=(wide,))
