"""Winograd convolution (minimal filtering), also for strides, and its gradients.

Along one axis, m neighbouring outputs of a filter w of r taps come from m + r − 1 inputs x as

    y = Aᵀ ((G w) ∘ (Bᵀ x))

with m + r − 1 products where the plain sum takes m·r; A, B, G are small and constant. On both axes
∘ becomes, for each pair of points, a matrix product over the channels. With stride s a filter of
r·s taps is s filters of r taps, each over every s-th pixel (a phase); the phases are treated as
channels. Derived in docs/winograd.md. Sources: Winograd 1980, Lavin & Gray 2016 (arXiv:1509.09308).

A *lane* is one of the products along an axis: a row of Bᵀ and a column of Aᵀ. Lanes are sorted by
their *point*, a row of G, so that the lanes of one point are the rows of one matrix.
"""

from typing import NamedTuple

import numpy as np

from . import minimal_filter as matrices
from .compiler import compiled, prange
from .dense import activate, tile
from .gemm_blocks import gemm
from .minimal_filter import POINTS, axis

NUMBERS = 1 << 16                # transformed at a time, so that they stay in a core's cache,
LEAST_ROWS = 64                  # but enough for matrices of so many rows, on average
PIECE = 1 << 11                  # numbers of the filters that are transformed at a time
SHARES = 2                       # partial sums of a gradient of the filters

unsigned = np.uint64             # an index that cannot be negative needs no check
# The index of a parallel loop is unsigned. Converted to np.int64 it has the type of the other
# integers, so that a function called with both is compiled once.


class Grid(NamedTuple):
    """The layout of images: rows of an image, numbers of a row; the vertical stride; the padding
    above in rows and on the left in numbers; the numbers of a position, and the positions of a
    row."""

    rows: int
    numbers: int
    step: int
    above: int
    left: int
    run: int
    positions: int


# --- the convolution and its two gradients -------------------------------------------------------

def forward(x, w, b, activation, kernel, stride, padding, y):
    """y (N, OH, OW, O) = a(conv2d(x, w) + b) from x (N, H, W, C), w (KH·KW·C, O), b (O,)."""
    axes, (x_grid, y_grid) = geometry(x, y, kernel, stride, padding)
    u = transform_filters(w, 1, stride[0], *axes)
    convolve(x, u, b, activation, False, *axes, x_grid, y_grid, y)


def backward_x(g, w, b, activation, kernel, stride, padding, x):
    """x (N, H, W, C) = a(b + the transpose of conv2d), from g (N, OH, OW, O), w (O, KH·KW·C)."""
    axes, (x_grid, y_grid) = geometry(x, g, kernel, stride, padding)
    u = transform_filters(w, len(w), stride[0], *axes)
    convolve(g, u, b, activation, True, *axes, y_grid, x_grid, x)


def backward_w(x, g, kernel, stride, padding, dw):
    """dw (KH·KW·C, O) from x (N, H, W, C) and g (N, OH, OW, O)."""
    (vertical, horizontal), (x_grid, y_grid) = geometry(x, g, kernel, stride, padding)
    du = transformed_filter_gradient(x, g, vertical, horizontal, x_grid, y_grid)
    transform_filter_gradient(du, stride[0], vertical, horizontal, dw)


