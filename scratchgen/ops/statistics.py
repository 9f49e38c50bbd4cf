"""Variance, norms, order statistics, and sums without NaN: composed of other ops,
which give the derivatives of every order.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..engine.memory import to_device
from ..engine.tensor import NUMPY_FUNCTIONS, Tensor, plain
from ..engine.types import Array, Axis, TensorLike
from ..errors import shown
from .axes import as_real, as_tensor, axes_in, axes_last, kept_axes, lengths
from .elementwise import is_number
from .functions import root
from .op import implements
from .reduce import max, min
from .selection import sort

__all__ = ["var", "std", "norm", "median", "quantile", "percentile", "average", "ptp", "nansum",
           "nanmean"]

@implements(np.var)
def var(x: TensorLike, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False,
        correction: float | None = None) -> Tensor:
    """Variance over ``axis`` (None: of all): Σ (x − mean)² / (n − ddof).

    ``ddof`` is 0 unless given, as NumPy has it; PyTorch's ``var()`` is the one of ``ddof=1``, and
    calls it ``correction``, a name that is taken here too. ValueError where n <= ddof.
    """
    x = as_real("var", x)
    axes = axes_in("var", x, axis)
    if correction is not None:
        if ddof != 0:
            raise ValueError("var: both ddof and correction are given; they are one number")
        ddof = correction
    n = lengths(x, axes)
    if not is_number(ddof) or not ddof < n:
        raise ValueError(f"var: x {x.shape}, axis {axis}, ddof {shown(ddof)}; expected a number "
                         f"smaller than the {n} elements that are averaged")
    off = x - np.mean(x, axis=axes, keepdims=True)
    return np.sum(off * off, axis=axes, keepdims=keepdims) / (n - ddof)


@implements(np.std)
def std(x: TensorLike, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False,
        correction: float | None = None) -> Tensor:
    """Standard deviation over ``axis``: the root of ``var``, with its options.

    Where all elements are equal the gradient is taken as 0, one of the subgradients.
    """
    as_tensor("std", x)
    return root(var(x, axis, ddof=ddof, keepdims=keepdims, correction=correction))


@implements(np.linalg.norm)
def norm(x: TensorLike, ord: float | Literal["fro"] | None = None, axis: Axis = None,
         keepdims: bool = False) -> Tensor:
    """The norm over ``axis`` (None: of all elements; an int or several).

    ``ord`` None (or 2 for one axis, "fro" for two): √Σ x², with the gradient 0 at x = 0, one of its
    subgradients. For one axis (or x of one axis): 1, ∞, −∞, 0 (how many are not 0; no gradient),
    or another p: (Σ |x|ᵖ)^(1/p). For two axes ±1 and ±∞: the largest (smallest) sum of |x| over
    columns or rows. ValueError for the others (2, −2, "nuc": they need singular values).
    """
    x = as_real("norm", x)
    axes = axes_in("norm", x, axis)
    if ord is None or ord == "fro" and len(axes) == 2 or ord == 2 and len(axes) == 1:
        return root(np.sum(x * x, axis=axes, keepdims=keepdims))
    if not is_number(ord) or len(axes) > 2 or len(axes) == 2 and abs(ord) not in (1, math.inf):
        raise ValueError(f"norm: x {x.shape}, ord {shown(ord)}, axis {axis}; expected None, a "
                         "number for one axis, or 'fro', ±1, ±inf for two")
    size = np.abs(x)
    extreme = np.max if ord > 0 else np.min
    if len(axes) == 2:
        rows, columns = axes if abs(ord) == 1 else axes[::-1]
        sums = np.sum(size, axis=rows, keepdims=True)
        y = extreme(sums, axis=columns, keepdims=True)
        return y if keepdims else np.squeeze(y, axes)
    if math.isinf(ord):
        return extreme(size, axis=axes, keepdims=keepdims)
    if ord == 0:
        return as_tensor("norm", np.sum(plain(x) != 0, axis=axes, keepdims=keepdims, dtype=x.dtype))
    if ord == 1:
        return np.sum(size, axis=axes, keepdims=keepdims)
    return np.sum(size ** ord, axis=axes, keepdims=keepdims) ** (1 / ord)


@implements(np.median)
def median(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Median over ``axis`` (None: of all), of an even number of elements the mean of the middle
    two (PyTorch takes the lower one). Among equals the gradient goes to the first in order."""
    return quantile_of("median", x, 0.5, axis, keepdims)


