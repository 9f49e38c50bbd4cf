"""Convolution as a matrix product over patches (im2col), some images at a time.

``columns`` has for each output position its patch, a row of KH·KW·C numbers; this matrix
(images·OH·OW, KH·KW·C) is multiplied by the filters (KH·KW·C, O). With channels last, a row of a
patch is one contiguous run of KW·C numbers of x (with dilation: KW runs of C). The columns of all
images would be many times larger than x. Those of a few images stay in a core's cache between the
copy and the product; bias and activation are applied while y is in the cache too.

``kernel``, ``stride``, ``padding`` and ``dilation`` are pairs of ints, filters are given as the
matrix w (KH·KW·C, O), ``activation`` is one of the numbers in ``dense.py``.

``conv2d_chooser.py`` selects Winograd convolution (``winograd.py``) where it is faster. The GPU
kernels use implicit GEMM: they read the patches from x and do not store columns
(``conv2d_tile.cuh``).
"""

import numpy as np

from . import winograd
from .compiler import compiled, prange
from .conv2d_chooser import convolution, launch_implicit_gemm, plan_backward_w, uses_winograd
from .cuda import blocks_for, empty, launch
from .dense import activate, bias_activation_numpy, tile
from .gemm_blocks import gemm

COLUMNS = 1 << 18      # the most numbers of the columns of one part: 1 MB in float32
SHARES = 4             # partial sums of a gradient of the filters, added in a fixed order

# An index that cannot be negative needs no check, and the loop becomes vector instructions.
unsigned = np.uint64


# --- forward(x, w, b, activation, kernel, stride, padding, dilation, y): y = a(columns(x) w + b) --

def forward_numpy(x, w, b, activation, kernel, stride, padding, dilation, y):
    """x (N, H, W, C), b (O,), y (N, OH, OW, O)."""
    for image, out in zip(x, y, strict=True):
        columns = columns_of(image, y.shape[1:3], kernel, stride, padding, dilation)
        np.matmul(columns, w, out=out.reshape(-1, len(b)))
    bias_activation_numpy(y, b, activation)


def forward_numba(x, w, b, activation, kernel, stride, padding, dilation, y):
    if uses_winograd(x.shape, y.shape, kernel, stride, dilation):
        winograd.forward(x, w, b, activation, kernel, stride, padding, y)
    else:
        forward_patches(x, w, b, activation, kernel, stride, padding, dilation, y)


