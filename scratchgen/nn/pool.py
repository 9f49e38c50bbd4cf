"""Pooling and upsampling layers on images (N, H, W, C)."""

from .. import ops
from .checks import check_pooling, positive_int
from .function import Function
from .types import Pair


class MaxPool2d(Function):
    """Max pooling over windows of ``size``; ``stride`` None: the size of the window."""

    def __init__(self, size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        check_pooling("MaxPool2d", size, stride, padding)
        super().__init__(ops.max_pool2d, size, stride, padding)


class AvgPool2d(Function):
    """Average pooling over windows of ``size``; ``stride`` None: the size of the window."""

    def __init__(self, size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        check_pooling("AvgPool2d", size, stride, padding)
        super().__init__(ops.avg_pool2d, size, stride, padding)


class Upsample(Function):
    """Nearest-neighbour upsampling: repeats each pixel ``scale`` times along height and width."""

    def __init__(self, scale: int) -> None:
        super().__init__(ops.upsample2d, positive_int("Upsample", "scale", scale))
