"""Selection of elements: by index, order, mask, diagonal or triangle."""

import numpy as np

from ..engine.memory import array_module, is_host, to_device
from ..engine.tensor import Tensor, plain
from ..engine.types import TensorLike
from .axes import as_tensor, before, flat_if_none, whole
from .op import implements
from .shape import axis_of, index, scatter

__all__ = ["take", "take_along_axis", "gather", "sort", "masked_fill", "diagonal", "diag", "tril",
           "triu"]

@implements(np.take)
def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """The elements (``axis`` None: of x in one row) or the slices along ``axis`` at ``indices``."""
    x, axis = flat_if_none("take", x, axis)
    return index(x, (*before(axis), places("take", indices)))


@implements(np.take_along_axis)
def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """y[…, i, …] = x[…, indices[…, i, …], …]: for each place its own element along ``axis``.

    ``indices`` has x's shape except along ``axis``, or is shorter there and elsewhere: what lies
    beyond its ends is left out. With the indices of ``argsort`` x is sorted.
    """
    x, axis = flat_if_none("take_along_axis", x, axis)
    indices = places("take_along_axis", indices)
    if indices.ndim != x.ndim:
        raise ValueError(f"take_along_axis: x {x.shape}, indices {indices.shape}; expected as many "
                         "axes")
    shapes = [(1,) * a + (-1,) + (1,) * (x.ndim - 1 - a) for a in range(x.ndim)]
    where = [array_module().arange(n).reshape(shape)
             for n, shape in zip(indices.shape, shapes, strict=True)]
    where[axis] = indices
    return index(x, tuple(where))


def gather(x: TensorLike, axis: int | None, indices: TensorLike) -> Tensor:
    """``take_along_axis`` with its arguments in PyTorch's order."""
    return take_along_axis(x, indices, axis)


@implements(np.sort)
def sort(x: TensorLike, axis: int | None = -1) -> Tensor:
    """x in ascending order along ``axis`` (None: all, in one row), NaN last; a new tensor. Equal
    elements keep their order, and their gradients."""
    x, axis = flat_if_none("sort", x, axis)
    return take_along_axis(x, order(plain(x), axis), axis)


def order(array, axis):
    """The indices that sort an array along an axis; equals stay in order, on a GPU anyhow."""
    return array.argsort(axis=axis, **({"kind": "stable"} if is_host(array) else {}))


def masked_fill(x: TensorLike, mask: TensorLike, value: float) -> Tensor:
    """``value``, a number, where ``mask`` is True, else x."""
    mask = plain(mask)
    if not hasattr(mask, "dtype") or isinstance(mask, np.ndarray):
        mask = to_device(np.asarray(mask, bool))
    return np.where(mask != 0, value, as_tensor("masked_fill", x))


# --- diagonals and triangles of the last two axes, or of a matrix --------------------------------

@implements(np.diagonal)
def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements whose place along ``axis2`` is ``offset`` more than along ``axis1``: the last
    axis of the result."""
    x = as_tensor("diagonal", x)
    axis1, axis2 = axis_of("diagonal", x, axis1), axis_of("diagonal", x, axis2)
    if axis1 == axis2:
        raise ValueError(f"diagonal: x {x.shape}, axes {axis1} and {axis2}; expected two axes")
    first, second = max(0, -whole("diagonal", "offset", offset)), max(0, offset)
    n = max(0, min(x.shape[axis1] - first, x.shape[axis2] - second))
    kept = [a for a in range(x.ndim) if a not in (axis1, axis2)]
    places = array_module().arange(n)
    return index(np.transpose(x, [*kept, axis1, axis2]), (..., places + first, places + second))


@implements(np.diag)
def diag(x: TensorLike, k: int = 0) -> Tensor:
    """Of a vector the matrix with it on the diagonal ``k``, of a matrix its diagonal ``k``."""
    x = as_tensor("diag", x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"diag: x {x.shape}; expected a vector or a matrix")
    n, places = len(x) + abs(whole("diag", "k", k)), array_module().arange(len(x))
    return scatter(x, (n, n), (places + max(0, -k), places + max(0, k)))


@implements(np.tril)
def tril(x: TensorLike, k: int = 0) -> Tensor:
    """x (…, I, J) with zeros above the diagonal ``k``."""
    x = as_tensor("tril", x)
    return np.where(triangle("tril", x, k), x, 0)


@implements(np.triu)
def triu(x: TensorLike, k: int = 0) -> Tensor:
    """x (…, I, J) with zeros below the diagonal ``k``."""
    x = as_tensor("triu", x)
    return np.where(triangle("triu", x, whole("triu", "k", k) - 1), 0, x)


def triangle(op, x, k):
    """True on and below the diagonal k of the last two axes."""
    if x.ndim < 2:
        raise ValueError(f"{op}: x {x.shape}; expected (…, I, J)")
    return array_module().tri(*x.shape[-2:], whole(op, "k", k), dtype=bool)


def places(op, indices):
    """Indices as an array of integers, where the backend's arrays lie."""
    indices = plain(indices)
    array = np.asarray(indices) if isinstance(indices, (int, list, tuple, np.generic)) else indices
    if not hasattr(array, "dtype") or array.dtype.kind not in "iu":
        kind = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{op}: the indices are {kind}; expected whole numbers")
    return to_device(array)
