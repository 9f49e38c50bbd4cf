"""Running sums and products along an axis, whole products, and differences.

A product's derivative is the product of the *other* factors: y/x has it only where x ≠ 0. Products
are therefore computed by multiplications in about log₂ n steps: pairs, pairs of pairs, … The
derivatives of every order are then correct where factors are 0, without a special case.
"""

import numpy as np

from ..engine.tensor import Tensor
from ..engine.types import Axis, TensorLike
from .axes import as_tensor, axes_in, axes_last, before, flat_if_none, kept_axes, whole
from .op import Op, implements

__all__ = ["cumsum", "prod", "cumprod", "diff"]

class Cumsum(Op):
    """y_i = x_0 + … + x_i along the axis; dx_i = dy_i + … + dy_n, summed from the other end"""

    expects = "an axis that x has"

    def formula(x, *, axis):
        return np.cumsum(x, axis)

    def backward_x(dy, axis):
        return np.flip(np.cumsum(np.flip(dy, axis), axis), axis)


@implements(np.cumsum)
def cumsum(x: TensorLike, axis: int | None = None) -> Tensor:
    """Running sums along ``axis`` (None: of all elements, in one row)."""
    x, axis = flat_if_none("cumsum", x, axis)
    return Cumsum.apply(x, axis=axis)


@implements(np.prod)
def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Product over ``axis`` (None: of all; an int or several); right where elements are 0."""
    x = as_tensor("prod", x)
    if x.dtype.kind != "f":                            # in NumPy's wider integers
        return Tensor(np.asarray(np.prod(x.data, axis=axes_in("prod", x, axis), keepdims=keepdims)))
    rows, axes = axes_last("prod", x, axis)
    if rows.shape[-1] == 0:
        rows = np.concatenate([rows, np.ones_like(rows, shape=(*rows.shape[:-1], 1))], axis=-1)
    while (n := rows.shape[-1]) > 1:
        pairs = rows[..., :n // 2] * rows[..., n // 2:n - n % 2]
        rows = np.concatenate([pairs, rows[..., n - 1:]], axis=-1) if n % 2 else pairs
    return kept_axes(rows[..., 0], axes, keepdims)


@implements(np.cumprod)
def cumprod(x: TensorLike, axis: int | None = None) -> Tensor:
    """Running products along ``axis`` (None: of all elements, in one row).

    Step by step each element is multiplied with the one 1, 2, 4, … places before it (Hillis &
    Steele 1986).
    """
    x, axis = flat_if_none("cumprod", x, axis)
    if x.dtype.kind != "f":
        return Tensor(np.cumprod(x.data, axis))
    front, distance = before(axis), 1
    while distance < x.shape[axis]:
        x = np.concatenate([x[(*front, slice(distance))], x[(*front, slice(distance, None))]
                            * x[(*front, slice(-distance))]], axis=axis)
        distance *= 2
    return x


@implements(np.diff)
def diff(x: TensorLike, n: int = 1, axis: int = -1) -> Tensor:
    """Differences of neighbours along ``axis``, ``n`` times."""
    x, axis = flat_if_none("diff", x, axis)
    if whole("diff", "n", n) < 0:
        raise ValueError(f"diff: n is {n}; expected at least 0")
    front = before(axis)
    for _ in range(n):
        x = x[(*front, slice(1, None))] - x[(*front, slice(-1))]
    return x
