"""What a network is made of: a tree of modules, whose attributes are parameters, buffers, modules.

Modules and parameters are also found in lists, tuples and dicts, nested at will. Names follow the
attributes: ``encoder.0.w``.
"""

import contextlib
import copy

import numpy as np

from ..context import Switch, no_grad
from ..engine.copies import carried
from ..engine.memory import copy_into, to_host
from ..engine.other_names import MODULE, NO_ZEROS, missing
from ..engine.tensor import Tensor, constant
from ..errors import UserError
from .parameters import Buffer, Parameter, ParameterList, packed

FOUND_IN = (list, tuple, dict)          # containers that are looked into


class Module:
    """Base of layers and networks; ``forward`` says what calling it computes.

    A parameter is declared by ``self.w = nn.Parameter(array)``, a buffer (saved, not trained) by
    ``self.mean = nn.Buffer(array)``. Other tensors and arrays that a module keeps are neither.

    ``copy.deepcopy``, ``copy.copy`` and ``pickle`` give an independent network of the same values;
    copied together with its optimiser, (network, optimiser), it can be trained further. A computed
    tensor that a module keeps becomes a constant there.
    """

    training = True
    _buffer_names = ()                                   # the declared ones
    _watcher = Switch("watcher", None)                   # see ``watching``

    def forward(self, x):
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x)")

    def __call__(self, *inputs, **options):
        """What ``forward`` computes of these inputs.

        Tensors are used as they are. An array of the caller's that the backward pass needs is
        copied while it is recorded, so that its memory may be filled again before ``backward``.
        A copy is the price of one pass over the batch; a check of its contents would be one too,
        and a read-only flag would make the caller's own next write fail. Without recording nothing
        is copied, and ``sg.Tensor(array)`` hands an array over without a copy.
        """
        y = self.forward(*inputs, **options)
        if (watcher := Module._watcher.get()) is not None and not self.parts():
            watcher(self, (*inputs, *options.values())[0], y)
        return y

    @staticmethod
    @contextlib.contextmanager
    def watching(watcher):
        """Inside, ``watcher(layer, x, y)`` is called with what each layer is given and gives."""
        Module._watcher.enter(watcher, Module._watcher.get())
        Module._watcher.set(watcher)
        try:
            yield
        finally:
            Module._watcher.leave(watcher)

    # --- attributes ------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        """A ``Parameter`` that takes the place of one which an optimiser trains takes over its
        place there, if shape and dtype agree; UserError for anything else but None instead of a
        parameter."""
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
        object.__setattr__(self, name, value)

    def __getattr__(self, name):
        if name.startswith("_") or hasattr(type(self), name):          # a property's own error
            return object.__getattribute__(self, name)
        raise missing(f"a {type(self).__name__}", name, MODULE, dir(self))

    def register_buffer(self, name, array):
        """The same as ``self.name = nn.Buffer(array)``."""
        setattr(self, name, Buffer(array))

    def _found(self, kind):
        """Dotted name → what is of this kind among the attributes and what they contain."""
        found = {}
        for name, value in vars(self).items():
            if isinstance(value, kind):
                found[name] = value
            elif isinstance(value, FOUND_IN):
                look_into(value, kind, f"{name}.", found, ())
        return found

    def parts(self):
        """Name → module, of the direct parts, in order."""
        return self._found(Module)

    def named_modules(self):
        """Dotted name → module, of this one (named "") and all below it, each once."""
        found, seen = {}, set()

        def add(name, module):
            if id(module) not in seen:
                seen.add(id(module))
                found[name] = module
                for part_name, part in module.parts().items():
                    add(f"{name}.{part_name}" if name else part_name, part)

        add("", self)
        return found

    def modules(self):
        """This module and all below it, each once."""
        return list(self.named_modules().values())

    def _named(self, found_in):
        """Dotted name → what ``found_in`` (name → value) gives of each module."""
        return {f"{prefix}.{name}" if prefix else name: value
                for prefix, module in self.named_modules().items()
                for name, value in found_in(module).items()}

    def named_parameters(self):
        """Dotted name → parameter, frozen ones too; a shared (tied) one by its first name."""
        once = {}
        for name, p in self._named(lambda module: module._found(Parameter)).items():
            once.setdefault(id(p), (name, p))
        return dict(once.values())

    def parameters(self):
        """The parameters in order; a list that an optimiser takes."""
        return ParameterList(self.named_parameters().values(), self)

    def named_buffers(self):
        """Dotted name → array that is saved but not trained (running statistics)."""
        return self._named(lambda module: {
            name: getattr(module, name) for name in module._buffer_names
            if getattr(module, name, None) is not None})

    def refuse_undeclared(self):
        """UserError if a module keeps a leaf that may be meant as a parameter, and is none."""
        kept = self._named(lambda module: module._found(Tensor))
        for name, t in kept.items():
            if not isinstance(t, Parameter) and t.requires_grad and t.is_leaf:
                raise UserError(f"{name} of this {type(self).__name__} requires a gradient and is "
                                "no parameter: make it one with nn.Parameter(array), or keep "
                                "t.detach()")

    # --- modes -----------------------------------------------------------------------------------

    def train(self, mode=True):
        """Training mode (noise, batch statistics); ``eval()`` for the other."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        return self.train(False)

    def zero_grad(self, set_to_none=True):
        """Forget the accumulated gradients: they are None until the next backward pass."""
        if not set_to_none:
            raise UserError(NO_ZEROS)
        for p in self.parameters():
            p.grad = None

    @contextlib.contextmanager
    def frozen(self):
        """Inside, the parameters are constants: gradients pass through, none are made for them."""
        nodes = [(p, p.node) for p in self.parameters()]
        for p, _ in nodes:
            p.node = None
        try:
            yield self
        finally:
            for p, node in nodes:
                p.node = node

    # --- state -----------------------------------------------------------------------------------

    def state_dict(self):
        """Dotted name → NumPy array: copies of all parameters and buffers."""
        arrays = {name: p.data for name, p in self.named_parameters().items()}
        arrays.update(self.named_buffers())
        return {name: np.array(to_host(a)) for name, a in arrays.items()}

    def load_state_dict(self, state):
        """Put saved arrays back, in place; names, shapes and dtypes must agree."""
        mine = {**{n: p.data for n, p in self.named_parameters().items()}, **self.named_buffers()}
        if not hasattr(state, "keys"):
            raise UserError(f"a saved state is a dict of arrays by name, not a "
                            f"{type(state).__name__}; give what state_dict() returned")
        if set(mine) != set(state):
            raise UserError(f"the saved state does not fit this network: missing "
                            f"{sorted(set(mine) - set(state))}, unexpected "
                            f"{sorted(set(state) - set(mine), key=str)}; load it into the network "
                            "it is of")
        for name, array in mine.items():
            saved = state[name]
            if not hasattr(saved, "shape") or not hasattr(saved, "dtype"):
                raise UserError(f"the saved {name} is a {type(saved).__name__}; expected an array "
                                f"{array.dtype}{array.shape}: np.asarray(x, np.{array.dtype})")
            if array.shape != saved.shape or array.dtype != saved.dtype:
                raise UserError(f"the saved {name} is {saved.dtype}{saved.shape}, this "
                                f"network's is {array.dtype}{array.shape}; load it into the "
                                "network it is of")
        for name, array in mine.items():
            saved = state[name]
            copy_into(array, saved.data if isinstance(saved, Tensor) else saved)
        for p in self.parameters():
            p.changes[0] += 1

    def pack(self):
        """Move all parameters into one contiguous buffer, gradients likewise; returns both (P,)."""
        parameters = self.parameters()
        if not parameters:
            raise UserError(f"{type(self).__name__} has no parameters to optimise")
        pack = packed(parameters)
        return pack.data, pack.grads

    def __copy__(self):
        return copy.deepcopy(self)

    def __getstate__(self):
        return {name: without_graph(value) for name, value in vars(self).items()}

    # --- in words --------------------------------------------------------------------------------

    def flops(self, x_shape, y_shape):
        """Floating-point operations of a forward pass; 0 for what only moves or looks up."""
        return 0

    def describe(self):
        """What ``print`` says of this module beside its type and parameters."""
        return ""

    def __repr__(self):
        """The layers, a line each: name, type, options, shapes and number of parameters."""
        total = sum(p.size for p in self.parameters())
        frozen = sum(p.size for p in self.parameters() if not p.requires_grad)
        lines = [line.rstrip() for line in self._lines("", "")]
        if self.parts():
            lines.append(f"{total:,} parameters" + f" ({frozen:,} frozen)" * bool(frozen))
        return "\n".join(lines)

    def _lines(self, indent, name):
        own = self._found(Parameter)
        shapes = ", ".join(f"{n} {'x'.join(map(str, p.shape)) or '1'}"
                           + " frozen" * (not p.requires_grad) for n, p in own.items())
        count = f"{sum(p.size for p in own.values()):,} parameters" if own else ""
        said = "; ".join(part for part in (self.describe(), shapes, count) if part)
        title = f"{name}: {type(self).__name__}" if name else type(self).__name__
        yield indent + title + (f"({said})" if said else "")
        for part_name, part in self.parts().items():
            yield from part._lines(indent + "  ", part_name)

    def summary(self, input_shape, dtype=np.float32):
        """A table of the layers for an input of ``input_shape`` (N, …): shape, parameters, FLOPs;
        frozen parameters are counted and named."""
        mode, trace = self.training, []
        try:
            with no_grad(), self.watching(lambda m, x, y: trace.append((m, x.shape, y.shape))):
                self.eval()(constant(np.zeros(input_shape), dtype))
        finally:
            self.train(mode)
        names = {id(m): n for n, m in self.named_modules().items()}
        rows = [("layer", "output", "parameters", "FLOPs")]
        rows += [(f"{names.get(id(m), '')} {type(m).__name__}".strip(), str(y),
                  counted(m.parameters()), f"{m.flops(x, y):,}") for m, x, y in trace]
        rows.append(("total", "", counted(self.parameters()),
                     f"{sum(m.flops(x, y) for m, x, y in trace):,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w)
                                   for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
                         for row in rows)


def counted(parameters):
    """How many numbers these are, and how many of them frozen."""
    frozen = sum(p.size for p in parameters if not p.requires_grad)
    return f"{sum(p.size for p in parameters):,}" + f" ({frozen:,} frozen)" * bool(frozen)


def look_into(container, kind, prefix, found, above):
    """Add what is of this kind in a list, tuple or dict, and in those within it, to ``found``."""
    if any(container is one for one in above):         # a list that contains itself
        return
    for name, value in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(value, kind):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, FOUND_IN):
            look_into(value, kind, f"{prefix}{name}.", found, (*above, container))


