"""Tensor: an array with the graph of its computation.

A tensor wraps an array (``data``) of NumPy or, on a GPU, of CuPy. Formulas use NumPy's functions:
NumPy passes every call with a tensor to this class (protocols NEP 13 and NEP 18), which finds the
op of that function, computes it on the arrays and records it. ``np.exp(x) @ w + b`` therefore works
for arrays and for tensors, and one formula serves as documentation, as reference and as
differentiable code.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..errors import UserError
from .backward import Leaf, run_backward
from .copies import Copied
from .in_place import InPlace, plain, share
from .memory import (
    ARRAYS,
    ONE_REFERENCE,
    constant_to_device,
    contiguous,
    copy_into,
    lasting_copy,
    native,
    real_numbers,
    to_device,
    to_host,
)
from .numpy_calls import PLAIN_UFUNCS, call, no_derivative, on_values
from .other_names import RETAIN, TENSOR, missing

if TYPE_CHECKING:
    from ..ops.methods import TensorMethods
    from .types import Array, DType, TensorLike
else:
    class TensorMethods(NDArrayOperatorsMixin):
        """NumPy's operators, and the methods that ``ops/methods.py`` adds."""

        __slots__ = ()

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NUMPY_FUNCTIONS = {}                  # NumPy function -> our function; filled as ops are defined


