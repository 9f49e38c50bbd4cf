"""Calls of NumPy's functions with tensors: translation into calls of the ops.

NumPy has other names for some options (``np.clip(t, a_min=0, a_max=1)``), and options that the ops
do not have. An unsupported option raises an error, unless it has its default value.
"""

import functools
import inspect
import operator

import numpy as np

from .backend import backend
from .memory import to_device, to_host

OURS = {"a_min": "min", "a_max": "max", "newshape": "shape",
        "pad_width": "widths", "indices_or_sections": "sections", "fill_value": "value",
        "axis1": "a", "axis2": "b"}
PLAIN_UFUNCS = {                      # piecewise constant: computed on the data, a plain array
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.sign,
    np.floor, np.ceil, np.rint, np.isnan, np.isfinite, np.isinf, np.logical_not, np.logical_and,
    np.logical_or}
COMPARISONS = {np.equal: operator.eq, np.not_equal: operator.ne}      # they accept any type


def on_values(ufunc, inputs):
    """A ufunc without a derivative, of arrays and numbers."""
    if backend() == "cuda":
        inputs = [to_device(x) if isinstance(x, np.ndarray) else x for x in inputs]
        if ufunc in COMPARISONS and any(isinstance(x, (str, bytes, type(None))) for x in inputs):
            inputs = [to_host(x) for x in inputs]         # CuPy accepts numbers only
    try:
        return COMPARISONS.get(ufunc, ufunc)(*inputs)
    except TypeError:
        kinds = " and ".join(str(getattr(x, "dtype", type(x).__name__)) for x in inputs)
        raise TypeError(f"np.{ufunc.__name__} of {kinds}: expected numbers") from None


def call(function, ours, args, options):
    """``ours`` for a call of NumPy's ``function``."""
    names, alike = parameters(ours)
    if len(args) > alike or options and names is not None and not options.keys() <= names:
        args, options = translated(function, ours, args, options)
    return ours(*args, **options)


@functools.cache
def parameters(function):
    """(Names of the options, None where they are NumPy's; how many arguments mean by their position
    what they do in NumPy)."""
    found = inspect.signature(function).parameters.values()
    if hasattr(function, "__wrapped__"):               # it has NumPy's own arguments
        return None, 100
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return frozenset(p.name for p in found if p.kind is p.KEYWORD_ONLY), 100
    by_position = [p for p in found if p.kind is not p.KEYWORD_ONLY]
    return frozenset(p.name for p in found), min(2, len(by_position))


@functools.cache
def signature(function):
    """Name → default of NumPy's function's parameters, in order; empty if it does not tell."""
    try:
        return {p.name: p.default for p in inspect.signature(function).parameters.values()}
    except ValueError:
        return {}


def translated(function, ours, args, options):
    """(args, options) for our function; TypeError for an unsupported option."""
    theirs, names = signature(function), parameters(ours)[0]
    order = list(theirs)
    if len(args) > 1 and theirs:
        options = {**dict(zip(order[1:], args[1:], strict=False)), **options}
        args = args[:1]
    if not args and order and order[0] in options:
        args = (options.pop(order[0]),)
    found = {}
    for name, value in options.items():
        here = name if name in names else OURS.get(name)
        if here in names:
            found[here] = value
        elif not is_default(value, theirs.get(name, np._NoValue)):
            known = ", ".join(list(inspect.signature(ours).parameters)[1:]) or "none"
            raise TypeError(f"np.{function.__name__} of a tensor has no option {name!r} ({known} "
                            "there are); for plain numbers write t.numpy()")
    return args, found


def is_default(value, default):
    """Whether an option has the meaning of its default."""
    return value is None or value is np._NoValue or type(value) is type(default) and (
        value == default)


def no_derivative(function, method="__call__"):
    """The error for an unsupported function, or method of a ufunc (``np.add.reduce``)."""
    module = getattr(function, "__module__", "numpy").removeprefix("numpy").removeprefix(".")
    name = f"np.{module + '.' if module in ('linalg', 'fft') else ''}{function.__name__}"
    name += "" if method == "__call__" else f".{method}"
    return TypeError(f"{name} has no derivative here; for plain numbers write t.numpy()")
