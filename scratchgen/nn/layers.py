"""Layers. What they are built on: ``module.py``, ``parameters.py``, ``initialisers.py``."""

import functools
import math
import operator
from numbers import Real

import numpy as np

from .. import ops
from ..engine.memory import to_device
from ..engine.random import Stream
from ..engine.tensor import FLOATS, Tensor
from ..errors import UserError, unknown
from ..kernels.dense import ACTIVATIONS
from ..ops.window import pair, spreading
from .initialisers import (
    checked_dtype,
    initial,
    initial_bias,
)
from .module import Module
from .parameters import Buffer, Parameter

# --- options that are refused when a layer is made ----------------------------------------------

def whole(layer, name, value):
    """``value`` as an int of at least 1; UserError otherwise."""
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1 or isinstance(value, bool):
        raise UserError(f"{layer}: {name} is {value!r}; give a whole number of at least 1")
    return found


def number(layer, name, value):
    """``value`` if it is a real number; UserError otherwise."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"{layer}: {name} is {value!r}; give a number")
    return value


def checked_activation(name):
    """UserError unless a dense layer knows the activation."""
    if not isinstance(name, (str, type(None))) or name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)


def checked_window(layer, size, stride, padding, dilation):
    """The size (KH, KW) of a window whose options fit; UserError otherwise."""
    try:
        if padding in ("same", "valid") and layer == "Conv2d":
            if padding == "same" and pair(layer, "stride", stride, 1) != (1, 1):
                raise UserError(f"Conv2d: padding 'same' with stride {stride}; give stride 1, or a "
                                "number for the padding")
            padding = 0
        for name, value, least in (("stride", stride, 1), ("padding", padding, 0),
                                   ("dilation", dilation, 1)):
            pair(layer, name, value, least)
        return pair(layer, "size", size, 1)
    except ValueError as error:
        raise UserError(str(error)) from None


def of_each_group(layer, inputs, outputs, groups):
    """How many inputs a group of channels has; UserError unless the groups are equal."""
    if inputs % whole(layer, "groups", groups) or outputs % groups:
        raise UserError(f"{layer}: groups is {groups}; give a divisor of {inputs} inputs and "
                        f"{outputs} outputs")
    return inputs // groups


def checked_spreading(layer, size, stride, output_padding, dilation):
    """UserError unless a transposed convolution can have this ``output_padding``."""
    try:
        spreading(layer, (9, 9), size, stride, 0, output_padding, dilation)
    except ValueError as error:
        raise UserError(str(error)) from None


def checked_pool(layer, size, stride, padding):
    """UserError unless the options of a pooling layer fit."""
    kernel = checked_window(layer, size, 1 if stride is None else stride, padding, 1)
    if any(2 * p > k for p, k in zip(pair(layer, "padding", padding, 0), kernel, strict=True)):
        raise UserError(f"{layer}: padding is {padding!r}; give at most half of the size {size!r}")


# --- layers with parameters ----------------------------------------------------------------------

class Dense(Module):
    """a(x w + b): (N, inputs) → (N, outputs)."""

    def __init__(self, inputs, outputs, activation=None, init="glorot", stream=None,
                 dtype=np.float32):
        inputs, outputs = whole("Dense", "inputs", inputs), whole("Dense", "outputs", outputs)
        checked_activation(activation)
        self.w = initial(init, (inputs, outputs), stream, dtype)
        self.b = initial_bias(init, inputs, outputs, stream, dtype)
        self.activation = activation

    def forward(self, x):
        return ops.dense(x, self.w, self.b, self.activation)

    def describe(self):
        return dense_in_words(self.w.shape, self.activation)

    def flops(self, x_shape, y_shape):
        return 2 * x_shape[0] * math.prod(self.w.shape)


class TiedDense(Module):
    """a(x wᵀ + b) with the weights of another dense layer, which it shares."""

    def __init__(self, tied_to, activation=None):
        if not isinstance(getattr(tied_to, "w", None), Parameter) or tied_to.w.ndim != 2:
            raise UserError(f"TiedDense of a {type(tied_to).__name__}: expected the dense layer "
                            "whose weights it shares")
        checked_activation(activation)
        self.w = tied_to.w
        self.b = Parameter(np.zeros(self.w.shape[0], self.w.dtype))
        self.activation = activation

    def forward(self, x):
        return ops.dense(x, self.w, self.b, self.activation, tied=True)

    def describe(self):
        return dense_in_words(self.w.shape[::-1], self.activation)

    def flops(self, x_shape, y_shape):
        return 2 * x_shape[0] * math.prod(self.w.shape)


class Conv2d(Module):
    """Convolution (N, H, W, inputs) → (N, OH, OW, outputs), ``size`` an int or a pair.

    ``padding`` and ``groups`` as in ``sg.conv2d``: "same", "valid", numbers; parts of the channels.
    """

    def __init__(self, inputs, outputs, size, stride=1, padding=0, dilation=1, bias=True,
                 init="he", stream=None, dtype=np.float32, groups=1):
        inputs, outputs = whole("Conv2d", "inputs", inputs), whole("Conv2d", "outputs", outputs)
        kh, kw = checked_window("Conv2d", size, stride, padding, dilation)
        inputs = of_each_group("Conv2d", inputs, outputs, groups)
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype,
                         fans=(kh * kw * inputs, kh * kw * outputs // groups))
        self.b = initial_bias(init, kh * kw * inputs, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "dilation": dilation,
                        **({"groups": groups} if groups > 1 else {})}

    def forward(self, x, activation=None):
        return ops.conv2d(x, self.w, self.b, **self.options, activation=activation)

    def describe(self):
        return window_in_words(self.w.shape, self.options)

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(y_shape[:3]) * math.prod(self.w.shape)


class ConvTranspose2d(Module):
    """Transposed convolution (N, H, W, inputs) → (N, OH, OW, outputs); ``groups`` as in ``Conv2d``.
    """

    def __init__(self, inputs, outputs, size, stride=1, padding=0, output_padding=0, dilation=1,
                 bias=True, init="he", stream=None, dtype=np.float32, groups=1):
        name = "ConvTranspose2d"
        inputs, outputs = whole(name, "inputs", inputs), whole(name, "outputs", outputs)
        kh, kw = checked_window(name, size, stride, padding, dilation)
        checked_spreading(name, (kh, kw), stride, output_padding, dilation)
        inputs, each = of_each_group(name, inputs, outputs, groups), outputs // groups
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype,
                         fans=(kh * kw * inputs, kh * kw * each))
        self.b = initial_bias(init, kh * kw * each, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "output_padding": output_padding,
                        "dilation": dilation, **({"groups": groups} if groups > 1 else {})}

    def forward(self, x, activation=None):
        return ops.conv_transpose2d(x, self.w, self.b, **self.options, activation=activation)

    def describe(self):
        return window_in_words(self.w.shape, self.options)

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(x_shape[:3]) * math.prod(self.w.shape)


class BatchNorm(Module):
    """Normalise each channel over all other axes; running statistics for ``eval()``, which move
    while training unless ``tracking`` is False."""

    tracking = True

    def __init__(self, channels, momentum=0.1, eps=1e-5, dtype=np.float32):
        channels, dtype = whole("BatchNorm", "channels", channels), checked_dtype(dtype)
        if momentum is None or not 0 <= number("BatchNorm", "momentum", momentum) <= 1:
            raise UserError(f"BatchNorm: momentum is {momentum!r}; give a number from 0 to 1")
        if not number("BatchNorm", "eps", eps) >= 0 or math.isinf(eps):
            raise UserError(f"BatchNorm: eps is {eps!r}; give a number of at least 0")
        self.gamma, self.beta = Parameter(np.ones(channels, dtype)), Parameter(
            np.zeros(channels, dtype))
        self.running_mean = Buffer(to_device(np.zeros(channels, dtype)))
        self.running_var = Buffer(to_device(np.ones(channels, dtype)))
        self.momentum, self.eps = momentum, eps

    def forward(self, x, activation=None):
        running = (self.running_mean, self.running_var) if self.tracking or not self.training else (
            None, None)
        return ops.batch_norm(x, self.gamma, self.beta, *running, train=self.training,
                              momentum=self.momentum, eps=self.eps, activation=activation)

    def describe(self):
        return f"momentum {self.momentum:g}, eps {self.eps:g}"

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(x_shape)


def dense_in_words(shape, activation):
    """``4 -> 7, tanh``"""
    return " -> ".join(map(str, shape)) + (f", {activation}" if activation else "")


def window_in_words(shape, options):
    """A convolution's shapes, and the options that are not the defaults."""
    kh, kw, inputs, outputs = shape
    inputs *= options.get("groups", 1)
    usual = {"stride": (1, (1, 1)), "padding": (0, (0, 0)), "dilation": (1, (1, 1)),
             "output_padding": (0, (0, 0))}
    return ", ".join([f"{inputs} -> {outputs}, {kh}x{kw}", *(
        f"{name} {value}" for name, value in options.items() if value not in usual.get(name, ()))])


