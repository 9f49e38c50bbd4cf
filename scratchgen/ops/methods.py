"""The methods of tensors: the class ``TensorMethods`` lists them, name = function of the tensor.

Type checkers see it as a base of ``Tensor``; at run time its members are added to ``Tensor`` here,
since the engine does not import the ops.

``t.mean(axis=0)`` is ``sg.mean(t, axis=0)``. Names are NumPy's; where PyTorch has another name for
the same thing, that one works too, unless the two libraries mean different things by it.
"""

import functools
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.memory import to_host
from ..engine.other_names import unknown_option
from ..engine.tensor import Tensor
from ..engine.types import Array, Shape, TensorLike
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

def reshape(x: Tensor, *shape: Shape) -> Tensor:
    """The same elements in another shape: a tuple or several numbers, one of which may be −1."""
    return OPS["reshape"].apply(x, shape=shape[0] if len(shape) == 1 else shape)


def transpose(x: Tensor, *axes: Shape | None) -> Tensor:
    """Axes in another order: ``t.transpose(2, 0, 1)``; reversed if none are given.

    Two axes of a tensor that has more are an error: PyTorch exchanges them, ``t.swapaxes(a, b)``.
    """
    axes = axes[0] if len(axes) == 1 else axes
    if isinstance(axes, tuple) and len(axes) == 2 < x.ndim:
        raise ValueError(f"transpose: x {x.shape}, axes {axes}; expected every axis once, or write "
                         f"t.swapaxes{axes} to exchange two")
    return np.transpose(x, axes if axes != () else None)


def flatten(x: Tensor, start: int = 0) -> Tensor:
    """All elements in one row; with ``start`` the axes before it stay: ``t.flatten(1)`` is (N, …)
    as (N, product of the rest), as ``sg.flatten``."""
    start = shape.axis_of("flatten", x, start) if x.ndim or start else 0
    return np.reshape(x, (*x.shape[:start], lengths(x, range(start, x.ndim))))


def expand(x: Tensor, *sizes: Shape) -> Tensor:
    """x repeated to a shape, in which −1 leaves an axis as it is."""
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    old = (None,) * (len(sizes) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(o if n == -1 else n for n, o in zip(sizes, old, strict=False)))


def masked_select(x: Tensor, mask: TensorLike) -> Tensor:
    """The elements where the mask is True, in one row."""
    return x[mask]


def index_select(x: Tensor, axis: int, indices: TensorLike) -> Tensor:
    """The slices along ``axis`` at the indices."""
    return selection.take(x, indices, axis)


def tolist(x: Tensor) -> Any:
    """The elements as nested lists of Python numbers."""
    return to_host(x.data).tolist()


