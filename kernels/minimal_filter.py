"""Winograd's minimal filtering along one axis: its small matrices, and those of a whole axis.

m neighbouring outputs of a filter w of r taps, from m + r − 1 inputs x:

    y = Aᵀ ((G w) ∘ (Bᵀ x))

with m + r − 1 products where the plain sum takes m·r. Derived in docs/winograd.md.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

POINTS = 0, None, 1, -1          # None: infinity. With more points float32 loses digits
INPUTS, LANES_OF_INPUT, OUTPUTS, LANES_OF_OUTPUT, TAPS, POINTS_OF_TAP = range(6)


class Axis(NamedTuple):
    """Minimal filtering along an axis: the lanes of point p are ``first[p]`` to ``first[p + 1]``.

    Six sparse matrices: a lane is a sum of INPUTS (Bᵀ), an output a sum of lanes (LANES_OF_OUTPUT,
    Aᵀ), a point a sum of TAPS (G); the other three are their transposes, for the gradients. Row i
    of matrix k has the value ``weight[k, i, j]`` in column ``index[k, i, j]``, j < ``terms[k, i]``.
    """

    taps: int
    first: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    terms: np.ndarray


def minimal_filter(m, r):
    """Bᵀ (Z, Z), G (Z, r) and Aᵀ (m, Z) for m outputs of r taps, Z = m + r − 1.

    y and w are taken as coefficients of polynomials. Their product follows from its values at Z
    points by Lagrange's formula; the value at infinity is the highest coefficient. Filtering is the
    transpose of polynomial multiplication (Tellegen's principle).
    """
    points = POINTS[:m + r - 1]
    finite = [t for t in points if t is not None]
    bt, g, at = [], [], []
    for t in points:
        others = [s for s in finite if s != t]
        polynomial = np.atleast_1d(np.poly(others))[::-1]         # Π (x − s) over the others
        bt.append(np.pad(polynomial, (0, len(points) - len(polynomial))))
        g.append(powers(t, r) / (1 if t is None else math.prod(t - s for s in others)))
        at.append(powers(t, m))
    return np.array(bt), np.array(g), np.array(at).T


def powers(t, n):
    """(1, t, …, tⁿ⁻¹): times a polynomial's coefficients, its value at t."""
    return np.eye(n)[n - 1] if t is None else float(t) ** np.arange(n)


def tile_of(r):
    """The number of outputs of the largest tile, given by the number of POINTS."""
    return len(POINTS) + 1 - r


def count_lanes(n, r):
    """The products for n outputs of r taps: n + r − 1 of each tile."""
    return n + math.ceil(n / tile_of(r)) * (r - 1)


@functools.lru_cache(maxsize=256)
def axis(n, r, dtype):
    """The ``Axis`` of n outputs of r taps: the largest tiles, and a smaller last one."""
    largest = tile_of(r)
    g = minimal_filter(largest, r)[1]
    lanes = []
    for start in range(0, n, largest):
        m = min(largest, n - start)
        bt, own, at = minimal_filter(m, r)
        for p in range(len(bt)):                       # one G for all tiles: Bᵀ takes the ratio
            row, column = np.zeros(n + r - 1), np.zeros(n)
            row[start:start + len(bt)] = bt[p] * (own[p] @ own[p] / (g[p] @ own[p]))
            column[start:start + m] = at[:, p]
            lanes.append((p, row, column))
    lanes.sort(key=lambda lane: lane[0])
    first = np.searchsorted([p for p, _, _ in lanes], range(len(POINTS) + 1))
    b, a = np.array([row for _, row, _ in lanes]), np.array([column for _, _, column in lanes])
    return Axis(r, first, *sparse((b, b.T, a, a.T, g, g.T), dtype))


def sparse(matrices, dtype):
    """The index, weight and terms of an ``Axis``."""
    terms = np.zeros((len(matrices), max(map(len, matrices))), np.int64)
    index, weight = np.zeros((2, *terms.shape, max(np.count_nonzero(m, 1).max() for m in matrices)))
    for k, matrix in enumerate(matrices):
        for i, row in enumerate(matrix):
            terms[k, i] = np.count_nonzero(row)
            index[k, i, :terms[k, i]] = np.flatnonzero(row)
            weight[k, i, :terms[k, i]] = row[row != 0]
    return index.astype(np.int64), weight.astype(dtype), terms
