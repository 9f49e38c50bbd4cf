"""The dense layer after its matrix product: bias and activation in one pass, and back in one.

Every activation here has a derivative that its own output y gives, so x @ w + b is never kept.
"""

import numpy as np

from .compiler import compiled, prange
from .vector_math import exp, expm1, log1p, tanh

IDENTITY, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, SOFTPLUS = range(7)
ACTIVATIONS = {None: IDENTITY, "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU,
               "sigmoid": SIGMOID, "tanh": TANH, "softplus": SOFTPLUS}
SLOPE = 0.2                                            # of leaky_relu for x < 0
COLUMNS = 64                                           # a thread owns this many columns of db


# --- bias_activation(y, b, activation): y = a(y + b) in place, y (N, O), b (O,) ------------------

def bias_activation_numpy(y, b, activation):
    """``activation`` is one of the numbers above."""
    y += b
    with np.errstate(over="ignore"):
        if activation == RELU:
            np.maximum(y, 0, out=y)
        elif activation == LEAKY_RELU:
            y[...] = np.where(y > 0, y, y * y.dtype.type(SLOPE))
        elif activation == ELU:
            y[...] = np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
        elif activation == SIGMOID:
            y[...] = 1 / (1 + np.exp(-y))
        elif activation == TANH:
            np.tanh(y, out=y)
        elif activation == SOFTPLUS:
            y[...] = np.maximum(y, 0) + np.log1p(np.exp(-np.abs(y)))


@compiled(parallel=True)
def bias_activation_numba(y, b, activation):
    zero, one, slope = y.dtype.type(0), y.dtype.type(1), y.dtype.type(SLOPE)
    for i in prange(y.shape[0]):                       # each iteration owns a row of y
        row = y[i]
        if activation == IDENTITY:
            for j in range(row.size):
                row[j] += b[j]
        elif activation == RELU:
            for j in range(row.size):
                v = row[j] + b[j]
                row[j] = v if v > zero else zero
        elif activation == LEAKY_RELU:
            for j in range(row.size):
                v = row[j] + b[j]
                row[j] = v if v > zero else v * slope
        elif activation == ELU:
            for j in range(row.size):
                v = row[j] + b[j]
                row[j] = v if v > zero else expm1(min(v, zero))
        elif activation == SIGMOID:
            for j in range(row.size):
                row[j] = one / (one + exp(-(row[j] + b[j])))
        elif activation == TANH:
            for j in range(row.size):
                row[j] = tanh(row[j] + b[j])
        else:
            for j in range(row.size):
                v = row[j] + b[j]
                row[j] = max(v, zero) + log1p(exp(-abs(v)))


# --- activation_backward(dy, y, activation, dx, db): dx = dy a'(·) from y, db = Σ over rows ------

def activation_backward_numpy(dy, y, activation, dx, db):
    """dy, y, dx (N, O), db (O,); dx may be dy."""
    one = y.dtype.type(1)
    if activation == IDENTITY:
        dx[...] = dy
    elif activation == RELU:
        np.multiply(dy, y > 0, out=dx)
    elif activation == LEAKY_RELU:
        np.multiply(dy, np.where(y > 0, one, y.dtype.type(SLOPE)), out=dx)
    elif activation == ELU:
        np.multiply(dy, np.where(y > 0, one, y + one), out=dx)
    elif activation == SIGMOID:
        np.multiply(dy, y * (one - y), out=dx)
    elif activation == TANH:
        np.multiply(dy, one - y * y, out=dx)
    elif activation == SOFTPLUS:
        np.multiply(dy, one - np.exp(-y), out=dx)
    np.sum(dx, axis=0, out=db)


@compiled(parallel=True)
def activation_backward_numba(dy, y, activation, dx, db):
    zero, one, slope = y.dtype.type(0), y.dtype.type(1), y.dtype.type(SLOPE)
    n, o = y.shape
    for block in prange((o + COLUMNS - 1) // COLUMNS):     # each iteration owns a block of columns
        first, last = block * COLUMNS, min(o, (block + 1) * COLUMNS)
        sums = np.zeros(last - first, y.dtype)
        for i in range(n):
            gy, yy, gx = dy[i, first:last], y[i, first:last], dx[i, first:last]
            if activation == IDENTITY:
                gx[:] = gy
            elif activation == RELU:
                for j in range(last - first):
                    gx[j] = gy[j] if yy[j] > zero else zero
            elif activation == LEAKY_RELU:
                for j in range(last - first):
                    gx[j] = gy[j] if yy[j] > zero else gy[j] * slope
            elif activation == ELU:
                for j in range(last - first):
                    gx[j] = gy[j] if yy[j] > zero else gy[j] * (yy[j] + one)
            elif activation == SIGMOID:
                for j in range(last - first):
                    gx[j] = gy[j] * (yy[j] * (one - yy[j]))
            elif activation == TANH:
                for j in range(last - first):
                    gx[j] = gy[j] * (one - yy[j] * yy[j])
            else:
                for j in range(last - first):
                    gx[j] = gy[j] * (one - exp(-yy[j]))
            for j in range(last - first):
                sums[j] += gx[j]
        db[first:last] = sums