# --- layers without parameters -------------------------------------------------------------------

class Dropout(Module):
    """Zero each element with probability p while training; its noise comes from ``stream``."""

    def __init__(self, p, stream=None):
        if not 0 <= number("Dropout", "p", p) <= 1:
            raise UserError(f"Dropout: p is {p!r}; give a probability from 0 to 1")
        self.p, self.stream = p, stream or Stream(0, "nn.dropout")

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        dtype = x.dtype.newbyteorder("=")
        if dtype not in FLOATS:
            raise TypeError(f"Dropout: x is of {dtype}; expected float32 or float64: convert with "
                            "x.astype(np.float32)")
        return ops.dropout(x, self.p, Tensor(self.stream.uniform(x.shape, dtype)))

    def describe(self):
        return f"p {self.p:g}"


class Function(Module):
    """A layer that is an op with its options: ``Function(sg.leaky_relu, slope=0.1)``."""

    def __init__(self, function, *args, **options):
        if not callable(function):
            raise UserError(f"Function of a {type(function).__name__}: expected an op, such as "
                            "sg.relu, and its options")
        self.function = functools.partial(function, **options) if options else function
        self.args = args

    def forward(self, x):
        return self.function(x, *self.args)

    def describe(self):
        function = getattr(self.function, "func", self.function)
        options = getattr(self.function, "keywords", {})
        name = getattr(function, "__name__", type(function).__name__)
        return ", ".join([*[name] * (type(self) is Function), *map(str, self.args),
                          *(f"{name} {value}" for name, value in options.items())])


