"""Initial weights. An initialiser draws an array from its fans, the numbers of inputs and outputs
of a unit; weights have the shape (…, C, O)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from ..engine.random import Stream
from ..errors import unknown
from .checks import float_dtype
from .parameters import Parameter
from .types import InitialiserName

default_stream = Stream(0, "nn.init")   # of all layers made without ``stream``


def glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, stream: Stream,
           dtype: DTypeLike) -> np.ndarray:
    """U(±√(6/(fan_in + fan_out))), of variance 2/(fan_in + fan_out). Glorot & Bengio 2010, (16)."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return ((2 * stream.uniform(shape, dtype) - 1) * limit).astype(dtype)


def glorot_sigmoid(shape: tuple[int, ...], fan_in: int, fan_out: int, stream: Stream,
                   dtype: DTypeLike) -> np.ndarray:
    """Four times ``glorot``, for sigmoid units, whose slope at 0 is ¼. Theano's tutorials."""
    return 4 * glorot(shape, fan_in, fan_out, stream, dtype)


def he(shape: tuple[int, ...], fan_in: int, fan_out: int, stream: Stream,
       dtype: DTypeLike) -> np.ndarray:
    """N(0, 2/fan_in), for ReLU units. He et al. 2015, (10)."""
    return (stream.normal(shape, dtype) * math.sqrt(2 / fan_in)).astype(dtype)


def dcgan(shape: tuple[int, ...], fan_in: int, fan_out: int, stream: Stream,
          dtype: DTypeLike) -> np.ndarray:
    """N(0, 0.02²). Radford, Metz & Chintala 2016."""
    return (stream.normal(shape, dtype) * 0.02).astype(dtype)


def pytorch(shape: tuple[int, ...], fan_in: int, fan_out: int, stream: Stream,
            dtype: DTypeLike) -> np.ndarray:
    """U(±1/√fan_in), PyTorch's default for linear and convolution layers, biases included."""
    return ((2 * stream.uniform(shape, dtype) - 1) / math.sqrt(fan_in)).astype(dtype)


INITIALISERS: dict[str, Callable[..., np.ndarray]] = {
    "glorot": glorot, "glorot-sigmoid": glorot_sigmoid, "he": he, "dcgan": dcgan,
    "pytorch": pytorch}


def initial(how: InitialiserName, shape: tuple[int, ...], stream: Stream | None, dtype: DTypeLike,
            fans: tuple[int, int] | None = None) -> Parameter:
    """A parameter drawn by the initialiser ``how``.

    ``fans`` are (fan_in, fan_out); None: those of the filter shape (…, C, O).
    """
    if how not in INITIALISERS:
        raise unknown("initialiser", how, INITIALISERS)
    dtype = float_dtype(dtype)
    window = math.prod(shape[:-2])
    fan_in, fan_out = fans or (window * shape[-2], window * shape[-1])
    return Parameter(INITIALISERS[how](shape, fan_in, fan_out, stream or default_stream, dtype))


def initial_bias(how: InitialiserName, fan_in: int, n: int, stream: Stream | None,
                 dtype: DTypeLike) -> Parameter:
    """A bias of n zeros; for "pytorch" drawn like the weights."""
    if how == "pytorch":
        return initial(how, (n,), stream, dtype, fans=(fan_in, n))
    return Parameter(np.zeros(n, float_dtype(dtype)))
