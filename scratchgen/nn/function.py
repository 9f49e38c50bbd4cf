"""Layers made from an op: ``Function``, and the activations as layers."""

import functools
from typing import Any

from .. import ops
from ..engine.tensor import Tensor
from ..errors import UserError, unknown
from .module import Module
from .types import ActivationName, Op, TensorLike


class Function(Module):
    """An op with fixed options as a layer: ``Function(sg.leaky_relu, slope=0.1)``."""

    def __init__(self, function: Op, *args: Any, **options: Any) -> None:
        if not callable(function):
            raise UserError(f"Function of a {type(function).__name__}: expected an op, such as "
                            "sg.relu, and its options")
        self.function = functools.partial(function, **options) if options else function
        self.args = args

    def forward(self, x: TensorLike) -> Tensor:
        return self.function(x, *self.args)

    def describe(self) -> str:
        function = getattr(self.function, "func", self.function)
        options = getattr(self.function, "keywords", {})
        name = getattr(function, "__name__", type(function).__name__)
        return ", ".join([*[name] * (type(self) is Function), *map(str, self.args),
                          *(f"{name} {value}" for name, value in options.items())])


class Activation(Function):
    """An activation by name: relu, leaky_relu, elu, sigmoid, tanh, softplus."""

    NAMES = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")

    def __init__(self, name: ActivationName) -> None:
        if name not in self.NAMES:
            raise unknown("activation", name, self.NAMES)
        super().__init__(getattr(ops, name))
        self.name = name

    def describe(self) -> str:
        return self.name
