"""Functions whose result is a place, an answer or piecewise constant: no gradient flows through.

They are NumPy's (on a GPU CuPy's), computed on the data: what comes out is a plain array or number.
"""

import functools

import numpy as np

from ..engine.backend import backend
from ..engine.memory import to_device
from ..engine.tensor import NUMPY_FUNCTIONS, plain

PUBLIC = ("argmax", "argmin", "argsort", "any", "all", "nonzero", "count_nonzero", "allclose",
          "isclose", "array_equal", "sign", "floor", "ceil", "round", "trunc", "isnan", "isfinite",
          "isinf", "searchsorted")


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


argmax, argmin, argsort = of_values(np.argmax), of_values(np.argmin), of_values(np.argsort)
any, all = of_values(np.any), of_values(np.all)
nonzero, count_nonzero = of_values(np.nonzero), of_values(np.count_nonzero)
allclose, isclose = of_values(np.allclose), of_values(np.isclose)
array_equal, searchsorted = of_values(np.array_equal), of_values(np.searchsorted)
sign, floor, ceil = of_values(np.sign), of_values(np.floor), of_values(np.ceil)
round, trunc = of_values(np.round), of_values(np.trunc)
isnan, isfinite, isinf = of_values(np.isnan), of_values(np.isfinite), of_values(np.isinf)

for function in (np.around, np.fix, np.argwhere, np.flatnonzero, np.array_equiv, np.digitize,
                 np.bincount, np.histogram, np.isin, np.shape, np.ndim, np.size, np.isreal,
                 np.iscomplexobj, np.isrealobj, np.result_type, np.may_share_memory,
                 np.shares_memory, np.array_repr, np.array_str, np.array2string, np.lexsort,
                 np.nanargmax, np.nanargmin, np.isposinf, np.isneginf, np.signbit, np.heaviside,
                 np.floor_divide, np.logical_xor, np.argpartition):
    of_values(function)
