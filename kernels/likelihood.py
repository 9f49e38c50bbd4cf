"""Gaussian log-likelihood and KL divergence, squared error, cross-entropy, and their gradients.

The NumPy versions are the formulas of ``ops/loss.py``; the compiled ones need one pass. ``logvar``
is the log-variance; a result of shape (N,) has one number per row.
"""

import math

import numpy as np

from .bce import ROWS, uses_packs
from .compiler import compiled, prange
from .cuda import blocks_for, launch
from .reduce import lanes_for, row_grid
from .vector_math import exp, expm1, log

LOG_2PI = math.log(2 * math.pi)


@compiled
def pairwise_sum(terms):
    """Σ of a row, which is overwritten: its second half is added to the first until one number is
    left. The rounding error grows with log n only, and the loop is vectorised."""
    n = terms.size
    if n == 0:
        return terms.dtype.type(0)
    while n > 1:
        half = (n + 1) // 2
        for j in range(n - half):
            terms[j] += terms[half + j]
        n = half
    return terms[0]


# --- gaussian_kl(mean, logvar, kl): kl (N,) = ½ Σ_z [m² + e^v − v − 1] ---------------------------

def gaussian_kl_numpy(mean, logvar, kl):
    """mean, logvar (N, Z)."""
    kl[...] = 0.5 * np.sum(np.square(mean) + np.exp(logvar) - logvar - 1, axis=1)


@compiled(parallel=True)
def gaussian_kl_numba(mean, logvar, kl):
    half, one = mean.dtype.type(0.5), mean.dtype.type(1)
    for i in prange(mean.shape[0]):                    # each iteration owns a row
        m, v, terms = mean[i], logvar[i], np.empty(mean.shape[1], mean.dtype)
        for j in range(m.size):
            terms[j] = m[j] * m[j] + exp(v[j]) - v[j] - one
        kl[i] = half * pairwise_sum(terms)


def gaussian_kl_cuda(mean, logvar, kl):
    launch_rows("gaussian_kl", mean, logvar, kl, *mean.shape)


# --- gaussian_kl_backward(dy, mean, logvar, dmean, dlogvar): dm = dy m, dv = dy ½ (e^v − 1) ------

def gaussian_kl_backward_numpy(dy, mean, logvar, dmean, dlogvar):
    """dy (N,), all others (N, Z)."""
    np.multiply(dy[:, None], mean, out=dmean)
    dlogvar[...] = dy[:, None] * (0.5 * np.expm1(logvar))


@compiled(parallel=True)
def gaussian_kl_backward_numba(dy, mean, logvar, dmean, dlogvar):
    half = mean.dtype.type(0.5)
    for i in prange(mean.shape[0]):                    # each iteration owns a row of both
        m, v, dm, dv, g = mean[i], logvar[i], dmean[i], dlogvar[i], dy[i]
        for j in range(m.size):
            dm[j] = g * m[j]
            dv[j] = g * (half * expm1(v[j]))


def gaussian_kl_backward_cuda(dy, mean, logvar, dmean, dlogvar):
    launch_elementwise("gaussian_kl_backward", dy, mean, logvar, dmean, dlogvar, *mean.shape)


# --- squared_error(x, target, difference, partial): difference = x − t ---------------------------
# Σ partial = Σ (x − t)², partial (⌈N/4⌉, D): sums of 4 rows each, as in bce.py

def squared_error_numpy(x, target, difference, partial):
    np.subtract(x, target, out=difference)
    for block in range(len(partial)):
        np.sum(np.square(difference[block * ROWS:(block + 1) * ROWS]), axis=0, out=partial[block])


@compiled(parallel=True)
def squared_error_numba(x, target, difference, partial):
    n = x.shape[0]
    for block in prange(partial.shape[0]):             # each iteration owns 4 rows
        sums = partial[block]
        sums[:] = x.dtype.type(0)
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            xx, tt, out = x[i], target[i], difference[i]
            for j in range(xx.size):
                v = xx[j] - tt[j]
                out[j] = v
                sums[j] += v * v


def squared_error_cuda(x, target, difference, partial):
    wide = uses_packs(x)
    threads = partial.size * x.itemsize // 16 if wide else partial.size
    launch("likelihood.squared_error", blocks_for(threads, 128), 128, x, target, difference,
           partial, *x.shape, constants=(wide,))


# --- cross_entropy(logits, labels, losses, slope): logits, slope (N, K), labels int64 (N,) -------
# losses (N,) = ln Σ e^l − l[label], slope = softmax(l) − onehot(label)

def cross_entropy_numpy(logits, labels, losses, slope):
    every = np.arange(len(labels))
    centred = logits - np.max(logits, axis=1, keepdims=True)
    np.exp(centred, out=slope)
    sums = np.sum(slope, axis=1)
    losses[...] = np.log(sums) - centred[every, labels]
    slope /= sums[:, None]
    slope[every, labels] -= 1