class Tensor(Copied, InPlace, TensorMethods):
    """An array with a gradient.

    ``data``           the ndarray, of NumPy or (backend "cuda") of CuPy
    ``grad``           None, or the accumulated gradient: a tensor of the same shape and dtype
    ``requires_grad``  whether gradients flow to or through it

    ``Tensor(array)`` wraps the array without a copy: changing the array changes the tensor, and the
    backward pass does not detect it. ``sg.tensor(array)`` copies.
    """

    __slots__ = ("data", "grad", "node", "changes", "grad_buffer", "alias", "__weakref__")

    grad: Tensor | None

    def __init__(self, data: Array, node: Any = None):
        self.data, self.node, self.grad, self.grad_buffer, self.alias = data, node, None, None, None
        self.changes = [0]            # counts in-place changes; shared with views

    # --- properties -------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def is_leaf(self) -> bool:
        return not self.requires_grad or isinstance(self.node, Leaf)

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            raise UserError("requires_grad of a computed tensor cannot be changed; "
                            "use detach() for a constant with the same data")
        if wanted == self.requires_grad:
            return                    # a new leaf would be cut off from graphs that use this one
        if wanted and self.dtype not in FLOATS:
            raise UserError(f"a tensor of {self.dtype} cannot require a gradient; "
                            "make it float32 or float64")
        self.node = Leaf(self) if wanted else None

    def numpy(self) -> Array:
        """The array, sharing memory; read-only if gradients flow through it. From a GPU: a copy."""
        if type(self.data) is not np.ndarray:
            return to_host(self.data)
        view = self.data.view()
        view.flags.writeable = not self.requires_grad and self.data.flags.writeable
        return view

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number."""
        self.refuse_many("item()")
        return self.data.item()

    def refuse_many(self, what):
        """UserError unless there is exactly one element."""
        if self.size != 1:
            raise UserError(f"{what} of shape {self.shape}: expected a tensor of one element; "
                            "reduce it first, or write t.numpy()")

    def detach(self) -> Tensor:
        """A constant that shares the data."""
        constant = Tensor(self.data)
        share(self, constant)
        return constant

    def copy(self) -> Tensor:
        """A constant with its own data."""
        return Tensor(self.data.copy())

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise TypeError("this tensor is part of a graph, and an array would drop its gradient; "
                            "write t.numpy() if that is meant")
        return np.array(to_host(self.data), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        body = np.array2string(to_host(self.data), separator=", ", prefix="tensor(")
        return f"tensor({body}, dtype={self.dtype}{grad})"

    __hash__ = object.__hash__        # the mixin's == is elementwise

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    if not TYPE_CHECKING:              # a type checker would take any name for one that exists
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            raise missing("a tensor", name, TENSOR, dir(type(self)))

    # --- differentiation --------------------------------------------------------------------

    def backward(self, gradient: TensorLike | None = None, create_graph: bool = False,
                 retain_graph: bool = False) -> None:
        """Add d self / d leaf to ``leaf.grad`` for every leaf that requires a gradient.

        ``gradient`` (same shape) weighs the elements; it may be left out for a single element.
        ``create_graph=True`` keeps the graph, and makes the gradients a part of one.
        """
        if retain_graph and not create_graph:
            raise UserError(RETAIN)
        if not self.requires_grad:
            raise RuntimeError("backward() on a tensor that no gradient flows through; was it "
                               "computed from tensors with requires_grad=True, outside no_grad?")
        run_backward([self.node], [seed_for(self, gradient, create_graph)], create_graph)

    def store_gradient(self, gradient):
        """Store a copy of a gradient, in the network's buffer if there is one.

        A copy, because two leaves may receive the same array.
        """
        data, node = plain(gradient), getattr(gradient, "node", None)
        if self.grad is not None:
            self.grad.changes[0] += 1
        if self.grad_buffer is None:
            data = lasting_copy(to_device(data))
        else:
            if data is not self.grad_buffer:          # it may have been computed there
                copy_into(self.grad_buffer, data)
            data = self.grad_buffer
        set_grad(self, Tensor(data, node))

    def gradient_is_referenced(self):
        """Whether its gradient, or the array of it, is referenced elsewhere."""
        known = ONE_REFERENCE + (self.grad.data is self.grad_buffer)
        return sys.getrefcount(self.grad) > ONE_REFERENCE or sys.getrefcount(self.grad.data) > known

    # --- NumPy's protocols ------------------------------------------------------------------

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method == "__call__" and not options:
            if out is not None and isinstance(out[0], Tensor):
                return out[0].change(ufunc, inputs)
            if out is not None and not any(
                    isinstance(x, Tensor) and x.requires_grad for x in inputs):
                return ufunc(*map(plain, inputs), out=out)
            if out is not None:
                raise TypeError(f"np.{ufunc.__name__} of a tensor cannot be written into an array, "
                                "which has no gradient; write t.numpy() if that is meant")
            if ufunc in PLAIN_UFUNCS:
                return on_values(ufunc, [plain(x) for x in inputs])
            if ufunc in NUMPY_FUNCTIONS:
                return NUMPY_FUNCTIONS[ufunc](*inputs)
        raise no_derivative(ufunc, method)

    def __array_function__(self, function, types, args, options):
        if function not in NUMPY_FUNCTIONS:
            raise no_derivative(function)
        return call(function, NUMPY_FUNCTIONS[function], args, options)

    def with_item(self, index, value):
        """A new tensor with the values of this one after ``t[index] = value``."""
        return NUMPY_FUNCTIONS[operator.setitem](self, index, value)

    # --- indexing; the other methods are in methods.py --------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return NUMPY_FUNCTIONS[operator.getitem](self, index)

    @property
    def T(self) -> Tensor:
        return NUMPY_FUNCTIONS[np.transpose](self)

    def astype(self, dtype: DType) -> Tensor:
        """A constant in another precision (the graph ends here)."""
        return Tensor(self.data.astype(dtype))


set_grad = Tensor.__dict__["grad"].__set__        # without the checks of a subclass


def constant(x, dtype=None):
    """A tensor of an array or numbers, in the memory of the current backend; not copied.

    A tensor is returned as it is, unless another ``dtype`` is asked for.
    """
    if isinstance(x, Tensor) and dtype in (None, x.dtype):
        return x
    return Tensor(contiguous(to_device(plain(x), dtype)))


def tensor(data: TensorLike, requires_grad: bool = False, dtype: DType = None) -> Tensor:
    """A tensor from numbers, lists or arrays (copied).

    Arrays keep their dtype (in the machine's byte order); Python floats become float32 unless
    ``dtype`` says otherwise. UserError for what is no real number, for float16 and longdouble, and
    for lists of several lengths; TypeError for masked arrays.
    """
    data = plain(data)
    if isinstance(data, np.ndarray):
        data = native(data, "tensor()")
    try:
        array = data.astype(dtype or data.dtype, order="C") if type(data) in ARRAYS else np.array(
            data, dtype=dtype, order="C")
    except (ValueError, TypeError):
        given = "" if dtype is None else f" and the dtype {dtype!r}"
        raise UserError(f"a tensor cannot be made of this {type(data).__name__}{given}: expected "
                        "numbers, nested lists of one length (of tensors: sg.stack), and float32 "
                        "or float64") from None
    if array.dtype.kind not in "iub" and array.dtype not in FLOATS:
        raise UserError(f"a tensor holds real numbers, not {array.dtype}: give float32 or float64 "
                        "data, for example with data.astype(np.float32)")
    if dtype is None and array.dtype == np.float64 and not isinstance(
            data, (*ARRAYS, np.generic)):
        array = array.astype(np.float32)
    result = Tensor(to_device(array))
    if requires_grad:
        result.requires_grad = True
    return result


def seed_for(output, gradient, create_graph):
    """The gradient that a backward pass starts with: an array, or a tensor for create_graph."""
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(f"backward from a tensor of shape {output.shape} needs a gradient "
                               "of that shape; give one, or reduce it to one number first")
        # A constant: kept on the host even on a GPU, so that constant factors need no kernel.
        gradient = np.ones(output.shape, output.dtype)
        if output.ndim == 0 and not create_graph:
            return gradient
        gradient = constant_to_device(gradient)
    elif not isinstance(gradient, Tensor) and (type(gradient) is np.ndarray
                                               or type(gradient) not in ARRAYS):
        gradient = real_numbers(gradient, "the gradient for backward")
    array = gradient.data if isinstance(gradient, Tensor) else to_device(gradient, output.dtype)
    if array.shape != output.shape or array.dtype != output.dtype:
        raise RuntimeError(f"the gradient for an output {output.dtype}{output.shape} is "
                           f"{array.dtype}{array.shape}; they must be equal")
    if not create_graph:
        return array
    return gradient if isinstance(gradient, Tensor) else Tensor(array)
