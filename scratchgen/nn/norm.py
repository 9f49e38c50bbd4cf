"""Batch normalisation."""

import math

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..engine.memory import to_device
from ..engine.tensor import Tensor
from ..errors import UserError
from .checks import float_dtype, positive_int, real_number
from .module import Module
from .parameters import Buffer, Parameter
from .types import ActivationName, TensorLike


class BatchNorm(Module):
    """Batch normalisation over all axes but the last: (…, channels) → (…, channels).

    In training mode each channel is normalised by the batch's mean and variance, and the running
    statistics move towards them by ``momentum``, unless ``tracking`` is False. In eval mode it is
    normalised by the running statistics. Ioffe & Szegedy 2015.
    """

    tracking: bool = True
    gamma: Parameter                      # (channels,)
    beta: Parameter                       # (channels,)
    running_mean: np.ndarray              # (channels,)
    running_var: np.ndarray               # (channels,)

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5,
                 dtype: DTypeLike = np.float32) -> None:
        channels, dtype = positive_int("BatchNorm", "channels", channels), float_dtype(dtype)
        if momentum is None or not 0 <= real_number("BatchNorm", "momentum", momentum) <= 1:
            raise UserError(f"BatchNorm: momentum is {momentum!r}; give a number from 0 to 1")
        if not real_number("BatchNorm", "eps", eps) >= 0 or math.isinf(eps):
            raise UserError(f"BatchNorm: eps is {eps!r}; give a number of at least 0")
        self.gamma = Parameter(np.ones(channels, dtype))
        self.beta = Parameter(np.zeros(channels, dtype))
        self.running_mean = Buffer(to_device(np.zeros(channels, dtype)))
        self.running_var = Buffer(to_device(np.ones(channels, dtype)))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: TensorLike, activation: ActivationName | None = None) -> Tensor:
        running = (self.running_mean, self.running_var) if self.tracking or not self.training else (
            None, None)
        return ops.batch_norm(x, self.gamma, self.beta, *running, train=self.training,
                              momentum=self.momentum, eps=self.eps, activation=activation)

    def describe(self) -> str:
        return f"momentum {self.momentum:g}, eps {self.eps:g}"

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return 2 * math.prod(x_shape)