@compiled(parallel=True)
def forward_patches(x, w, b, activation, kernel, stride, padding, dilation, y):
    n, oh, ow, o = y.shape
    lines, out, tiled = as_lines(x), y.reshape(n * oh, ow * o), tile(b, ow)
    images = images_at_once(n, oh * ow * len(w))
    for t in prange((n + images - 1) // images):       # each iteration owns some images of y
        first, last = t * images * oh, min(n, (t + 1) * images) * oh
        columns = np.empty((last - first, ow * len(w)), x.dtype)
        for row in range(first, last):
            copy_patches(lines, row // oh, row % oh, x.shape, kernel, stride, padding, dilation,
                         columns[row - first])
        gemm(columns.reshape((last - first) * ow, len(w)), w,
             out[first:last].reshape((last - first) * ow, o), False, False, 0)
        for row in range(first, last):
            activate(out[row], tiled, activation)


def forward_cuda(x, w, b, activation, kernel, stride, padding, dilation, y):
    arguments = x, w, b, activation, kernel, stride, padding, dilation, y
    sizes = (*x.shape[1:], *y.shape[1:])
    if convolution() == "naive":
        launch("conv2d.forward", blocks_for(y.size, 256), 256, *arguments, len(x), *sizes)
    else:
        launch_implicit_gemm(arguments, False, sizes, len(y) * y.shape[1] * y.shape[2], (1, 1))


# --- backward_x(g, w, b, activation, kernel, stride, padding, dilation, x): the transposed map ----

def backward_x_numpy(g, w, b, activation, kernel, stride, padding, dilation, x):
    """g (N, OH, OW, O), w (O, KH·KW·C), transposed for a fast product; b (C,);
    fills x (N, H, W, C) = a(b + sum of the patches g w)."""
    for image, out in zip(g, x, strict=True):
        columns = image.reshape(-1, image.shape[2]) @ w
        add_columns(columns, g.shape[1:3], kernel, stride, padding, dilation, out)
    bias_activation_numpy(x, b, activation)


def backward_x_numba(g, w, b, activation, kernel, stride, padding, dilation, x):
    if uses_winograd(x.shape, g.shape, kernel, stride, dilation):
        winograd.backward_x(g, w, b, activation, kernel, stride, padding, x)
    else:
        backward_x_patches(g, w, b, activation, kernel, stride, padding, dilation, x)


@compiled(parallel=True)
def backward_x_patches(g, w, b, activation, kernel, stride, padding, dilation, x):
    n, oh, ow, o = g.shape
    h, width = x.shape[1], x.shape[2]
    rows, lines, tiled = g.reshape(n * oh * ow, o), as_lines(x), tile(b, width)
    patch = w.shape[1]
    images = images_at_once(n, oh * ow * patch)
    for t in prange((n + images - 1) // images):       # each iteration owns some images of x
        first, last = t * images, min(n, (t + 1) * images)
        columns = np.empty(((last - first) * oh * ow, patch), x.dtype)
        gemm(rows[first * oh * ow:last * oh * ow], w, columns, False, False, 0)
        above = columns.reshape((last - first) * oh, ow * patch)
        for row in range(first * h, last * h):
            add_patches(above, row // h - first, row % h, x.shape, g.shape, kernel, stride,
                        padding, dilation, lines[row])
            activate(lines[row], tiled, activation)


def backward_x_cuda(g, w, b, activation, kernel, stride, padding, dilation, x):
    arguments = g, w, b, activation, kernel, stride, padding, dilation, x
    n, h, width, _ = x.shape
    if convolution() == "naive":
        launch("conv2d.backward_x", blocks_for(x.size, 256), 256, *arguments, *x.shape,
               *g.shape[1:])
    else:
        of_a_phase = n * blocks_for(h, stride[0]) * blocks_for(width, stride[1])
        launch_implicit_gemm(arguments, True, (*g.shape[1:], *x.shape[1:]), of_a_phase, stride)


# --- backward_w(x, g, kernel, stride, padding, dilation, dw): dw = columns(x)ᵀ g ------------------

def backward_w_numpy(x, g, kernel, stride, padding, dilation, dw):
    """x (N, H, W, C), g (N, OH, OW, O); fills dw (KH·KW·C, O)."""
    dw[...] = 0
    for image, gradient in zip(x, g, strict=True):
        columns = columns_of(image, g.shape[1:3], kernel, stride, padding, dilation)
        dw += columns.T @ gradient.reshape(-1, dw.shape[1])


def backward_w_numba(x, g, kernel, stride, padding, dilation, dw):
    if uses_winograd(x.shape, g.shape, kernel, stride, dilation):
        winograd.backward_w(x, g, kernel, stride, padding, dw)
    else:
        backward_w_patches(x, g, kernel, stride, padding, dilation, dw)


@compiled(parallel=True)
def backward_w_patches(x, g, kernel, stride, padding, dilation, dw):
    n, oh, ow, o = g.shape
    patch = len(dw)
    lines, rows = as_lines(x), g.reshape(n * oh * ow, o)
    images = images_at_once(n, oh * ow * patch)
    blocks = (n + images - 1) // images
    shares = np.zeros((SHARES, patch, o), dw.dtype)
    for share in prange(SHARES):                       # each iteration owns shares[share]
        for t in range(blocks * share // SHARES, blocks * (share + 1) // SHARES):
            first, last = t * images * oh, min(n, (t + 1) * images) * oh
            columns = np.empty((last - first, ow * patch), x.dtype)
            for row in range(first, last):
                copy_patches(lines, row // oh, row % oh, x.shape, kernel, stride, padding,
                             dilation, columns[row - first])
            gemm(columns.reshape((last - first) * ow, patch), rows[first * ow:last * ow],
                 shares[share], True, False, 1)
    for i in prange(patch):                            # each iteration owns a row of dw
        for j in range(o):
            total = shares[0, i, j]
            for share in range(1, SHARES):
                total += shares[share, i, j]
            dw[i, j] = total


def backward_w_cuda(x, g, kernel, stride, padding, dilation, dw):
    arguments, sizes = (x, g, kernel, stride, padding, dilation), (*x.shape[1:], *g.shape[1:])
    if convolution() == "naive":
        launch("conv2d_backward_w.backward_w", blocks_for(dw.size, 256), 256, *arguments, dw,
               len(x), *sizes)
        return
    positions = len(g) * g.shape[1] * g.shape[2]
    kernel_of, tile, blocks, shares, slabs_per_share = plan_backward_w(x, dw, positions)
    out = dw if shares == 1 else empty((shares, *dw.shape), dw.dtype)
    launch(f"conv2d_backward_w.{kernel_of}", (blocks, shares), 256, *arguments, out, len(x),
           positions, slabs_per_share, *sizes, constants=tile[:6])
    if shares > 1:
        launch("conv2d_backward_w.add_shares", blocks_for(dw.size, 32), (32, 8), out, dw, shares,
               dw.size)


# --- im2col and its transpose --------------------------------------------------------------------

def columns_of(x, out, kernel, stride, padding, dilation):
    """The columns (OH·OW, KH·KW·C) of one image (H, W, C); ``out`` is (OH, OW)."""
    (sh, sw), (ph, pw), (dh, dw), (oh, ow) = stride, padding, dilation, out
    padded = np.pad(x, ((ph, ph), (pw, pw), (0, 0)))
    taps = [padded[u * dh:u * dh + (oh - 1) * sh + 1:sh, v * dw:v * dw + (ow - 1) * sw + 1:sw]
            for u in range(kernel[0]) for v in range(kernel[1])]
    return np.concatenate(taps, axis=2).reshape(oh * ow, -1)


def add_columns(columns, out, kernel, stride, padding, dilation, x):
    """The transpose: fills an image x (H, W, C) with the sum of the patches that overlap."""
    (sh, sw), (ph, pw), (dh, dw), (oh, ow) = stride, padding, dilation, out
    h, w, c = x.shape
    columns = columns.reshape(oh, ow, *kernel, c)
    padded = np.zeros((h + 2 * ph, w + 2 * pw, c), x.dtype)
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            padded[u * dh:u * dh + (oh - 1) * sh + 1:sh,
                   v * dw:v * dw + (ow - 1) * sw + 1:sw] += columns[:, :, u, v]
    x[...] = padded[ph:ph + h, pw:pw + w]


@compiled
def copy_patches(lines, image, i, shape, kernel, stride, padding, dilation, filled):
    """filled (OW·KH·KW·C,) = the patches of output row i of an image; zeros outside x."""
    h, c = shape[1], shape[3]
    width, patch = shape[2] * c, kernel[0] * kernel[1] * c
    taps, run = (1, kernel[1] * c) if dilation[1] == 1 else (kernel[1], c)
    zero = lines.dtype.type(0)
    for u in range(kernel[0]):
        row = i * stride[0] + u * dilation[0] - padding[0]
        there = 0 <= row < h
        line = lines[image * h + row if there else 0]
        for v in range(taps):
            for j in range(filled.size // patch):
                start = (j * stride[1] + v * dilation[1] - padding[1]) * c
                to = j * patch + (u * taps + v) * run
                if there and 0 <= start <= width - run:
                    for k in range(run):
                        filled[unsigned(to + k)] = line[unsigned(start + k)]
                else:                                  # some of it lies beyond the image
                    for k in range(run):
                        inside = there and 0 <= start + k < width
                        filled[unsigned(to + k)] = line[unsigned(start + k)] if inside else zero


@compiled
def add_patches(above, image, row, shape, out, kernel, stride, padding, dilation, line):
    """line (W·C,) = row ``row`` of an image: the sum of its values in all patches."""
    c, oh, ow = shape[3], out[1], out[2]
    width, patch = shape[2] * c, kernel[0] * kernel[1] * c
    taps, run = (1, kernel[1] * c) if dilation[1] == 1 else (kernel[1], c)
    line[:] = line.dtype.type(0)
    for u in range(kernel[0]):
        # row = i·stride + u·dilation − padding: at most one i for each u
        steps = row + padding[0] - u * dilation[0]
        i = steps // stride[0]
        if steps < 0 or i * stride[0] != steps or i >= oh:
            continue
        source = above[image * oh + i]
        for v in range(taps):
            for j in range(ow):
                start = (j * stride[1] + v * dilation[1] - padding[1]) * c
                to = j * patch + (u * taps + v) * run
                if 0 <= start <= width - run:
                    for k in range(run):
                        line[unsigned(start + k)] += source[unsigned(to + k)]
                else:
                    for k in range(max(0, -start), min(run, width - start)):
                        line[unsigned(start + k)] += source[unsigned(to + k)]


@compiled
def images_at_once(n, columns):
    """The number of images whose columns are computed at a time; depends on the shapes only."""
    fit = max(1, COLUMNS // max(1, columns))
    blocks = ((n + fit - 1) // fit + SHARES - 1) // SHARES * SHARES     # even shares
    return max(1, (n + blocks - 1) // max(1, blocks))


@compiled
def as_lines(x):
    """Images (N, H, W, C) as a matrix of rows (N·H, W·C)."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
