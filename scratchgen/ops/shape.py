"""Ops that rearrange elements. Their derivatives apply the inverse rearrangement."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.backend import backend
from ..engine.in_place import plain_index
from ..engine.memory import ARRAYS, array_module, to_device, zeros
from ..engine.tensor import Tensor
from ..engine.types import Array, Axis, Shape, TensorLike
from .inputs import only_arrays
from .op import Op, implements

__all__ = ["reshape", "transpose", "swapaxes", "broadcast_to", "flip", "pad", "concat", "stack",
           "split", "index", "replace_at", "expand_dims", "squeeze", "flatten", "scatter"]

class Reshape(Op):
    """y has the elements of x, in C order, in another shape"""

    expects = "a shape with as many elements as x"

    def formula(x, *, shape):
        return np.reshape(x, shape)

    def backward_x(dy, x_shape):
        return np.reshape(dy, x_shape)


class Transpose(Op):
    """y[i, j, …] = x[…], axis k of y being axis axes[k] of x"""

    expects = "axes that name every axis of x once, or None"

    def formula(x, *, axes):
        return np.transpose(x, axes)

    def backward_x(dy, axes):
        return np.transpose(dy, None if axes is None else [int(a) for a in np.argsort(axes)])


class BroadcastTo(Op):
    """y repeats x along axes of length 1 and new leading axes; the engine sums the gradient back"""

    expects = "a shape that x broadcasts to: its lengths, or 1 where the shape has more"

    def formula(x, *, shape):
        return np.broadcast_to(x, shape)

    def backward_x(dy):
        return dy


class Flip(Op):
    """y is x in reverse order along the axes"""

    expects = "an axis that x has, a tuple of them, or None"

    def formula(x, *, axis):
        return np.flip(x, axis)

    def backward_x(dy, axis):
        return np.flip(dy, axis)


class Pad(Op):
    """y is x with zeros around: widths ((before, after), …), one pair an axis"""

    expects = "one pair (before, after) of whole numbers >= 0 an axis"

    def formula(x, *, widths):
        return np.pad(x, widths)

    def backward_x(dy, x_shape, widths):
        return dy[tuple(slice(before, before + n)
                        for (before, _), n in zip(widths, x_shape, strict=True))]


class Concat(Op):
    """y is the inputs one after another along the axis"""

    expects = "at least one input, all of one shape except along an axis they have"

    def formula(*xs, axis):
        return np.concatenate(xs, axis)

    def backward(wanted, dy, shapes, axis):
        ends = np.cumsum([shape[axis] for shape in shapes])
        before = (slice(None),) * (axis % len(shapes[0]))
        return [dy[(*before, slice(int(end) - shape[axis], int(end)))] if want else None
                for end, shape, want in zip(ends, shapes, wanted, strict=True)]


class Index(Op):
    """y = x[index], as NumPy: slices, integers, None, …, integer and boolean arrays"""

    expects = "slices, None, …, integers or boolean arrays that fit x"

    def formula(x, *, index):
        return x[index]

    def forward(x, *, index):
        return x[beside(index)]

    def backward_x(dy, x_shape, index):
        return scattered(dy, x_shape, index)


class Scatter(Op):
    """y = zeros, then y[index] += x: the transpose of ``Index``, and it of this

    On a GPU an index of integer arrays is added up by atomics (CuPy's), in any order.
    """

    expects = "an index into the shape that picks out what x can be added to"

    def formula(x, *, shape, index):
        y = zeros(shape, x.dtype)
        if is_basic(index):                            # no element is selected twice
            y[index] = x
        else:
            array_module().add.at(y, beside(index), x)
        return y

    def backward_x(dy, index):
        return dy[index] if isinstance(dy, Tensor) else dy[beside(index)]


class ReplaceAt(Op):
    """y = x, but y[index] = v: what ``x[index] = v`` records

    dx is dy with zeros at the index, dv what dy has there; of an element that an index of integers
    names twice only the last value counts, and only that has a gradient.
    """

    expects = "an index that fits x, and values v that broadcast to x[index]"

    def formula(x, v, *, index):
        y = x.copy()
        y[beside(index)] = v
        return y

    def backward_x(dy, index):
        return replaced(dy, dy.dtype.type(0), index)

    def backward_v(dy, index, x_shape, v_shape):
        dv = dy[index] if isinstance(dy, Tensor) else dy[beside(index)]
        if not is_basic(index):
            dv = dv * last_written(x_shape, index, dy.dtype)
        more = len(v_shape) - len(dv.shape)            # axes of length 1 that NumPy leaves out
        return np.reshape(dv, (1,) * more + dv.shape) if more > 0 else dv


# --- public functions ----------------------------------------------------------------------------

@implements(np.reshape)
def reshape(x: TensorLike, shape: Shape) -> Tensor:
    """The same elements in another ``shape``; one entry may be −1."""
    return Reshape.apply(x, shape=shape)


@implements(np.transpose)
def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in the order ``axes`` (None: reversed)."""
    return Transpose.apply(x, axes=axes)


@implements(np.swapaxes)
def swapaxes(x: TensorLike, a: int, b: int) -> Tensor:
    """Axes ``a`` and ``b`` exchanged."""
    a, b = axis_of("swapaxes", x, a), axis_of("swapaxes", x, b)
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return Transpose.apply(x, axes=axes)


@implements(np.broadcast_to)
def broadcast_to(x: TensorLike, shape: Shape) -> Tensor:
    """x repeated to ``shape`` by NumPy's rules."""
    return BroadcastTo.apply(x, shape=shape)


@implements(np.flip)
def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """Reverse order along ``axis`` (None: all)."""
    return Flip.apply(x, axis=axis)


@implements(np.pad)
def pad(x: TensorLike, widths: int | Sequence[int] | Sequence[tuple[int, int]]) -> Tensor:
    """Zeros around: ``widths`` as in NumPy, ((before, after), …) or one number for all."""
    only_arrays("pad", x=x)
    try:
        pairs = np.broadcast_to(np.asarray(widths), (x.ndim, 2)).tolist()
        fits = all(isinstance(n, int) and n >= 0 for pair in pairs for n in pair)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"pad: x {x.shape}, widths {widths!r}; expected {Pad.expects}")
    return Pad.apply(x, widths=tuple((before, after) for before, after in pairs))


