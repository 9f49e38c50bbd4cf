"""Types of the options of layers, as their signatures name them."""

from collections.abc import Callable
from typing import Any, Literal

from numpy.typing import ArrayLike

from ..engine.tensor import Tensor

TensorLike = Tensor | ArrayLike
Pair = int | tuple[int, int]                            # one number for both axes, or (H, W)
Padding = Pair | Literal["same", "valid"]
ActivationName = Literal["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus"]
InitialiserName = Literal["glorot", "glorot-sigmoid", "he", "dcgan", "pytorch"]
Op = Callable[..., Any]                                 # tensors and options → a tensor