def geometry(x, y, kernel, stride, padding):
    """The vertical and horizontal ``Axis``, and the ``Grid`` of x and of y."""
    c, o = x.shape[3], y.shape[3]
    axes = [axis(n, k // s, x.dtype) for n, k, s in zip(y.shape[1:3], kernel, stride, strict=True)]
    x_grid = Grid(x.shape[1], x.shape[2] * c, stride[0], padding[0], padding[1] * c, stride[1] * c,
                y.shape[2] + kernel[1] // stride[1] - 1)
    return axes, (x_grid, Grid(y.shape[1], y.shape[2] * o, 1, 0, 0, o, y.shape[2]))


@compiled(parallel=True)
def convolve(source, u, b, activation, of_y, vertical, horizontal, source_grid, result_grid,
             result):
    """y from x, or if ``of_y`` x from y; u has a matrix for each pair of points."""
    depth, width = source_grid.step * source_grid.run, result_grid.step * result_grid.run
    images = images_at_once(len(source), vertical, horizontal, depth + width)
    for t in prange((len(source) + images - 1) // images):   # each owns some images of the result
        start = np.int64(t) * images
        some = min(len(source) - start, images)
        filter_images(start, some, source.reshape(-1), u.reshape(len(u), depth, width), b,
                      activation, of_y, vertical, horizontal, source_grid, result_grid,
                      result.reshape(-1))


@compiled
def filter_images(start, some, source, u, b, activation, of_y, vertical, horizontal, source_grid,
                  result_grid, result):
    """Convolve ``some`` images from ``start`` on, one point of the vertical axis at a time."""
    z, first = len(POINTS), horizontal.first
    lines, v = allocate_lanes(some, vertical, horizontal, source_grid, result)
    out, m = allocate_lanes(some, vertical, horizontal, result_grid, result)
    rows, tiled = result.reshape(-1, result_grid.numbers), tile(b, result_grid.numbers // b.size)
    zero_rows(rows, start * result_grid.rows, (start + some) * result_grid.rows)
    for p in range(z):
        lanes = some * (vertical.first[p + 1] - vertical.first[p])
        for i in range(some):
            transform_input(source, start + i, source_grid, of_y, p, vertical, horizontal, lines, i,
                            some, v.reshape(-1))
        for q in range(z):
            begin, end = lanes * first[q], lanes * first[q + 1]
            gemm(v[begin:end], u[p * z + q], m[begin:end], False, False, 0)
        for i in range(some):
            transform_output(m.reshape(-1), i, some, p, vertical, horizontal, out, start + i,
                             result_grid, not of_y, result)
    for r in range(start * result_grid.rows, (start + some) * result_grid.rows):
        activate(rows[r], tiled, activation)


@compiled(parallel=True)
def transformed_filter_gradient(x, g, vertical, horizontal, x_grid, y_grid):
    """The gradients of the transformed filters (shares, points², depth, O)."""
    z = len(POINTS)
    du = np.empty((SHARES * z, z, x_grid.step * x_grid.run, y_grid.run), x.dtype)
    images = images_at_once(len(x), vertical, horizontal, x_grid.step * x_grid.run + y_grid.run)
    blocks = (len(x) + images - 1) // images
    for task in prange(SHARES * z):                    # each owns the points (p, …) of a share
        p, share = np.int64(task) % z, np.int64(task) // z
        begin, end = blocks * share // SHARES * images, blocks * (share + 1) // SHARES * images
        accumulate_images(begin, min(end, len(x)), images, p, x.reshape(-1), g.reshape(-1),
                           vertical, horizontal, x_grid, y_grid, du[p + share * z])
    return du.reshape(SHARES, z * z, du.shape[2], y_grid.run)


@compiled
def accumulate_images(begin, end, images, p, x, g, vertical, horizontal, x_grid, y_grid, du):
    """du (points, depth, O) of the points (p, …): the sum over the images ``begin`` to ``end``."""
    first = horizontal.first
    x_lines, v = allocate_lanes(images, vertical, horizontal, x_grid, x)
    g_lines, m = allocate_lanes(images, vertical, horizontal, y_grid, x)
    for start in range(begin, end, images):
        some = min(end - start, images)
        lanes = some * (vertical.first[p + 1] - vertical.first[p])
        for i in range(some):
            transform_input(x, start + i, x_grid, False, p, vertical, horizontal, x_lines, i, some,
                       v.reshape(-1))
            transform_input(g, start + i, y_grid, True, p, vertical, horizontal, g_lines, i, some,
                       m.reshape(-1))
        for q in range(len(POINTS)):
            top, bottom = lanes * first[q], lanes * first[q + 1]
            gemm(v[top:bottom], m[top:bottom], du[q], True, False, start > begin)
    if begin >= end:
        zero_rows(du.reshape(-1, du.shape[2]), 0, du.shape[0] * du.shape[1])


@compiled
def allocate_lanes(images, vertical, horizontal, grid, like):
    """Buffers: lines, zero wherever they lie outside the image; the lanes of ``images`` images."""
    most = vertical.first[1]                           # lanes of point 0: no point has more
    lines = np.zeros(most * grid.step * grid.positions * grid.run, like.dtype)
    return lines, np.empty((images * most * horizontal.first[-1], grid.step * grid.run), like.dtype)


@compiled
def zero_rows(rows, begin, end):
    """Set the rows ``begin`` to ``end`` to zero."""
    zero = rows.dtype.type(0)
    for i in range(begin, end):
        for j in range(rows.shape[1]):
            rows[i, j] = zero


# --- the filters: U = G w Gᵀ, and the transpose --------------------------------------------------

@compiled(parallel=True)
def transform_filters(w, outer, step, vertical, horizontal):
    """w (outer, taps down, step, taps across, run) → (points², outer · step · run), all flat. A run
    is contiguous: the phases across, the channels, and the columns of the matrix w."""
    run = w.size // (outer * vertical.taps * step * horizontal.taps)
    u = np.empty((len(POINTS)**2, outer * step * run), w.dtype)
    n, together = min(run, PIECE), max(1, PIECE // run)
    pieces, groups = (run + n - 1) // n, (outer + together - 1) // together
    for task in prange(step * groups * pieces):        # each iteration owns a piece of all points
        phase, rest = np.int64(task) % step, np.int64(task) // step
        start, first = rest % pieces * n, rest // pieces * together
        transform_filter_piece(w.reshape(-1), first, min(together, outer - first), phase, start,
                       min(n, run - start), step, run, vertical, horizontal, u)
    return u


@compiled
def transform_filter_piece(w, first, outers, phase, start, n, step, run, vertical, horizontal, u):
    """Transform n numbers of each run from ``start`` on, of one vertical phase and ``outers``."""
    z, taps, down = len(POINTS), horizontal.taps, step * horizontal.taps * run
    half, size = np.empty(taps * z * outers * n, u.dtype), outers * n
    for t in range(taps):
        source = ((first * vertical.taps * step + phase) * taps + t) * run + start
        for p in range(z):
            weighted_sum(half, (t * z + p) * size, n, w, source, vertical.taps * down, outers, n,
                         vertical, matrices.TAPS, p, down)
    for p in range(z):
        for q in range(z):
            to = (p * z + q) * u.shape[1] + (first * step + phase) * run + start
            weighted_sum(u.reshape(-1), to, step * run, half, p * size, n, outers, n, horizontal,
                         matrices.TAPS, q, z * size)


@compiled(parallel=True)
def transform_filter_gradient(du, step, vertical, horizontal, dw):
    """dw = Gᵀ du G, as above with one outer; adds the partial sums in du (shares, points², …)."""
    run = dw.size // (vertical.taps * step * horizontal.taps)
    n = min(run, PIECE)
    pieces = (run + n - 1) // n
    for task in prange(step * pieces):                 # each iteration owns a piece of all taps
        phase, start = np.int64(task) % step, np.int64(task) // step * n
        transform_gradient_piece(du.reshape(-1), len(du), phase, start, min(n, run - start), step,
                                 run, vertical, horizontal, dw.reshape(-1))


@compiled
def transform_gradient_piece(du, shares, phase, start, n, step, run, vertical, horizontal, dw):
    """Transform n numbers of each run from ``start`` on, of one vertical phase."""
    z, taps, down = len(POINTS), horizontal.taps, step * horizontal.taps * run
    total, half = np.empty(z * z * n, du.dtype), np.empty(z * n, du.dtype)
    for p in range(z * z):
        source = (p * step + phase) * run + start
        for j in range(n):
            total[unsigned(p * n + j)] = du[unsigned(source + j)]
        for share in range(1, shares):
            source = ((share * z * z + p) * step + phase) * run + start
            for j in range(n):
                total[unsigned(p * n + j)] += du[unsigned(source + j)]
    for t in range(taps):
        for p in range(z):
            weighted_sum(half, p * n, 0, total, p * z * n, 0, 1, n, horizontal,
                         matrices.POINTS_OF_TAP, t, n)
        to = (phase * taps + t) * run + start
        for s in range(vertical.taps):
            weighted_sum(dw, to + s * down, 0, half, 0, 0, 1, n, vertical, matrices.POINTS_OF_TAP,
                         s, n)


# --- input and output transforms -----------------------------------------------------------------

@compiled
def transform_input(x, image, grid, of_y, p, vertical, horizontal, lines, at, images, v):
    """v (horizontal lanes, images, vertical lanes of p, phases · numbers), image ``at``: the
    transform of an image of x by Bᵀ, or if ``of_y`` of y by A."""
    way = matrices.OUTPUTS if of_y else matrices.INPUTS
    lanes, length = vertical.first[p + 1] - vertical.first[p], grid.positions * grid.run
    inside = min(grid.numbers, length - grid.left)
    rows = matrices.Axis(0, vertical.first, np.empty_like(vertical.index[:1, :1]),
                         np.empty_like(vertical.weight[:1, :1]), np.empty((1, 1), np.int64))
    for r in range(lanes * grid.step):                 # vertical transform: image rows → lines
        lane, phase, terms = vertical.first[p] + r // grid.step, r % grid.step, 0
        for k in range(vertical.terms[way, lane]):
            row = vertical.index[way, lane, k] * grid.step + phase - grid.above
            if 0 <= row < grid.rows:
                rows.index[0, 0, terms], rows.weight[0, 0, terms] = (
                    row, vertical.weight[way, lane, k])
                terms += 1
        rows.terms[0, 0] = terms
        weighted_sum(lines, r * length + grid.left, 0, x, image * grid.rows * grid.numbers, 0, 1,
                     inside, rows, 0, 0, grid.numbers)
    for s in range(horizontal.first[-1]):              # horizontal transform: positions → lanes
        weighted_sum(v, (s * images + at) * lanes * grid.step * grid.run, grid.run, lines, 0,
                     length, lanes * grid.step, grid.run, horizontal, way, s, grid.run)


@compiled
def transform_output(m, at, images, p, vertical, horizontal, lines, image, grid, of_y, y):
    """The transpose: adds the lanes in m to an image, of y by Aᵀ (``of_y``) or of x by B."""
    down, across = matrices.INPUTS, matrices.LANES_OF_INPUT
    if of_y:
        down, across = matrices.OUTPUTS, matrices.LANES_OF_OUTPUT
    lanes, length = vertical.first[p + 1] - vertical.first[p], grid.positions * grid.run
    inside, whole = min(grid.numbers, length - grid.left), lanes * grid.step * grid.run
    for j in range(grid.positions):
        weighted_sum(lines, j * grid.run, length, m, at * whole, grid.run, lanes * grid.step,
                     grid.run, horizontal, across, j, images * whole)
    for r in range(lanes * grid.step):
        lane, phase = vertical.first[p] + r // grid.step, r % grid.step
        for k in range(vertical.terms[down, lane]):
            row = vertical.index[down, lane, k] * grid.step + phase - grid.above
            if 0 <= row < grid.rows:
                to, line = (image * grid.rows + row) * grid.numbers, r * length + grid.left
                weight = vertical.weight[down, lane, k]
                for i in range(inside):
                    y[unsigned(to + i)] += weight * lines[unsigned(line + i)]


@compiled
def weighted_sum(out, to, to_next, x, base, base_next, blocks, n, sums, matrix, i, step):
    """For blocks of n numbers, ``to_next`` and ``base_next`` apart: out = Σ weight · x at
    base + index·step, with the weights and indices of row i of a matrix of ``sums`` (an ``Axis``).
    """
    index, weight, terms = sums.index[matrix, i], sums.weight[matrix, i], sums.terms[matrix, i]
    a = b = c = weight.dtype.type(0)
    first = base + index[0] * step
    second = third = first
    if terms > 0:
        a = weight[0]
    if terms > 1:
        second, b = base + index[1] * step, weight[1]
    if terms > 2:
        third, c = base + index[2] * step, weight[2]
    for block in range(blocks):
        if terms == 0:
            for j in range(n):
                out[unsigned(to + j)] = a
        else:                                          # less than three terms: the rest times zero
            for j in range(n):
                out[unsigned(to + j)] = (a * x[unsigned(first + j)] + b * x[unsigned(second + j)]
                                         + c * x[unsigned(third + j)])
            for k in range(3, terms):
                other, d = block * base_next + base + index[k] * step, weight[k]
                for j in range(n):
                    out[unsigned(to + j)] += d * x[unsigned(other + j)]
        to, first = to + to_next, first + base_next
        second, third = second + base_next, third + base_next


@compiled
def images_at_once(n, vertical, horizontal, depth):
    """How many images are transformed at a time, which depends on the shapes only."""
    at_once = vertical.first[1] * horizontal.first[-1] * depth      # of point 0, which has most
    lanes = vertical.first[-1] * horizontal.first[-1]
    fit = max(1, NUMBERS // at_once, LEAST_ROWS * len(POINTS)**2 // lanes)
    blocks = ((n + fit - 1) // fit + SHARES - 1) // SHARES * SHARES
    return (n + blocks - 1) // blocks
