"""Convolution, channels last: the dense layer over patches.

Three bilinear maps, each the derivative of the other two:

    conv2d         (x, w) → y        y[i, j] = Σ_{u,v} x[i·s + u·d − p, j·s + v·d − p] w[u, v]
    conv2d_input   (g, w) → x-like   its transpose for fixed w
    conv2d_weight  (x, g) → w-like   its transpose for fixed x

They all come from one trilinear form  T(x, w, g) = Σ y(x, w) ∘ g, from which a gradient takes one
factor away. So every rule below is one of the three again, and derivatives of any order need
nothing more.
"""

import math

import numpy as np

from ..backend import empty, kernels
from ..kernels.dense import IDENTITY
from .op import Op, only_arrays
from .shape import scattered
from .window import call, pair, sliding, spreading

COLUMNS_BYTES = 1 << 25               # patches of as many images at a time as fit in this
conv_kernels, dense_kernels = kernels("conv2d"), kernels("dense")


class Conv2d(Op):
    """y = b + Σ over taps (u, v) of x, shifted to the tap, times the matrix w[u, v]"""

    expects, real = "x (N, H, W, C), w (KH, KW, C, O) and b (O,)", True
    optional = ("b",)

    def formula(x, w, b, *, window):
        x = np.pad(x, window.borders)
        y = sum(x[window.tap(u, v)] @ w[u, v] for u, v in window.taps)
        return y if b is None else y + b

    def forward(x, w, b, *, window):
        y = empty((len(x), *window.out, w.shape[3]), x.dtype)
        filters = w.reshape(-1, w.shape[3])
        for images in parts(x, window):
            rows = matrix(y[images])
            np.matmul(patches(x[images], window), filters, out=rows)
            add_bias(rows, b)
        return y

    def backward_x(dy, w, window):
        return call(Conv2dInput, dy, w, window=window)

    def backward_w(dy, x, window):
        return call(Conv2dWeight, x, dy, window=window)

    def backward_b(dy):
        return np.sum(dy, axis=(0, 1, 2))


class Conv2dInput(Op):
    """x = Σ over taps (u, v) of g w[u, v]ᵀ, shifted back from the tap: conv2d's transpose"""

    expects, real = "g (N, OH, OW, O) and w (KH, KW, C, O)", True

    def formula(g, w, *, window):
        shape = (g.shape[0], *window.padded, w.shape[2])
        x = sum(scattered(g @ np.swapaxes(w[u, v], 0, 1), shape, window.tap(u, v))
                for u, v in window.taps)
        return x[window.inside]

    def forward(g, w, *, window):
        x = empty((len(g), *window.size, w.shape[2]), g.dtype)
        filters = w.reshape(-1, w.shape[3])
        for images in parts(x, window):
            add_patches(matrix(g[images]), filters, window, x[images])
        return x

    def backward_g(dy, w, window):
        return call(Conv2d, dy, w, None, window=window)

    def backward_w(dy, g, window):
        return call(Conv2dWeight, dy, g, window=window)


class Conv2dWeight(Op):
    """w[u, v] = Σ over images and positions of xᵀ g, x shifted to the tap (u, v)"""

    expects, real = "x (N, H, W, C) and g (N, OH, OW, O)", True

    def formula(x, g, *, window):
        x = np.pad(x, window.borders)
        rows = (math.prod(g.shape[:3]), g.shape[3])
        w = np.stack([np.swapaxes(np.reshape(x[window.tap(u, v)], (rows[0], x.shape[3])), 0, 1)
                      @ np.reshape(g, rows) for u, v in window.taps])
        return np.reshape(w, (*window.kernel, x.shape[3], rows[1]))

    def forward(x, g, *, window):
        w = np.zeros((math.prod(window.kernel) * x.shape[3], g.shape[3]), x.dtype)
        for images in parts(x, window):         # in order: the same sum on every machine
            w += patches(x[images], window).T @ matrix(g[images])
        return w.reshape(*window.kernel, x.shape[3], g.shape[3])

    def backward_x(dy, g, window):
        return call(Conv2dInput, g, dy, window=window)

    def backward_g(dy, x, window):
        return call(Conv2d, x, dy, None, window=window)


class ConvTranspose2d(Op):
    """y = b + conv2d_input(x, w), the two channel axes of w named from this side: C of x, O of y"""

    expects, real = "x (N, H, W, C), w (KH, KW, C, O) and b (O,)", True
    optional = ("b",)

    def formula(x, w, b, *, window):
        y = Conv2dInput.formula(x, np.swapaxes(w, 2, 3), window=window)
        return y if b is None else y + b

    def forward(x, w, b, *, window):
        y = Conv2dInput.forward(x, np.swapaxes(w, 2, 3), window=window)
        add_bias(matrix(y), b)
        return y

    def backward_x(dy, w, window):
        return call(Conv2d, dy, np.swapaxes(w, 2, 3), None, window=window)

    def backward_w(dy, x, window):
        return np.swapaxes(call(Conv2dWeight, dy, x, window=window), 2, 3)

    def backward_b(dy):
        return np.sum(dy, axis=(0, 1, 2))


# --- public functions ----------------------------------------------------------------------------

