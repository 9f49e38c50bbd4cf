"""The dense layer's two derivatives: dw = xᵀ dh and dx = dh wᵀ, with dh (N, O) the one of x w + b.

Matrix products too, but each has one factor transposed: it lies across memory the wrong way.
"""

import numpy as np
from scratchgen.kernels.compiler import compiled

import scratchgen as sg

from . import Ladder
from .dense import SIZES, arguments, work

# --- dw = xᵀ dh ----------------------------------------------------------------------------------

def weight_formula(x, dh):
    return x.T @ dh


@compiled
def columns_by_columns(x, dh):
    """A dot product of two columns for each weight

    Why: slow, for both columns lie across memory: two cache lines for every multiplication.
    """
    dw = np.empty((x.shape[1], dh.shape[1]), x.dtype)
    for k in range(dw.shape[0]):
        for j in range(dw.shape[1]):
            total = x.dtype.type(0)
            for i in range(x.shape[0]):
                total += x[i, k] * dh[i, j]
            dw[k, j] = total
    return dw


@compiled
def outer_products(x, dh):
    """One outer product after the other is added to dw

    Why: the innermost loop runs along rows and becomes vector instructions; but all of dw, which no
    near cache holds, comes and goes once for each example.
    """
    dw = np.zeros((x.shape[1], dh.shape[1]), x.dtype)
    for i in range(x.shape[0]):
        for k in range(dw.shape[0]):
            factor, row, gradient = x[i, k], dw[k], dh[i]
            for j in range(row.size):
                row[j] += factor * gradient[j]
    return dw


@compiled
def outer_products_blocked(x, dh):
    """A row of dw is finished before the next begins, four examples at a time

    Why: the row stays in the first cache and is loaded and stored once for four examples; dh, which
    is small, is what comes again and again.
    """
    dw = np.zeros((x.shape[1], dh.shape[1]), x.dtype)
    n = x.shape[0]
    whole = n // 4 * 4
    for k in range(dw.shape[0]):
        row = dw[k]
        for i in range(0, whole, 4):
            f0, f1, f2, f3 = x[i, k], x[i + 1, k], x[i + 2, k], x[i + 3, k]
            g0, g1, g2, g3 = dh[i], dh[i + 1], dh[i + 2], dh[i + 3]
            for j in range(row.size):
                row[j] += (f0 * g0[j] + f1 * g1[j]) + (f2 * g2[j] + f3 * g3[j])
        for i in range(whole, n):
            for j in range(row.size):
                row[j] += x[i, k] * dh[i, j]
    return dw


def blas_transposed(x, dh):
    """BLAS with the flag that its first factor is transposed

    Why: no transposed copy is made; BLAS copies blocks of both factors into the order of use anyway
    and turns them then.
    """
    return x.T @ dh


def scratchgen_weight(x, dh):
    """sg.matmul: blocks of dw, over all threads

    Why: each thread computes a block of dw, so that no partial sums are added; blocks of rows,
    since two cores that write into the same rows slow each other down.
    """
    return sg.matmul(x.T, dh).data


# --- dx = dh wᵀ ----------------------------------------------------------------------------------

def input_formula(dh, w):
    return dh @ w.T


@compiled
def rows_by_rows(dh, w):
    """A dot product of two rows for each number of dx

    Why: both rows are read in order, but it is one sum: each addition waits four cycles for the one
    before, and vector instructions would change the order of additions.
    """
    dx = np.empty((dh.shape[0], w.shape[0]), dh.dtype)
    for i in range(dx.shape[0]):
        for k in range(dx.shape[1]):
            total = dh.dtype.type(0)
            for j in range(dh.shape[1]):
                total += dh[i, j] * w[k, j]
            dx[i, k] = total
    return dx


@compiled
def four_rows(dh, w):
    """Four dot products at a time

    Why: four sums that do not depend on each other, so the processor has four additions on their
    way at once; and each number of dh is loaded once for four. Still no vector instructions.
    """
    dx = np.empty((dh.shape[0], w.shape[0]), dh.dtype)
    zero, whole = dh.dtype.type(0), w.shape[0] // 4 * 4
    for i in range(dx.shape[0]):
        g = dh[i]
        for k in range(0, whole, 4):
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            s0, s1, s2, s3 = zero, zero, zero, zero
            for j in range(g.size):
                s0 += g[j] * w0[j]
                s1 += g[j] * w1[j]
                s2 += g[j] * w2[j]
                s3 += g[j] * w3[j]
            dx[i, k], dx[i, k + 1], dx[i, k + 2], dx[i, k + 3] = s0, s1, s2, s3
        for k in range(whole, w.shape[0]):             # what four do not divide
            total = zero
            for j in range(g.size):
                total += g[j] * w[k, j]
            dx[i, k] = total
    return dx


@compiled
def transposed_first(dh, w):
    """w is transposed once, then a row of dx collects rows of wᵀ

    Why: one more pass over w, and all that follows runs along rows: hundreds of independent sums,
    which become vector instructions.
    """
    c, o = w.shape
    columns = np.empty((o, c), w.dtype)
    for k in range(c):
        for j in range(o):
            columns[j, k] = w[k, j]
    dx = np.zeros((dh.shape[0], c), dh.dtype)
    for i in range(dx.shape[0]):
        row = dx[i]
        for j in range(o):
            factor, column = dh[i, j], columns[j]
            for k in range(c):
                row[k] += factor * column[k]
    return dx


def blas_second_transposed(dh, w):
    """BLAS with the flag that its second factor is transposed

    Why: tiles of dx in registers and fused multiply-adds; w is turned block by block while it is
    copied into the order of use.
    """
    return dh @ w.T


def scratchgen_input(dh, w):
    """sg.matmul: blocks of dx, over all threads

    Why: each thread computes a block of dx; squares of w are transposed in registers while its
    panels are packed (docs/gemm.md).
    """
    return sg.matmul(dh, w.T).data


# --- the ladders ---------------------------------------------------------------------------------

LADDERS = [
    Ladder("dense, dw", "dw = xᵀ dh, x (N, C), dh (N, O)", "GFLOP/s", work,
           arguments("NC", "NO"), weight_formula,
           (columns_by_columns, outer_products, outer_products_blocked, blas_transposed,
            scratchgen_weight), **SIZES),
    Ladder("dense, dx", "dx = dh wᵀ, dh (N, O), w (C, O)", "GFLOP/s", work,
           arguments("NO", "CO"), input_formula,
           (rows_by_rows, four_rows, transposed_first, blas_second_transposed,
            scratchgen_input), **SIZES)]
