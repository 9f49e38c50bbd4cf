"""Checks of tensors, axes and integers for functions composed of ops."""

import math
import operator

import numpy as np

from ..engine.memory import native, to_device
from ..engine.tensor import Tensor
from ..errors import shown
from .inputs import only_arrays
from .shape import axis_of


def as_tensor(op, x):
    """x as a tensor: itself, or a constant of an array; TypeError, in the name of ``op``."""
    if isinstance(x, Tensor):
        return x
    only_arrays(op, x=x)
    return Tensor(to_device(native(x, op) if isinstance(x, np.ndarray) else x))


def as_real(op, x, dtype=np.float32):
    """``as_tensor``, with integers as real numbers, since squares of small integers overflow."""
    x = as_tensor(op, x)
    return x if x.dtype.kind == "f" else x.astype(dtype)


def axes_in(op, x, axis):
    """``axis`` (None: all; a number or several) as a tuple of numbers from 0 on, in its order."""
    if axis is None:
        return tuple(range(x.ndim))
    axes = tuple(axis_of(op, x, a) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: x {x.shape}, axis {axis!r}; expected each axis once")
    return axes


def flat_if_none(op, x, axis):
    """(x, axis from 0 on); with ``axis`` None x in one row, as NumPy has it."""
    x = as_tensor(op, x)
    return (np.reshape(x, (-1,)), 0) if axis is None else (x, axis_of(op, x, axis))


def lengths(x, axes):
    """How many elements lie along the axes together."""
    return math.prod(x.shape[a] for a in axes)


def axes_last(op, x, axis):
    """x with the axes ``axis`` joined into one, at the end; and the axes, sorted."""
    axes = sorted(axes_in(op, x, axis))
    kept = [a for a in range(x.ndim) if a not in axes]
    joined = (*(x.shape[a] for a in kept), lengths(x, axes))
    return np.reshape(np.transpose(x, [*kept, *axes]), joined), axes


def kept_axes(y, axes, keepdims):
    """y with axes of length 1 put back at ``axes`` (sorted), if ``keepdims``."""
    if not keepdims:
        return y
    rest = iter(y.shape)
    return np.reshape(y, tuple(1 if a in axes else next(rest) for a in range(y.ndim + len(axes))))


def whole(op, name, value):
    """``value`` as an int; ValueError if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{op}: {name} is {shown(value)}; expected a whole number") from None


def before(axis):
    """The part of an index that leaves the axes in front of ``axis`` as they are."""
    return (slice(None),) * axis
