"""Batch normalisation of the columns of a matrix x (M, C): statistics, forward, backward.

Sums over the M rows: the compiled versions add blocks of ROWS rows in the precision of x, each
block in one iteration, and then the sums of the blocks in float64 in a fixed order. So the rounding
error does not grow with M, and the bits do not depend on the number of threads. The NumPy versions
add in float64 throughout.
"""

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, empty, launch
from .dense import (
    activate,
    activation_backward_numpy,
    activation_backward_row,
    bias_activation_numpy,
)
from .reduce import tiles_for

ROWS = 128


# --- statistics(x, mean, var): mean and biased variance of each column ---------------------------

def statistics_numpy(x, mean, var):
    """x (M, C); fills mean and var (C,). One pass (Σx² − M·mean²) would cancel for large means."""
    mean[...] = np.mean(x, axis=0, dtype=np.float64)
    centred = x - mean
    var[...] = np.mean(centred * centred, axis=0, dtype=np.float64)


@compiled(parallel=True)
def statistics_numba(x, mean, var):
    # x is read from memory once: the second pass over a block reads the cache. Over blocks,
    # Σ (x − mean)² = Σ_b [Σ (x − mean_b)² + n_b (mean_b − mean)²]   (Chan, Golub & LeVeque 1983).
    m, c = x.shape
    blocks = (m + ROWS - 1) // ROWS
    means, squares = np.zeros((blocks, c), x.dtype), np.zeros((blocks, c), x.dtype)
    for block in prange(blocks):                       # each iteration owns its row of both
        first, last = block * ROWS, min(m, (block + 1) * ROWS)
        rows, centre, square = x.dtype.type(last - first), means[block], squares[block]
        origin = x[first]                              # subtracted, or a large mean loses digits
        for i in range(first, last):
            row = x[i]
            for j in range(c):
                centre[j] += row[j] - origin[j]
        for j in range(c):
            centre[j] = origin[j] + centre[j] / rows
        for i in range(first, last):
            row = x[i]
            for j in range(c):
                centred = row[j] - centre[j]
                square[j] += centred * centred
    merge(means, squares, m, mean, var)


def statistics_cuda(x, mean, var):
    m, c = x.shape
    wide, across, width, share, shares = tiles_for(m, c, x.itemsize)
    partial = empty((2, shares if shares > 1 else 0, c), np.float64)
    launch("batch_norm.statistics", (blocks_for(across, width), shares), 256, x, mean, var, m, c,
           share, width, partial, constants=(wide,))
    if shares > 1:
        launch("batch_norm.merge_statistics", blocks_for(c, 8), 256, partial, mean, var, m, c,
               share, shares)


@compiled
def merge(means, squares, m, mean, var):
    """Mean and biased variance of all rows from those of the blocks, in float64."""
    for j in range(mean.size):
        total, spread = 0.0, 0.0
        for block in range(means.shape[0]):
            total += means[block, j] * np.float64(min(ROWS, m - block * ROWS))
        centre = total / m
        for block in range(means.shape[0]):
            off = means[block, j] - centre
            spread += squares[block, j] + off * off * min(ROWS, m - block * ROWS)
        mean[j], var[j] = centre, spread / m


@compiled
def add_blocks(partial, out):
    """out = Σ over blocks, in float64."""
    total = np.zeros(out.size, np.float64)
    for block in range(partial.shape[0]):
        sums = partial[block]
        for j in range(out.size):
            total[j] += sums[j]
    for j in range(out.size):
        out[j] = total[j]


# --- running(running_mean, running_var, momentum, mean, var, rows): moving averages --------------

def running_numpy(running_mean, running_var, momentum, mean, var, rows):
    """Updates them in place, all (C,); the variance is unbiased, by the factor M/(M − 1)."""
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (var * (rows / (rows - 1)) - running_var)


@compiled
def running_numba(running_mean, running_var, momentum, mean, var, rows):
    part, bias = mean.dtype.type(momentum), mean.dtype.type(rows / (rows - 1))
    for j in range(mean.size):
        running_mean[j] += part * (mean[j] - running_mean[j])
        running_var[j] += part * (var[j] * bias - running_var[j])


def running_cuda(running_mean, running_var, momentum, mean, var, rows):
    launch("batch_norm.running", blocks_for(mean.size, 256), 256, running_mean, running_var,
           momentum, mean, var, rows, mean.size)


# --- inverse(var, eps, inverse): inverse = 1/√(var + ε) ------------------------------------------

def inverse_numpy(var, eps, inverse):
    np.divide(1, np.sqrt(var + var.dtype.type(eps)), out=inverse)


@compiled
def inverse_numba(var, eps, inverse):
    one, small = var.dtype.type(1), var.dtype.type(eps)
    for j in range(var.size):
        inverse[j] = one / np.sqrt(var[j] + small)


def inverse_cuda(var, eps, inverse):
    launch("batch_norm.inverse", blocks_for(var.size, 256), 256, var, eps, inverse, var.size)


# --- normalize(x, mean, inverse, gamma, beta, activation, y): y = a(γ (x − mean)·inverse + β) ----

def normalize_numpy(x, mean, inverse, gamma, beta, activation, y):
    """``inverse`` is 1/√(var + ε); all but x and y are (C,); activations as in ``dense.py``."""
    np.subtract(x, mean, out=y)                        # first: a large mean would lose digits
    y *= gamma * inverse
    bias_activation_numpy(y, beta, activation)


