"""Corruptions and dropout, with the noise as an argument, and the batches of a shuffled data set.

The arrays of the first four are flat, (P,); ``uniform`` on [0, 1) and ``normal`` are float32
whatever the precision of x, so that a check in float64 sees the noise of a run in float32.
"""

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, launch

MISSING = {"gather_numba": "on the CPU the loader indexes and divides with NumPy"}


# --- masking(x, uniform, fraction, noisy): noisy = x [u ≥ fraction] ------------------------------

def masking_numpy(x, uniform, fraction, noisy):
    np.multiply(x, uniform >= np.float32(fraction), out=noisy)


@compiled(parallel=True)
def masking_numba(x, uniform, fraction, noisy):
    zero, one, limit = x.dtype.type(0), x.dtype.type(1), np.float32(fraction)
    for i in prange(x.size):                           # each iteration owns an element
        noisy[i] = x[i] * (one if uniform[i] >= limit else zero)


def masking_cuda(x, uniform, fraction, noisy):
    launch_elementwise("masking", x, uniform, fraction, noisy)


# --- salt_and_pepper(x, uniform, fraction, noisy): 0 or 1, by a fair coin, where u < fraction ----

def salt_and_pepper_numpy(x, uniform, fraction, noisy):
    """One uniform number is enough: given u < fraction, [u < fraction/2] is a fair coin."""
    salt = (uniform < np.float32(0.5 * fraction)).astype(x.dtype)
    noisy[...] = np.where(uniform < np.float32(fraction), salt, x)


@compiled(parallel=True)
def salt_and_pepper_numba(x, uniform, fraction, noisy):
    zero, one, limit = x.dtype.type(0), x.dtype.type(1), np.float32(fraction)
    half = np.float32(0.5) * limit
    for i in prange(x.size):                           # each iteration owns an element
        salt = one if uniform[i] < half else zero
        noisy[i] = salt if uniform[i] < limit else x[i]


def salt_and_pepper_cuda(x, uniform, fraction, noisy):
    launch_elementwise("salt_and_pepper", x, uniform, fraction, noisy)


# --- gaussian(x, normal, std, noisy): noisy = x + std·normal -------------------------------------

def gaussian_numpy(x, normal, std, noisy):
    noisy[...] = x + x.dtype.type(std) * normal.astype(x.dtype, copy=False)


@compiled(parallel=True)
def gaussian_numba(x, normal, std, noisy):
    factor = x.dtype.type(std)
    for i in prange(x.size):                           # each iteration owns an element
        noisy[i] = x[i] + factor * x.dtype.type(normal[i])


def gaussian_cuda(x, normal, std, noisy):
    launch_elementwise("gaussian", x, normal, std, noisy)


def launch_elementwise(kernel, *args):
    """Launch a kernel whose threads compute sixteen bytes each, like the first array."""
    n = args[0].size
    launch(f"noise.{kernel}", blocks_for(n, 1024), 256, *args, n)


# --- gather(images, order, first, scale, out): out_i = images[order[first + i]] / scale ----------
# images (COUNT, D) of grey values (uint8) or of out's dtype, order int64 (COUNT,), first uint64
# (1,), an array so that it can change between replays; out (B, D). Rows after the end are zeros.

def gather_numpy(images, order, first, scale, out):
    rows = order[int(first[0]):int(first[0]) + len(out)]
    np.divide(images[rows], out.dtype.type(scale), out=out[:len(rows)], dtype=out.dtype)
    out[len(rows):] = 0


def gather_cuda(images, order, first, scale, out):
    (b, d), bytes_only = out.shape, images.dtype == np.uint8
    if bytes_only:
        launch("noise.gather", blocks_for(b * -(-d // 4), 128), 128, images, order, first, scale,
               out, order.size, b, d)
        return
    wide = d % (16 // out.itemsize) == 0
    threads = out.size * out.itemsize // 16 if wide else out.size
    launch("noise.gather_numbers", blocks_for(threads, 128), 128, images, order, first, scale, out,
           order.size, b, d, constants=(wide,))
