"""Convolution, channels last: the dense layer over patches.

Three bilinear maps, each the derivative of the other two:

    conv2d         (x, w) → y        y[i, j] = Σ_{u,v} x[i·s + u·d − p, j·s + v·d − p] w[u, v]
    conv2d_input   (g, w) → x-like   its transpose for fixed w
    conv2d_weight  (x, g) → w-like   its transpose for fixed x

All three are gradients of one trilinear form T(x, w, g) = Σ y(x, w) ∘ g, each with respect to one
of its factors. Every backward rule below is therefore one of the three maps, for derivatives of
every order.
"""

import math

import numpy as np

from ..engine.backend import kernels
from ..engine.memory import contiguous, empty, empty_as, filled
from ..engine.tensor import Tensor
from ..engine.types import ActivationName, Padding, Pair, TensorLike
from ..kernels.dense import ACTIVATIONS
from .dense import apply_activation, check_activation, product
from .inputs import only_arrays
from .op import Fused, Op
from .shape import concat, pad, scattered, split
from .window import Window, call, pair, sliding, spreading

__all__ = ["conv2d", "conv_transpose2d", "convolution_layer", "conv2d_input", "conv2d_weight"]

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
        return convolve(x, w, b, window, None)

    def backward_x(dy, w, window):
        return call(Conv2dInput, dy, w, window=window)

    def backward_w(dy, x, window, out):
        return call(Conv2dWeight, x, dy, window=window, out=out)

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
        return convolve_transposed(g, w, None, window, None)

    def backward_g(dy, w, window):
        return call(Conv2d, dy, w, None, window=window)

    def backward_w(dy, g, window, out):
        return call(Conv2dWeight, dy, g, window=window, out=out)


class Conv2dWeight(Op):
    """w[u, v] = Σ over images and positions of xᵀ g, x shifted to the tap (u, v)"""

    expects, real = "x (N, H, W, C) and g (N, OH, OW, O)", True

    def formula(x, g, *, window):
        x = np.pad(x, window.borders)
        rows = (math.prod(g.shape[:3]), g.shape[3])
        w = np.stack([np.swapaxes(np.reshape(x[window.tap(u, v)], (rows[0], x.shape[3])), 0, 1)
                      @ np.reshape(g, rows) for u, v in window.taps])
        return np.reshape(w, (*window.kernel, x.shape[3], rows[1]))

    def forward(x, g, *, window, out=None):
        w = empty_as(out, (*window.kernel, x.shape[3], g.shape[3]), x.dtype)
        x, g = contiguous(x), contiguous(g)
        if is_matrix(window):
            rows = x.reshape(math.prod(g.shape[:3]), math.prod(w.shape[:3]))
            product(rows.T, matrix(g), matrix(w))
        else:
            conv_kernels.backward_w(x, g, *geometry(window), matrix(w))
        return w

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
        return convolve_transposed(x, np.swapaxes(w, 2, 3), b, window, None)

    def backward_x(dy, w, window):
        return call(Conv2d, dy, swap_channels(w), None, window=window)

    def backward_w(dy, x, window, out):            # the axes of out have another order
        return np.swapaxes(call(Conv2dWeight, dy, x, window=window), 2, 3)

    def backward_b(dy):
        return np.sum(dy, axis=(0, 1, 2))


class ConvolutionLayer(Fused):
    """y = a(h), h = conv2d or conv_transpose2d of x, w, b: with the activation applied while y is
    in the cache

    With dh = dy ∘ a'(h), dx and dw are those of the convolution, and db = Σ dh.
    """

    expects, real = Conv2d.expects, True
    optional = ("b",)

    def formula(x, w, b, *, window, activation, transposed):
        op = ConvTranspose2d if transposed else Conv2d
        recorded = any(isinstance(a, Tensor) for a in (x, w, b))
        return apply_activation((op.apply if recorded else op.formula)(x, w, b, window=window),
                                activation)

    def forward(x, w, b, *, window, activation, transposed):
        if transposed:
            return convolve_transposed(x, np.swapaxes(w, 2, 3), b, window, activation)
        return convolve(x, w, b, window, activation)

    def backward(wanted, dy, x, w, y, window, activation, transposed, out):
        op = ConvTranspose2d if transposed else Conv2d
        dh, db = empty(dy.shape, dy.dtype), empty_as(out[2], dy.shape[3:], dy.dtype)
        dense_kernels.activation_backward(matrix(dy), matrix(y), ACTIVATIONS[activation],
                                          matrix(dh), db)
        return (op.backward_x(dh, w, window) if wanted[0] else None,
                op.backward_w(dh, x, window, out[1]) if wanted[1] else None, db)


