"""Adam, one step over the parameters of a whole network (Kingma & Ba 2015).

m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²;  p −= lr m̂/(√v̂ + ε), m̂ = m/(1 − β₁ᵗ), v̂ alike.
p, m and v change in place. There is little to compute and much to read: at best each of the four
arrays is read once and three are written once.
"""

import math

import numpy as np
from scratchgen.kernels.compiler import compiled

from scratchgen.engine.backend import kernels

from . import Ladder

LR, BETA1, BETA2, EPS, STEP = 1e-3, 0.9, 0.999, 1e-8, 10
BIAS1, BIAS2 = 1 - BETA1**STEP, 1 - BETA2**STEP


def formula(g, p, m, v):
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g**2
    return p - LR * (m / BIAS1) / (np.sqrt(v / BIAS2) + EPS), m, v


def as_in_the_paper(g, p, m, v):
    """The paper's lines in NumPy

    Why: slow, for each operation makes an array as large as the network, and reads and writes it in
    memory: some twenty-five passes.
    """
    m[...] = BETA1 * m + (1 - BETA1) * g
    v[...] = BETA2 * v + (1 - BETA2) * g**2
    first, second = m / BIAS1, v / BIAS2
    p[...] = p - LR * first / (np.sqrt(second) + EPS)
    return p, m, v


def in_place(g, p, m, v):
    """The same in place, with two arrays for what lies between

    Why: fewer passes, for the corrections of bias become two numbers, and two new arrays instead of
    fourteen; the system hands out new memory page by page, which takes longer than the arithmetic.
    """
    a, b = np.empty_like(p), np.empty_like(p)
    np.multiply(g, 1 - BETA1, out=a)
    m *= BETA1
    m += a
    np.multiply(g, g, out=a)
    a *= 1 - BETA2
    v *= BETA2
    v += a
    np.sqrt(v, out=b)
    b *= 1 / math.sqrt(BIAS2)
    b += EPS
    np.divide(m, b, out=a)
    a *= LR / BIAS1
    p -= a
    return p, m, v


@compiled
def one_loop_with_float64(g, p, m, v):
    """One compiled loop: everything about a number while it is in a register

    Why: one pass without any array between. But the constants are Python's numbers, float64, and
    draw each operation with them: half as many numbers an instruction, and slow square roots.
    """
    for i in range(p.size):
        m[i] = BETA1 * m[i] + (1 - BETA1) * g[i]
        v[i] = BETA2 * v[i] + (1 - BETA2) * g[i] * g[i]
        p[i] -= LR * (m[i] / BIAS1) / (math.sqrt(v[i] / BIAS2) + EPS)
    return p, m, v


@compiled
def one_loop(g, p, m, v):
    """The same loop with constants in the precision of the arrays

    Why: sixteen numbers of float32 an instruction, and the divisions by the bias corrections are
    gone from the loop.
    """
    number = p.dtype.type
    beta1, rest1, beta2, rest2 = number(BETA1), number(1 - BETA1), number(BETA2), number(1 - BETA2)
    lr, root, eps = number(LR / BIAS1), number(1 / math.sqrt(BIAS2)), number(EPS)
    for i in range(p.size):
        m[i] = beta1 * m[i] + rest1 * g[i]
        v[i] = beta2 * v[i] + rest2 * (g[i] * g[i])
        p[i] -= lr * m[i] / (math.sqrt(v[i]) * root + eps)
    return p, m, v


def scratchgen_adam(g, p, m, v):
    """The kernel of sg.optim.Adam: the same, over all threads

    Why: a second core adds its own bandwidth, and as the parameters of a network lie in one buffer,
    one call serves them all.
    """
    numbers = (LR / BIAS1, BETA1, 1 - BETA1, BETA2, 1 - BETA2, 1 / math.sqrt(BIAS2), EPS, 0, 1)
    kernels("optimizer").adam(p, g, m, v, np.array(numbers, p.dtype))
    return p, m, v


# --- the ladder ----------------------------------------------------------------------------------

def arguments(rng, size):
    """Gradients, parameters and state after some steps, v ≥ 0."""
    g, p, m = rng.standard_normal((3, size)) * [[1e-2], [1e-1], [1e-2]]
    return [g, p, m, 1e-4 * rng.random(size)]


def work(size):
    return 7 * 4 * size                                # p, g, m, v read and p, m, v written


LADDERS = [
    Ladder("Adam", "one step over P parameters, p, g, m, v (P,)", "GB/s", work, arguments, formula,
           (as_in_the_paper, in_place, one_loop_with_float64, one_loop, scratchgen_adam),
           size=(784 * 1000 + 1000 + 1000 * 784 + 784,), ragged=((37,), (8199,), (1,)))]
