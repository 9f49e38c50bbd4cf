"""One optimiser step over a network: its parameters, gradients and state are flat arrays.

p parameters, g gradients, (m, v) state; all (P,). Every element is independent of the others.
``numbers`` is an array of the same dtype; the comment above each kernel lists its elements.
"""

import math

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, empty, launch

BLOCK, PARTS = 256, 128               # threads of a block; blocks that add the squares of a norm

# --- sgd(p, g, m, numbers, nesterov), numbers: lr, momentum, decay -------------------------------
# g += decay p;  m = momentum m + g;  p −= lr (g + momentum m  if nesterov else  m)

def sgd_numpy(p, g, m, numbers, nesterov):
    """Sutskever et al. 2013; ``decay`` is L2 regularisation."""
    lr, momentum, decay = numbers
    step = g + decay * p
    if momentum:
        m *= momentum
        m += step
        step = step + momentum * m if nesterov else m
    p -= lr * step


@compiled(parallel=True)
def sgd_numba(p, g, m, numbers, nesterov):
    lr, momentum, decay = numbers[0], numbers[1], numbers[2]
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        if momentum != 0:
            m[i] = momentum * m[i] + step
            step = step + momentum * m[i] if nesterov else m[i]
        p[i] -= lr * step


def sgd_cuda(p, g, m, numbers, nesterov):
    launch("optimizer.sgd", blocks(p), BLOCK, p, g, m, numbers, nesterov, p.size)


# --- adagrad(p, g, v, numbers), numbers: lr, eps, decay ------------------------------------------
# v += g²;  p −= lr g/(√v + ε)

def adagrad_numpy(p, g, v, numbers):
    """Duchi, Hazan & Singer 2011."""
    lr, eps, decay = numbers
    step = g + decay * p
    v += step * step
    p -= lr * step / (np.sqrt(v) + eps)


@compiled(parallel=True)
def adagrad_numba(p, g, v, numbers):
    lr, eps, decay = numbers[0], numbers[1], numbers[2]
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        v[i] += step * step
        p[i] -= lr * step / (math.sqrt(v[i]) + eps)


def adagrad_cuda(p, g, v, numbers):
    launch("optimizer.adagrad", blocks(p), BLOCK, p, g, v, numbers, p.size)


# --- rmsprop(p, g, v, numbers), numbers: lr, α, 1 − α, eps, decay --------------------------------
# v = α v + (1 − α) g²;  p −= lr g/(√v + ε)

def rmsprop_numpy(p, g, v, numbers):
    """Tieleman & Hinton 2012."""
    lr, alpha, rest, eps, decay = numbers
    step = g + decay * p
    v *= alpha
    v += rest * (step * step)
    p -= lr * step / (np.sqrt(v) + eps)


@compiled(parallel=True)
def rmsprop_numba(p, g, v, numbers):
    lr, alpha, rest, eps, decay = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        v[i] = alpha * v[i] + rest * (step * step)
        p[i] -= lr * step / (math.sqrt(v[i]) + eps)


def rmsprop_cuda(p, g, v, numbers):
    launch("optimizer.rmsprop", blocks(p), BLOCK, p, g, v, numbers, p.size)


# --- adam(p, g, m, v, numbers), numbers: lr', β₁, 1 − β₁, β₂, 1 − β₂, u, eps, decay, shrink -------
# m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²;  p −= lr' m/(u √v + ε)
# with lr' = lr/(1 − β₁ᵗ) and u = 1/√(1 − β₂ᵗ): one division per element.

def adam_numpy(p, g, m, v, numbers):
    """Kingma & Ba 2015. AdamW (Loshchilov & Hutter 2019): p ×= shrink first, decay 0."""
    lr, beta1, rest1, beta2, rest2, unbias, eps, decay, shrink = numbers
    p *= shrink
    step = g + decay * p
    m *= beta1
    m += rest1 * step
    v *= beta2
    v += rest2 * (step * step)
    p -= lr * m / (np.sqrt(v) * unbias + eps)


@compiled(parallel=True)
def adam_numba(p, g, m, v, numbers):
    lr, beta1, rest1, beta2, rest2 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    unbias, eps, decay, shrink = numbers[5], numbers[6], numbers[7], numbers[8]
    for i in prange(p.size):
        old = p[i] * shrink
        step = g[i] + decay * old
        m[i] = beta1 * m[i] + rest1 * step
        v[i] = beta2 * v[i] + rest2 * (step * step)
        p[i] = old - lr * m[i] / (math.sqrt(v[i]) * unbias + eps)


def adam_cuda(p, g, m, v, numbers):
    launch("optimizer.adam", blocks(p), BLOCK, p, g, m, v, numbers, p.size)


# --- clip_norm(g, limit, norm): norm = ‖g‖, and g ×= limit/norm if that is below 1 ---------------

def clip_norm_numpy(g, limit, norm):
    """``limit`` is a Python float, norm (1,) float64; the squares are added in float64."""
    length = math.sqrt(np.sum(np.square(g), dtype=np.float64))
    norm[0] = length
    if length > limit:
        g *= g.dtype.type(limit / length)


@compiled
def clip_norm_numba(g, limit, norm):
    total = 0.0
    for i in range(g.size):
        total += np.float64(g[i]) * np.float64(g[i])
    norm[0] = math.sqrt(total)
    if norm[0] > limit:
        scale = g.dtype.type(limit / norm[0])
        for i in range(g.size):
            g[i] *= scale


def clip_norm_cuda(g, limit, norm):
    partial = empty((PARTS,), np.float64)
    launch("optimizer.clip_squares", PARTS, BLOCK, g, partial, g.size)
    launch("optimizer.clip_norm", max(1, blocks(g)), BLOCK, g, limit, norm, g.size, partial, PARTS)


def blocks(p):
    """The number of blocks if each thread processes sixteen bytes."""
    return blocks_for(p.size * p.itemsize, 16 * BLOCK)