@compiled(parallel=True)
def normalize_numba(x, mean, inverse, gamma, beta, activation, y):
    m, c = x.shape
    scale = gamma * inverse
    for i in prange(m):                                # each iteration owns a row of y
        row, out = x[i], y[i]
        for j in range(c):
            out[j] = (row[j] - mean[j]) * scale[j]
        activate(out, beta, activation)


def normalize_cuda(x, mean, inverse, gamma, beta, activation, y):
    launch_tiles("normalize", x, mean, inverse, gamma, beta, activation, y)


def launch_tiles(kernel, *args):
    """Launch an elementwise kernel over tiles of the first argument, a matrix."""
    m, c = args[0].shape
    wide, across, width, _, _ = tiles_for(m, c, args[0].itemsize)
    rows = 256 // width * (8 if wide else 4)           # eight or four of them for each thread
    if m > 65535 * rows:
        rows *= blocks_for(m, 65535 * rows)
    launch(f"batch_norm.{kernel}", (blocks_for(across, width), blocks_for(m, rows)), 256, *args, m,
           c, rows, width, constants=(wide,))


# --- backward_parameters(dy, y, activation, x, mean, inverse, dgamma, dbeta) ---------------------
# dγ = Σ dh x̂, dβ = Σ dh, sums over the rows, with dh = dy a'(·) from y and x̂ = (x − mean)·inverse

def backward_parameters_numpy(dy, y, activation, x, mean, inverse, dgamma, dbeta):
    dh = np.empty_like(dy)
    activation_backward_numpy(dy, y, activation, dh, np.empty_like(dbeta))
    dgamma[...] = np.sum(dh * ((x - mean) * inverse), axis=0, dtype=np.float64)
    dbeta[...] = np.sum(dh, axis=0, dtype=np.float64)


@compiled(parallel=True)
def backward_parameters_numba(dy, y, activation, x, mean, inverse, dgamma, dbeta):
    m, c = x.shape
    blocks = (m + ROWS - 1) // ROWS
    products, sums = np.zeros((blocks, c), x.dtype), np.zeros((blocks, c), x.dtype)
    for block in prange(blocks):                       # each iteration owns its row of both
        first, last = block * ROWS, min(m, (block + 1) * ROWS)
        product, plain, dh = products[block], sums[block], np.empty((last - first, c), x.dtype)
        activation_backward_row(flat(dy[first:last]), flat(y[first:last]), activation, flat(dh))
        for i in range(first, last):
            row, gradient = x[i], dh[i - first]
            for j in range(c):
                product[j] += gradient[j] * ((row[j] - mean[j]) * inverse[j])
                plain[j] += gradient[j]
    add_blocks(products, dgamma)
    add_blocks(sums, dbeta)


def backward_parameters_cuda(dy, y, activation, x, mean, inverse, dgamma, dbeta):
    m, c = x.shape
    wide, across, width, share, shares = tiles_for(m, c, x.itemsize)
    partial = empty((2, shares if shares > 1 else 0, c), x.dtype)
    launch("batch_norm.backward_parameters", (blocks_for(across, width), shares), 256, dy, y,
           activation, x, mean, inverse, dgamma, dbeta, m, c, share, width, partial,
           constants=(wide,))
    if shares > 1:
        launch("batch_norm.add_shares", (blocks_for(c, 8), 2), 256, partial, dgamma, dbeta, c,
               shares)


# --- backward_x(dy, y, activation, x, mean, inverse, gamma, dgamma, dbeta, dx): see BatchNorm ----

def backward_x_numpy(dy, y, activation, x, mean, inverse, gamma, dgamma, dbeta, dx):
    """dx = γ·inverse (dh − dβ/M − x̂ dγ/M)."""
    rows = x.dtype.type(len(x))
    activation_backward_numpy(dy, y, activation, dx, np.empty_like(dbeta))
    dx -= dbeta / rows
    dx -= (x - mean) * (inverse * dgamma / rows)
    dx *= gamma * inverse


@compiled(parallel=True)
def backward_x_numba(dy, y, activation, x, mean, inverse, gamma, dgamma, dbeta, dx):
    m, c = x.shape
    rows = x.dtype.type(m)
    scale, slope, shift = gamma * inverse, inverse * dgamma / rows, dbeta / rows
    for block in prange((m + ROWS - 1) // ROWS):       # each iteration owns some rows of dx
        first, last = block * ROWS, min(m, (block + 1) * ROWS)
        activation_backward_row(flat(dy[first:last]), flat(y[first:last]), activation,
                                flat(dx[first:last]))
        for i in range(first, last):
            row, out = x[i], dx[i]
            for j in range(c):
                out[j] = scale[j] * (out[j] - shift[j] - (row[j] - mean[j]) * slope[j])


def backward_x_cuda(dy, y, activation, x, mean, inverse, gamma, dgamma, dbeta, dx):
    launch_tiles("backward_x", dy, y, activation, x, mean, inverse, gamma, dgamma, dbeta, dx)


@compiled
def flat(rows):
    """Rows of a matrix as one array: one long loop instead of many short ones."""
    return rows.reshape(rows.size)
