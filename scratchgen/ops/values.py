"""Functions with piecewise constant results, such as indices and truth values: no gradient.

They are NumPy's (on a GPU CuPy's), computed on the data: what comes out is a plain array or number.
"""

import functools
from typing import Any, Literal

import numpy as np

from ..engine.backend import backend
from ..engine.memory import to_device
from ..engine.tensor import NUMPY_FUNCTIONS, plain
from ..engine.types import Array, Axis, TensorLike

__all__ = ["argmax", "argmin", "argsort", "any", "all", "nonzero", "count_nonzero", "allclose",
           "isclose", "array_equal", "searchsorted", "sign", "floor", "ceil", "trunc", "isnan",
           "isfinite", "isinf", "round"]

YES_OR_NO = {np.allclose, np.array_equal, np.array_equiv}          # arrays from CuPy


def arrays(value):
    """The arrays behind an argument's tensors, in lists and tuples too, where the backend's lie."""
    if isinstance(value, (list, tuple)):
        return type(value)(arrays(v) for v in value)
    value = plain(value)
    return to_device(value) if isinstance(value, np.ndarray) and backend() == "cuda" else value


def of_values(function):
    """NumPy's function for tensors: computed on their data. Registered for NumPy's calls too."""
    @functools.wraps(function)
    def computed(*args, **options):
        given = arrays(args), {name: arrays(v) for name, v in options.items()}
        try:
            y = function(*given[0], **given[1])
        except TypeError as error:
            raise unfit(function, given, error) from error
        return bool(y) if function in YES_OR_NO else y

    computed.__module__, computed.__qualname__ = __name__, function.__name__
    computed.__doc__ = f"NumPy's ``{function.__name__}`` of the data: plain values, no gradient."
    NUMPY_FUNCTIONS[function] = computed
    return computed


def unfit(function, given, error):
    """The error for arguments that NumPy's function does not take."""
    dtypes = [str(x.dtype) for x in given[0] if hasattr(x, "dtype")]
    if isinstance(error, np.exceptions.DTypePromotionError) or "ufunc" in str(error):
        return TypeError(f"{function.__name__} of {' and '.join(dtypes) or 'these'}: expected real "
                         "numbers, as a tensor or an array: sg.tensor(data)")
    return TypeError(f"{function.__name__}: {' '.join(str(error).split())}; expected NumPy's "
                     "arguments")


for function in (np.argmax, np.argmin, np.argsort, np.any, np.all, np.nonzero, np.count_nonzero,
                 np.allclose, np.isclose, np.array_equal, np.searchsorted, np.sign, np.floor,
                 np.ceil, np.round, np.trunc, np.isnan, np.isfinite, np.isinf, np.around, np.fix,
                 np.argwhere, np.flatnonzero, np.array_equiv, np.digitize, np.bincount,
                 np.histogram, np.isin, np.shape, np.ndim, np.size, np.isreal, np.iscomplexobj,
                 np.isrealobj, np.result_type, np.may_share_memory, np.shares_memory,
                 np.array_repr, np.array_str, np.array2string, np.lexsort, np.nanargmax,
                 np.nanargmin, np.isposinf, np.isneginf, np.signbit, np.heaviside, np.floor_divide,
                 np.logical_xor, np.argpartition):
    of_values(function)


def of_data(function, *args, **options):
    """NumPy's function of the data; options that are None or False are left out, for CuPy does not
    have all of them."""
    return NUMPY_FUNCTIONS[function](*args, **{name: value for name, value in options.items()
                                               if value is not None and value is not False})


# --- public functions ----------------------------------------------------------------------------

def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Array:
    """The index of the largest element along ``axis`` (None: among all, in C order)."""
    return of_data(np.argmax, x, axis=axis, keepdims=keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Array:
    """The index of the smallest element along ``axis`` (None: among all, in C order)."""
    return of_data(np.argmin, x, axis=axis, keepdims=keepdims)


def argsort(x: TensorLike, axis: int | None = -1, kind: Literal["stable"] | None = None) -> Array:
    """The indices that sort x along ``axis`` (None: all elements, in one row)."""
    return NUMPY_FUNCTIONS[np.argsort](x, axis, **({"kind": kind} if kind else {}))


def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether any element over ``axis`` (None: of all) is True, or not 0."""
    return of_data(np.any, x, axis=axis, keepdims=keepdims)


def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether all elements over ``axis`` (None: of all) are True, or not 0."""
    return of_data(np.all, x, axis=axis, keepdims=keepdims)


def nonzero(x: TensorLike) -> tuple[Array, ...]:
    """The indices of the elements that are not 0, one array for each axis."""
    return of_data(np.nonzero, x)


def count_nonzero(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Any:
    """How many elements over ``axis`` (None: of all) are not 0."""
    return of_data(np.count_nonzero, x, axis=axis, keepdims=keepdims)


def allclose(a: TensorLike, b: TensorLike, rtol: float = 1e-5, atol: float = 1e-8,
             equal_nan: bool = False) -> bool:
    """Whether all elements are close: |a − b| <= ``atol`` + ``rtol``·|b|."""
    return of_data(np.allclose, a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)


def isclose(a: TensorLike, b: TensorLike, rtol: float = 1e-5, atol: float = 1e-8,
            equal_nan: bool = False) -> Array:
    """Element by element, whether |a − b| <= ``atol`` + ``rtol``·|b|."""
    return of_data(np.isclose, a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)


def array_equal(a: TensorLike, b: TensorLike, equal_nan: bool = False) -> bool:
    """Whether the shapes and all elements are equal."""
    return of_data(np.array_equal, a, b, equal_nan=equal_nan)


def searchsorted(x: TensorLike, v: TensorLike, side: Literal["left", "right"] = "left",
                 sorter: TensorLike | None = None) -> Array:
    """Where each of ``v`` would be inserted in x (ascending, or with the order ``sorter``)."""
    return of_data(np.searchsorted, x, v, side=side, sorter=sorter)


def sign(x: TensorLike) -> Array:
    """−1, 0 or 1, by the sign of each element."""
    return of_data(np.sign, x)


def floor(x: TensorLike) -> Array:
    """The largest whole number that is not above each element."""
    return of_data(np.floor, x)


def ceil(x: TensorLike) -> Array:
    """The smallest whole number that is not below each element."""
    return of_data(np.ceil, x)


def trunc(x: TensorLike) -> Array:
    """Each element without its fraction."""
    return of_data(np.trunc, x)


def isnan(x: TensorLike) -> Array:
    """Whether each element is NaN."""
    return of_data(np.isnan, x)


def isfinite(x: TensorLike) -> Array:
    """Whether each element is neither infinite nor NaN."""
    return of_data(np.isfinite, x)


def isinf(x: TensorLike) -> Array:
    """Whether each element is infinite."""
    return of_data(np.isinf, x)


def round(x: TensorLike, decimals: int = 0) -> Array:
    """Each element rounded to ``decimals`` places; halves go to the even neighbour."""
    return of_data(np.round, x, decimals)
