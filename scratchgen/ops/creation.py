"""Constant tensors made from a shape or a range, or like another tensor.

Their arrays are in the memory of the current backend. ``sg.tensor(data)`` creates one from numbers;
random ones are drawn by ``sg.Stream(seed, name).normal(shape)`` and ``.uniform(shape)``.
"""

import operator

import numpy as np

from ..engine.memory import array_module, to_device
from ..engine.tensor import Tensor, plain
from ..engine.types import DType, Shape, TensorLike
from ..errors import UserError, shown
from .elementwise import is_number
from .inputs import only_arrays
from .op import implements

__all__ = ["zeros", "ones", "full", "eye", "arange", "linspace", "zeros_like", "ones_like",
           "full_like"]

def zeros(*shape: Shape, dtype: DType = np.float32, requires_grad: bool = False) -> Tensor:
    """Zeros of ``shape``, a tuple or several numbers."""
    return made("zeros", shape, 0, dtype, requires_grad)


def ones(*shape: Shape, dtype: DType = np.float32, requires_grad: bool = False) -> Tensor:
    """Ones of ``shape``, a tuple or several numbers."""
    return made("ones", shape, 1, dtype, requires_grad)


def full(shape: Shape, value: float, dtype: DType = np.float32,
         requires_grad: bool = False) -> Tensor:
    """The number ``value`` everywhere."""
    return made("full", (shape,), value, dtype, requires_grad)


def eye(n: int, m: int | None = None, dtype: DType = np.float32,
        requires_grad: bool = False) -> Tensor:
    """The identity matrix (n, n), or the first m columns of one (n, m)."""
    n, m = shape_of("eye", (n, n if m is None else m))
    return as_leaf("eye", array_module().eye(n, m, dtype=dtype), requires_grad)


def arange(*bounds: float, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """NumPy's ``arange([start,] stop[, step])``: whole numbers of whole ones, else float32."""
    if not 1 <= len(bounds) <= 3 or not all(is_number(b) for b in bounds):
        raise UserError(f"arange: {bounds!r}; give one to three numbers: arange([start,] stop[, "
                        "step])")
    array = np.arange(*bounds)
    if dtype is None and array.dtype == np.float64:
        dtype = np.float32
    array = array if dtype is None else array.astype(dtype)
    return as_leaf("arange", to_device(array), requires_grad)


def linspace(start: float, stop: float, num: int = 50, dtype: DType = np.float32,
             requires_grad: bool = False) -> Tensor:
    """``num`` numbers from ``start`` to ``stop``, both included, at equal distances."""
    if not is_number(start) or not is_number(stop):
        raise UserError(f"linspace: from {start!r} to {stop!r}; give two numbers")
    num, = shape_of("linspace", (num,))
    array = np.linspace(start, stop, num).astype(dtype)
    return as_leaf("linspace", to_device(array), requires_grad)


@implements(np.zeros_like)
def zeros_like(x: TensorLike, dtype: DType = None, shape: Shape | None = None) -> Tensor:
    """Zeros of x's shape and dtype, a constant."""
    return like("zeros_like", x, 0, dtype, shape)


@implements(np.ones_like)
def ones_like(x: TensorLike, dtype: DType = None, shape: Shape | None = None) -> Tensor:
    """Ones of x's shape and dtype, a constant."""
    return like("ones_like", x, 1, dtype, shape)


@implements(np.full_like)
def full_like(x: TensorLike, value: float, dtype: DType = None,
              shape: Shape | None = None) -> Tensor:
    """The number ``value`` in x's shape and dtype, a constant."""
    return like("full_like", x, value, dtype, shape)


@implements(np.empty_like)
def empty_like(x: TensorLike, dtype: DType = None, shape: Shape | None = None) -> Tensor:
    """A constant of x's shape and dtype with unspecified values (zeros)."""
    return like("empty_like", x, 0, dtype, shape)


def like(op, x, value, dtype, shape):
    only_arrays(op, x=x)
    return made(op, (plain(x).shape if shape is None else shape,), value, dtype or x.dtype, False)


def made(op, shape, value, dtype, requires_grad):
    """A tensor of one number."""
    shape = shape_of(op, shape[0] if len(shape) == 1 else shape)
    if not is_number(value):
        raise UserError(f"{op}: the value is {shown(value)}; give a number")
    return as_leaf(op, array_module().full(shape, value, dtype), requires_grad)


def shape_of(op, shape):
    """A shape as a tuple of ints."""
    try:
        shape = tuple(operator.index(n) for n in (shape if isinstance(shape, (tuple, list))
                                                  else (shape,)))
    except TypeError:
        shape = (-1,)
    if min(shape, default=0) < 0:
        raise UserError(f"{op}: the shape is no tuple of whole numbers of at least 0; give one, "
                        f"such as {op}((2, 3))")
    return shape


def as_leaf(op, array, requires_grad):
    """The array as a tensor, of a dtype that tensors have."""
    if array.dtype.kind not in "fiub" or array.dtype == np.float16:
        raise UserError(f"{op}: the dtype is {array.dtype}; give np.float32 or np.float64")
    result = Tensor(array)
    if requires_grad:
        result.requires_grad = True
    return result