def matrix_transpose(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise UserError(f"mT of shape {x.shape}: expected a tensor of at least 2 axes")
    return np.swapaxes(x, -1, -2)


# --- Python's own functions and operators --------------------------------------------------------

def to_float(x: Tensor) -> float:
    """float(t), of one element."""
    x.refuse_many("float()")
    return float(x.data.item())


def to_int(x: Tensor) -> int:
    """int(t), of one element: cut towards 0."""
    x.refuse_many("int()")
    return int(x.data.item())


def to_index(x: Tensor) -> int:
    """t as the index of a list: one whole number, of an integer dtype."""
    if x.size != 1 or x.dtype.kind not in "iu":
        raise TypeError(f"a tensor {x.dtype}{x.shape} as an index: expected one whole number; "
                        "write int(t)")
    return x.data.item()


def rounded(x: Tensor, digits: int | None = None) -> Any:
    """round(t, digits), of one element, as a Python number. (``t.round(digits)`` is an array.)"""
    x.refuse_many("round()")
    return round(x.data.item(), digits)


def formatted(x: Tensor, spec: str) -> str:
    """f"{t:.4f}", of one element."""
    if not spec:
        return str(x)
    x.refuse_many(f"the format {spec!r}")
    return format(x.data.item(), spec)


def contains(x: Tensor, value: object) -> bool:
    """``value in t``: whether an element equals it."""
    return bool(values.any(np.equal(x, value)))


# --- the table -----------------------------------------------------------------------------------

class TensorMethods:
    """The methods of tensors: each is a function whose first argument is the tensor."""

    view = reshape
    reshape = reshape
    transpose = transpose
    permute = transpose
    flatten = flatten
    expand = expand
    masked_select = masked_select
    index_select = index_select
    tolist = tolist
    ravel = joining.ravel
    clip = elementwise.clip
    clamp = elementwise.clip
    split = shape.split
    expand_dims = shape.expand_dims
    unsqueeze = shape.expand_dims
    dot = products.dot
    matmul = matmul
    mm = matmul
    bmm = matmul
    pow = elementwise.pow
    masked_fill = selection.masked_fill
    sum = reduce.sum
    mean = reduce.mean
    max = reduce.max
    min = reduce.min
    logsumexp = reduce.logsumexp
    softmax = reduce.softmax
    log_softmax = reduce.log_softmax
    prod = running.prod
    cumsum = running.cumsum
    cumprod = running.cumprod
    diff = running.diff
    var = statistics.var
    std = statistics.std
    norm = statistics.norm
    median = statistics.median
    quantile = statistics.quantile
    ptp = statistics.ptp
    nansum = statistics.nansum
    nanmean = statistics.nanmean
    take = selection.take
    gather = selection.gather
    sort = selection.sort
    diagonal = selection.diagonal
    diag = selection.diag
    tril = selection.tril
    triu = selection.triu
    trace = products.trace
    outer = products.outer
    inner = products.inner
    repeat = joining.repeat
    tile = joining.tile
    roll = joining.roll
    moveaxis = joining.moveaxis
    squeeze = shape.squeeze
    swapaxes = shape.swapaxes
    broadcast_to = shape.broadcast_to
    flip = shape.flip
    argmax = values.argmax
    argmin = values.argmin
    argsort = values.argsort
    any = values.any
    all = values.all
    nonzero = values.nonzero
    count_nonzero = values.count_nonzero
    sign = values.sign
    floor = values.floor
    ceil = values.ceil
    round = values.round
    trunc = values.trunc
    isnan = values.isnan
    isfinite = values.isfinite
    isinf = values.isinf
    searchsorted = values.searchsorted
    reciprocal = functions.reciprocal
    sin = functions.sin
    cos = functions.cos
    tan = functions.tan
    log2 = functions.log2
    log10 = functions.log10
    exp = elementwise.exp
    log = elementwise.log
    log1p = elementwise.log1p
    expm1 = elementwise.expm1
    sqrt = elementwise.sqrt
    square = elementwise.square
    abs = elementwise.abs
    sigmoid = elementwise.sigmoid
    tanh = elementwise.tanh
    relu = elementwise.relu
    maximum = elementwise.maximum
    minimum = elementwise.minimum

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return matrix_transpose(self)

    __float__ = to_float
    __int__ = to_int
    __index__ = to_index
    __round__ = rounded
    __format__ = formatted
    __contains__ = contains

    if TYPE_CHECKING:                                  # the operators; NumPy's mixin makes them
        __add__ = elementwise.add
        __radd__ = elementwise.add
        __iadd__ = elementwise.add
        __sub__ = elementwise.subtract
        __rsub__ = elementwise.subtract
        __isub__ = elementwise.subtract
        __mul__ = elementwise.multiply
        __rmul__ = elementwise.multiply
        __imul__ = elementwise.multiply
        __truediv__ = elementwise.divide
        __rtruediv__ = elementwise.divide
        __itruediv__ = elementwise.divide
        __pow__ = elementwise.pow
        __rpow__ = elementwise.pow
        __ipow__ = elementwise.pow
        __mod__ = functions.remainder
        __rmod__ = functions.remainder
        __imod__ = functions.remainder
        __matmul__ = matmul
        __rmatmul__ = matmul
        __imatmul__ = matmul
        __neg__ = elementwise.negative
        __pos__ = elementwise.identity
        __abs__ = elementwise.abs
        def __lt__(self, value: Any) -> Array: ...
        def __le__(self, value: Any) -> Array: ...
        def __gt__(self, value: Any) -> Array: ...
        def __ge__(self, value: Any) -> Array: ...
        def __eq__(self, value: Any) -> Array: ...
        def __ne__(self, value: Any) -> Array: ...


def method(name, function):
    """The function as a method; an option that it does not have is a TypeError of one sentence."""
    parameters = list(inspect.signature(function).parameters.values())
    known = {p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    @functools.wraps(function)
    def call(self, *args, **options):
        if options and not options.keys() <= known:
            raise unknown_option(f"t.{name}()", options, known)
        return function(self, *args, **options)

    call.__name__ = call.__qualname__ = name
    return call


for name, member in vars(TensorMethods).items():
    if inspect.isfunction(member) and not name.startswith("__"):
        setattr(Tensor, name, method(name, member))
    elif inspect.isfunction(member) or isinstance(member, property):
        setattr(Tensor, name, member)
