"""Types of the options of layers, as their signatures name them."""

from collections.abc import Callable
from typing import Any, Literal

from ..engine.types import ActivationName, Padding, Pair, TensorLike

InitialiserName = Literal["glorot", "glorot-sigmoid", "he", "dcgan", "pytorch"]
Op = Callable[..., Any]                                 # tensors and options → a tensor

__all__ = ["ActivationName", "InitialiserName", "Op", "Padding", "Pair", "TensorLike"]
