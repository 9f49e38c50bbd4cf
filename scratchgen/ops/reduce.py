"""Reductions over axes, and the normalised exponentials built on them."""

import builtins
import math

import numpy as np

from ..engine.backend import backend, kernels
from ..engine.memory import array_module, contiguous, empty
from ..engine.tensor import Tensor, plain
from ..engine.types import Axis, TensorLike
from .op import Op, elementwise_kernel, implements

__all__ = ["sum", "mean", "max", "min", "logsumexp", "softmax", "log_softmax"]

reduce_kernels = kernels("reduce")
AXES = "an axis that x has (or a tuple of them, or None) and at least one element along it"


class Sum(Op):
    """y = Σ x over the axes"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.sum(x, axis=axis, keepdims=keepdims)

    def forward(x, *, axis, keepdims):
        return reduced("sum", Sum.formula, x, axis, keepdims)

    def backward_x(dy, x_shape, axis, keepdims):
        return np.broadcast_to(with_axes(dy, x_shape, axis, keepdims), x_shape)


class Mean(Op):
    """y = (1/n) Σ x over the axes, n elements each"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.mean(x, axis=axis, keepdims=keepdims)

    def forward(x, *, axis, keepdims):
        return reduced("mean", Mean.formula, x, axis, keepdims)

    def backward_x(dy, x_shape, axis, keepdims):
        return np.broadcast_to(with_axes(dy, x_shape, axis, keepdims) / count(x_shape, axis),
                               x_shape)


class Max(Op):
    """y = max x over the axes; among equals the first gets the whole gradient"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.max(x, axis=axis, keepdims=keepdims)

    def forward(x, *, axis, keepdims):
        return reduced("max", Max.formula, x, axis, keepdims)

    def backward_x(dy, x, x_shape, axis, keepdims):
        return with_axes(dy, x_shape, axis, keepdims) * first_largest(plain(x), axis)


class Min(Op):
    """y = min x over the axes; among equals the first gets the whole gradient"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.min(x, axis=axis, keepdims=keepdims)

    def forward(x, *, axis, keepdims):
        return reduced("min", Min.formula, x, axis, keepdims)

    def backward_x(dy, x, x_shape, axis, keepdims):
        return with_axes(dy, x_shape, axis, keepdims) * first_largest(-plain(x), axis)


class Logsumexp(Op):
    """y = ln Σ eˣ = m + ln Σ e^(x − m) with m = max x; dy/dx = e^(x − y) = softmax(x)"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        m = np.max(np.real(plain(x)), axis=axis, keepdims=True)
        m = np.where(np.isfinite(m), m, 0).astype(x.dtype)    # a constant: any m gives the same y
        y = np.log(np.sum(np.exp(x - m), axis=axis, keepdims=True)) + m
        return y if keepdims else np.squeeze(y, axis)

    def forward(x, *, axis, keepdims):
        return reduced("logsumexp", Logsumexp.formula, x, axis, keepdims)

    def backward_x(dy, x, y, x_shape, axis, keepdims):
        return times_exp(with_axes(dy, x_shape, axis, keepdims), x,
                         with_axes(y, x_shape, axis, keepdims))


class Softmax(Op):
    """y = eˣ / Σ eˣ along the axis; dx = y (dy − Σ dy y)"""

    expects = AXES

    def formula(x, *, axis):
        e = np.exp(x - np.max(np.real(plain(x)), axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)

    def forward(x, *, axis):
        return along_rows("softmax", Softmax.formula, x, axis)

    def backward_x(dy, y, axis):
        return y * (dy - np.sum(dy * y, axis=axis, keepdims=True))


class LogSoftmax(Op):
    """y = x − ln Σ eˣ along the axis; dx = dy − softmax(x) Σ dy"""

    expects = AXES

    def formula(x, *, axis):
        x = x - np.max(np.real(plain(x)), axis=axis, keepdims=True)
        return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))

    def forward(x, *, axis):
        return along_rows("log_softmax", LogSoftmax.formula, x, axis)

    def backward_x(dy, y, axis):
        return dy - times_exp(np.sum(dy, axis=axis, keepdims=True), y, 0.0)


# --- public functions ----------------------------------------------------------------------------

@implements(np.sum)
def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` (None: all; an int or several)."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


@implements(np.mean)
def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` (None: all; an int or several)."""
    return Mean.apply(x, axis=axis, keepdims=keepdims)


@implements(np.max)
def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis`` (None: of all)."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


