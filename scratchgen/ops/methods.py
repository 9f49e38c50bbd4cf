"""What a tensor does by a method: one table, name → function of the tensor.

``t.mean(axis=0)`` is ``sg.mean(t, axis=0)``. Names are NumPy's; where PyTorch has another name for
the same thing, that one works too, unless the two libraries mean different things by it.
"""

import functools
import inspect

import numpy as np

from ..engine.memory import to_host
from ..engine.other_names import unknown_option
from ..engine.tensor import Tensor
from ..errors import UserError
from . import (
    elementwise,
    functions,
    joining,
    products,
    reduce,
    running,
    selection,
    shape,
    statistics,
    values,
)
from .axes import lengths
from .dense import matmul
from .op import OPS

# --- those with arguments of their own -----------------------------------------------------------

def reshape(x, *shape):
    """The same elements in another shape: a tuple or several numbers, one of which may be −1."""
    return OPS["reshape"].apply(x, shape=shape[0] if len(shape) == 1 else shape)


def transpose(x, *axes):
    """Axes in another order: ``t.transpose(2, 0, 1)``; reversed if none are given.

    Two axes of a tensor that has more are an error: PyTorch exchanges them, ``t.swapaxes(a, b)``.
    """
    axes = axes[0] if len(axes) == 1 else axes
    if isinstance(axes, tuple) and len(axes) == 2 < x.ndim:
        raise ValueError(f"transpose: x {x.shape}, axes {axes}; expected every axis once, or write "
                         f"t.swapaxes{axes} to exchange two")
    return np.transpose(x, axes if axes != () else None)


def flatten(x, start=0):
    """All elements in one row; with ``start`` the axes before it stay: ``t.flatten(1)`` is (N, …)
    as (N, product of the rest), as ``sg.flatten``."""
    start = shape.axis_of("flatten", x, start) if x.ndim or start else 0
    return np.reshape(x, (*x.shape[:start], lengths(x, range(start, x.ndim))))


def expand(x, *sizes):
    """x repeated to a shape, in which −1 leaves an axis as it is."""
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    old = (None,) * (len(sizes) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(o if n == -1 else n for n, o in zip(sizes, old, strict=False)))


def clip(x, min=None, max=None):
    """x limited to [min, max]; None: no limit there."""
    return elementwise.clip(x, min, max)


def split(x, sections, axis=0):
    """A list of parts along ``axis``: a number of equal ones, or the indices where to cut.

    (PyTorch's number is the length of a part.)"""
    return shape.split(x, sections, axis)


def masked_select(x, mask):
    """The elements where the mask is True, in one row."""
    return x[mask]


def index_select(x, axis, indices):
    """The slices along ``axis`` at the indices."""
    return selection.take(x, indices, axis)


def tolist(x):
    """The elements as nested lists of Python numbers."""
    return to_host(x.data).tolist()


def matrix_transpose(x):
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise UserError(f"mT of shape {x.shape}: expected a tensor of at least 2 axes")
    return np.swapaxes(x, -1, -2)


# --- Python's own functions and operators --------------------------------------------------------

def to_float(x):
    """float(t), of one element."""
    x.refuse_many("float()")
    return float(x.data.item())


def to_int(x):
    """int(t), of one element: cut towards 0."""
    x.refuse_many("int()")
    return int(x.data.item())


def to_index(x):
    """t as the index of a list: one whole number, of an integer dtype."""
    if x.size != 1 or x.dtype.kind not in "iu":
        raise TypeError(f"a tensor {x.dtype}{x.shape} as an index: expected one whole number; "
                        "write int(t)")
    return x.data.item()


def rounded(x, digits=None):
    """round(t, digits), of one element, as a Python number. (``t.round(digits)`` is an array.)"""
    x.refuse_many("round()")
    return round(x.data.item(), digits)


def formatted(x, spec):
    """f"{t:.4f}", of one element."""
    if not spec:
        return str(x)
    x.refuse_many(f"the format {spec!r}")
    return format(x.data.item(), spec)


def contains(x, value):
    """``value in t``: whether an element equals it."""
    return bool(values.any(np.equal(x, value)))


# --- the table -----------------------------------------------------------------------------------

PYTHON = {"__float__": to_float, "__int__": to_int, "__index__": to_index, "__round__": rounded,
          "__format__": formatted, "__contains__": contains}
METHODS = {
    "reshape": reshape, "view": reshape, "transpose": transpose, "permute": transpose,
    "flatten": flatten, "ravel": joining.ravel, "expand": expand, "clip": clip, "clamp": clip,
    "split": split, "masked_select": masked_select, "index_select": index_select,
    "tolist": tolist, "expand_dims": shape.expand_dims, "unsqueeze": shape.expand_dims,
    "dot": products.dot, "matmul": matmul, "mm": matmul, "bmm": matmul,
    "pow": elementwise.Pow.apply, "masked_fill": selection.masked_fill,
    **{name: getattr(module, name) for module, names in (
        (reduce, "sum mean max min logsumexp softmax log_softmax"),
        (running, "prod cumsum cumprod diff"),
        (statistics, "var std norm median quantile ptp nansum nanmean"),
        (selection, "take gather sort diagonal diag tril triu"),
        (products, "trace outer inner"), (joining, "repeat tile roll moveaxis"),
        (shape, "squeeze swapaxes broadcast_to flip"),
        (values, "argmax argmin argsort any all nonzero count_nonzero sign floor ceil round trunc "
                 "isnan isfinite isinf searchsorted"),
        (functions, "reciprocal")) for name in names.split()},
    **{op.name: op.apply for op in (
        elementwise.Exp, elementwise.Log, elementwise.Log1p, elementwise.Expm1, elementwise.Sqrt,
        elementwise.Square, elementwise.Abs, elementwise.Sigmoid, elementwise.Tanh,
        elementwise.Relu, elementwise.Maximum, elementwise.Minimum, functions.Sin, functions.Cos,
        functions.Tan, functions.Log2, functions.Log10)},
}


def method(name, function):
    """The function as a method; an option that it does not have ends in one sentence."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:                                 # of NumPy's, written in C
        parameters = ()
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known -= {p.name for p in list(parameters)[:1]}

    @functools.wraps(function)
    def call(self, *args, **options):
        if options and not options.keys() <= known:
            raise unknown_option(f"t.{name}()", options, known)
        return function(self, *args, **options)

    call.__name__ = call.__qualname__ = name
    return call


for name, function in METHODS.items():
    setattr(Tensor, name, method(name, function))
for name, function in PYTHON.items():
    setattr(Tensor, name, function)
Tensor.mT = property(matrix_transpose)
