"""One optimiser step over a whole network: its parameters, gradients and state are flat arrays.

p parameters, g gradients, (m, v) state; all (P,). Every element is independent, so each thread owns
its share. All numbers come in the arrays' own precision.
"""

import math

import numpy as np

from .compiler import compiled, prange

# --- sgd(p, g, m, lr, momentum, nesterov, decay) -------------------------------------------------
# g += decay p;  m = momentum m + g;  p −= lr (g + momentum m  if nesterov else  m)

def sgd_numpy(p, g, m, lr, momentum, nesterov, decay):
    """Sutskever et al. 2013; ``decay`` is L2 regularisation."""
    step = g + decay * p
    if momentum:
        m *= momentum
        m += step
        step = step + momentum * m if nesterov else m
    p -= lr * step


@compiled(parallel=True)
def sgd_numba(p, g, m, lr, momentum, nesterov, decay):
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        if momentum != 0:
            m[i] = momentum * m[i] + step
            step = step + momentum * m[i] if nesterov else m[i]
        p[i] -= lr * step


# --- adagrad(p, g, v, lr, eps, decay): v += g²;  p −= lr g/(√v + ε) ------------------------------

def adagrad_numpy(p, g, v, lr, eps, decay):
    """Duchi, Hazan & Singer 2011."""
    step = g + decay * p
    v += step * step
    p -= lr * step / (np.sqrt(v) + eps)


@compiled(parallel=True)
def adagrad_numba(p, g, v, lr, eps, decay):
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        v[i] += step * step
        p[i] -= lr * step / (math.sqrt(v[i]) + eps)


# --- rmsprop(p, g, v, lr, alpha, rest, eps, decay): v = α v + (1 − α) g²;  p −= lr g/(√v + ε) ----

def rmsprop_numpy(p, g, v, lr, alpha, rest, eps, decay):
    """Tieleman & Hinton 2012; ``rest`` is 1 − alpha."""
    step = g + decay * p
    v *= alpha
    v += rest * (step * step)
    p -= lr * step / (np.sqrt(v) + eps)


@compiled(parallel=True)
def rmsprop_numba(p, g, v, lr, alpha, rest, eps, decay):
    for i in prange(p.size):
        step = g[i] + decay * p[i]
        v[i] = alpha * v[i] + rest * (step * step)
        p[i] -= lr * step / (math.sqrt(v[i]) + eps)


# --- adam(p, g, m, v, lr, beta1, rest1, beta2, rest2, root, eps, decay, shrink) ------------------
# m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²;  p −= lr' m/(√v/√(1 − β₂ᵗ) + ε)
# with lr' = lr/(1 − β₁ᵗ) given as lr, √(1 − β₂ᵗ) as root, 1 − β as rest.

def adam_numpy(p, g, m, v, lr, beta1, rest1, beta2, rest2, root, eps, decay, shrink):
    """Kingma & Ba 2015. AdamW (Loshchilov & Hutter 2019): p ×= shrink first, decay 0."""
    p *= shrink
    step = g + decay * p
    m *= beta1
    m += rest1 * step
    v *= beta2
    v += rest2 * (step * step)
    p -= lr * m / (np.sqrt(v) / root + eps)


@compiled(parallel=True)
def adam_numba(p, g, m, v, lr, beta1, rest1, beta2, rest2, root, eps, decay, shrink):
    for i in prange(p.size):
        old = p[i] * shrink
        step = g[i] + decay * old
        m[i] = beta1 * m[i] + rest1 * step
        v[i] = beta2 * v[i] + rest2 * (step * step)
        p[i] = old - lr * m[i] / (math.sqrt(v[i]) / root + eps)
