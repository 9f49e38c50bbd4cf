"""Concatenation, repetition, rolling, splitting and reordering of axes, composed of other ops."""

import builtins
from collections.abc import Sequence
from typing import overload

import numpy as np

from ..engine.memory import to_device
from ..engine.tensor import NUMPY_FUNCTIONS, Tensor
from ..engine.types import Axis, Shape, TensorLike
from .axes import as_tensor, axes_in, before, flat_if_none, whole
from .op import implements
from .selection import places
from .shape import axis_of, concat, flip, index, split

__all__ = ["vstack", "hstack", "dstack", "column_stack", "array_split", "moveaxis", "ravel",
           "atleast_1d", "atleast_2d", "atleast_3d", "tile", "repeat", "roll"]

# --- joining -------------------------------------------------------------------------------------

@implements(np.vstack)
def vstack(xs: Sequence[TensorLike] | Tensor) -> Tensor:
    """One below the other: along axis 0, vectors as rows."""
    return concat([atleast_2d(x) for x in several("vstack", xs)])


@implements(np.hstack)
def hstack(xs: Sequence[TensorLike] | Tensor) -> Tensor:
    """One beside the other: along axis 1, vectors one after another."""
    xs = [atleast_1d(x) for x in several("hstack", xs)]
    return concat(xs, axis=min(1, xs[0].ndim - 1))


@implements(np.dstack)
def dstack(xs: Sequence[TensorLike] | Tensor) -> Tensor:
    """One behind the other: along axis 2."""
    return concat([atleast_3d(x) for x in several("dstack", xs)], axis=2)


@implements(np.column_stack)
def column_stack(xs: Sequence[TensorLike] | Tensor) -> Tensor:
    """Vectors as the columns of a matrix; matrices one beside the other."""
    xs = several("column_stack", xs)
    return concat([np.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in xs], axis=1)


def several(op, xs):
    """A list of tensors, at least one."""
    if not isinstance(xs, (list, tuple, Tensor)) or not len(xs):
        raise TypeError(f"{op} of {type(xs).__name__}: expected a list of at least one tensor")
    return [as_tensor(op, x) for x in xs]


@implements(np.append)
def append(x: TensorLike, values: TensorLike, axis: int | None = None) -> Tensor:
    """x and ``values`` one after another along ``axis`` (None: all elements, in one row)."""
    dtype = next(v.dtype for v in (x, values) if isinstance(v, Tensor))
    x, values = (v if hasattr(v, "dtype") else to_device(np.asarray(v, dtype)) for v in (x, values))
    return concat([ravel(x), ravel(values)] if axis is None else [x, values], axis or 0)


@implements(np.array_split)
def array_split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """A list of parts along ``axis`` as ``split``; those of a number may differ by one in length.
    """
    x = as_tensor("array_split", x)
    axis = axis_of("array_split", x, axis)
    if isinstance(sections, int):
        if sections < 1:
            raise ValueError(f"array_split: sections {sections}; expected at least 1")
        each, longer = divmod(x.shape[axis], sections)
        sections = [i * each + min(i, longer) for i in range(1, sections)]
    return split(x, sections, axis)


# --- axes ----------------------------------------------------------------------------------------

