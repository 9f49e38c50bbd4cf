"""Modules, layers and initialisers.

A module is whatever its attributes are: tensors that require a gradient are its parameters, arrays
its buffers, modules (and lists of them) its parts. Names follow the attributes: ``encoder.0.w``.
"""

import contextlib
import functools
import math

import numpy as np

from . import ops
from .context import Switch, no_grad
from .errors import UserError, unknown
from .memory import ARRAYS, array_module, host, own, put
from .random import Stream
from .tensor import Tensor, constant, tensor

ALIGNED = 16                            # numbers: 64 bytes of float32, a line of the cache
default_stream = Stream(0, "nn.init")   # for layers that are given none; it moves on with each


# --- initialisers: weights (…, C, O) of given fans -----------------------------------------------

def glorot(shape, fan_in, fan_out, stream, dtype):
    """U(±√(6/(fan_in + fan_out))), variance 2/(fan_in + fan_out). Glorot & Bengio 2010."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return ((2 * stream.uniform(shape, dtype) - 1) * limit).astype(dtype)


def glorot_sigmoid(shape, fan_in, fan_out, stream, dtype):
    """Four times ``glorot``, for sigmoid units, whose slope at 0 is ¼. Theano's tutorials."""
    return 4 * glorot(shape, fan_in, fan_out, stream, dtype)


def he(shape, fan_in, fan_out, stream, dtype):
    """N(0, 2/fan_in), for rectified units. He et al. 2015."""
    return (stream.normal(shape, dtype) * math.sqrt(2 / fan_in)).astype(dtype)


def dcgan(shape, fan_in, fan_out, stream, dtype):
    """N(0, 0.02²). Radford, Metz & Chintala 2016."""
    return (stream.normal(shape, dtype) * 0.02).astype(dtype)


def pytorch(shape, fan_in, fan_out, stream, dtype):
    """U(±1/√fan_in), PyTorch's default for linear and convolution layers, biases included."""
    return ((2 * stream.uniform(shape, dtype) - 1) / math.sqrt(fan_in)).astype(dtype)


INITIALISERS = {"glorot": glorot, "glorot-sigmoid": glorot_sigmoid, "he": he, "dcgan": dcgan,
                "pytorch": pytorch}


def initial(how, shape, stream, dtype, fans=None):
    """A parameter drawn by the initialiser ``how``; fans from the filter shape (…, C, O)."""
    if how not in INITIALISERS:
        raise unknown("initialiser", how, INITIALISERS)
    window = math.prod(shape[:-2])
    fan_in, fan_out = fans or (window * shape[-2], window * shape[-1])
    return tensor(INITIALISERS[how](shape, fan_in, fan_out, stream or default_stream, dtype),
                  requires_grad=True)


def initial_bias(how, fan_in, n, stream, dtype):
    """Zeros; for "pytorch" its uniform law."""
    if how == "pytorch":
        return initial(how, (n,), stream, dtype, fans=(fan_in, n))
    return tensor(np.zeros(n, dtype), requires_grad=True)


# --- Module --------------------------------------------------------------------------------------

