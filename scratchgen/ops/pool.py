"""Pooling and upsampling of images, channels last."""

import functools
import math
from typing import Literal

import numpy as np

from ..engine.backend import kernels
from ..engine.memory import contiguous, empty, to_device
from ..engine.tensor import Tensor
from ..engine.types import Pair, TensorLike
from .dense import matmul
from .inputs import only_arrays
from .op import Fused, Op
from .shape import reshape, scattered
from .window import call, pair, sliding

__all__ = ["max_pool2d", "avg_pool2d", "avg_pool2d_input", "upsample2d"]

pool_kernels, resample_kernels = kernels("pool"), kernels("resample")


class MaxPool2d(Fused):
    """y = the largest pixel under the window, a border being −∞; the first of equals is taken

    dx: each dy goes, whole, to the pixel that was taken.
    """

    expects, real = "x (N, H, W, C)", True
    extras = ("tap",)

    def formula(x, *, window):
        inside = np.zeros((1, *window.padded, 1), bool)
        inside[window.inside] = True
        x = np.where(inside, np.pad(x, window.borders), -math.inf)
        return functools.reduce(np.maximum, [x[window.tap(u, v)] for u, v in window.taps])

    def forward(x, *, window):
        x = contiguous(x)
        shape = (len(x), *window.out, x.shape[3])
        y, tap = empty(shape, x.dtype), empty(shape, np.int32)
        pool_kernels.max_forward(x, window.kernel, window.stride, window.padding, y, tap)
        return y, tap

    def backward(wanted, dy, tap, shapes, window):
        dx = empty(shapes[0], dy.dtype)
        pool_kernels.max_backward(contiguous(dy), tap, window.kernel, window.stride,
                                  window.padding, dx)
        return [dx]


class AvgPool2d(Op):
    """y = Σ of the pixels under the window / (KH·KW), a border counting as zeros"""

    expects, real = "x (N, H, W, C)", True

    def formula(x, *, window):
        x = np.pad(x, window.borders)
        return sum(x[window.tap(u, v)] for u, v in window.taps) / math.prod(window.kernel)

    def forward(x, *, window):
        y = empty((len(x), *window.out, x.shape[3]), x.dtype)
        pool_kernels.average_forward(contiguous(x), window.kernel, window.stride,
                                     window.padding, y)
        return y

    def backward_x(dy, window):
        return call(AvgPool2dInput, dy, window=window)


class AvgPool2dInput(Op):
    """x = g / (KH·KW), added to every pixel under the window: the transpose of avg_pool2d"""

    expects, real = "g (N, OH, OW, C)", True

    def formula(g, *, window):
        shape = (g.shape[0], *window.padded, g.shape[3])
        x = sum(scattered(g, shape, window.tap(u, v)) for u, v in window.taps)
        return x[window.inside] / math.prod(window.kernel)

    def forward(g, *, window):
        x = empty((len(g), *window.size, g.shape[3]), g.dtype)
        pool_kernels.average_backward(contiguous(g), window.kernel, window.stride,
                                      window.padding, x)
        return x

    def backward_g(dy, window):
        return call(AvgPool2d, dy, window=window)


class Upsample2d(Fused):
    """y[i, j] = x[⌊i / scale⌋, ⌊j / scale⌋]: each pixel becomes a block; dx = Σ over the block"""

    expects, real = "x (N, H, W, C)", True

    def formula(x, *, scale):
        (n, h, w, c), (sh, sw) = x.shape, scale
        blocks = np.broadcast_to(np.reshape(x, (n, h, 1, w, 1, c)), (n, h, sh, w, sw, c))
        return np.reshape(blocks, (n, h * sh, w * sw, c))

    def forward(x, *, scale):
        (n, h, w, c), (sh, sw) = x.shape, scale
        y = empty((n, h * sh, w * sw, c), x.dtype)
        resample_kernels.upsample_forward(contiguous(x), scale, y)
        return y

    def backward(wanted, dy, shapes, scale):
        dx = empty(shapes[0], dy.dtype)
        resample_kernels.upsample_backward(contiguous(dy), scale, dx)
        return [dx]


