"""Convolution layers on images (N, H, W, C)."""

import math

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..engine.random import Stream
from ..engine.tensor import Tensor
from .checks import check_output_padding, inputs_per_group, kernel_size, positive_int
from .initialisers import initial, initial_bias
from .module import Module
from .parameters import Parameter
from .types import ActivationName, InitialiserName, Padding, Pair, TensorLike


class Conv2d(Module):
    """Convolution (N, H, W, inputs) → (N, OH, OW, outputs).

    ``size``, ``stride``, ``padding`` and ``dilation`` are an int or a pair (vertical, horizontal);
    ``padding`` may also be "same" or "valid". ``groups`` divides the channels into groups that are
    convolved separately, as in ``sg.conv2d``. ``bias=False`` leaves out the bias.
    """

    w: Parameter                          # (KH, KW, inputs / groups, outputs)
    b: Parameter | None                   # (outputs,)

    def __init__(self, inputs: int, outputs: int, size: Pair, stride: Pair = 1,
                 padding: Padding = 0, dilation: Pair = 1, bias: bool = True,
                 init: InitialiserName = "he", stream: Stream | None = None,
                 dtype: DTypeLike = np.float32, groups: int = 1) -> None:
        inputs = positive_int("Conv2d", "inputs", inputs)
        outputs = positive_int("Conv2d", "outputs", outputs)
        kh, kw = kernel_size("Conv2d", size, stride, padding, dilation)
        inputs = inputs_per_group("Conv2d", inputs, outputs, groups)
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype,
                         fans=(kh * kw * inputs, kh * kw * outputs // groups))
        self.b = initial_bias(init, kh * kw * inputs, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "dilation": dilation,
                        **({"groups": groups} if groups > 1 else {})}

    def forward(self, x: TensorLike, activation: ActivationName | None = None) -> Tensor:
        return ops.conv2d(x, self.w, self.b, **self.options, activation=activation)

    def describe(self) -> str:
        return conv_description(self.w.shape, self.options)

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return 2 * math.prod(y_shape[:3]) * math.prod(self.w.shape)


class ConvTranspose2d(Module):
    """Transposed convolution (N, H, W, inputs) → (N, OH, OW, outputs).

    OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1, OW likewise. The
    options are those of ``Conv2d``; ``padding`` is an int or a pair.
    """

    w: Parameter                          # (KH, KW, inputs / groups, outputs)
    b: Parameter | None                   # (outputs,)

    def __init__(self, inputs: int, outputs: int, size: Pair, stride: Pair = 1, padding: Pair = 0,
                 output_padding: Pair = 0, dilation: Pair = 1, bias: bool = True,
                 init: InitialiserName = "he", stream: Stream | None = None,
                 dtype: DTypeLike = np.float32, groups: int = 1) -> None:
        name = "ConvTranspose2d"
        inputs = positive_int(name, "inputs", inputs)
        outputs = positive_int(name, "outputs", outputs)
        kh, kw = kernel_size(name, size, stride, padding, dilation)
        check_output_padding(name, (kh, kw), stride, output_padding, dilation)
        inputs = inputs_per_group(name, inputs, outputs, groups)
        fan_out = kh * kw * outputs // groups
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype,
                         fans=(kh * kw * inputs, fan_out))
        self.b = initial_bias(init, fan_out, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "output_padding": output_padding,
                        "dilation": dilation, **({"groups": groups} if groups > 1 else {})}

    def forward(self, x: TensorLike, activation: ActivationName | None = None) -> Tensor:
        return ops.conv_transpose2d(x, self.w, self.b, **self.options, activation=activation)

    def describe(self) -> str:
        return conv_description(self.w.shape, self.options)

    def flops(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return 2 * math.prod(x_shape[:3]) * math.prod(self.w.shape)


def conv_description(shape, options):
    """A convolution's channels, window, and the options that differ from the defaults."""
    kh, kw, inputs, outputs = shape
    inputs *= options.get("groups", 1)
    defaults = {"stride": (1, (1, 1)), "padding": (0, (0, 0)), "dilation": (1, (1, 1)),
                "output_padding": (0, (0, 0))}
    return ", ".join([f"{inputs} -> {outputs}, {kh}x{kw}", *(
        f"{name} {value}" for name, value in options.items()
        if value not in defaults.get(name, ()))])