def without_graph(value):
    """An attribute as a copy has it: constants for computed tensors."""
    if isinstance(value, Tensor) and not value.is_leaf:
        return value.detach().copy()
    if type(value) in FOUND_IN and any(isinstance(v, Tensor) and not v.is_leaf for v in (
            value.values() if isinstance(value, dict) else value)):
        return ({name: without_graph(v) for name, v in value.items()} if isinstance(value, dict)
                else type(value)(map(without_graph, value)))
    return carried(value)


class Structure:
    """Where a network's parameters stand, so that a change can be noticed in every step."""

    def __init__(self, network):
        self.parameters = network.parameters()
        places, containers, seen = [], [], set()
        for module in network.modules():
            todo = [vars(module)]
            while todo:
                container = todo.pop()
                containers.append((container, len(container)))
                for key, value in (container.items() if isinstance(container, dict)
                                   else enumerate(container)):
                    if isinstance(value, (Module, Parameter)):
                        places.append((container, key, value))
                    elif isinstance(value, FOUND_IN) and id(value) not in seen:
                        seen.add(id(value))
                        todo.append(value)
        self.places, self.containers = places, containers

    def holds(self):
        """Whether everything stands where it did."""
        try:
            for container, size in self.containers:
                if len(container) != size:
                    return False
            for container, key, value in self.places:
                if container[key] is not value:
                    return False
        except (KeyError, IndexError):
            return False
        return True
