"""The dense layer y = σ(x w + b), x (N, C), w (C, O), b (O,).

A matrix product is three nested loops; the question is only in which order they run, and how often
each number travels from memory to a register.
"""

import math

import numpy as np
from scratchgen.kernels.compiler import compiled
from scratchgen.kernels.dense import SIGMOID, activate
from scratchgen.kernels.gemm_blocks import gemm

import scratchgen as sg

from . import Ladder


def formula(x, w, b):
    return 1 / (1 + np.exp(-(x @ w + b)))


@compiled
def loops_ijk(x, w, b):
    """Three loops: a dot product for each output

    Why: slow, for it walks down the columns of w, a cache line for every number, and each addition
    waits for the one before.
    """
    y = np.empty((x.shape[0], w.shape[1]), x.dtype)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            total = b[j]
            for k in range(x.shape[1]):
                total += x[i, k] * w[k, j]
            y[i, j] = 1 / (1 + math.exp(-total))
    return y


@compiled
def loops_ikj(x, w, b):
    """The two inner loops exchanged: a row of y collects rows of w

    Why: the innermost loop runs along rows of y and w, so that it reads whole cache lines and
    becomes vector instructions: many sums, independent of each other.
    """
    y = np.empty((x.shape[0], w.shape[1]), x.dtype)
    for i in range(y.shape[0]):
        row = y[i]
        for j in range(row.size):
            row[j] = b[j]
        for k in range(x.shape[1]):
            factor = x[i, k]
            for j in range(row.size):
                row[j] += factor * w[k, j]
        for j in range(row.size):
            row[j] = 1 / (1 + math.exp(-row[j]))
    return y


@compiled
def blocked(x, w, b):
    """Blocks: four rows of w at a time, for all rows of y, in columns that fit the first cache

    Why: a number of y is loaded and stored once for four multiply-adds, and the 4 × 256 numbers of
    w stay in the cache while every row of y uses them.
    """
    (n, c), o = x.shape, w.shape[1]
    y = np.empty((n, o), x.dtype)
    for i in range(n):
        for j in range(o):
            y[i, j] = b[j]
    whole = c // 4 * 4
    for left in range(0, o, 256):
        right = min(o, left + 256)
        for k in range(0, whole, 4):
            w0, w1 = w[k, left:right], w[k + 1, left:right]
            w2, w3 = w[k + 2, left:right], w[k + 3, left:right]
            for i in range(n):
                f0, f1, f2, f3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
                row = y[i, left:right]
                for j in range(right - left):
                    row[j] += (f0 * w0[j] + f1 * w1[j]) + (f2 * w2[j] + f3 * w3[j])
        for k in range(whole, c):                      # what four do not divide
            for i in range(n):
                for j in range(left, right):
                    y[i, j] += x[i, k] * w[k, j]
    for i in range(n):
        for j in range(o):
            y[i, j] = 1 / (1 + math.exp(-y[i, j]))
    return y


def blas_and_passes(x, w, b):
    """NumPy: the product from BLAS, then bias and σ, five passes over arrays like y

    Why: BLAS copies both factors into blocks in the order of use and keeps a tile of y in
    registers, where a number loaded serves a dozen fused multiply-adds.
    """
    return 1 / (1 + np.exp(-(x @ w + b)))


@compiled
def product_fused(x, w, b):
    """The engine's product on one thread, then bias and activation in one pass

    Why: y is read and written once after the product, without intermediate arrays, and the exp is
    float32 arithmetic that the compiler vectorises (product: docs/gemm.md).
    """
    y = np.empty((x.shape[0], w.shape[1]), x.dtype)
    gemm(x, w, y, False, False, 0)
    for i in range(y.shape[0]):
        activate(y[i], b, SIGMOID)
    return y


def scratchgen_dense(x, w, b):
    """sg.dense: the same for blocks of y, over all threads

    Why: each thread computes a block of y, and applies bias and activation while the block is in
    the cache of its core.
    """
    return sg.dense(x, w, b, "sigmoid").data


# --- the ladder ----------------------------------------------------------------------------------

def arguments(*shapes):
    """Standard normal arrays, a letter a dimension; w scaled so that x w has the scale of x."""
    def draw(rng, n, c, o):
        size = {"N": n, "C": c, "O": o}
        return [rng.standard_normal([size[letter] for letter in shape]) / (
            np.sqrt(c) if shape == "CO" else 1) for shape in shapes]
    return draw


def work(n, c, o):
    return 2 * n * c * o


SIZES = {"size": (128, 784, 1000), "ragged": ((7, 19, 37), (5, 259, 262), (1, 3, 2))}
LADDERS = [
    Ladder("dense", "y = σ(x w + b), x (N, C), w (C, O)", "GFLOP/s", work,
           arguments("NC", "CO", "O"), formula,
           (loops_ijk, loops_ikj, blocked, blas_and_passes, product_fused, scratchgen_dense),
           **SIZES)]