@implements(np.quantile)
def quantile(x: TensorLike, q: float | Sequence[float] | Array, axis: Axis = None,
             keepdims: bool = False) -> Tensor:
    """The elements below which the shares ``q`` (a number, or a list) lie, between two of them by
    linear interpolation; several q become the first axis. NaN if there is one."""
    return quantile_of("quantile", x, q, axis, keepdims)


@implements(np.percentile)
def percentile(x: TensorLike, q: float | Sequence[float] | Array, axis: Axis = None,
               keepdims: bool = False) -> Tensor:
    """``quantile`` with ``q`` in percent."""
    return quantile_of("percentile", x, q, axis, keepdims, 100)


def quantile_of(op, x, q, axis, keepdims, whole=1):
    """The quantiles q/whole of x."""
    rows, axes = axes_last(op, as_tensor(op, x), axis)
    several = isinstance(q, (list, tuple, np.ndarray)) and np.ndim(q)
    shares = list(q) if several else [q]
    if not all(is_number(share) and 0 <= share <= whole for share in shares):
        raise ValueError(f"{op}: q is {shown(q)}; expected numbers from 0 to {whole}")
    n = rows.shape[-1]
    if n == 0:
        raise ValueError(f"{op}: x {x.shape}, axis {axis}; expected at least one element along it")
    ordered, found = sort(rows, axis=-1), []
    unknown = np.isnan(plain(ordered)[..., -1])        # NaN is sorted to the end
    for share in shares:
        position = float(share) / whole * (n - 1)
        low = math.floor(position)
        y = ordered[..., low]
        if position > low:
            y = y + (ordered[..., low + 1] - y) * (position - low)
        found.append(kept_axes(np.where(unknown, math.nan, y), axes, keepdims))
    return np.stack(found) if several else found[0]


@implements(np.average)
def average(x: TensorLike, axis: Axis = None, weights: TensorLike | None = None,
            keepdims: bool = False) -> Tensor:
    """Σ w x / Σ w over ``axis``; ``weights`` of x's shape, or of one axis; None: the mean."""
    x = as_tensor("average", x)
    axes = axes_in("average", x, axis)
    if weights is None:
        return np.mean(x, axis=axes, keepdims=keepdims)
    if isinstance(weights, (list, tuple)):
        weights = to_device(np.asarray(weights, x.dtype))
    weights = as_tensor("average", weights)
    if weights.shape != x.shape:
        if len(axes) != 1 or weights.shape != (x.shape[axes[0]],):
            raise ValueError(f"average: x {x.shape}, axis {axis}, weights {weights.shape}; "
                             "expected x's shape, or one for each element along one axis")
        shape = tuple(n if a == axes[0] else 1 for a, n in enumerate(x.shape))
        weights = np.broadcast_to(np.reshape(weights, shape), x.shape)
    return (np.sum(x * weights, axis=axes, keepdims=keepdims)
            / np.sum(weights, axis=axes, keepdims=keepdims))


@implements(np.ptp)
def ptp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest minus the smallest element over ``axis``."""
    x = as_tensor("ptp", x)
    return np.max(x, axis=axis, keepdims=keepdims) - np.min(x, axis=axis, keepdims=keepdims)


@implements(np.nansum)
def nansum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` without the NaNs, whose gradient is 0."""
    x = as_tensor("nansum", x)
    return np.sum(np.where(np.isnan(x), 0, x), axis=axis, keepdims=keepdims)


@implements(np.nanmean)
def nanmean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` without the NaNs, whose gradient is 0; NaN where there is nothing else."""
    x = as_tensor("nanmean", x)
    known = np.sum(~np.isnan(x), axis=axis, keepdims=keepdims, dtype=x.dtype)
    return nansum(x, axis, keepdims) / known


NUMPY_FUNCTIONS |= {np.amax: max, np.amin: min}
