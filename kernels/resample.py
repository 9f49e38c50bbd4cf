"""Upsampling of images (N, H, W, C) by repeated pixels, and its transpose.

``scale`` is a pair of ints; y is (N, H·scale[0], W·scale[1], C).
"""

import numpy as np

from .compiler import compiled, prange
from .cuda import launch
from .pool import vector_grid

# --- upsample_forward(x, scale, y): y[i, j] = x[⌊i / scale⌋, ⌊j / scale⌋] ------------------------

def upsample_forward_numpy(x, scale, y):
    blocks(y, x.shape, scale)[...] = x[:, :, None, :, None]


@compiled(parallel=True)
def upsample_forward_numba(x, scale, y):
    n, h, w, c = x.shape
    for line in prange(n * h):                         # each iteration owns the rows of y it fills
        image, row = line // h, line % h
        for u in range(scale[0]):
            to = y[image, row * scale[0] + u]
            for column in range(w):
                for v in range(scale[1]):
                    for k in range(c):
                        to[column * scale[1] + v, k] = x[image, row, column, k]


def upsample_forward_cuda(x, scale, y):
    wide, grid = vector_grid(y)
    launch("resample.upsample_forward", grid, 256, x, scale, y, *x.shape, constants=(wide,))


# --- upsample_backward(dy, scale, dx): dx = Σ dy over the block of pixels ------------------------

def upsample_backward_numpy(dy, scale, dx):
    np.sum(blocks(dy, dx.shape, scale), axis=(2, 4), out=dx)


@compiled(parallel=True)
def upsample_backward_numba(dy, scale, dx):
    n, h, w, c = dx.shape
    for line in prange(n * h):                         # each iteration owns a row of dx
        image, row = line // h, line % h
        to = dx[image, row]
        to[:] = dx.dtype.type(0)
        for u in range(scale[0]):
            gradient = dy[image, row * scale[0] + u]
            for column in range(w):
                for v in range(scale[1]):
                    for k in range(c):
                        to[column, k] += gradient[column * scale[1] + v, k]


def upsample_backward_cuda(dy, scale, dx):
    wide, grid = vector_grid(dx)
    launch("resample.upsample_backward", grid, 256, dy, scale, dx, *dx.shape, constants=(wide,))


def blocks(y, shape, scale):
    """A view (N, H, SH, W, SW, C) of y: axes SH and SW are the repetitions of a pixel."""
    (n, h, w, c), (sh, sw) = shape, scale
    return y.reshape(n, h, sh, w, sw, c)
