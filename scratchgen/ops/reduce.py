"""Reductions over axes, and the normalised exponentials built on them."""

import builtins
import math

import numpy as np

from ..tensor import plain
from .op import Op, implements

AXES = "an axis that x has (or a tuple of them, or None) and at least one element along it"


class Sum(Op):
    """y = Σ x over the axes"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.sum(x, axis=axis, keepdims=keepdims)

    def backward_x(dy, x_shape, axis, keepdims):
        return np.broadcast_to(with_axes(dy, x_shape, axis, keepdims), x_shape)


class Mean(Op):
    """y = (1/n) Σ x over the axes, n elements each"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.mean(x, axis=axis, keepdims=keepdims)

    def backward_x(dy, x_shape, axis, keepdims):
        return np.broadcast_to(with_axes(dy, x_shape, axis, keepdims) / count(x_shape, axis),
                               x_shape)


class Max(Op):
    """y = max x over the axes; among equals the first gets the whole gradient"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.max(x, axis=axis, keepdims=keepdims)

    def backward_x(dy, x, x_shape, axis, keepdims):
        return with_axes(dy, x_shape, axis, keepdims) * first_largest(plain(x), axis)


class Min(Op):
    """y = min x over the axes; among equals the first gets the whole gradient"""

    expects = AXES

    def formula(x, *, axis, keepdims):
        return np.min(x, axis=axis, keepdims=keepdims)

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

    def backward_x(dy, x, y, x_shape, axis, keepdims):
        return (with_axes(dy, x_shape, axis, keepdims)
                * np.exp(x - with_axes(y, x_shape, axis, keepdims)))


class Softmax(Op):
    """y = eˣ / Σ eˣ along the axis; dx = y (dy − Σ dy y)"""

    expects = AXES

    def formula(x, *, axis):
        e = np.exp(x - np.max(np.real(plain(x)), axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)

    def backward_x(dy, y, axis):
        return y * (dy - np.sum(dy * y, axis=axis, keepdims=True))


class LogSoftmax(Op):
    """y = x − ln Σ eˣ along the axis; dx = dy − softmax(x) Σ dy"""

    expects = AXES

    def formula(x, *, axis):
        x = x - np.max(np.real(plain(x)), axis=axis, keepdims=True)
        return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))

    def backward_x(dy, y, axis):
        return dy - np.exp(y) * np.sum(dy, axis=axis, keepdims=True)


# --- public functions ----------------------------------------------------------------------------

@implements(np.sum)
def sum(x, axis=None, keepdims=False):
    """Sum over ``axis`` (None: all; an int or several)."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


@implements(np.mean)
def mean(x, axis=None, keepdims=False):
    """Mean over ``axis`` (None: all; an int or several)."""
    return Mean.apply(x, axis=axis, keepdims=keepdims)


@implements(np.max)
def max(x, axis=None, keepdims=False):
    """Largest element over ``axis`` (None: of all)."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


@implements(np.min)
def min(x, axis=None, keepdims=False):
    """Smallest element over ``axis`` (None: of all)."""
    return Min.apply(x, axis=axis, keepdims=keepdims)


def logsumexp(x, axis=None, keepdims=False):
    """ln Σ eˣ over ``axis``, without overflow."""
    return Logsumexp.apply(x, axis=axis, keepdims=keepdims)


def softmax(x, axis=-1):
    """eˣ / Σ eˣ along ``axis``: positive numbers that sum to 1."""
    return Softmax.apply(x, axis=axis)


def log_softmax(x, axis=-1):
    """The logarithm of ``softmax``, without underflow."""
    return LogSoftmax.apply(x, axis=axis)


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
    first = np.arange(flat.shape[-1]) == np.argmax(flat, axis=-1)[..., None]
    back = np.argsort([*kept, *axes])
    return first.reshape(groups.shape).transpose([builtins.int(a) for a in back])
