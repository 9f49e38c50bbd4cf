"""How weights begin: draws of given fans (in and out), for weights (…, C, O)."""

import math

import numpy as np

from ..engine.random import Stream
from ..engine.tensor import FLOATS
from ..errors import UserError, unknown
from .parameters import Parameter

default_stream = Stream(0, "nn.init")   # for layers that are given none; it moves on with each


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
    dtype = checked_dtype(dtype)
    window = math.prod(shape[:-2])
    fan_in, fan_out = fans or (window * shape[-2], window * shape[-1])
    return Parameter(INITIALISERS[how](shape, fan_in, fan_out, stream or default_stream, dtype))


def initial_bias(how, fan_in, n, stream, dtype):
    """Zeros; for "pytorch" its uniform law."""
    if how == "pytorch":
        return initial(how, (n,), stream, dtype, fans=(fan_in, n))
    return Parameter(np.zeros(n, checked_dtype(dtype)))


def checked_dtype(dtype):
    """The dtype of a layer's parameters; UserError unless it is float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in FLOATS:
        raise UserError(f"the dtype of a layer is {dtype!r}; give np.float32 or np.float64")
    return found
