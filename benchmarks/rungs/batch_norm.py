"""Batch norm y = γ (x − mean)/√(var + ε) + β over the rows of x (M, C), and its derivatives.

mean and var are each column's. Channels last make a column a walk with stride C; what is fast is to
run along rows with C sums side by side. What limits it then is how often x comes from memory.
"""

import math

import numpy as np
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.dense import IDENTITY

import scratchgen as sg
from scratchgen.engine.backend import kernels

from . import Ladder

EPS = 1e-5
ROWS = 128                               # a chunk: 128 rows of 64 channels are 32 KB


# --- forward -------------------------------------------------------------------------------------

def forward_formula(x, gamma, beta):
    mean = np.mean(x, axis=0)
    var = np.mean(np.square(x - mean), axis=0)
    return gamma * (x - mean) / np.sqrt(var + EPS) + beta


@compiled
def channel_by_channel(x, gamma, beta):
    """A channel after the other: mean, variance, then y

    Why: slow, for a column has one number in each cache line, three times over, and a sum is one
    addition after the other.
    """
    m, c = x.shape
    y = np.empty_like(x)
    for j in range(c):
        total, squares = 0.0, 0.0
        for i in range(m):
            total += x[i, j]
        mean = total / m
        for i in range(m):
            squares += (x[i, j] - mean) ** 2
        scale = gamma[j] / math.sqrt(squares / m + EPS)
        for i in range(m):
            y[i, j] = (x[i, j] - mean) * scale + beta[j]
    return y


def numpy_passes(x, gamma, beta):
    """NumPy: passes over the whole array, row by row

    Why: NumPy adds and multiplies along rows, in vector instructions; but each operation is a pass
    through memory: about nine.
    """
    return forward_formula(x, gamma, beta)


@compiled
def along_rows(x, gamma, beta):
    """Three loops along rows: sums, squares, y; C sums in float64 side by side

    Why: whole cache lines, independent sums, and x − mean is not stored: three passes. float64,
    needed to add thousands of rows, halves what an instruction does.
    """
    m, c = x.shape
    mean, var, scale = np.zeros(c), np.zeros(c), np.empty(c, x.dtype)
    for i in range(m):
        for j in range(c):
            mean[j] += x[i, j]
    for j in range(c):
        mean[j] /= m
    for i in range(m):
        for j in range(c):
            var[j] += (x[i, j] - mean[j]) ** 2
    for j in range(c):
        scale[j] = gamma[j] / math.sqrt(var[j] / m + EPS)
    return scaled(x, mean.astype(x.dtype), scale, beta)


@compiled
def scaled(x, mean, scale, beta):
    """(x − mean)·scale + β"""
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        for j in range(row.size):
            out[j] = (row[j] - mean[j]) * scale[j] + beta[j]
    return y


@compiled
def in_chunks(x, gamma, beta):
    """Mean and variance of 128 rows at a time, merged as Chan, Golub & LeVeque (1979) do

    Why: a chunk is read from memory once and from the cache the second time: two passes in all.
    Sums of 128 rows are accurate enough in the precision of x; only the merging is in float64.
    """
    m, c = x.shape
    mean, squares = np.zeros(c), np.zeros(c)
    sums, deviations, scale = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    for top in range(0, m, ROWS):
        bottom = min(m, top + ROWS)
        rows = x.dtype.type(bottom - top)
        sums[:] = 0
        deviations[:] = 0
        for i in range(top, bottom):
            row = x[i]
            for j in range(c):
                sums[j] += row[j]
        for j in range(c):
            sums[j] /= rows                            # the chunk's mean
        for i in range(top, bottom):
            row = x[i]
            for j in range(c):
                centred = row[j] - sums[j]
                deviations[j] += centred * centred
        for j in range(c):                             # top rows so far, and the chunk's
            delta = sums[j] - mean[j]
            mean[j] += delta * (bottom - top) / bottom
            squares[j] += deviations[j] + delta * delta * top * (bottom - top) / bottom
    for j in range(c):
        scale[j] = gamma[j] / math.sqrt(squares[j] / m + EPS)
    return scaled(x, mean.astype(x.dtype), scale, beta)


def scratchgen_batch_norm(x, gamma, beta):
    """sg.batch_norm: chunks over all threads

    Why: each thread owns chunks and their sums, which are merged in a fixed order.
    """
    return sg.batch_norm(x, gamma, beta, eps=EPS).data


# --- backward: dβ = Σ dy, dγ = Σ dy x̂, dx = γ r (dy − dβ/M − x̂ dγ/M), r = 1/√(var + ε) ----------