# --- public functions ----------------------------------------------------------------------------

def conv2d(x: TensorLike, w: TensorLike, b: TensorLike | None = None, stride: Pair = 1,
           padding: Padding = 0, dilation: Pair = 1, activation: ActivationName | None = None,
           groups: int = 1) -> Tensor:
    """x (N, H, W, C), w (KH, KW, C, O), b (O,) or None → (N, OH, OW, O).

    OH = ⌊(H + 2·padding − dilation·(KH − 1) − 1) / stride⌋ + 1; options are ints or pairs
    (vertical, horizontal). A cross-correlation, as everywhere in deep learning. ``activation`` as
    in ``dense``. ``padding`` may be "valid" (none) or, with stride 1, "same" (OH = H); if the
    number of zeros is odd, the additional one is below (to the right), as in PyTorch. With
    ``groups`` the channels are divided into equal groups, each with O/groups filters of its own: w
    (KH, KW, C/groups, O); groups = C is a depthwise convolution. The groups are computed one after
    another.
    """
    if groups != 1:
        return grouped(conv2d, x, w, b, groups, stride=stride, padding=padding, dilation=dilation,
                       activation=activation)
    check_shapes("conv2d", x, w, b)
    if isinstance(padding, str):
        x, padding = padded_by_name(x, w.shape[:2], stride, padding, dilation)
    window = sliding("conv2d", x.shape[1:3], w.shape[:2], stride, padding, dilation)
    return layer(Conv2d, x, w, b, window, activation)


def conv_transpose2d(x: TensorLike, w: TensorLike, b: TensorLike | None = None, stride: Pair = 1,
                     padding: Pair = 0, output_padding: Pair = 0, dilation: Pair = 1,
                     activation: ActivationName | None = None, groups: int = 1) -> Tensor:
    """x (N, H, W, C), w (KH, KW, C, O), b (O,) or None → (N, OH, OW, O).

    OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1: the transpose of the
    convolution that leads from OH back to H. Options are ints or pairs (vertical, horizontal).
    Nothing is multiplied by the zeros that a stride would put between the pixels. ``activation`` as
    in ``dense``, ``groups`` and w (KH, KW, C/groups, O) with them as in ``conv2d``.
    """
    if groups != 1:
        return grouped(conv_transpose2d, x, w, b, groups, stride=stride, padding=padding,
                       output_padding=output_padding, dilation=dilation, activation=activation)
    check_shapes("conv_transpose2d", x, w, b)
    window = spreading("conv_transpose2d", x.shape[1:3], w.shape[:2], stride, padding,
                       output_padding, dilation)
    return layer(ConvTranspose2d, x, w, b, window, activation)


def convolution_layer(x: TensorLike, w: TensorLike, b: TensorLike | None, *, window: Window,
                      activation: ActivationName | None, transposed: bool) -> Tensor:
    """``conv2d``, or if ``transposed`` ``conv_transpose2d``, with its activation: one op.

    ``window`` is the geometry, a ``Window`` of ``ops/window.py``.
    """
    return ConvolutionLayer.apply(x, w, b, window=window, activation=activation,
                                  transposed=transposed)


