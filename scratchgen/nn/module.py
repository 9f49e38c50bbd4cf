"""The base class of layers and networks: a tree of modules with parameters and buffers.

Modules and parameters are also found in lists, tuples and dicts, at any depth. Their dotted names
follow the attributes: ``encoder.0.w``.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..context import Switch
from ..engine.capture import Captured
from ..engine.copies import carried
from ..engine.memory import ARRAYS, copy_into, to_host
from ..engine.other_names import MODULE, NO_ZEROS, missing
from ..engine.recorded import refuse
from ..engine.tensor import Tensor
from ..errors import UserError
from .packing import packed
from .parameters import Buffer, Parameter, ParameterList
from .summary import table, tree

CONTAINERS = (list, tuple, dict)        # searched for modules and parameters
NUMBERS = (bool, int, float, str, type(None))
PER_STEP = ("epoch", "step")            # of models: counters, of which ``recording_key`` says more


class Module:
    """Base class of layers and networks. A subclass defines ``forward``.

    Assigning ``self.w = nn.Parameter(array)`` declares a parameter, ``self.mean =
    nn.Buffer(array)`` a buffer (saved, not trained). Other tensors and arrays are neither.

    ``copy.deepcopy``, ``copy.copy`` and ``pickle`` give an independent network with the same
    values. To continue training the copy, copy the pair (network, optimiser). Attributes that are
    computed tensors become constants in the copy.
    """

    training: bool = True
    _buffer_names = ()                                   # the declared ones
    _watcher = Switch("watcher", None)                   # see ``watching``

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x)")

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """The result of ``forward``.

        Input arrays that the backward pass needs are copied while the call is recorded, so the
        caller may reuse their memory before ``backward``. Tensors are not copied:
        ``sg.Tensor(array)`` passes an array without a copy.
        """
        y = self.forward(*inputs, **options)
        if (watcher := Module._watcher.get()) is not None and not self.parts():
            refuse("a watcher is called after each layer")
            watcher(self, (*inputs, *options.values())[0], y)
        return y

    @staticmethod
    @contextlib.contextmanager
    def watching(watcher: Callable[["Module", Any, Any], object]) -> Iterator[None]:
        """A context that calls ``watcher(layer, x, y)`` after each layer: its input and output."""
        Module._watcher.enter(watcher, Module._watcher.get())
        Module._watcher.set(watcher)
        try:
            yield
        finally:
            Module._watcher.leave(watcher)

    # --- attributes ------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        """Set an attribute.

        A new ``Parameter`` of the same shape and dtype also replaces the old one in its optimiser.
        UserError if a parameter is replaced by anything but a ``Parameter`` or None.
        """
        before = vars(self).get(name)
        if type(value) is Buffer:
            if name not in self._buffer_names:
                self._buffer_names = (*self._buffer_names, name)
            value = value.array
        elif isinstance(before, Parameter) and value is not before and value is not None:
            if not isinstance(value, Parameter):
                raise UserError(
                    f"{type(self).__name__}.{name} is a parameter and cannot become a "
                    f"{type(value).__name__}: give nn.Parameter(array), or copy into it with "
                    f"{name}.data = array")
            if before.pack is not None and value.pack is None and (
                    before.shape, before.dtype) == (value.shape, value.dtype):
                before.pack.replace(before, value)
        if name not in PER_STEP:
            self._tell_recordings(name, value)
        object.__setattr__(self, name, value)

    def _tell_recordings(self, name, value):
        """Before an attribute becomes ``value``: let recorded steps be recorded again, if what they
        compute may depend on it. Arrays and tensors are computed in a step, and an attribute that
        did not exist belongs to a module that is being made."""
        if name not in vars(self) and not hasattr(type(self), name):
            return
        before = vars(self)[name] if name in vars(self) else getattr(self, name)
        if isinstance(before, NUMBERS) and isinstance(value, NUMBERS):
            if type(before) is not type(value) or before != value:
                # Reversible: the old value brings back the old state, and its recordings.
                Captured.settings ^= hash((id(self), name, str(before))) ^ hash(
                    (id(self), name, str(value)))
        elif before is not value and not isinstance(value, (Buffer, *ARRAYS)) and (
                not isinstance(value, Tensor) or isinstance(value, Parameter)):
            Captured.changes += 1

    if not TYPE_CHECKING:                 # else type checkers would accept any attribute
        def __getattr__(self, name):
            if name.startswith("_") or hasattr(type(self), name):  # the error inside a property
                return object.__getattribute__(self, name)
            raise missing(f"a {type(self).__name__}", name, MODULE, dir(self))

    def register_buffer(self, name: str, array: ArrayLike) -> None:
        """The same as ``self.name = nn.Buffer(array)``."""
        setattr(self, name, Buffer(array))

    def _found(self, kind):
        """Dotted name → instance of ``kind``, among the attributes and the containers in them."""
        found = {}
        for name, value in vars(self).items():
            if isinstance(value, kind):
                found[name] = value
            elif isinstance(value, CONTAINERS):
                collect(value, kind, f"{name}.", found, ())
        return found

    def parts(self) -> dict[str, "Module"]:
        """Name → direct submodule, in order."""
        return self._found(Module)

    def named_modules(self) -> dict[str, "Module"]:
        """Dotted name → module, for this module (named "") and all submodules, each once."""
        found, seen = {}, set()

        def add(name, module):
            if id(module) not in seen:
                seen.add(id(module))
                found[name] = module
                for part_name, part in module.parts().items():
                    add(f"{name}.{part_name}" if name else part_name, part)

        add("", self)
        return found

    def modules(self) -> list["Module"]:
        """This module and all submodules, each once."""
        return list(self.named_modules().values())

    def _named(self, found_in):
        """The results of ``found_in``, a function module → {name: value}, by dotted name."""
        return {f"{prefix}.{name}" if prefix else name: value
                for prefix, module in self.named_modules().items()
                for name, value in found_in(module).items()}

    def named_parameters(self) -> dict[str, Parameter]:
        """Dotted name → parameter, frozen ones included; a shared (tied) one by its first name."""
        once = {}
        for name, p in self._named(lambda module: module._found(Parameter)).items():
            once.setdefault(id(p), (name, p))
        return dict(once.values())

    def parameters(self) -> ParameterList:
        """The list of the parameters, in order, as an optimiser takes it."""
        return ParameterList(self.named_parameters().values(), self)

    def named_buffers(self) -> dict[str, np.ndarray]:
        """Dotted name → buffer, an array that is saved but not trained (running statistics)."""
        return self._named(lambda module: {
            name: getattr(module, name) for name in module._buffer_names
            if getattr(module, name, None) is not None})

    def check_declared(self) -> None:
        """UserError if a leaf tensor that requires a gradient is not declared as a parameter."""
        tensors = self._named(lambda module: module._found(Tensor))
        for name, t in tensors.items():
            if not isinstance(t, Parameter) and t.requires_grad and t.is_leaf:
                raise UserError(f"{name} of this {type(self).__name__} requires a gradient and is "
                                "no parameter: make it one with nn.Parameter(array), or keep "
                                "t.detach()")

    # --- modes -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (dropout, batch statistics); returns this module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode (no dropout, running statistics); returns this module."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to None."""
        if not set_to_none:
            raise UserError(NO_ZEROS)
        for p in self.parameters():
            p.grad = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Self]:
        """A context in which the parameters are constants: gradients flow through this module to
        its inputs, but not to its parameters."""
        nodes = [(p, p.node) for p in self.parameters()]
        for p, _ in nodes:
            p.node = None
        try:
            yield self
        finally:
            for p, node in nodes:
                p.node = node

    # --- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Dotted name → NumPy array: copies of all parameters and buffers."""
        arrays = {name: p.data for name, p in self.named_parameters().items()}
        arrays.update(self.named_buffers())
        return {name: np.array(to_host(a)) for name, a in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load saved arrays in place. UserError unless names, shapes and dtypes agree."""
        arrays = {n: p.data for n, p in self.named_parameters().items()}
        arrays.update(self.named_buffers())
        if not hasattr(state, "keys"):
            raise UserError(f"a saved state is a dict of arrays by name, not a "
                            f"{type(state).__name__}; give what state_dict() returned")
        if set(arrays) != set(state):
            raise UserError(f"the saved state does not fit this network: missing "
                            f"{sorted(set(arrays) - set(state))}, unexpected "
                            f"{sorted(set(state) - set(arrays), key=str)}; load it into the "
                            "network that it was saved from")
        for name, array in arrays.items():
            saved = state[name]
            if not hasattr(saved, "shape") or not hasattr(saved, "dtype"):
                raise UserError(f"the saved {name} is a {type(saved).__name__}; expected an array "
                                f"{array.dtype}{array.shape}: np.asarray(x, np.{array.dtype})")
            if array.shape != saved.shape or array.dtype != saved.dtype:
                raise UserError(f"the saved {name} is {saved.dtype}{saved.shape}, this "
                                f"network's is {array.dtype}{array.shape}; load it into the "
                                "network that it was saved from")
        for name, array in arrays.items():
            saved = state[name]
            copy_into(array, saved.data if isinstance(saved, Tensor) else saved)
        for p in self.parameters():
            p.changes[0] += 1

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """Move all parameters into one contiguous buffer (P,), and their gradients into another;
        returns both."""
        parameters = self.parameters()
        if not parameters:
            raise UserError(f"{type(self).__name__} has no parameters to optimise")
        pack = packed(parameters)
        return pack.data, pack.grads

    def __copy__(self):
        return copy.deepcopy(self)

    def __getstate__(self):
        return {name: without_graph(value) for name, value in vars(self).items()}

    # --- description -----------------------------------------------------------------------------

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Floating-point operations of a forward pass; 0 for layers that only move values."""
        return 0

    def describe(self) -> str:
        """The options that ``print`` shows for this module."""
        return ""

    def __repr__(self) -> str:
        """One line per layer: name, type, options, shapes and number of parameters."""
        return tree(self)

    def summary(self, input_shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> str:
        """A table of the layers for an input of ``input_shape`` (N, …): output shape, parameters,
        FLOPs. It also counts the frozen parameters."""
        return table(self, input_shape, dtype)


def collect(container, kind, prefix, found, parents):
    """Add the instances of ``kind`` in a container, and in those nested in it, to ``found``."""
    if any(container is parent for parent in parents):     # a list that contains itself
        return
    for name, value in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(value, kind):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, CONTAINERS):
            collect(value, kind, f"{prefix}{name}.", found, (*parents, container))


def without_graph(value):
    """An attribute for a copy of its module: computed tensors are replaced by constants."""
    if isinstance(value, Tensor) and not value.is_leaf:
        return value.detach().copy()
    if type(value) in CONTAINERS and any(isinstance(v, Tensor) and not v.is_leaf for v in (
            value.values() if isinstance(value, dict) else value)):
        return ({name: without_graph(v) for name, v in value.items()} if isinstance(value, dict)
                else type(value)(map(without_graph, value)))
    return carried(value)
