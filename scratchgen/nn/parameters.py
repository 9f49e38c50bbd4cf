"""Parameters and buffers, as modules declare them.

A module's parameters are the attributes that are a ``Parameter``, its buffers the arrays that were
assigned as a ``Buffer``. Other tensors and arrays in a module are neither.
"""

import sys

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..engine.capture import Captured
from ..engine.memory import ARRAYS, ONE_REFERENCE, copy_into
from ..engine.tensor import FLOATS, Tensor, plain, tensor
from ..errors import UserError

set_data, set_grad = Tensor.__dict__["data"].__set__, Tensor.__dict__["grad"].__set__


class Buffer:
    """Declares an array that is saved but not trained: ``self.mean = nn.Buffer(array)``.

    The attribute ``self.mean`` is then the array itself.
    """

    def __new__(cls, array: ArrayLike) -> np.ndarray:  # the type of the attribute
        return super().__new__(cls)

    def __init__(self, array):
        array = plain(array)
        self.array = array if type(array) in ARRAYS else np.array(array)


class Parameter(Tensor):
    """A tensor that a module trains: ``self.w = nn.Parameter(np.zeros((3, 2), np.float32))``.

    The data are copied; numbers and lists become float32. ``requires_grad = False`` freezes the
    parameter, now or later: optimisers do not update it, not even by momentum or weight decay, and
    gradient clipping ignores it.

    ``p.data = array`` copies the array into the parameter's memory; UserError for another shape or
    dtype. The backward pass of a graph that needs the old values then raises an error. A write to
    the bare array, ``p.data[...] = v``, is not detected: write ``p[...] = v`` inside ``no_grad``.

    ``p.grad`` may be kept: while other code references the gradient (the tensor, its array or a
    view), later backward passes, clipping and steps use other memory. A recorded step
    (``sg.capture`` on a GPU) always writes to the same memory.
    """

    __slots__ = ("pack",)                              # the ``Pack`` of its optimiser, or None
    declared = True

    def __init__(self, data: "Tensor | ArrayLike", requires_grad: bool = True,
                 dtype: DTypeLike | None = None) -> None:
        array = tensor(data, dtype=dtype).data
        if array.dtype not in FLOATS:
            raise UserError(f"a parameter of {array.dtype} cannot be trained; give float32 or "
                            "float64 numbers")
        set_data(self, array)
        self.node = self.grad_buffer = self.alias = self.pack = None
        self.changes = [0]
        set_grad(self, None)
        Tensor.requires_grad.fset(self, bool(requires_grad))

    def __setattr__(self, name, value):
        """Set an attribute; ``data`` by ``assign`` and ``grad`` by ``set_gradient``.

        They are no properties, so that reading them is as fast as reading any slot.
        """
        if name == "data":
            self.assign(value)
        elif name == "grad":
            self.set_gradient(value)
        else:
            object.__setattr__(self, name, value)

    def assign(self, value):
        """``p.data = value``: copy the value into the parameter's memory."""
        array, here = plain(value), self.data
        if array is not here:             # p.data *= 2 has already changed it in place
            if type(array) not in ARRAYS:
                array = np.asarray(array)
            if array.shape != here.shape or array.dtype != here.dtype:
                raise UserError(
                    f"the data of a parameter of {here.dtype}{here.shape} cannot become "
                    f"{array.dtype}{array.shape}; give an array of its shape and dtype "
                    f"(x.astype(np.{here.dtype})), or make a new layer and then its optimiser")
            copy_into(here, array)
        self.changes[0] += 1

    def set_gradient(self, gradient):
        """``p.grad = gradient``; a gradient buffer that other code references is not reused."""
        if gradient is not None and (not isinstance(gradient, Tensor)
                                     or gradient.data.shape != self.data.shape):
            raise UserError(f"the gradient of a parameter {self.data.shape} is None or a tensor of "
                            "its shape: p.grad = sg.tensor(array)")
        set_grad(self, gradient)
        if (gradient is None or gradient.data is not self.grad_buffer) and (
                sys.getrefcount(self.grad_buffer) > ONE_REFERENCE
                or self.pack is not None and self.pack.gradients_are_referenced()):
            self.grad_buffer = None
            if self.pack is not None:
                self.pack.incomplete = True

    def gradient_is_referenced(self):
        return super().gradient_is_referenced() or (
            self.pack is not None and self.pack.gradients_are_referenced())

    @property
    def requires_grad(self) -> bool:
        """Whether the parameter is trained; False: frozen."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted):
        before = self.node is not None
        Tensor.requires_grad.fset(self, bool(wanted))
        if (self.node is not None) != before:
            Captured.frozen ^= hash((id(self), "frozen"))


class ParameterList(list[Parameter]):
    """The parameters of ``network``, in order."""

    def __init__(self, parameters, network):
        super().__init__(parameters)
        self.network = network
