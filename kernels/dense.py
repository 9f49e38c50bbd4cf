"""The dense layer: matrix product with bias and activation, and the gradient of the activation.

The derivative of every activation here is a function of its output y, so x w + b is not saved.
"""

import numpy as np

from .compiler import compiled, prange, thread_count
from .cuda import blocks_for, empty, launch
from .gemm import product
from .gemm_blocks import WORTH_THREADS, gemm_share, share, shares
from .vector_math import exp, expm1, log1p, tanh

IDENTITY, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, SOFTPLUS = range(7)
ACTIVATIONS = {None: IDENTITY, "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU,
               "sigmoid": SIGMOID, "tanh": TANH, "softplus": SOFTPLUS}
SLOPE = 0.2                                            # of leaky_relu for x < 0
# activation_backward, least sizes: columns of a row; rows and elements of a share (one task).
WIDE, ROWS, SHARE = 256, 8, 4096
# On the GPU: rows of a share of the sum; array size from which a thread reads sixteen bytes.
ROWS_PER_SHARE, PACKS_FROM = 128, 1 << 19


# --- forward(x, w, tw, b, activation, y): y = a(x w + b), x (N, C), b (O,), y (N, O) -------------

def forward_numpy(x, w, tw, b, activation, y):
    """w (C, O), or its transpose if ``tw``; ``activation`` is one of the numbers above."""
    np.matmul(x, w.T if tw else w, out=y)
    bias_activation_numpy(y, b, activation)


def worth_threads(x, w, tw, b, activation, y):
    """Whether the layer has enough multiply-adds to be shared among threads."""
    return y.size * x.shape[1] >= WORTH_THREADS


@compiled(parallel=True, worth_threads=worth_threads)
def forward_numba(x, w, tw, b, activation, y):
    n, o = y.shape
    down, across = shares(n, o, x.shape[1], y.itemsize, thread_count())
    for t in prange(down * across):                    # each iteration owns a block of y
        gemm_share(np.int64(t), down, across, x, w, y, np.int64(0), np.int64(tw), np.int64(0))
        top, bottom, left, right = share(np.int64(t), down, across, n, o, y.itemsize)
        for i in range(top, bottom):                   # while the block is in the core's cache
            activate(y[i, left:right], b[left:right], activation)


def forward_cuda(x, w, tw, b, activation, y):
    product(x, w, y, False, tw, b, activation)


# --- bias_activation(y, b, activation): y = a(y + b) in place, y (N, O), b (O,) ------------------

def bias_activation_numpy(y, b, activation):
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
    for i in prange(y.shape[0]):                       # each iteration owns a row of y
        activate(y[i], b, activation)


def bias_activation_cuda(y, b, activation):
    n, o = y.shape
    launch("dense.bias_activation", blocks_for(n * o, 1024), 256, y, b, activation, n, o)


@compiled
def activate(row, b, activation):
    """row = a(row + b): one loop for each activation, so that the compiler vectorises each."""
    zero, one, slope = row.dtype.type(0), row.dtype.type(1), row.dtype.type(SLOPE)
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


@compiled
def tile(b, times):
    """b (C,) repeated ``times`` times: the bias of a row of pixels."""
    out = np.empty(times * b.size, b.dtype)
    for i in range(times):
        for j in range(b.size):
            out[i * b.size + j] = b[j]
    return out


# --- activation_backward(dy, y, activation, dx, db): dx = dy a'(·) from y, db = Σ over rows ------

def activation_backward_numpy(dy, y, activation, dx, db):
    """dy, y, dx (N, O), db (O,); dx may be dy, which the identity leaves unchanged."""
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
    # Several narrow rows are processed as one row of at least WIDE numbers, if n is divisible.
    n, o = y.shape
    rows = 1
    while n % (2 * rows) == 0 and rows * o < WIDE and n > 0:
        rows *= 2
    width, tall = rows * o, n // rows
    high = max(ROWS, SHARE // max(1, width))
    same = activation == IDENTITY and dx.ctypes.data == dy.ctypes.data
    gradients, outputs = dy.reshape(tall, width), y.reshape(tall, width)
    results = dx.reshape(tall, width)
    partial = np.zeros(((tall + high - 1) // high, width), y.dtype)
    for part in prange(len(partial)):                 # each iteration owns rows of dx and partial
        sums = partial[part]
        for i in range(part * high, min(tall, (part + 1) * high)):
            if not same:
                activation_backward_row(gradients[i], outputs[i], activation, results[i])
            row = results[i]
            for j in range(width):
                sums[j] += row[j]
    total = np.zeros(o, np.float64)
    for part in range(len(partial)):
        for r in range(rows):
            for j in range(o):
                total[j] += partial[part, r * o + j]
    for j in range(o):
        db[j] = total[j]


def activation_backward_cuda(dy, y, activation, dx, db):
    n, o = y.shape
    shares = max(1, blocks_for(n, ROWS_PER_SHARE))
    sums = db if shares == 1 else empty((shares, o), db.dtype)
    size = 16 // y.dtype.itemsize
    wide = o % size == 0 and n * o >= PACKS_FROM      # else more threads are worth more
    launch("dense.activation_backward", (blocks_for(o, 32 * size if wide else 32), shares),
           (32, 8 if wide else 32), dy, y, activation, dx, sums, n, o, ROWS_PER_SHARE,
           constants=(wide,))
    if shares > 1:
        launch("dense.add_shares", blocks_for(o, 256), 256, sums, db, shares, o)


@compiled
def activation_backward_row(dy, y, activation, dx):
    """dx = dy a'(·) for one row."""
    zero, one, slope = y.dtype.type(0), y.dtype.type(1), y.dtype.type(SLOPE)
    if activation == IDENTITY:
        for j in range(y.size):
            dx[j] = dy[j]
    elif activation == RELU:
        for j in range(y.size):
            dx[j] = dy[j] if y[j] > zero else zero
    elif activation == LEAKY_RELU:
        for j in range(y.size):
            dx[j] = dy[j] if y[j] > zero else dy[j] * slope
    elif activation == ELU:
        for j in range(y.size):
            dx[j] = dy[j] if y[j] > zero else dy[j] * (y[j] + one)
    elif activation == SIGMOID:
        for j in range(y.size):
            dx[j] = dy[j] * (y[j] * (one - y[j]))
    elif activation == TANH:
        for j in range(y.size):
            dx[j] = dy[j] * (one - y[j] * y[j])
    else:
        for j in range(y.size):
            dx[j] = dy[j] * (one - exp(-y[j]))
