"""Dense (fully connected) layers."""

import math

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..engine.random import Stream
from ..engine.tensor import Tensor
from ..errors import UserError
from .checks import check_activation, positive_int
from .initialisers import initial, initial_bias
from .module import Module
from .parameters import Parameter
from .types import ActivationName, InitialiserName, TensorLike


class Dense(Module):
    """Dense layer y = a(x w + b): (N, inputs) → (N, outputs).

    ``activation`` is applied in the same pass; None: the identity. ``init`` names the initialiser
    of ``w``, which draws from ``stream``; ``b`` starts at zero.
    """

    w: Parameter                          # (inputs, outputs)
    b: Parameter                          # (outputs,)

    def __init__(self, inputs: int, outputs: int, activation: ActivationName | None = None,
                 init: InitialiserName = "glorot", stream: Stream | None = None,
                 dtype: DTypeLike = np.float32) -> None:
        inputs = positive_int("Dense", "inputs", inputs)
        outputs = positive_int("Dense", "outputs", outputs)
        check_activation(activation)
        self.w = initial(init, (inputs, outputs), stream, dtype)
        self.b = initial_bias(init, inputs, outputs, stream, dtype)
        self.activation = activation

    def forward(self, x: TensorLike) -> Tensor:
        return ops.dense(x, self.w, self.b, self.activation)

    def describe(self) -> str:
        return dense_description(self.w.shape, self.activation)

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return 2 * x_shape[0] * math.prod(self.w.shape)


class TiedDense(Module):
    """Dense layer y = a(x wᵀ + b) that shares the weights w of another dense layer."""

    w: Parameter                          # (outputs, inputs): the other layer's
    b: Parameter                          # (outputs,)

    def __init__(self, tied_to: Dense, activation: ActivationName | None = None) -> None:
        if not isinstance(getattr(tied_to, "w", None), Parameter) or tied_to.w.ndim != 2:
            raise UserError(f"TiedDense of a {type(tied_to).__name__}: expected the dense layer "
                            "whose weights it shares")
        check_activation(activation)
        self.w = tied_to.w
        self.b = Parameter(np.zeros(self.w.shape[0], self.w.dtype))
        self.activation = activation

    def forward(self, x: TensorLike) -> Tensor:
        return ops.dense(x, self.w, self.b, self.activation, tied=True)

    def describe(self) -> str:
        return dense_description(self.w.shape[::-1], self.activation)

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return 2 * x_shape[0] * math.prod(self.w.shape)


def dense_description(shape, activation):
    """``4 -> 7, tanh``"""
    return " -> ".join(map(str, shape)) + (f", {activation}" if activation else "")