def padded_by_name(x, kernel, stride, padding, dilation):
    """(x, padding) for a padding given by its name; x with a row or column of zeros more where an
    odd number is needed."""
    if padding == "valid":
        return x, 0
    if padding != "same":
        raise ValueError(f"conv2d: padding is {padding!r}; expected an int of at least 0, a pair "
                         "of them, 'same' or 'valid'")
    if pair("conv2d", "stride", stride, 1) != (1, 1):
        raise ValueError(f"conv2d: padding 'same' with stride {stride}; expected stride 1, or a "
                         "padding in numbers")
    zeros = [d * (k - 1) for k, d in zip(kernel, pair("conv2d", "dilation", dilation, 1),
                                         strict=True)]
    if any(n % 2 for n in zeros):
        x = pad(x, ((0, 0), (0, zeros[0] % 2), (0, zeros[1] % 2), (0, 0)))
    return x, tuple(n // 2 for n in zeros)


def grouped(convolution, x, w, b, groups, **options):
    """The convolution of each group of channels with its own filters, side by side."""
    name = convolution.__name__
    only_arrays(name, x=x, w=w, **({} if b is None else {"b": b}))
    fits = isinstance(groups, int) and groups > 0 and x.ndim == w.ndim == 4 and (
        w.shape[2] * groups == x.shape[3] and w.shape[3] % groups == 0) and (
        b is None or b.shape == w.shape[3:])
    if not fits:
        raise ValueError(f"{name}: x {x.shape}, w {w.shape}, b {None if b is None else b.shape}, "
                         f"groups {groups!r}; expected (N, H, W, C), (KH, KW, C/groups, O) and "
                         "(O,), C and O multiples of groups")
    biases = [None] * groups if b is None else split(b, groups)
    return concat([convolution(*parts, **options) for parts in zip(
        split(x, groups, axis=3), split(w, groups, axis=3), biases, strict=True)], axis=3)


def layer(op, x, w, b, window, activation):
    """The convolution, fused with its activation if there is one."""
    check_activation(activation)
    if activation is None:
        return op.apply(x, w, b, window=window)
    return ConvolutionLayer.apply(x, w, b, window=window, activation=activation,
                                  transposed=op is ConvTranspose2d)


def conv2d_input(g: TensorLike, w: TensorLike, size: Pair, stride: Pair = 1, padding: Pair = 0,
                 dilation: Pair = 1) -> Tensor:
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


def conv2d_weight(x: TensorLike, g: TensorLike, size: Pair, stride: Pair = 1, padding: Pair = 0,
                  dilation: Pair = 1) -> Tensor:
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


def matrix(x):
    """(…, C) as rows of C numbers."""
    return contiguous(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def is_matrix(window):
    """Whether x itself, reshaped, is the matrix of its patches: they lie side by side along rows (a
    kernel of 1×1 among them), or there is one an image."""
    kernel, plain = window.kernel, window.padding == (0, 0) and window.dilation == (1, 1)
    side_by_side = kernel[0] == 1 and window.stride == (1, kernel[1]) and (
        window.out[1] * kernel[1] == window.size[1])
    return plain and (side_by_side or kernel == window.size)


def geometry(window):
    """The geometry of a window as arguments of the kernels."""
    return window.kernel, window.stride, window.padding, window.dilation


def swap_channels(w):
    """Filters with their two channel axes swapped: arrays as a copy whose rows are contiguous."""
    transposed = np.swapaxes(w, 2, 3)
    if isinstance(w, Tensor):
        return transposed
    copy = empty(transposed.shape, w.dtype)
    np.copyto(copy, transposed)
    return copy


def convolve(x, w, b, window, activation):
    """a(conv2d(x, w) + b) on arrays."""
    y = empty((len(x), *window.out, w.shape[3]), x.dtype)
    x, filters, b = contiguous(x), matrix(w), bias(b, w.shape[3], x.dtype)
    if is_matrix(window):
        dense_kernels.forward(x.reshape(math.prod(y.shape[:3]), len(filters)), filters, False, b,
                              ACTIVATIONS[activation], matrix(y))
    else:
        conv_kernels.forward(x, filters, b, ACTIVATIONS[activation], *geometry(window), y)
    return y


def convolve_transposed(g, w, b, window, activation):
    """a(conv2d_input(g, w) + b) on arrays."""
    x = empty((len(g), *window.size, w.shape[2]), g.dtype)
    g, b = contiguous(g), bias(b, w.shape[2], g.dtype)
    transposed = empty((w.shape[3], math.prod(w.shape[:3])), w.dtype)      # (O, KH·KW·C)
    np.copyto(transposed.reshape(w.shape[3], *w.shape[:3]), np.moveaxis(w, 3, 0))
    if is_matrix(window):
        product(matrix(g), transposed, x.reshape(math.prod(g.shape[:3]), transposed.shape[1]))
        dense_kernels.bias_activation(matrix(x), b, ACTIVATIONS[activation])
    else:
        conv_kernels.backward_x(g, transposed, b, ACTIVATIONS[activation], *geometry(window), x)
    return x


def bias(b, n, dtype):
    """The bias (n,), zeros if there is none."""
    return filled((n,), 0, dtype) if b is None else contiguous(b)
