"""Checks of the inputs of ops: numbers, arrays and their dtypes.

Which kinds of numbers fit is said in ``op.py``.
"""

import contextlib
from numbers import Real

import numpy as np

from ..engine.memory import ARRAYS, native, to_device
from ..engine.tensor import FLOATS, Tensor

PLAIN = (float, int, bool)
FAULTS = (ValueError, IndexError, TypeError, AttributeError, OverflowError)


def as_input(op, x):
    """An array where the backend's arrays lie, a list as an array, a scalar of NumPy as a number,
    which is as weak as Python's; TypeError for what is neither tensor, array nor number."""
    if isinstance(x, np.ndarray):
        return to_device(native(x, op.name))
    if isinstance(x, np.generic):
        x = x.item()
    if type(x) in PLAIN or isinstance(x, tuple(ARRAYS)) or x is None and op.optional:
        return x
    if isinstance(x, Real):                            # a Fraction, say
        return float(x)
    with contextlib.suppress(ValueError):              # of a ragged list
        if isinstance(x, (list, tuple)) and not any(isinstance(v, Tensor) for v in x):
            return to_device(native(np.asarray(x), op.name))
    raise TypeError(f"{op.name} of a {type(x).__name__}: expected {op.expects}, as a tensor, an "
                    "array or a number; make a tensor of it: sg.tensor(data)")


def only_arrays(op, **inputs):
    """TypeError unless each input, given by its name, is a tensor or an array of real numbers."""
    for name, x in inputs.items():
        if isinstance(x, Tensor) or type(x) in ARRAYS or isinstance(x, np.ndarray):
            array = native(x, op) if isinstance(x, np.ndarray) else x
            if array.dtype not in FLOATS and array.dtype.kind not in "iub":
                raise TypeError(f"{op}: {name} is of dtype {x.dtype}; expected real numbers, "
                                "float32 or float64: x.astype(np.float32)")
        else:
            raise TypeError(f"{op}: {name} is a {type(x).__name__}; expected a tensor or an array: "
                            "sg.tensor(data)")


def unfit(op, arrays, options, error):
    """The error for inputs that an op cannot compute with: their shapes, why, what was expected.

    NumPy's word for it becomes a part of the sentence; IndexError stays IndexError, else the kind
    is ValueError or TypeError.
    """
    shapes = ", ".join(str(np.shape(a)) for a in arrays if a is not None)
    given = "".join(f", {name} {value!r}" for name, value in options.items())
    reason = " ".join(str(error).split()).rstrip(".")
    kind = next((k for k in (ValueError, IndexError) if isinstance(error, k)), TypeError)
    if isinstance(error, OverflowError) or "integer powers" in reason:     # no matter of shapes
        found = " and ".join(str(getattr(a, "dtype", a)) for a in arrays)
        return kind(f"{op.name} of {found}: {reason[:300]}; make the array one of real numbers, "
                    "with x.astype(np.float32)")
    return kind(f"{op.name} of shapes {shapes}{given}: {reason[:300]}; expected {op.expects}")


def kind_of(result):
    """The kind of number of an op's result."""
    y = result[0] if isinstance(result, tuple) else result
    return getattr(y, "dtype", np.asarray(y).dtype if type(y) in PLAIN else None).kind


def in_default(result):
    """An op's result in float32, where it is in float64."""
    if isinstance(result, tuple):
        return tuple(in_default(r) for r in result)
    if isinstance(result, float):
        return np.float32(result)
    if getattr(result, "dtype", None) != np.float64:
        return result
    with np.errstate(over="ignore"):                   # too large for float32: infinite
        return result.astype(np.float32)


def wrong_dtype(op, dtype):
    """The error for an unsupported kind of numbers."""
    return TypeError(f"{op.name} of {dtype}: expected {op.expects}, of dtype float32 or float64; "
                     "convert with x.astype(np.float32)")


def mixed_precision(op, arrays):
    """The error for two floating-point precisions in one call."""
    found = sorted({str(a.dtype) for a in arrays if type(a) in ARRAYS and a.dtype.kind in "fiu"})
    return TypeError(f"{op.name} of {' and '.join(found)}: all must have one precision; convert "
                     "with x.astype(np.float32) or np.float64")