class Module:
    """Base of layers and networks; ``forward`` says what calling it computes."""

    training = True
    _watcher = Switch("watcher", None)                   # see ``watching``

    def forward(self, x):
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x)")

    def __call__(self, *inputs):
        y = self.forward(*inputs)
        if (watcher := Module._watcher.get()) is not None and not self.parts():
            watcher(self, inputs[0], y)
        return y

    @staticmethod
    @contextlib.contextmanager
    def watching(watcher):
        """Inside, ``watcher(layer, x, y)`` is called with what each layer is given and gives."""
        Module._watcher.enter(watcher, Module._watcher.get())
        Module._watcher.set(watcher)
        try:
            yield
        finally:
            Module._watcher.leave(watcher)

    def parts(self):
        """Name → module, of the direct parts, in order."""
        found = {}
        for name, value in vars(self).items():
            if isinstance(value, Module):
                found[name] = value
            elif isinstance(value, (list, tuple)) and any(isinstance(v, Module) for v in value):
                found.update({f"{name}.{i}": part for i, part in enumerate(value)})
        return found

    def _named(self, wanted, prefix=""):
        """Dotted name → attribute that ``wanted`` accepts, of this module and its parts."""
        found = {prefix + name: v for name, v in vars(self).items() if wanted(v)}
        for name, part in self.parts().items():
            found.update(part._named(wanted, f"{prefix}{name}."))
        return found

    def named_parameters(self):
        """Dotted name → tensor; a shared (tied) parameter appears once, by its first name."""
        once = {}
        for name, p in self._named(lambda v: isinstance(v, Tensor) and v.requires_grad).items():
            once.setdefault(id(p), (name, p))
        return dict(once.values())

    def parameters(self):
        """The parameters in order."""
        return list(self.named_parameters().values())

    def named_buffers(self):
        """Dotted name → array that is saved but not trained (running statistics)."""
        return self._named(lambda v: type(v) in ARRAYS)

    def modules(self):
        """This module and all below it."""
        return [self, *(m for part in self.parts().values() for m in part.modules())]

    def train(self, mode=True):
        """Training mode (noise, batch statistics); ``eval()`` for the other."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        return self.train(False)

    def zero_grad(self):
        """Forget the accumulated gradients."""
        for p in self.parameters():
            p.grad = None

    @contextlib.contextmanager
    def frozen(self):
        """Inside, the parameters are constants: gradients pass through, none are made for them."""
        nodes = [(p, p.node) for p in self.parameters()]
        for p, _ in nodes:
            p.node = None
        try:
            yield self
        finally:
            for p, node in nodes:
                p.node = node

    def state_dict(self):
        """Dotted name → NumPy array: copies of all parameters and buffers."""
        arrays = {name: p.data for name, p in self.named_parameters().items()}
        return {name: np.array(host(a)) for name, a in {**arrays, **self.named_buffers()}.items()}

    def load_state_dict(self, state):
        """Put saved arrays back, in place; names, shapes and dtypes must agree."""
        mine = {**{n: p.data for n, p in self.named_parameters().items()}, **self.named_buffers()}
        if set(mine) != set(state):
            raise UserError(f"the saved state does not fit this network: missing "
                            f"{sorted(set(mine) - set(state))}, unexpected "
                            f"{sorted(set(state) - set(mine))}; load it into the network it is of")
        for name, array in mine.items():
            if array.shape != state[name].shape or array.dtype != state[name].dtype:
                raise UserError(f"the saved {name} is {state[name].dtype}{state[name].shape}, this "
                                f"network's is {array.dtype}{array.shape}; load it into the "
                                "network it is of")
        for name, array in mine.items():
            put(array, state[name])
        for p in self.parameters():
            p.changes[0] += 1

    def pack(self):
        """Move all parameters into one contiguous buffer, gradients likewise; returns both (P,).

        The parameters become views: one kernel updates the network, one array saves it. Each begins
        at a multiple of ALIGNED numbers, so that its rows can be read in wide accesses; what lies
        between stays 0.
        """
        parameters = self.parameters()
        if not parameters:
            raise UserError(f"{type(self).__name__} has no parameters to optimise")
        packed = getattr(parameters[0].data, "base", None)
        places, total = places_of([p.size for p in parameters])
        if packed is not None and packed.size == total and all(
                p.data.base is packed and p.grad_buffer is not None for p in parameters):
            return packed, parameters[0].grad_buffer.base
        if any(p.grad_buffer is not None for p in parameters):
            raise UserError("some of these parameters already belong to another optimiser's "
                            "network; make one optimiser for the whole, or one for each part")
        dtype = parameters[0].dtype
        data, grads = (array_module().zeros(total, dtype) for _ in range(2))
        for p, first in zip(parameters, places, strict=True):
            here = slice(first, first + p.size)
            view = data[here].reshape(p.shape)
            view[...] = p.data
            p.data, p.grad_buffer = view, grads[here].reshape(p.shape)
        return data, grads

    def flops(self, x_shape, y_shape):
        """Floating-point operations of a forward pass; 0 for what only moves or looks up."""
        return 0

    def summary(self, input_shape, dtype=np.float32):
        """A table of the layers for an input of ``input_shape`` (N, …): shape, parameters, FLOPs.
        """
        mode, trace = self.training, []
        try:
            with no_grad(), self.watching(lambda m, x, y: trace.append((m, x.shape, y.shape))):
                self.eval()(constant(np.zeros(input_shape), dtype))
        finally:
            self.train(mode)
        names = {id(m): n for n, m in self._named_modules().items()}
        rows = [("layer", "output", "parameters", "FLOPs")]
        rows += [(f"{names.get(id(m), '')} {type(m).__name__}".strip(), str(y),
                  f"{sum(p.size for p in m.parameters()):,}", f"{m.flops(x, y):,}")
                 for m, x, y in trace]
        rows.append(("total", "", f"{sum(p.size for p in self.parameters()):,}",
                     f"{sum(m.flops(x, y) for m, x, y in trace):,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w)
                                   for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
                         for row in rows)

    def _named_modules(self, prefix=""):
        found = {}
        for name, part in self.parts().items():
            found[prefix + name] = part
            found.update(part._named_modules(f"{prefix}{name}."))
        return found


def places_of(sizes):
    """Where arrays of these sizes begin in one buffer, and its length."""
    ends = np.cumsum([0, *(-(-n // ALIGNED) * ALIGNED for n in sizes)]).tolist()
    return ends[:-1], ends[-1]


# --- layers with parameters ----------------------------------------------------------------------

class Dense(Module):
    """a(x w + b): (N, inputs) → (N, outputs)."""

    def __init__(self, inputs, outputs, activation=None, init="glorot", stream=None,
                 dtype=np.float32):
        self.w = initial(init, (inputs, outputs), stream, dtype)
        self.b = initial_bias(init, inputs, outputs, stream, dtype)
        self.activation = activation

    def forward(self, x):
        return ops.dense(x, self.w, self.b, self.activation)

    def flops(self, x_shape, y_shape):
        return 2 * x_shape[0] * math.prod(self.w.shape)


class TiedDense(Module):
    """a(x wᵀ + b) with the weights of another dense layer, which it shares."""

    def __init__(self, tied_to, activation=None):
        self.w = tied_to.w
        self.b = tensor(np.zeros(self.w.shape[0], self.w.dtype), requires_grad=True)
        self.activation = activation

    def forward(self, x):
        return ops.dense(x, self.w, self.b, self.activation, tied=True)

    def flops(self, x_shape, y_shape):
        return 2 * x_shape[0] * math.prod(self.w.shape)


class Conv2d(Module):
    """Convolution (N, H, W, inputs) → (N, OH, OW, outputs), ``size`` an int or a pair."""

    def __init__(self, inputs, outputs, size, stride=1, padding=0, dilation=1, bias=True,
                 init="he", stream=None, dtype=np.float32):
        kh, kw = (size, size) if isinstance(size, int) else size
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype)
        self.b = initial_bias(init, kh * kw * inputs, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "dilation": dilation}

    def forward(self, x, activation=None):
        return ops.conv2d(x, self.w, self.b, **self.options, activation=activation)

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(y_shape[:3]) * math.prod(self.w.shape)


class ConvTranspose2d(Module):
    """Transposed convolution (N, H, W, inputs) → (N, OH, OW, outputs)."""

    def __init__(self, inputs, outputs, size, stride=1, padding=0, output_padding=0, dilation=1,
                 bias=True, init="he", stream=None, dtype=np.float32):
        kh, kw = (size, size) if isinstance(size, int) else size
        self.w = initial(init, (kh, kw, inputs, outputs), stream, dtype)
        self.b = initial_bias(init, kh * kw * outputs, outputs, stream, dtype) if bias else None
        self.options = {"stride": stride, "padding": padding, "output_padding": output_padding,
                        "dilation": dilation}

    def forward(self, x, activation=None):
        return ops.conv_transpose2d(x, self.w, self.b, **self.options, activation=activation)

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(x_shape[:3]) * math.prod(self.w.shape)


class BatchNorm(Module):
    """Normalise each channel over all other axes; running statistics for ``eval()``, which move
    while training unless ``tracking`` is False."""

    tracking = True

    def __init__(self, channels, momentum=0.1, eps=1e-5, dtype=np.float32):
        self.gamma = tensor(np.ones(channels, dtype), requires_grad=True)
        self.beta = tensor(np.zeros(channels, dtype), requires_grad=True)
        self.running_mean = own(np.zeros(channels, dtype))
        self.running_var = own(np.ones(channels, dtype))
        self.momentum, self.eps = momentum, eps

    def forward(self, x, activation=None):
        running = (self.running_mean, self.running_var) if self.tracking or not self.training else (
            None, None)
        return ops.batch_norm(x, self.gamma, self.beta, *running, train=self.training,
                              momentum=self.momentum, eps=self.eps, activation=activation)

    def flops(self, x_shape, y_shape):
        return 2 * math.prod(x_shape)


# --- layers without parameters -------------------------------------------------------------------

class Dropout(Module):
    """Zero each element with probability p while training; its noise comes from ``stream``."""

    def __init__(self, p, stream=None):
        self.p, self.stream = p, stream or Stream(0, "nn.dropout")

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        return ops.dropout(x, self.p, self.stream.uniform(x.shape, x.dtype))


class Function(Module):
    """A layer that is an op with its options: ``Function(sg.leaky_relu, slope=0.1)``."""

    def __init__(self, function, *args, **options):
        self.function = functools.partial(function, **options) if options else function
        self.args = args

    def forward(self, x):
        return self.function(x, *self.args)


class Activation(Function):
    """An activation by name: relu, leaky_relu, elu, sigmoid, tanh, softplus."""

    NAMES = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")

    def __init__(self, name):
        if name not in self.NAMES:
            raise unknown("activation", name, self.NAMES)
        super().__init__(getattr(ops, name))
        self.name = name


class MaxPool2d(Function):
    """The largest of each window."""

    def __init__(self, size, stride=None, padding=0):
        super().__init__(ops.max_pool2d, size, stride, padding)


class AvgPool2d(Function):
    """The mean of each window."""

    def __init__(self, size, stride=None, padding=0):
        super().__init__(ops.avg_pool2d, size, stride, padding)


class Upsample(Function):
    """Each pixel ``scale`` times along height and width."""

    def __init__(self, scale):
        super().__init__(ops.upsample2d, scale)


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


class Sequential(Module):
    """Layers, one after another.

    A convolution or batch norm with an ``Activation`` behind it is computed with it in one pass,
    unless somebody watches the layers one by one. The values are the same.
    """

    FUSING = (Conv2d, ConvTranspose2d, BatchNorm)

    def __init__(self, *layers):
        self.layers = list(layers)

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
        return self.layers[i]

    def __len__(self):
        return len(self.layers)
