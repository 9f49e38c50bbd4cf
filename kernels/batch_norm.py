"""Batch normalisation of the columns of a matrix x (M, C): statistics, forward, backward.

Sums over the M rows: the compiled versions add blocks of ROWS rows in the precision of x, each
block owned by one iteration, and the blocks' sums in float64 in a fixed order. So the rounding
error does not grow with M, and the bits do not depend on the number of threads. The NumPy versions
add in float64 throughout.
"""

import numpy as np

from .compiler import compiled, prange

ROWS = 128


# --- statistics(x, mean, var): mean and biased variance of each column, in two passes ------------

def statistics_numpy(x, mean, var):
    """x (M, C); fills mean and var (C,). One pass (Σx² − M·mean²) would cancel for large means."""
    mean[...] = np.mean(x, axis=0, dtype=np.float64)
    centred = x - mean
    var[...] = np.mean(centred * centred, axis=0, dtype=np.float64)


@compiled(parallel=True)
def statistics_numba(x, mean, var):
    m, c = x.shape
    blocks = (m + ROWS - 1) // ROWS
    partial = np.zeros((blocks, c), x.dtype)
    for block in prange(blocks):                       # each iteration owns partial[block]
        sums = partial[block]
        for i in range(block * ROWS, min(m, (block + 1) * ROWS)):
            row = x[i]
            for j in range(c):
                sums[j] += row[j]
    add_blocks(partial, mean, m)
    partial[:] = x.dtype.type(0)
    for block in prange(blocks):
        sums = partial[block]
        for i in range(block * ROWS, min(m, (block + 1) * ROWS)):
            row = x[i]
            for j in range(c):
                centred = row[j] - mean[j]
                sums[j] += centred * centred
    add_blocks(partial, var, m)


@compiled
def add_blocks(partial, out, count):
    """out = Σ over blocks / count, in float64."""
    total = np.zeros(out.size, np.float64)
    for block in range(partial.shape[0]):
        sums = partial[block]
        for j in range(out.size):
            total[j] += sums[j]
    for j in range(out.size):
        out[j] = total[j] / count


# --- normalize(x, mean, inverse, gamma, beta, y): y = γ (x − mean)·inverse + β -------------------

def normalize_numpy(x, mean, inverse, gamma, beta, y):
    """``inverse`` is 1/√(var + ε); all but x and y are (C,)."""
    np.subtract(x, mean, out=y)                        # first, or a large mean would cancel badly
    y *= gamma * inverse
    y += beta


@compiled(parallel=True)
def normalize_numba(x, mean, inverse, gamma, beta, y):
    m, c = x.shape
    scale = gamma * inverse
    for i in prange(m):                                # each iteration owns a row of y
        row, out = x[i], y[i]
        for j in range(c):
            out[j] = (row[j] - mean[j]) * scale[j] + beta[j]


# --- backward_parameters(dy, x, mean, inverse, dgamma, dbeta): dγ = Σ dy x̂, dβ = Σ dy ------------

def backward_parameters_numpy(dy, x, mean, inverse, dgamma, dbeta):
    """x̂ = (x − mean)·inverse; sums over the rows."""
    dgamma[...] = np.sum(dy * ((x - mean) * inverse), axis=0, dtype=np.float64)
    dbeta[...] = np.sum(dy, axis=0, dtype=np.float64)


@compiled(parallel=True)
def backward_parameters_numba(dy, x, mean, inverse, dgamma, dbeta):
    m, c = x.shape
    blocks = (m + ROWS - 1) // ROWS
    products, sums = np.zeros((blocks, c), x.dtype), np.zeros((blocks, c), x.dtype)
    for block in prange(blocks):                       # each iteration owns its row of both
        product, plain = products[block], sums[block]
        for i in range(block * ROWS, min(m, (block + 1) * ROWS)):
            row, gradient = x[i], dy[i]
            for j in range(c):
                product[j] += gradient[j] * ((row[j] - mean[j]) * inverse[j])
                plain[j] += gradient[j]
    add_blocks(products, dgamma, 1)
    add_blocks(sums, dbeta, 1)


# --- backward_x(dy, x, mean, inverse, gamma, dgamma, dbeta, dx): see BatchNorm -------------------

def backward_x_numpy(dy, x, mean, inverse, gamma, dgamma, dbeta, dx):
    """dx = γ·inverse (dy − dβ/M − x̂ dγ/M)."""
    rows = x.dtype.type(len(x))
    np.subtract(x, mean, out=dx)
    dx *= inverse * dgamma / -rows
    dx += dy
    dx -= dbeta / rows
    dx *= gamma * inverse


@compiled(parallel=True)
def backward_x_numba(dy, x, mean, inverse, gamma, dgamma, dbeta, dx):
    m, c = x.shape
    rows = x.dtype.type(m)
    scale, slope, shift = gamma * inverse, inverse * dgamma / rows, dbeta / rows
    for i in prange(m):                                # each iteration owns a row of dx
        row, gradient, out = x[i], dy[i], dx[i]
        for j in range(c):
            out[j] = scale[j] * (gradient[j] - shift[j] - (row[j] - mean[j]) * slope[j])
