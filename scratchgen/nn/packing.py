"""One contiguous buffer for all parameters of an optimiser, and one for their gradients.

The parameters' arrays are views of one buffer and the gradients' arrays views of another, so that
one kernel call updates the whole network.
"""

import copy
import sys
from typing import Any

import numpy as np

from ..engine.memory import ONE_REFERENCE, array_module, copy_into
from ..engine.recorded import owners
from ..engine.tensor import Tensor
from ..errors import UserError
from .parameters import Parameter, ParameterList, set_data, set_grad

NOTHING = np.zeros(())
ALIGNMENT = 16                          # elements: 64 bytes of float32, one cache line


def checked_parameters(given: Any) -> tuple[Any, list[Parameter]]:
    """The argument of an optimiser as (module or None, list of parameters).

    ``given`` is a module, the result of its ``parameters()``, or any list of parameters. UserError
    for anything else, for an empty list, and for a parameter that occurs twice.
    """
    if hasattr(given, "named_parameters"):
        given.check_declared()
        return given, given.parameters()
    if isinstance(given, Tensor) or not hasattr(given, "__iter__"):
        raise UserError(f"an optimiser of a {type(given).__name__}: expected a module, its "
                        "parameters(), or a list of parameters")
    found = list(given)
    for p in found:
        if not isinstance(p, Parameter):
            raise UserError(f"an optimiser was given a list with a {type(p).__name__} in it: "
                            "expected parameters only, made by nn.Parameter(array)")
    if not found:
        raise UserError("an optimiser was given no parameters (an empty list, or a generator that "
                        "has been used up): expected a module or a list of its parameters")
    if len({id(p) for p in found}) != len(found):
        raise UserError("an optimiser was given the same parameter twice: name each once")
    return (given.network if isinstance(given, ParameterList) else None), found


def aligned_offsets(sizes):
    """The aligned offsets of arrays of these sizes in one buffer, and the buffer's length."""
    ends = np.cumsum([0, *(-(-n // ALIGNMENT) * ALIGNMENT for n in sizes)]).tolist()
    return ends[:-1], ends[-1]


def packed(parameters):
    """The pack of exactly these parameters if there is one, else a new pack."""
    parameters = same_precision(parameters)
    pack = parameters[0].pack
    if pack is not None and len(pack.parameters) == len(parameters) and all(
            p is q and p.pack is pack for p, q in zip(parameters, pack.parameters, strict=True)):
        return pack
    return Pack(parameters)


def same_precision(parameters):
    """The parameters without frozen ones of another precision than the trained ones.

    UserError if the trained ones have different precisions.
    """
    trained = {p.dtype for p in parameters if p.requires_grad} or {parameters[0].dtype}
    if len(trained) > 1:
        raise UserError("an optimiser was given parameters of "
                        f"{' and '.join(sorted(map(str, trained)))}: expected one precision; make "
                        "an optimiser for each")
    return [p for p in parameters if p.dtype in trained]


class Pack:
    """Parameters whose values are views of ``data`` (P,), and their gradients of ``grads`` (P,).

    Each starts at a multiple of ALIGNMENT elements, so that kernels read aligned vectors; the
    padding between them stays 0. A parameter belongs to the pack that was made last.
    """

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.offsets, self.size = aligned_offsets([p.size for p in self.parameters])
        self.data = array_module().zeros(self.size, self.parameters[0].dtype)
        for p, view in zip(self.parameters, self.views(self.data), strict=True):
            copy_into(view, p.data)
            set_data(p, view)
            p.pack = self
            p.grad_buffer = None
        self.allocate_gradients()

    def __deepcopy__(self, memo):
        return Pack(copy.deepcopy(self.parameters, memo))

    def __reduce__(self):
        return Pack, (self.parameters,)

    def views(self, array):
        """One view of an array (P,) for each parameter, of the parameter's shape."""
        return [array[first:first + p.size].reshape(p.shape)
                for p, first in zip(self.parameters, self.offsets, strict=True)]

    def allocate_gradients(self):
        """Allocate a new ``grads`` and copy the present gradients into it.

        The old buffer remains with the code that references it.
        """
        owners.pop(id(getattr(self, "grads", None)), None)
        self.grads = array_module().zeros(self.size, self.data.dtype)
        owners[id(self.grads)] = self
        for p, view in zip(self.parameters, self.views(self.grads), strict=True):
            if p.grad is not None and p.grad.node is None:
                copy_into(view, p.grad.data)
                set_grad(p, Tensor(view))
            p.grad_buffer = view
        del view
        self.incomplete = False         # whether a parameter gave up its view of ``grads``
        self.references = sys.getrefcount(self.grads)

    def counted_array(self):
        """The array whose references are counted (``recorded.owners``)."""
        return self.grads

    def gradients_are_referenced(self):
        """Whether other code references ``grads`` or a view of it, or has taken over the view of a
        parameter."""
        return self.incomplete or sys.getrefcount(self.grads) > self.references

    def replace(self, old, new):
        """Replace the parameter ``old`` by ``new``, of the same shape and dtype."""
        i = next(i for i, p in enumerate(self.parameters) if p is old)
        copy_into(old.data, new.data)
        set_data(new, old.data)
        new.grad, new.pack, new.grad_buffer = None, self, old.grad_buffer
        set_data(old, old.data.copy())
        self.parameters[i], old.pack, old.grad_buffer = new, None, None
        set_grad(old, None)
        new.changes[0] += 1

    def clear_gradients(self):
        """Set all gradients to None; buffers that other code references are not reused."""
        referenced = self.gradients_are_referenced()
        for p in self.parameters:
            set_grad(p, None)
            if referenced or sys.getrefcount(p.grad_buffer) > ONE_REFERENCE:
                p.grad_buffer, self.incomplete = None, True

    def gather(self):
        """Complete ``grads``, with zeros where a parameter is frozen or has no gradient.

        Returns a tuple of bools, which parameters have a gradient; None if all have one.
        """
        for p in self.parameters:
            grad = p.grad
            if grad is None or p.node is None or p.pack is not self or (
                    grad.data is not p.grad_buffer):
                break
        else:
            return None
        del grad
        self.check_current()
        for p in self.parameters:
            if p.node is None and p.grad is not None and p.grad.data is p.grad_buffer:
                p.grad = Tensor(p.grad.data.copy())    # a frozen parameter's gradient is moved out
        if any(p.grad_buffer is None for p in self.parameters):
            self.allocate_gradients()
        for p in self.parameters:
            if p.node is None or p.grad is None:
                copy_into(p.grad_buffer, NOTHING)
            elif p.grad.data is not p.grad_buffer:     # made with create_graph, or assigned
                p.store_gradient(p.grad.data)
        active = tuple(p.node is not None and p.grad is not None for p in self.parameters)
        return None if all(active) else active

    def check_current(self):
        """UserError if a later optimiser has packed some of these parameters."""
        if any(p.pack is not self for p in self.parameters):
            raise UserError("some of these parameters already belong to another optimiser, made "
                            "later; make one optimiser for the whole, or one for each part")

    def protect_references(self):
        """Before gradients are changed in place: allocate new ones if other code references them.
        """
        if self.gradients_are_referenced() or any(
                p.grad is not None and p.gradient_is_referenced() for p in self.parameters):
            self.allocate_gradients()
