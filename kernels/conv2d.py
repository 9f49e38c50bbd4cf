"""The two copies that make a convolution a matrix product: patches into rows, and rows back.

``columns`` (N, OH, OW, KH, KW, C) holds for each output position the patch it sees; read as a
matrix (N·OH·OW, KH·KW·C) it is multiplied by the filters. Channels last make a row of a patch one
contiguous run of KW·C numbers in x as well (with dilation: KW runs of C).

``stride``, ``padding`` and ``dilation`` are pairs of ints.
"""

import numpy as np

from .compiler import compiled, prange

# An index that cannot be negative needs no check, and the loop becomes vector instructions.
unsigned = np.uint64


# --- im2col(x, stride, padding, dilation, columns): copy every patch; zeros outside x ------------

def im2col_numpy(x, stride, padding, dilation, columns):
    """x (N, H, W, C); fills columns (N, OH, OW, KH, KW, C)."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    oh, ow, kh, kw = columns.shape[1:5]
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    for u in range(kh):
        for v in range(kw):
            columns[:, :, :, u, v] = padded[:, u * dh:u * dh + (oh - 1) * sh + 1:sh,
                                            v * dw:v * dw + (ow - 1) * sw + 1:sw]


@compiled(parallel=True)
def im2col_numba(x, stride, padding, dilation, columns):
    n, oh, ow, kh, kw, c = columns.shape
    h, width = x.shape[1], x.shape[2] * c
    taps, run = (1, kw * c) if dilation[1] == 1 else (kw, c)
    patch = kh * kw * c
    source, target = x.reshape(n * h, width), columns.reshape(n * oh, ow * patch)
    zero = x.dtype.type(0)
    for block in prange(n * oh):                # each iteration owns one row of output positions
        image, i = block // oh, block % oh
        filled = target[block]
        for u in range(kh):
            row = i * stride[0] + u * dilation[0] - padding[0]
            there = 0 <= row < h
            line = source[image * h + row if there else 0]
            for v in range(taps):
                for j in range(ow):
                    start = (j * stride[1] + v * dilation[1] - padding[1]) * c
                    to = j * patch + (u * taps + v) * run
                    # of the run, [first, last) lies in the image
                    first = min(max(0, -start), run) if there else run
                    last = max(first, min(run, width - start))
                    for k in range(first):
                        filled[unsigned(to + k)] = zero
                    for k in range(first, last):
                        filled[unsigned(to + k)] = line[unsigned(start + k)]
                    for k in range(last, run):
                        filled[unsigned(to + k)] = zero


# --- col2im(columns, stride, padding, dilation, x): the transpose; x = Σ of what overlaps --------

def col2im_numpy(columns, stride, padding, dilation, x):
    """columns (N, OH, OW, KH, KW, C); fills x (N, H, W, C)."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    oh, ow, kh, kw = columns.shape[1:5]
    n, h, w, c = x.shape
    padded = np.zeros((n, h + 2 * ph, w + 2 * pw, c), x.dtype)
    for u in range(kh):
        for v in range(kw):
            padded[:, u * dh:u * dh + (oh - 1) * sh + 1:sh,
                   v * dw:v * dw + (ow - 1) * sw + 1:sw] += columns[:, :, :, u, v]
    x[...] = padded[:, ph:ph + h, pw:pw + w]


@compiled(parallel=True)
def col2im_numba(columns, stride, padding, dilation, x):
    n, oh, ow, kh, kw, c = columns.shape
    h, width = x.shape[1], x.shape[2] * c
    taps, run = (1, kw * c) if dilation[1] == 1 else (kw, c)
    patch = kh * kw * c
    source, target = columns.reshape(n * oh, ow * patch), x.reshape(n * h, width)
    for block in prange(n * h):                 # each iteration owns one row of x and gathers
        image, row = block // h, block % h
        line = target[block]
        line[:] = x.dtype.type(0)
        for u in range(kh):
            # row = i·stride + u·dilation − padding: at most one i for each u
            steps = row + padding[0] - u * dilation[0]
            i = steps // stride[0]
            if steps < 0 or i * stride[0] != steps or i >= oh:
                continue
            above = source[image * oh + i]
            for v in range(taps):
                for j in range(ow):
                    start = (j * stride[1] + v * dilation[1] - padding[1]) * c
                    to = j * patch + (u * taps + v) * run
                    for k in range(max(0, -start), min(run, width - start)):
                        line[unsigned(start + k)] += above[unsigned(to + k)]