@implements(np.min)
def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis`` (None: of all)."""
    return Min.apply(x, axis=axis, keepdims=keepdims)


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln Σ eˣ over ``axis``, without overflow."""
    return Logsumexp.apply(x, axis=axis, keepdims=keepdims)


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """eˣ / Σ eˣ along ``axis``: positive numbers that sum to 1."""
    return Softmax.apply(x, axis=axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The logarithm of ``softmax``, without underflow."""
    return LogSoftmax.apply(x, axis=axis)


# --- the same by kernels ---------------------------------------------------------------------

def reduced(kernel, formula, x, axis, keepdims):
    """The formula's value, by a kernel over the middle one of three axes (A, R, B).

    On the CPU only for ``logsumexp``: NumPy's sums and maxima are the same on every processor, its
    exponential function is not.
    """
    by_numpy = backend() == "numpy" or backend() == "numba" and kernel != "logsumexp"
    if by_numpy or x.dtype.kind != "f":
        return formula(x, axis=axis, keepdims=keepdims)
    axes = axes_of(x.shape, axis)
    if axis is not None and any(not -x.ndim <= a < x.ndim for a in (
            axis if isinstance(axis, tuple) else (axis,))):
        raise ValueError(f"axis {axis} of an array with {x.ndim} axes")
    kept = [a for a in range(x.ndim) if a not in axes]
    together = not axes or axes == tuple(range(axes[0], axes[-1] + 1))
    if kernel == "logsumexp":
        together = bool(axes) and axes == tuple(range(axes[0], x.ndim))
    if not together:
        x = np.transpose(x, [*kept, *axes])
        shape, first = x.shape, len(kept)
    else:
        shape, first = x.shape, axes[0] if axes else x.ndim
    last = first + len(axes)
    a, r, b = (math.prod(part) for part in (shape[:first], shape[first:last], shape[last:]))
    if r == 0 and kernel != "sum":
        raise ValueError("zero-size array to a reduction which has no identity")
    y = empty((a, b), x.dtype)
    if kernel == "logsumexp":
        reduce_kernels.logsumexp(contiguous(x).reshape(a, r), y.reshape(a))
    else:
        getattr(reduce_kernels, kernel)(contiguous(x).reshape(a, r, b), y)
    rest = (*shape[:first], *shape[last:])
    if not keepdims:
        return y.reshape(rest)
    full = iter(rest)
    return y.reshape([1 if i in axes else next(full) for i in range(x.ndim)])


def along_rows(kernel, formula, x, axis):
    """The formula's value, by a kernel along the last axis."""
    by_numpy = backend() == "numpy" or backend() == "numba" and x.size == 0
    if by_numpy or x.dtype.kind != "f" or not -x.ndim <= axis < x.ndim:
        return formula(x, axis=axis)
    rows = contiguous(np.moveaxis(x, axis, -1))
    y = empty(rows.shape, x.dtype)
    matrix = (math.prod(rows.shape[:-1]), rows.shape[-1])
    getattr(reduce_kernels, kernel)(rows.reshape(matrix), y.reshape(matrix))
    return np.moveaxis(y, -1, axis)


@elementwise_kernel
def times_exp(dy, x, y):
    """dy e^(x − y)"""
    return dy * np.exp(x - y)


# --- helpers of the rules ------------------------------------------------------------------------

def axes_of(shape, axis):
    """The reduced axes as a sorted tuple of non-negative ints."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a % len(shape) for a in axes)) if shape else ()


def count(shape, axis):
    """How many elements are reduced into one."""
    return math.prod(shape[a] for a in axes_of(shape, axis))


def with_axes(reduced, shape, axis, keepdims):
    """Put the reduced axes back with length 1, ready to broadcast against ``shape``."""
    if keepdims:
        return reduced
    axes = axes_of(shape, axis)
    return np.reshape(reduced, tuple(1 if i in axes else n for i, n in enumerate(shape)))


def first_largest(x, axis):
    """True at the first largest element of each reduced group, bool of x's shape."""
    axes = axes_of(x.shape, axis)
    kept = [a for a in range(x.ndim) if a not in axes]
    groups = np.transpose(x, [*kept, *axes])
    flat = groups.reshape(*(x.shape[a] for a in kept), count(x.shape, axis))
    first = array_module().arange(flat.shape[-1]) == np.argmax(flat, axis=-1)[..., None]
    back = np.argsort([*kept, *axes])
    return first.reshape(groups.shape).transpose([builtins.int(a) for a in back])
