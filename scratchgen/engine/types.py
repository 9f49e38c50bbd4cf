"""Types of arguments and results, as the signatures of public functions name them."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import ArrayLike, DTypeLike, NDArray

from .tensor import Tensor

Array = NDArray[Any]                                    # NumPy's; on the backend "cuda" CuPy's
TensorLike = Tensor | ArrayLike                         # what an op takes: an array or a number
DType = DTypeLike
Axis = int | tuple[int, ...] | None                     # None: all axes
Shape = int | Sequence[int]
Pair = int | tuple[int, int]                            # one number for both axes, or (H, W)
Padding = Pair | Literal["same", "valid"]
ActivationName = Literal["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus"]
Reduction = Literal["sum", "mean", "none"]

__all__ = ["ActivationName", "Array", "ArrayLike", "Axis", "DType", "Padding", "Pair", "Reduction",
           "Shape", "TensorLike"]