@compiled(parallel=True)
def cross_entropy_numba(logits, labels, losses, slope):
    for i in prange(logits.shape[0]):                  # each iteration owns a row
        row, out, largest = logits[i], slope[i], logits[i, 0]
        for j in range(row.size):
            largest = row[j] if row[j] > largest or row[j] != row[j] else largest
        for j in range(row.size):
            out[j] = exp(row[j] - largest)
        total = pairwise_sum(out.copy())
        for j in range(row.size):
            out[j] /= total
        losses[i] = log(total) - (row[labels[i]] - largest)
        out[labels[i]] -= out.dtype.type(1)


def cross_entropy_cuda(logits, labels, losses, slope):
    launch_rows("cross_entropy", logits, labels, losses, slope, *logits.shape)


# --- gaussian_log_likelihood(x, mean, logvar, log_p) ---------------------------------------------
# log_p (N,) = −½ Σ_d [ln 2π + v + (x − m)² e^−v], logvar (N, D) or (1,)

def gaussian_log_likelihood_numpy(x, mean, logvar, log_p):
    """x, mean (N, D)."""
    terms = LOG_2PI + logvar + np.square(x - mean) * np.exp(-logvar)
    log_p[...] = -0.5 * np.sum(terms, axis=1)


@compiled(parallel=True)
def gaussian_log_likelihood_numba(x, mean, logvar, log_p):
    half, log_2pi = x.dtype.type(-0.5), x.dtype.type(LOG_2PI)
    for i in prange(x.shape[0]):                       # each iteration owns a row
        seen, m, terms = x[i], mean[i], logvar_row(logvar, i, x.shape[1])
        for j in range(seen.size):
            v, off = terms[j], seen[j] - m[j]
            terms[j] = log_2pi + v + off * off * exp(-v)
        log_p[i] = half * pairwise_sum(terms)


@compiled
def logvar_row(logvar, i, d):
    """A copy of row i of logvar; a logvar of one number is repeated d times."""
    row, flat = np.empty(d, logvar.dtype), logvar.reshape(logvar.size)
    if flat.size == 1:
        row[:] = flat[0]
    else:
        row[:] = flat[i * d:(i + 1) * d]
    return row


def gaussian_log_likelihood_cuda(x, mean, logvar, log_p):
    launch_rows("gaussian_log_likelihood", x, mean, logvar, log_p, *x.shape,
              rest=(logvar.size == 1,))


# --- gaussian_log_likelihood_backward(dy, x, mean, logvar, dmean, dlogvar) -----------------------
# with r = (x − m) e^−v: dm = dy r (and dx = −dm), dv = dy ½ (r (x − m) − 1), both (N, D); dy (N,)

def gaussian_log_likelihood_backward_numpy(dy, x, mean, logvar, dmean, dlogvar):
    off, dy = x - mean, dy[:, None]
    r = off * np.exp(-logvar)
    np.multiply(dy, r, out=dmean)
    dlogvar[...] = dy * 0.5 * (r * off - 1)


@compiled(parallel=True)
def gaussian_log_likelihood_backward_numba(dy, x, mean, logvar, dmean, dlogvar):
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    for i in prange(x.shape[0]):                       # each iteration owns a row of both
        seen, m, dm, dv, g = x[i], mean[i], dmean[i], dlogvar[i], dy[i] * half
        v = logvar_row(logvar, i, x.shape[1])
        for j in range(seen.size):
            off = seen[j] - m[j]
            r = off * exp(-v[j])
            dm[j] = dy[i] * r
            dv[j] = g * (r * off - one)


def gaussian_log_likelihood_backward_cuda(dy, x, mean, logvar, dmean, dlogvar):
    launch_elementwise("gaussian_log_likelihood_backward", dy, x, mean, logvar, dmean, dlogvar,
                       *x.shape, logvar.size == 1)


# --- scale_rows(dy, slope, out): out = dy slope, slope and out (N, D), dy (N,) or (1,) -----------

def scale_rows_numpy(dy, slope, out):
    np.multiply(dy[:, None], slope, out=out)


@compiled(parallel=True)
def scale_rows_numba(dy, slope, out):
    for i in prange(slope.shape[0]):                   # each iteration owns a row
        row, to, g = slope[i], out[i], dy[i] if dy.size > 1 else dy[0]
        for j in range(row.size):
            to[j] = g * row[j]


def scale_rows_cuda(dy, slope, out):
    launch_elementwise("scale_rows", dy, slope, out, *slope.shape, dy.size == 1)


# --- on the GPU ----------------------------------------------------------------------------------

def launch_rows(kernel, *args, rest=()):
    """Launch a kernel that assigns a group of lanes to each row of the first array."""
    n, d = args[0].shape
    lanes = lanes_for(n, d)
    grid, block = row_grid(n, lanes)
    launch(f"likelihood.{kernel}", grid, block, *args, lanes, *rest)


def launch_elementwise(kernel, *args):
    """Launch a kernel whose threads compute sixteen bytes each of arrays like the second."""
    launch(f"likelihood.{kernel}", blocks_for(args[1].size, 1024), 256, *args)