@implements(np.moveaxis)
def moveaxis(x: TensorLike, source: Shape, destination: Shape) -> Tensor:
    """The axes ``source`` (a number or several) at the places ``destination``, the others in order.
    """
    x = as_tensor("moveaxis", x)
    source, destination = axes_in("moveaxis", x, source), axes_in("moveaxis", x, destination)
    if len(source) != len(destination):
        raise ValueError(f"moveaxis: source {source}, destination {destination}; expected as many "
                         "axes in both")
    order = [a for a in range(x.ndim) if a not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return np.transpose(x, order)


@implements(np.ravel)
def ravel(x: TensorLike) -> Tensor:
    """All elements in one row, in C order."""
    return np.reshape(as_tensor("ravel", x), (-1,))


@overload
def atleast_1d(x: TensorLike, /) -> Tensor: ...
@overload
def atleast_1d(x: TensorLike, y: TensorLike, /, *more: TensorLike) -> tuple[Tensor, ...]: ...
@implements(np.atleast_1d)
def atleast_1d(*xs):
    """x, a number as (1,); of several a tuple."""
    return each(lambda x: np.reshape(x, (1,)) if x.ndim == 0 else x, "atleast_1d", xs)


@overload
def atleast_2d(x: TensorLike, /) -> Tensor: ...
@overload
def atleast_2d(x: TensorLike, y: TensorLike, /, *more: TensorLike) -> tuple[Tensor, ...]: ...
@implements(np.atleast_2d)
def atleast_2d(*xs):
    """x, a vector as one row (1, N); of several a tuple."""
    return each(lambda x: np.reshape(x, (1, x.size)) if x.ndim < 2 else x, "atleast_2d", xs)


@overload
def atleast_3d(x: TensorLike, /) -> Tensor: ...
@overload
def atleast_3d(x: TensorLike, y: TensorLike, /, *more: TensorLike) -> tuple[Tensor, ...]: ...
@implements(np.atleast_3d)
def atleast_3d(*xs):
    """x, a matrix as (I, J, 1), a vector as (1, N, 1); of several a tuple."""
    return each(lambda x: x if x.ndim > 2 else np.reshape(x, (*atleast_2d(x).shape, 1)),
                "atleast_3d", xs)


def each(function, op, xs):
    """The function of one tensor; of several a tuple."""
    found = tuple(function(as_tensor(op, x)) for x in xs)
    return found[0] if len(found) == 1 else found


# --- repeating and rolling -----------------------------------------------------------------------

@implements(np.tile)
def tile(x: TensorLike, reps: Shape) -> Tensor:
    """x side by side, ``reps`` times along each axis (the last ones, if there are fewer)."""
    x = as_tensor("tile", x)
    reps = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    reps = tuple(whole("tile", "reps", n) for n in reps)
    if min(reps, default=0) < 0:
        raise ValueError(f"tile: reps is {reps}; expected numbers of at least 0")
    axes = max(x.ndim, len(reps))
    shape = (1,) * (axes - x.ndim) + x.shape
    reps = (1,) * (axes - len(reps)) + reps
    apart = np.reshape(x, tuple(n for size in shape for n in (1, size)))
    full = np.broadcast_to(apart, tuple(n for pair in zip(reps, shape, strict=True) for n in pair))
    return np.reshape(full, tuple(r * n for r, n in zip(reps, shape, strict=True)))


@implements(np.repeat)
def repeat(x: TensorLike, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element ``repeats`` times along ``axis`` (None: of all, in one row), or as often as a
    list says. (PyTorch's ``repeat`` is ``tile``.)"""
    x, axis = flat_if_none("repeat", x, axis)
    if isinstance(repeats, (list, tuple, np.ndarray)) and np.ndim(repeats):
        if len(repeats) != x.shape[axis]:
            raise ValueError(f"repeat: x {x.shape}, axis {axis}, repeats {repeats!r}; expected one "
                             "number for each element along the axis")
        return index(x, (*before(axis), places("repeat", np.repeat(np.arange(len(repeats)),
                                                                   repeats))))
    if whole("repeat", "repeats", repeats) < 0:
        raise ValueError(f"repeat: repeats is {repeats}; expected at least 0")
    front, n, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1:]
    apart = np.broadcast_to(np.reshape(x, (*front, n, 1, *rest)), (*front, n, repeats, *rest))
    return np.reshape(apart, (*front, n * repeats, *rest))


@implements(np.roll)
def roll(x: TensorLike, shift: Shape, axis: Axis = None) -> Tensor:
    """x moved ``shift`` places along ``axis``, what leaves at the end coming in at the beginning;
    ``axis`` None: in one row. Both may be tuples."""
    x = as_tensor("roll", x)
    if axis is None:
        return np.reshape(roll(np.reshape(x, (-1,)), shift, 0), x.shape)
    axes = axes_in("roll", x, axis)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ValueError(f"roll: shift {shift!r}, axis {axis!r}; expected as many of both")
    for a, places_moved in zip(axes, shifts, strict=True):
        moved = whole("roll", "shift", places_moved) % builtins.max(1, x.shape[a])
        if moved:
            x = concat([x[(*before(a), slice(-moved, None))], x[(*before(a), slice(-moved))]], a)
    return x


NUMPY_FUNCTIONS |= {
    np.hsplit: lambda x, sections: split(x, sections, axis=min(1, x.ndim - 1)),
    np.vsplit: lambda x, sections: split(x, sections, axis=0),
    np.fliplr: lambda x: flip(x, 1), np.flipud: lambda x: flip(x, 0),
    np.unstack: lambda x, axis=0: tuple(index(x, (*before(axis_of("unstack", x, axis)), i))
                                        for i in range(x.shape[axis]))}
