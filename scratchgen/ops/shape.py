"""Ops that move elements and compute nothing: each derivative moves them back."""

import math
import operator

import numpy as np

from ..tensor import Tensor, plain
from .op import Op, implements

PUBLIC = ("swapaxes", "stack", "split", "expand_dims", "squeeze", "flatten")


class Reshape(Op):
    """y has the elements of x, in C order, in another shape"""

    def formula(x, *, shape):
        return np.reshape(x, shape)

    def backward_x(dy, x_shape):
        return np.reshape(dy, x_shape)


class Transpose(Op):
    """y[i, j, …] = x[…], axis k of y being axis axes[k] of x"""

    def formula(x, *, axes):
        return np.transpose(x, axes)

    def backward_x(dy, axes):
        return np.transpose(dy, None if axes is None else [int(a) for a in np.argsort(axes)])


class BroadcastTo(Op):
    """y repeats x along axes of length 1 and new leading axes; the engine sums the gradient back"""

    def formula(x, *, shape):
        return np.broadcast_to(x, shape)

    def backward_x(dy):
        return dy


class Flip(Op):
    """y is x in reverse order along the axes"""

    def formula(x, *, axis):
        return np.flip(x, axis)

    def backward_x(dy, axis):
        return np.flip(dy, axis)


class Pad(Op):
    """y is x with zeros around: widths ((before, after), …), one pair an axis"""

    def formula(x, *, widths):
        return np.pad(x, widths)

    def backward_x(dy, x_shape, widths):
        return dy[tuple(slice(before, before + n)
                        for (before, _), n in zip(widths, x_shape, strict=True))]


class Concat(Op):
    """y is the inputs one after another along the axis"""

    def formula(*xs, axis):
        return np.concatenate(xs, axis)

    def backward(wanted, dy, shapes, axis):
        ends = np.cumsum([shape[axis] for shape in shapes])
        before = (slice(None),) * (axis % len(shapes[0]))
        return [dy[(*before, slice(int(end) - shape[axis], int(end)))] if want else None
                for end, shape, want in zip(ends, shapes, wanted, strict=True)]


class Index(Op):
    """y = x[index], as NumPy: slices, integers, None, …, integer and boolean arrays"""

    def formula(x, *, index):
        return x[index]

    def backward_x(dy, x_shape, index):
        return scatter(dy, x_shape, index)


class Scatter(Op):
    """y = zeros, then y[index] += x: the transpose of ``Index``, and it of this"""

    def formula(x, *, shape, index):
        y = np.zeros(shape, x.dtype)
        if is_basic(index):                            # no element is named twice
            y[index] = x
        else:
            np.add.at(y, index, x)
        return y

    def backward_x(dy, index):
        return dy[index]


# --- public functions ----------------------------------------------------------------------------

@implements(np.reshape)
def reshape(x, shape):
    """The same elements in another ``shape``; one entry may be −1."""
    return Reshape.apply(x, shape=shape)


@implements(np.transpose)
def transpose(x, axes=None):
    """Axes in the order ``axes`` (None: reversed)."""
    return Transpose.apply(x, axes=axes)


@implements(np.swapaxes)
def swapaxes(x, a, b):
    """Axes ``a`` and ``b`` exchanged."""
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return Transpose.apply(x, axes=axes)


@implements(np.broadcast_to)
def broadcast_to(x, shape):
    """x repeated to ``shape`` by NumPy's rules."""
    return BroadcastTo.apply(x, shape=shape)


@implements(np.flip)
def flip(x, axis=None):
    """Reverse order along ``axis`` (None: all)."""
    return Flip.apply(x, axis=axis)


@implements(np.pad)
def pad(x, widths):
    """Zeros around: ``widths`` as in NumPy, ((before, after), …) or one number for all."""
    pairs = np.broadcast_to(np.asarray(widths, int), (x.ndim, 2))
    return Pad.apply(x, widths=tuple((int(before), int(after)) for before, after in pairs))


@implements(np.concatenate)
def concat(xs, axis=0):
    """Tensors of equal shape except along ``axis``, one after another."""
    return Concat.apply(*xs, axis=axis)


@implements(np.stack)
def stack(xs, axis=0):
    """Tensors of one shape along a new axis."""
    return Concat.apply(*[expand_dims(x, axis) for x in xs], axis=axis)


@implements(np.split)
def split(x, sections, axis=0):
    """A list of parts along ``axis``: a number of equal ones, or the indices where to cut."""
    if isinstance(sections, int):
        if x.shape[axis] % sections:
            raise ValueError(f"split: {x.shape[axis]} elements along axis {axis} do not make "
                             f"{sections} equal parts; give the indices where to cut")
        sections = range(x.shape[axis] // sections, x.shape[axis], x.shape[axis] // sections)
    edges = [0, *sections, x.shape[axis]]
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, slice(a, b))] for a, b in zip(edges[:-1], edges[1:], strict=True)]


@implements(operator.getitem)
def index(x, index):
    """x[index]."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, Tensor) for part in parts):
        index = tuple(plain(part) for part in parts)
    return Index.apply(x, index=index)


@implements(np.expand_dims)
def expand_dims(x, axis):
    """A new axis of length 1."""
    shape = list(x.shape)
    shape.insert(axis if axis >= 0 else axis + x.ndim + 1, 1)
    return reshape(x, tuple(shape))


@implements(np.squeeze)
def squeeze(x, axis=None):
    """Without the axes of length 1 (all, or those named)."""
    axes = axis if isinstance(axis, tuple) else None if axis is None else (axis,)
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {
        a % x.ndim for a in axes}
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def flatten(x):
    """(N, …) as (N, product of the rest)."""
    return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def scatter(x, shape, index):
    """Zeros of ``shape`` with x added at ``index``: arrays or tensors."""
    if isinstance(x, np.ndarray):
        return Scatter.formula(x, shape=shape, index=index)
    return Scatter.apply(x, shape=shape, index=index)


def is_basic(index):
    """Whether an index has only slices, integers, None and …"""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is ... or isinstance(part, (slice, int, np.integer))
               and not isinstance(part, bool) for part in parts)
