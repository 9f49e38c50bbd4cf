"""Convolution with fewer products: Winograd's minimal filtering, for strides and gradients too.

Along one axis, m neighbouring outputs of a filter w of r taps come from m + r − 1 inputs x as

    y = Aᵀ ((G w) ∘ (Bᵀ x))

with m + r − 1 products where the plain sum takes m·r; A, B, G are small and constant. On both axes
∘ becomes, for each pair of points, a matrix product over the channels. With stride s a filter of
r·s taps is s filters of r taps, each over every s-th pixel (a phase); the phases join the channels
in the sum. Derived in docs/winograd.md; after Winograd 1980, Lavin & Gray 2016 (arXiv:1509.09308).

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

NUMBERS = 1 << 16                # are transformed at a time: so many stay in a core's cache,
LEAST_ROWS = 64                  # but at least what makes matrices of so many rows, on average
PIECE = 1 << 11                  # numbers of the filters that are transformed at a time
SHARES = 2                       # a gradient of the filters is the sum of so many

unsigned = np.uint64             # an index that cannot be negative needs no check
# A parallel loop counts in unsigned numbers. As np.int64 they have the type of all others, and what
# is called with them compiles once.


class Grid(NamedTuple):
    """How the lanes see images: rows in an image, numbers in a row; the stride downwards; the rows
    and the numbers that are missing above and to the left; the numbers of a position, and how many
    positions lie across."""

    rows: int
    numbers: int
    step: int
    above: int
    left: int
    run: int
    positions: int


# --- the three products --------------------------------------------------------------------------

def forward(x, w, b, activation, kernel, stride, padding, y):
    """y (N, OH, OW, O) = a(conv2d(x, w) + b) from x (N, H, W, C), w (KH·KW·C, O), b (O,)."""
    axes, (seen, made) = geometry(x, y, kernel, stride, padding)
    u = points_of_filters(w, 1, stride[0], *axes)
    filtered(x, u, b, activation, False, *axes, seen, made, y)


def backward_x(g, w, b, activation, kernel, stride, padding, x):
    """x (N, H, W, C) = a(b + the transpose of conv2d), from g (N, OH, OW, O), w (O, KH·KW·C)."""
    axes, (seen, made) = geometry(x, g, kernel, stride, padding)
    u = points_of_filters(w, len(w), stride[0], *axes)
    filtered(g, u, b, activation, True, *axes, made, seen, x)


def backward_w(x, g, kernel, stride, padding, dw):
    """dw (KH·KW·C, O) from x (N, H, W, C) and g (N, OH, OW, O)."""
    (vertical, horizontal), (seen, made) = geometry(x, g, kernel, stride, padding)
    du = gradient_of_points(x, g, vertical, horizontal, seen, made)
    filters_of_points(du, stride[0], vertical, horizontal, dw)


def geometry(x, y, kernel, stride, padding):
    """The two axes, and how the lanes see x and y."""
    c, o = x.shape[3], y.shape[3]
    axes = [axis(n, k // s, x.dtype) for n, k, s in zip(y.shape[1:3], kernel, stride, strict=True)]
    seen = Grid(x.shape[1], x.shape[2] * c, stride[0], padding[0], padding[1] * c, stride[1] * c,
                y.shape[2] + kernel[1] // stride[1] - 1)
    return axes, (seen, Grid(y.shape[1], y.shape[2] * o, 1, 0, 0, o, y.shape[2]))


@compiled(parallel=True)
def filtered(source, u, b, activation, of_y, vertical, horizontal, before, after, result):
    """y from x; or, ``of_y``, x from y. u holds a matrix for each pair of points."""
    depth, width = before.step * before.run, after.step * after.run
    images = images_at_once(len(source), vertical, horizontal, depth + width)
    for t in prange((len(source) + images - 1) // images):   # each owns some images of the result
        start = np.int64(t) * images
        some = min(len(source) - start, images)
        filter_images(start, some, source.reshape(-1), u.reshape(len(u), depth, width), b,
                      activation, of_y, vertical, horizontal, before, after, result.reshape(-1))


@compiled
def filter_images(start, some, source, u, b, activation, of_y, vertical, horizontal, before, after,
                  result):
    """Some images, from ``start`` on: the lanes of one point of the vertical axis at a time."""
    z, first = len(POINTS), horizontal.first
    lines, v = space(some, vertical, horizontal, before, result)
    out, m = space(some, vertical, horizontal, after, result)
    rows, tiled = result.reshape(-1, after.numbers), tile(b, after.numbers // b.size)
    clear(rows, start * after.rows, (start + some) * after.rows)
    for p in range(z):
        lanes = some * (vertical.first[p + 1] - vertical.first[p])
        for i in range(some):
            into_lanes(source, start + i, before, of_y, p, vertical, horizontal, lines, i, some,
                       v.reshape(-1))
        for q in range(z):
            begin, end = lanes * first[q], lanes * first[q + 1]
            gemm(v[begin:end], u[p * z + q], m[begin:end], False, False, 0)
        for i in range(some):
            out_of_lanes(m.reshape(-1), i, some, p, vertical, horizontal, out, start + i, after,
                         not of_y, result)
    for r in range(start * after.rows, (start + some) * after.rows):
        activate(rows[r], tiled, activation)


@compiled(parallel=True)
def gradient_of_points(x, g, vertical, horizontal, seen, made):
    """The gradients of the transformed filters (shares, points², depth, O)."""
    z = len(POINTS)
    du = np.empty((SHARES * z, z, seen.step * seen.run, made.run), x.dtype)
    images = images_at_once(len(x), vertical, horizontal, seen.step * seen.run + made.run)
    blocks = (len(x) + images - 1) // images
    for task in prange(SHARES * z):                    # each owns the points (p, …) of a share
        p, share = np.int64(task) % z, np.int64(task) // z
        begin, end = blocks * share // SHARES * images, blocks * (share + 1) // SHARES * images
        gradient_of_images(begin, min(end, len(x)), images, p, x.reshape(-1), g.reshape(-1),
                           vertical, horizontal, seen, made, du[p + share * z])
    return du.reshape(SHARES, z * z, du.shape[2], made.run)


@compiled
def gradient_of_images(begin, end, images, p, x, g, vertical, horizontal, seen, made, du):
    """du (points, depth, O): what the images from ``begin`` to ``end`` give to points (p, …)."""
    first = horizontal.first
    x_lines, v = space(images, vertical, horizontal, seen, x)
    g_lines, m = space(images, vertical, horizontal, made, x)
    for start in range(begin, end, images):
        some = min(end - start, images)
        lanes = some * (vertical.first[p + 1] - vertical.first[p])
        for i in range(some):
            into_lanes(x, start + i, seen, False, p, vertical, horizontal, x_lines, i, some,
                       v.reshape(-1))
            into_lanes(g, start + i, made, True, p, vertical, horizontal, g_lines, i, some,
                       m.reshape(-1))
        for q in range(len(POINTS)):
            top, bottom = lanes * first[q], lanes * first[q + 1]
            gemm(v[top:bottom], m[top:bottom], du[q], True, False, start > begin)
    if begin >= end:
        clear(du.reshape(-1, du.shape[2]), 0, du.shape[0] * du.shape[1])


@compiled
def space(images, vertical, horizontal, grid, like):
    """Lines, of which what lies beyond an image stays zero; and the lanes of so many images."""
    most = vertical.first[1]                           # lanes of point 0: no point has more
    lines = np.zeros(most * grid.step * grid.positions * grid.run, like.dtype)
    return lines, np.empty((images * most * horizontal.first[-1], grid.step * grid.run), like.dtype)


@compiled
def clear(rows, begin, end):
    zero = rows.dtype.type(0)
    for i in range(begin, end):
        for j in range(rows.shape[1]):
            rows[i, j] = zero


# --- the filters: U = G w Gᵀ, and the transpose --------------------------------------------------

@compiled(parallel=True)
def points_of_filters(w, outer, step, vertical, horizontal):
    """w (outer, taps down, step, taps across, run) → (points², outer · step · run), all flat. A run
    is what lies together: the phases across, the channels, the columns of w as a matrix."""
    run = w.size // (outer * vertical.taps * step * horizontal.taps)
    u = np.empty((len(POINTS)**2, outer * step * run), w.dtype)
    n, together = min(run, PIECE), max(1, PIECE // run)
    pieces, groups = (run + n - 1) // n, (outer + together - 1) // together
    for task in prange(step * groups * pieces):        # each iteration owns a piece of all points
        phase, rest = np.int64(task) % step, np.int64(task) // step
        start, first = rest % pieces * n, rest // pieces * together
        points_of_taps(w.reshape(-1), first, min(together, outer - first), phase, start,
                       min(n, run - start), step, run, vertical, horizontal, u)
    return u


@compiled
def points_of_taps(w, first, outers, phase, start, n, step, run, vertical, horizontal, u):
    """n numbers of each run, from ``start`` on, of one phase down, of some ``outers``."""
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
def filters_of_points(du, step, vertical, horizontal, dw):
    """dw = Gᵀ du G, as above with one outer; the shares of du (shares, points², …) are added up."""
    run = dw.size // (vertical.taps * step * horizontal.taps)
    n = min(run, PIECE)
    pieces = (run + n - 1) // n
    for task in prange(step * pieces):                 # each iteration owns a piece of all taps
        phase, start = np.int64(task) % step, np.int64(task) // step * n
        taps_of_points(du.reshape(-1), len(du), phase, start, min(n, run - start), step, run,
                       vertical, horizontal, dw.reshape(-1))


@compiled
def taps_of_points(du, shares, phase, start, n, step, run, vertical, horizontal, dw):
    """n numbers of each run, from ``start`` on, of one phase down."""
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


# --- from positions to lanes, and back -----------------------------------------------------------

@compiled
def into_lanes(x, image, grid, of_y, p, vertical, horizontal, lines, at, images, v):
    """v (horizontal lanes, images, vertical lanes of p, phases · numbers), image ``at``: the lanes
    of an image of x, by Bᵀ; or of y, by A."""
    way = matrices.OUTPUTS if of_y else matrices.INPUTS
    lanes, length = vertical.first[p + 1] - vertical.first[p], grid.positions * grid.run
    inside = min(grid.numbers, length - grid.left)
    rows = matrices.Axis(0, vertical.first, np.empty_like(vertical.index[:1, :1]),
                         np.empty_like(vertical.weight[:1, :1]), np.empty((1, 1), np.int64))
    for r in range(lanes * grid.step):                 # rows of the image make lines
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
    for s in range(horizontal.first[-1]):              # positions of all lines make a lane
        weighted_sum(v, (s * images + at) * lanes * grid.step * grid.run, grid.run, lines, 0,
                     length, lanes * grid.step, grid.run, horizontal, way, s, grid.run)


@compiled
def out_of_lanes(m, at, images, p, vertical, horizontal, lines, image, grid, of_y, y):
    """The transpose: the lanes in m are added to an image of y, by Aᵀ; or of x, by B."""
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
    """Blocks of n numbers, ``to_next`` and ``base_next`` apart: out = the sum of the weights of row
    i of a matrix of ``sums`` (an ``Axis``) times x, from base + index·step."""
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
        else:                                          # fewer terms than three: times zero
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
    """How many images are in the lanes at a time: a number that depends on shapes alone."""
    at_once = vertical.first[1] * horizontal.first[-1] * depth      # of point 0, which has most
    lanes = vertical.first[-1] * horizontal.first[-1]
    fit = max(1, NUMBERS // at_once, LEAST_ROWS * len(POINTS)**2 // lanes)
    blocks = ((n + fit - 1) // fit + SHARES - 1) // SHARES * SHARES
    return (n + blocks - 1) // blocks