# --- public functions ----------------------------------------------------------------------------

def max_pool2d(x: TensorLike, size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The largest pixel of each window: x (N, H, W, C) → (N, OH, OW, C).

    ``size``, ``stride`` (None: the size) and ``padding`` (at most half the size; as −∞) are ints or
    pairs; OH = ⌊(H + 2·padding − size) / stride⌋ + 1. Of equal pixels the first, row by row, gets
    the gradient.
    """
    return MaxPool2d.apply(x, window=pooling("max_pool2d", x, size, stride, padding))


def avg_pool2d(x: TensorLike, size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The mean of each window: x (N, H, W, C) → (N, OH, OW, C); arguments as in ``max_pool2d``.

    The border counts: a window over it divides by its full size, as PyTorch does by default.
    """
    return AvgPool2d.apply(x, window=pooling("avg_pool2d", x, size, stride, padding))


def avg_pool2d_input(g: TensorLike, input_size: Pair, size: Pair, stride: Pair | None = None,
                     padding: Pair = 0) -> Tensor:
    """The transpose of ``avg_pool2d``: g (N, OH, OW, C) → (N, H, W, C), (H, W) = ``input_size``."""
    op = "avg_pool2d_input"
    only_arrays(op, g=g)
    h, w = pair(op, "input_size", input_size, 1)
    window = pooling(op, np.empty((0, h, w, 1)), size, stride, padding)
    if g.ndim != 4 or g.shape[1:3] != window.out:
        raise ValueError(f"{op}: g {g.shape}; expected (N, {window.out[0]}, {window.out[1]}, C)")
    return AvgPool2dInput.apply(g, window=window)


def upsample2d(x: TensorLike, scale: Pair,
               mode: Literal["nearest", "bilinear"] = "nearest") -> Tensor:
    """x (N, H, W, C) enlarged by ``scale`` (int ≥ 1 or pair) → (N, H·scale, W·scale, C).

    "nearest" repeats each pixel; "bilinear" interpolates between pixel centres (the outermost
    pixels continue outside, as in PyTorch with align_corners=False).
    """
    only_arrays("upsample2d", x=x)
    if x.ndim != 4 or mode not in ("nearest", "bilinear"):
        raise ValueError(f"upsample2d: x {x.shape}, mode {mode!r}; expected (N, H, W, C) and "
                         "'nearest' or 'bilinear'")
    scale = pair("upsample2d", "scale", scale, 1)
    if mode == "nearest":
        return Upsample2d.apply(x, scale=scale)
    (n, h, w, c), (sh, sw) = x.shape, scale
    tall = matmul(to_device(interpolation(h, sh, x.dtype)), reshape(x, (n, h, w * c)))
    wide = matmul(to_device(interpolation(w, sw, x.dtype)), reshape(tall, (n * h * sh, w, c)))
    return reshape(wide, (n, h * sh, w * sw, c))


# --- helpers -------------------------------------------------------------------------------------

def pooling(op, x, size, stride, padding):
    """The window of a pooling op; ValueError where it does not fit."""
    only_arrays(op, x=x)
    if x.ndim != 4:
        raise ValueError(f"{op}: x {x.shape}; expected (N, H, W, C)")
    size, padding = pair(op, "size", size, 1), pair(op, "padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, size, strict=True)):
        raise ValueError(f"{op}: padding {padding} is more than half the size {size}: a window "
                         "could hold no pixel at all; expected less padding")
    return sliding(op, x.shape[1:3], size, size if stride is None else stride, padding)


def interpolation(n, scale, dtype):
    """The matrix (n·scale, n) that interpolates linearly between n samples at their centres."""
    # Output i, of width 1/scale, has its centre at (i + ½)/scale, and sample k at k + ½.
    position = np.clip((np.arange(n * scale) + 0.5) / scale - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n))).astype(dtype)
