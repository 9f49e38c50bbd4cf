"""Layers that change the shape only."""

from .. import ops
from ..engine.tensor import Tensor
from .function import Function
from .module import Module
from .types import TensorLike


class Flatten(Function):
    """(N, …) → (N, product of the other dimensions)."""

    def __init__(self) -> None:
        super().__init__(ops.flatten)


class Reshape(Module):
    """(N, …) → (N, *shape)."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def forward(self, x: TensorLike) -> Tensor:
        return ops.reshape(x, (x.shape[0], *self.shape))

    def describe(self) -> str:
        return f"N, {', '.join(map(str, self.shape))}"
