"""Parameters and buffers, as modules declare them, and the array in which an optimiser has them.

A module's parameters are the attributes that are a ``Parameter``, its buffers the arrays that were
assigned as a ``Buffer``; any other tensor or array that a module keeps is neither. An optimiser
packs its parameters: their values are views of one array, their gradients of another, so that one
kernel updates the network.
"""

import copy
import sys

import numpy as np

from ..engine.capture import Captured
from ..engine.memory import ALONE, ARRAYS, array_module, copy_into
from ..engine.tensor import FLOATS, Tensor, plain, tensor
from ..errors import UserError

ALIGNED = 16                            # numbers: 64 bytes of float32, a line of the cache
set_data, set_grad = Tensor.__dict__["data"].__set__, Tensor.__dict__["grad"].__set__


class Buffer:
    """``self.mean = Buffer(array)`` in a module declares an array that is saved but not trained;
    ``self.mean`` is then the array itself."""

    def __init__(self, array):
        array = plain(array)
        self.array = array if type(array) in ARRAYS else np.array(array)


class Parameter(Tensor):
    """A tensor that a module trains: ``self.w = nn.Parameter(np.zeros((3, 2), np.float32))``.

    The data are copied; numbers and lists become float32. ``requires_grad = False`` freezes it, now
    or later: no optimiser moves it, by momentum or decay either, and clipping leaves it out.

    ``p.data = array`` copies the array into the parameter, which stays where its optimiser has it;
    UserError for another shape or dtype. A graph that needs the old values then refuses its
    backward pass; of ``p.data[...] = v``, a write to the bare array, it learns nothing: write
    ``p[...] = v`` inside ``no_grad``. ``p.grad`` may be kept: later backward passes, clipping
    and steps leave a gradient that somebody holds (the tensor, its array, or a view of it) as it
    is, and use other memory. A recorded step (``sg.capture`` on a GPU) writes where it always does.
    """

    __slots__ = ("pack",)
    declared = True

    def __init__(self, data, requires_grad=True, dtype=None):
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
        """Assigning to ``data`` and ``grad`` goes through ``assign`` and ``set_gradient``; they are
        read as fast as any other slot."""
        if name == "data":
            self.assign(value)
        elif name == "grad":
            self.set_gradient(value)
        else:
            object.__setattr__(self, name, value)

    def assign(self, value):
        """``p.data = value``: copied into the parameter's own memory."""
        array, here = plain(value), self.data
        if array is not here:             # p.data *= 2 has been done already
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
        """``p.grad = gradient``; a buffer that somebody still reads is left to him."""
        if gradient is not None and (not isinstance(gradient, Tensor)
                                     or gradient.data.shape != self.data.shape):
            raise UserError(f"the gradient of a parameter {self.data.shape} is None or a tensor of "
                            "its shape: p.grad = sg.tensor(array)")
        set_grad(self, gradient)
        if (gradient is None or gradient.data is not self.grad_buffer) and (
                sys.getrefcount(self.grad_buffer) > ALONE
                or self.pack is not None and self.pack.is_read()):
            self.grad_buffer = None
            if self.pack is not None:
                self.pack.left = True

    def gradient_is_kept(self):
        return super().gradient_is_kept() or self.pack is not None and self.pack.is_read()

    @property
    def requires_grad(self):
        """Whether it is trained; False: frozen."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted):
        before = self.node is not None
        Tensor.requires_grad.fset(self, bool(wanted))
        if (self.node is not None) != before:
            Captured.frozen ^= hash((id(self), "frozen"))


def checked_parameters(given):
    """What an optimiser is given, as (network or None, its parameters).

    A module, what its ``parameters()`` returns, or any list of parameters. UserError for what is
    none of these, is empty, or names a parameter twice.
    """
    if hasattr(given, "named_parameters"):
        given.refuse_undeclared()
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
    return getattr(given, "network", None), found


class ParameterList(list):
    """The parameters of ``network``, in order."""

    def __init__(self, parameters, network):
        super().__init__(parameters)
        self.network = network


# --- packing -------------------------------------------------------------------------------------

def places_of(sizes):
    """Where arrays of these sizes begin in one buffer, and its length."""
    ends = np.cumsum([0, *(-(-n // ALIGNED) * ALIGNED for n in sizes)]).tolist()
    return ends[:-1], ends[-1]


def packed(parameters):
    """The pack of these parameters: theirs, if they are packed together already, else a new one."""
    parameters = same_precision(parameters)
    pack = parameters[0].pack
    if pack is not None and len(pack.parameters) == len(parameters) and all(
            p is q and p.pack is pack for p, q in zip(parameters, pack.parameters, strict=True)):
        return pack
    return Pack(parameters)


def same_precision(parameters):
    """The parameters without frozen ones of another precision than those that are trained."""
    trained = {p.dtype for p in parameters if p.requires_grad} or {parameters[0].dtype}
    if len(trained) > 1:
        raise UserError("an optimiser was given parameters of "
                        f"{' and '.join(sorted(map(str, trained)))}: expected one precision; make "
                        "an optimiser for each")
    return [p for p in parameters if p.dtype in trained]


class Pack:
    """Parameters whose values lie in one array ``data`` (P,), their gradients in ``grads`` (P,).

    Each begins at a multiple of ALIGNED numbers, so that its rows can be read in wide accesses;
    what lies between stays 0. A parameter belongs to the pack that was made last.
    """

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.places, self.size = places_of([p.size for p in self.parameters])
        self.data = array_module().zeros(self.size, self.parameters[0].dtype)
        for p, view in zip(self.parameters, self.views(self.data), strict=True):
            copy_into(view, p.data)
            set_data(p, view)
            p.pack = self
            p.grad_buffer = None
        self.make_gradients()

    def __deepcopy__(self, memo):
        return Pack(copy.deepcopy(self.parameters, memo))

    def __reduce__(self):
        return Pack, (self.parameters,)

    def views(self, array):
        """Each parameter's part of an array (P,)."""
        return [array[first:first + p.size].reshape(p.shape)
                for p, first in zip(self.parameters, self.places, strict=True)]

    def make_gradients(self):
        """A new array for the gradients, with those that there are: somebody holds the old one."""
        self.grads = array_module().zeros(self.size, self.data.dtype)
        for p, view in zip(self.parameters, self.views(self.grads), strict=True):
            if p.grad is not None and p.grad.node is None:
                copy_into(view, p.grad.data)
                set_grad(p, Tensor(view))
            p.grad_buffer = view
        del view
        self.left, self.read_by = False, sys.getrefcount(self.grads)

    def is_read(self):
        """Whether somebody else holds the array of the gradients or a view of it, or some parameter
        has left its part of it to such a one."""
        return self.left or sys.getrefcount(self.grads) > self.read_by

    def replace(self, old, new):
        """Let the parameter ``new`` take the place of ``old``, of one shape and dtype."""
        i = next(i for i, p in enumerate(self.parameters) if p is old)
        copy_into(old.data, new.data)
        set_data(new, old.data)
        new.grad, new.pack, new.grad_buffer = None, self, old.grad_buffer
        set_data(old, old.data.copy())
        self.parameters[i], old.pack, old.grad_buffer = new, None, None
        set_grad(old, None)
        new.changes[0] += 1

    def forget(self):
        """No parameter has a gradient any more; buffers that somebody reads are left to him."""
        read = self.is_read()
        for p in self.parameters:
            set_grad(p, None)
            if read or sys.getrefcount(p.grad_buffer) > ALONE:
                p.grad_buffer, self.left = None, True

    def gather(self):
        """Make ``grads`` complete: zeros where a parameter is frozen or has no gradient.

        Returns which parameters have one, a tuple of bools; None: all have.
        """
        for p in self.parameters:
            grad = p.grad
            if grad is None or p.node is None or p.pack is not self or (
                    grad.data is not p.grad_buffer):
                break
        else:
            return None
        del grad
        self.refuse_taken()
        for p in self.parameters:
            if p.node is None and p.grad is not None and p.grad.data is p.grad_buffer:
                p.grad = Tensor(p.grad.data.copy())    # a frozen one's leaves the array
        if any(p.grad_buffer is None for p in self.parameters):
            self.make_gradients()
        for p in self.parameters:
            if p.node is None or p.grad is None:
                p.grad_buffer[...] = 0
            elif p.grad.data is not p.grad_buffer:     # made with create_graph, or set by hand
                p.take_gradient(p.grad.data)
        active = tuple(p.node is not None and p.grad is not None for p in self.parameters)
        return None if all(active) else active

    def refuse_taken(self):
        """UserError if another optimiser has packed some of these parameters since."""
        if any(p.pack is not self for p in self.parameters):
            raise UserError("some of these parameters already belong to another optimiser, made "
                            "later; make one optimiser for the whole, or one for each part")

    def leave_kept(self):
        """Before gradients are changed in place: let those who hold one keep it as it is."""
        if self.is_read() or any(
                p.grad is not None and p.gradient_is_kept() for p in self.parameters):
            self.make_gradients()
