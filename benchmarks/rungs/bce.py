"""Softplus binary cross-entropy with its gradient: Σ [max(l, 0) − l t + ln(1 + e^−|l|)], σ(l) − t.

logits l and target t (N, D); the sum of the losses in nats, and its derivative for l, (N, D).
Nothing here is a matrix product: it is two functions, exp and ln, and one long sum.
"""

import math

import numpy as np
from scratchgen.kernels.bce import ROWS
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.vector_math import exp, log1p

from scratchgen.engine.backend import kernels

from . import Ladder


def formula(logits, target):
    e = np.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * target + np.log1p(e)
    return np.sum(losses, dtype=np.float64), np.where(logits >= 0, 1, e) / (1 + e) - target


@compiled
def two_loops(logits, target):
    """The formulas as they stand: a loop for the loss, another for the gradient, in float64

    Why: slow, for exp and log1p of the C library take one number a call, e^−|l| is computed twice,
    and numbers of float32 become float64 and return.
    """
    total, slope = 0.0, np.empty_like(logits)
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            v = float(logits[i, j])
            total += max(v, 0.0) - v * target[i, j] + math.log1p(math.exp(-abs(v)))
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            e = math.exp(-abs(float(logits[i, j])))
            slope[i, j] = (1.0 if logits[i, j] >= 0 else e) / (1.0 + e) - target[i, j]
    return total, slope


@compiled
def one_loop(logits, target):
    """Loss and gradient in one pass

    Why: the logits are read once, and one e^−|l| serves both; still one call a number.
    """
    total, slope = 0.0, np.empty_like(logits)
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            v = float(logits[i, j])
            e = math.exp(-abs(v))
            total += max(v, 0.0) - v * target[i, j] + math.log1p(e)
            slope[i, j] = (1.0 if v >= 0 else e) / (1.0 + e) - target[i, j]
    return total, slope


@compiled
def series_in_one_sum(logits, target):
    """One pass again, with exp and log1p as short series of float32 arithmetic

    Why: no faster yet: calls and float64 are gone, but the losses are one sum, whose additions must
    keep their order, and that alone keeps the whole loop from becoming vector instructions.
    """
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    total, slope = 0.0, np.empty_like(logits)
    for i in range(logits.shape[0]):
        ll, tt, ss = logits[i], target[i], slope[i]
        for j in range(ll.size):
            v = ll[j]
            e = exp(-abs(v))
            total += max(v, zero) - v * tt[j] + log1p(e)
            ss[j] = (one if v >= zero else e) / (one + e) - tt[j]
    return total, slope


def numpy_passes(logits, target):
    """NumPy: a dozen passes, each over whole arrays

    Why: each pass takes up to sixteen numbers of float32 an instruction, exp and the sum included,
    which outweighs a dozen temporary arrays that come and go.
    """
    return formula(logits, target)


@compiled
def sum_for_each_column(logits, target):
    """The one pass of before, with a sum for each column, added up in float64 every sixteen rows

    Why: D sums side by side that do not depend on each other: now the loop, series and all, becomes
    vector instructions, and nothing is stored between. Short sums also keep float32 accurate.
    """
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    n, d = logits.shape
    total, slope = 0.0, np.empty_like(logits)
    sums = np.empty(d, logits.dtype)
    for top in range(0, n, ROWS):
        for j in range(d):
            sums[j] = zero
        for i in range(top, min(n, top + ROWS)):
            ll, tt, ss = logits[i], target[i], slope[i]
            for j in range(d):
                v = ll[j]
                e = exp(-abs(v))
                sums[j] += max(v, zero) - v * tt[j] + log1p(e)
                ss[j] = (one if v >= zero else e) / (one + e) - tt[j]
        for j in range(d):
            total += sums[j]
    return total, slope


def scratchgen_bce(logits, target):
    """The kernel of sg.bce_with_logits: the same, over all threads

    Why: each thread owns sixteen rows and their sums, which are added up in a fixed order.
    """
    slope = np.empty_like(logits)
    partial = np.empty((-(-len(logits) // ROWS), logits.shape[1]), logits.dtype)
    kernels("bce").total(logits, target, slope, partial)
    return partial.sum(dtype=np.float64), slope


# --- the ladder ----------------------------------------------------------------------------------

def arguments(rng, n, d):
    """Logits from −30 to 30 and targets in [0, 1]."""
    return [np.clip(8 * rng.standard_normal((n, d)), -30, 30), rng.random((n, d))]


def work(n, d):
    return 3 * 4 * n * d                               # logits, targets and gradient, float32


LADDERS = [
    Ladder("softplus-BCE", "loss and gradient of logits (N, D)", "GB/s", work, arguments, formula,
           (two_loops, one_loop, series_in_one_sum, numpy_passes, sum_for_each_column,
            scratchgen_bce),
           size=(128, 784), ragged=((37, 19), (5, 259), (1, 2)))]