def conv2d(x, w, b=None, stride=1, padding=0, dilation=1):
    """x (N, H, W, C), w (KH, KW, C, O), b (O,) or None → (N, OH, OW, O).

    OH = ⌊(H + 2·padding − dilation·(KH − 1) − 1) / stride⌋ + 1; options are ints or pairs
    (vertical, horizontal). A cross-correlation, as everywhere in deep learning.
    """
    check_shapes("conv2d", x, w, b)
    window = sliding("conv2d", x.shape[1:3], w.shape[:2], stride, padding, dilation)
    return Conv2d.apply(x, w, b, window=window)


def conv_transpose2d(x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1):
    """x (N, H, W, C), w (KH, KW, C, O), b (O,) or None → (N, OH, OW, O).

    OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1: the transpose of the
    convolution that leads from OH back to H. Options are ints or pairs (vertical, horizontal).
    Nothing is multiplied by the zeros that a stride would put between the pixels.
    """
    check_shapes("conv_transpose2d", x, w, b)
    window = spreading("conv_transpose2d", x.shape[1:3], w.shape[:2], stride, padding,
                       output_padding, dilation)
    return ConvTranspose2d.apply(x, w, b, window=window)


def conv2d_input(g, w, size, stride=1, padding=0, dilation=1):
    """The transpose of conv2d for fixed w: g (N, OH, OW, O), w (KH, KW, C, O) → (N, H, W, C).

    ``size`` is (H, W). With g = dy this is dx.
    """
    only_arrays("conv2d_input", g=g, w=w)
    size = pair("conv2d_input", "size", size, 1)
    if g.ndim != 4 or w.ndim != 4:
        raise ValueError(f"conv2d_input: g {g.shape}, w {w.shape}; expected (N, OH, OW, O) and "
                         "(KH, KW, C, O)")
    window = sliding("conv2d_input", size, w.shape[:2], stride, padding, dilation)
    if g.shape[1:] != (*window.out, w.shape[3]):
        raise ValueError(f"conv2d_input: g {g.shape}, w {w.shape}; expected (N, {window.out[0]}, "
                         f"{window.out[1]}, O) and (KH, KW, C, O)")
    return Conv2dInput.apply(g, w, window=window)


def conv2d_weight(x, g, size, stride=1, padding=0, dilation=1):
    """The transpose of conv2d for fixed x: x (N, H, W, C), g (N, OH, OW, O) → (KH, KW, C, O).

    ``size`` is (KH, KW). With g = dy this is dw.
    """
    only_arrays("conv2d_weight", x=x, g=g)
    if x.ndim != 4 or g.ndim != 4:
        raise ValueError(f"conv2d_weight: x {x.shape}, g {g.shape}; expected (N, H, W, C) and "
                         "(N, OH, OW, O)")
    window = sliding("conv2d_weight", x.shape[1:3], size, stride, padding, dilation)
    if g.shape[:3] != (x.shape[0], *window.out):
        raise ValueError(f"conv2d_weight: x {x.shape}, g {g.shape}; expected (N, H, W, C) and "
                         f"({x.shape[0]}, {window.out[0]}, {window.out[1]}, O)")
    return Conv2dWeight.apply(x, g, window=window)


# --- helpers -------------------------------------------------------------------------------------

def check_shapes(op, x, w, b):
    """TypeError or ValueError unless images, filters and bias fit each other."""
    only_arrays(op, x=x, w=w, **({} if b is None else {"b": b}))
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2] or min(w.shape) < 1 or (
            b is not None and b.shape != w.shape[3:]):
        raise ValueError(f"{op}: x {x.shape}, w {w.shape}, b {None if b is None else b.shape}; "
                         "expected (N, H, W, C), (KH, KW, C, O) and (O,)")


def parts(x, window):
    """Slices of images whose patches fit in COLUMNS_BYTES; one, of none, for an empty batch."""
    image = math.prod(window.out) * math.prod(window.kernel) * x.shape[3] * x.itemsize
    step = max(1, COLUMNS_BYTES // image)
    return [slice(first, first + step) for first in range(0, max(len(x), 1), step)]


def matrix(x):
    """(…, C) as rows of C numbers."""
    return np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def is_matrix(window):
    """Whether x itself, reshaped, is the matrix of its patches: one tap, or one patch an image."""
    return window.padding == (0, 0) and (
        window.kernel == (1, 1) and window.stride == (1, 1) and window.out == window.size
        or window.kernel == window.size and window.dilation == (1, 1))


def patches(x, window):
    """The matrix (N·OH·OW, KH·KW·C) whose rows are what each output position sees."""
    x = np.ascontiguousarray(x)
    shape = (len(x) * math.prod(window.out), math.prod(window.kernel) * x.shape[3])
    if is_matrix(window):
        return x.reshape(shape)
    columns = empty((len(x), *window.out, *window.kernel, x.shape[3]), x.dtype)
    conv_kernels.im2col(x, window.stride, window.padding, window.dilation, columns)
    return columns.reshape(shape)


def add_patches(g, filters, window, x):
    """Fill x with the sum, over output positions, of the patches g filtersᵀ."""
    if is_matrix(window):
        np.matmul(g, filters.T, out=x.reshape(len(g), len(filters)))
        return
    columns = np.matmul(g, filters.T, out=empty((len(g), len(filters)), x.dtype))
    columns = columns.reshape(len(x), *window.out, *window.kernel, x.shape[3])
    conv_kernels.col2im(columns, window.stride, window.padding, window.dilation, x)


def add_bias(rows, b):
    """rows += b, in place."""
    if b is not None:
        dense_kernels.bias_activation(rows, np.ascontiguousarray(b), IDENTITY)