@implements(np.concatenate)
def concat(xs: Sequence[TensorLike] | Tensor, axis: int = 0) -> Tensor:
    """Tensors of equal shape except along ``axis``, one after another."""
    return Concat.apply(*xs, axis=axis)


@implements(np.stack)
def stack(xs: Sequence[TensorLike] | Tensor, axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    only_arrays("stack", **{f"input {i}": x for i, x in enumerate(xs)})
    shapes = [x.shape for x in xs]
    if len(set(shapes)) != 1:
        raise ValueError(f"stack of shapes {', '.join(map(str, shapes)) or 'none'}: expected at "
                         "least one input, all of one shape")
    axis = axis_of("stack", xs[0], axis, more=1)
    return Concat.apply(*[expand_dims(x, axis) for x in xs], axis=axis)


@implements(np.split)
def split(x: TensorLike, sections: int | Sequence[int] | Array, axis: int = 0) -> list[Tensor]:
    """A list of parts along ``axis``: a number of equal ones, or the indices where to cut."""
    axis = axis_of("split", x, axis)
    if not isinstance(sections, (int, tuple, list, np.ndarray)) or sections == 0:
        raise ValueError(f"split: sections {sections!r}; expected a number of at least 1, or a "
                         "list of the indices where to cut")
    if isinstance(sections, int):
        if sections < 1 or x.shape[axis] % sections:
            raise ValueError(f"split: {x.shape[axis]} elements along axis {axis} do not make "
                             f"{sections} equal parts; give the indices where to cut")
        sections = range(x.shape[axis] // sections, x.shape[axis], x.shape[axis] // sections)
    edges = [0, *sections, x.shape[axis]]
    before = (slice(None),) * axis
    return [index(x, (*before, slice(a, b))) for a, b in zip(edges[:-1], edges[1:], strict=True)]


@implements(operator.getitem)
def index(x: TensorLike, index: Any) -> Tensor:
    """x[index]."""
    return Index.apply(x, index=plain_index(index))


def replace_at(x: TensorLike, v: TensorLike, index: Any) -> Tensor:
    """x with v at ``index``; v is broadcast to x[index]."""
    return ReplaceAt.apply(x, v, index=plain_index(index))


@implements(operator.setitem)
def replaced_item(x, index, v):
    """x after ``x[index] = v``, as a new tensor."""
    return replace_at(x, v, index)


@implements(np.expand_dims)
def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """A new axis of length 1."""
    axis = axis_of("expand_dims", x, axis, more=1)
    shape = list(x.shape)
    shape.insert(axis, 1)
    return reshape(x, tuple(shape))


@implements(np.squeeze)
def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """Without the axes of length 1 (all, or those named)."""
    only_arrays("squeeze", x=x)
    axes = axis if isinstance(axis, tuple) else None if axis is None else (axis,)
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {
        axis_of("squeeze", x, a) for a in axes}
    if any(x.shape[a] != 1 for a in gone):
        raise ValueError(f"squeeze: x {x.shape}, axis {axis}; expected axes of length 1")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def flatten(x: TensorLike) -> Tensor:
    """(N, …) as (N, product of the rest)."""
    only_arrays("flatten", x=x)
    if x.ndim < 1:
        raise ValueError("flatten: x (); expected (N, …)")
    return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def axis_of(op, x, axis, more=0):
    """``axis`` from 0 on; ValueError unless x (with ``more`` axes) has it."""
    only_arrays(op, x=x)
    n = x.ndim + more
    if not isinstance(axis, (int, np.integer)) or not -n <= axis < n:
        raise ValueError(f"{op}: x {x.shape}, axis {axis!r}; expected a whole number from {-n} to "
                         f"{n - 1}")
    return int(axis) % n


def scatter(x: TensorLike, shape: Shape, index: Any) -> Tensor:
    """Zeros of ``shape`` with x added at ``index``."""
    return Scatter.apply(x, shape=shape, index=index)


def scattered(x, shape, index):
    """``scatter`` for formulas and rules: an array of an array, a tensor of a tensor."""
    return (Scatter.formula if type(x) in ARRAYS else Scatter.apply)(x, shape=shape,
                                                                            index=index)


def replaced(x, v, index):
    """``replace_at`` for formulas and rules: an array of an array, a tensor of a tensor."""
    return (ReplaceAt.formula if type(x) in ARRAYS else ReplaceAt.apply)(x, v, index=index)


def last_written(shape, index, dtype):
    """1 where ``y[index] = v`` leaves the element of v in y, 0 where a later one overwrites it."""
    places = np.zeros(shape, np.int64)
    order = np.arange(places[index].size).reshape(places[index].shape)
    places[index] = order
    return to_device((places[index] == order).astype(dtype))


def beside(index):
    """An index whose arrays and lists lie where the backend's arrays do."""
    if backend() != "cuda" or is_basic(index):
        return index
    found = [to_device(np.asarray(part)) if isinstance(part, (list, np.ndarray)) else part
             for part in (index if isinstance(index, tuple) else (index,))]
    return tuple(found) if isinstance(index, tuple) else found[0]


def is_basic(index):
    """Whether an index has only slices, integers, None and …"""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is ... or isinstance(part, (slice, int, np.integer))
               and not isinstance(part, bool) for part in parts)
