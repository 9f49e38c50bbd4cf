"""The container that applies its layers one after another."""

from collections.abc import Iterator
from typing import Self, overload

from ..engine.tensor import Tensor
from ..errors import UserError
from .conv import Conv2d, ConvTranspose2d
from .function import Activation
from .module import Module
from .norm import BatchNorm
from .types import TensorLike


class Sequential(Module):
    """Layers that are applied one after another.

    A convolution or batch norm followed by an ``Activation`` is computed together with it in one
    pass, with the same values, unless ``Module.watching`` observes the layers.
    """

    FUSING = (Conv2d, ConvTranspose2d, BatchNorm)      # layers whose op can apply an activation

    def __init__(self, *layers: Module) -> None:
        for layer in layers:
            if not isinstance(layer, Module):
                raise UserError(f"Sequential was given a {type(layer).__name__}: expected layers; "
                                "an op becomes one by nn.Function(op)")
        self.layers = list(layers)

    def append(self, layer: Module) -> Self:
        """Add a layer at the end; returns this network."""
        self.layers.extend(Sequential(layer).layers)
        return self

    def forward(self, x: TensorLike) -> Tensor:
        pending = None                        # a layer that can apply the activation after it
        for layer in self.layers:
            if pending is not None:
                fused = type(layer) is Activation
                x = pending.forward(x, layer.name if fused else None)
                pending = None
                if fused:
                    continue
            if type(layer) in self.FUSING and Module._watcher.get() is None:
                pending = layer
            else:
                x = layer(x)
        return x if pending is None else pending(x)

    @overload
    def __getitem__(self, i: int) -> Module: ...
    @overload
    def __getitem__(self, i: slice) -> "Sequential": ...
    def __getitem__(self, i):
        """A layer, or for a slice a ``Sequential`` of those layers, which shares their weights."""
        return Sequential(*self.layers[i]) if isinstance(i, slice) else self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)