def backward_formula(dy, x, gamma, mean, inverse):
    normal = (x - mean) * inverse
    dgamma, dbeta = np.sum(dy * normal, axis=0), np.sum(dy, axis=0)
    return gamma * inverse * (dy - dbeta / len(x) - normal * dgamma / len(x)), dgamma, dbeta


@compiled
def backward_channel_by_channel(dy, x, gamma, mean, inverse):
    """A channel after the other: the two sums, then dx

    Why: slow, for it reads columns: a cache line for every number, twice over.
    """
    m, c = x.shape
    dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    for j in range(c):
        products, plain = 0.0, 0.0
        for i in range(m):
            products += dy[i, j] * ((x[i, j] - mean[j]) * inverse[j])
            plain += dy[i, j]
        dgamma[j], dbeta[j] = products, plain
        for i in range(m):
            normal = (x[i, j] - mean[j]) * inverse[j]
            dx[i, j] = gamma[j] * inverse[j] * (dy[i, j] - plain / m - normal * products / m)
    return dx, dgamma, dbeta


def backward_numpy_passes(dy, x, gamma, mean, inverse):
    """NumPy: x̂, the sums and dx, an operation a pass

    Why: along rows and in vector instructions, but a dozen passes through memory.
    """
    return backward_formula(dy, x, gamma, mean, inverse)


@compiled
def backward_in_two_passes(dy, x, gamma, mean, inverse):
    """One pass for both sums, in chunks of 128 rows, and one for dx; x̂ is computed again

    Why: each number of x and dy is read twice and nothing is stored between; what depends on the
    channel alone is taken out of the loops.
    """
    m, c = x.shape
    dx, scale, slope, shift = np.empty_like(x), gamma * inverse, gamma.copy(), gamma.copy()
    dgamma, dbeta = np.zeros(c), np.zeros(c)
    products, plain = np.empty_like(gamma), np.empty_like(gamma)
    for top in range(0, m, ROWS):
        products[:] = 0
        plain[:] = 0
        for i in range(top, min(m, top + ROWS)):
            row, gradient = x[i], dy[i]
            for j in range(c):
                products[j] += gradient[j] * (row[j] - mean[j])
                plain[j] += gradient[j]
        for j in range(c):
            dgamma[j] += products[j] * inverse[j]
            dbeta[j] += plain[j]
    for j in range(c):
        slope[j], shift[j] = inverse[j] * dgamma[j] / m, dbeta[j] / m
    for i in range(m):
        row, gradient, out = x[i], dy[i], dx[i]
        for j in range(c):
            out[j] = scale[j] * (gradient[j] - shift[j] - (row[j] - mean[j]) * slope[j])
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def scratchgen_backward(dy, x, gamma, mean, inverse):
    """The kernels of sg.batch_norm: the same two passes, over all threads

    Why: in the first pass each thread owns chunks and their sums, in the second rows.
    """
    norm, dx = kernels("batch_norm"), np.empty_like(x)
    dgamma, dbeta, y = np.empty_like(gamma), np.empty_like(gamma), x     # y: for activations only
    norm.backward_parameters(dy, y, IDENTITY, x, mean, inverse, dgamma, dbeta)
    norm.backward_x(dy, y, IDENTITY, x, mean, inverse, gamma, dgamma, dbeta, dx)
    return dx, dgamma, dbeta


# --- the ladders ---------------------------------------------------------------------------------

def forward_arguments(rng, m, c):
    """Channels with means and spreads of their own."""
    x = rng.standard_normal((m, c)) * rng.uniform(0.5, 2, c) + 3 * rng.standard_normal(c)
    return [x, rng.uniform(0.5, 2, c), rng.standard_normal(c)]


def backward_arguments(rng, m, c):
    x, gamma, _ = forward_arguments(rng, m, c)
    return [rng.standard_normal((m, c)), x, gamma, x.mean(axis=0), 1 / np.sqrt(x.var(axis=0) + EPS)]


SIZES = {"size": (64 * 14 * 14, 64), "ragged": ((131, 19), (300, 7), (13, 3))}
LADDERS = [
    Ladder("batch norm", "y = γ (x − mean)/√(var + ε) + β, x (M, C)", "GB/s",
           lambda m, c: 2 * 4 * m * c, forward_arguments, forward_formula,       # x, y
           (channel_by_channel, numpy_passes, along_rows, in_chunks, scratchgen_batch_norm),
           **SIZES),
    Ladder("batch norm, backward", "dx, dγ, dβ from dy, x (M, C)", "GB/s",
           lambda m, c: 3 * 4 * m * c, backward_arguments, backward_formula,     # dy, x, dx
           (backward_channel_by_channel, backward_numpy_passes, backward_in_two_passes,
            scratchgen_backward), **SIZES)]