class Activation(Function):
    """An activation by name: relu, leaky_relu, elu, sigmoid, tanh, softplus."""

    NAMES = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")

    def __init__(self, name):
        if name not in self.NAMES:
            raise unknown("activation", name, self.NAMES)
        super().__init__(getattr(ops, name))
        self.name = name

    def describe(self):
        return self.name


class MaxPool2d(Function):
    """The largest of each window."""

    def __init__(self, size, stride=None, padding=0):
        checked_pool("MaxPool2d", size, stride, padding)
        super().__init__(ops.max_pool2d, size, stride, padding)


class AvgPool2d(Function):
    """The mean of each window."""

    def __init__(self, size, stride=None, padding=0):
        checked_pool("AvgPool2d", size, stride, padding)
        super().__init__(ops.avg_pool2d, size, stride, padding)


class Upsample(Function):
    """Each pixel ``scale`` times along height and width."""

    def __init__(self, scale):
        super().__init__(ops.upsample2d, whole("Upsample", "scale", scale))


class Flatten(Function):
    """(N, …) → (N, product of the rest)."""

    def __init__(self):
        super().__init__(ops.flatten)


class Reshape(Module):
    """(N, …) → (N, *shape)."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x):
        return ops.reshape(x, (x.shape[0], *self.shape))

    def describe(self):
        return f"N, {', '.join(map(str, self.shape))}"


class Sequential(Module):
    """Layers, one after another.

    A convolution or batch norm with an ``Activation`` behind it is computed with it in one pass,
    unless somebody watches the layers one by one. The values are the same.
    """

    FUSING = (Conv2d, ConvTranspose2d, BatchNorm)

    def __init__(self, *layers):
        for layer in layers:
            if not isinstance(layer, Module):
                raise UserError(f"Sequential was given a {type(layer).__name__}: expected layers; "
                                "an op becomes one by nn.Function(op)")
        self.layers = list(layers)

    def append(self, layer):
        """Add a layer at the end; returns this network."""
        self.layers.extend(Sequential(layer).layers)
        return self

    def forward(self, x):
        waiting = None                        # a layer that may take the next one along
        for layer in self.layers:
            if waiting is not None:
                fused = type(layer) is Activation
                x = waiting.forward(x, layer.name if fused else None)
                waiting = None
                if fused:
                    continue
            if type(layer) in self.FUSING and Module._watcher.get() is None:
                waiting = layer
            else:
                x = layer(x)
        return x if waiting is None else waiting(x)

    def __getitem__(self, i):
        """A layer; of a slice a ``Sequential`` of the same layers, which shares their weights."""
        return Sequential(*self.layers[i]) if isinstance(i, slice) else self.layers[i]

    def __len__(self):
        return len(self.layers)

