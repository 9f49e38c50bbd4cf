"""The VAE's networks: five modules for every architecture.

    encoder   rows x (N, D)        → h
    mean      h                    → m (N, Z)
    logvar    h                    → v (N, Z):  q(z|x) = N(m, diag e^v)
    hidden    z (N, Z)             → g
    decoder   g                    → output (N, D): logits, or means
"""

import math

import numpy as np

from ... import nn, ops
from .. import by_hand
from ..networks import dense_layers, downwards, features, upwards


class Constant(nn.Module):
    """The same trained row ``b`` for every input: (N, anything) → (N, Z)."""

    def __init__(self, n, dtype=np.float32):
        self.b = nn.Parameter(np.zeros(n, dtype))

    def forward(self, x):
        return ops.broadcast_to(self.b, (x.shape[0], *self.b.shape))


def constant_forward(layer, x):
    return np.broadcast_to(layer.b.data, (len(x), *layer.b.shape)), x


def constant_backward(layer, x, dy):
    return {"b": dy.sum(axis=0)}, np.zeros_like(x)


by_hand.LAYERS[Constant] = constant_forward, constant_backward


def build(config, image_shape, stream, dtype):
    """Name → module, the five of them, with initial weights drawn from ``stream`` in this order."""
    how = {"init": config.init, "stream": stream, "dtype": dtype}
    return {"mlp": mlp, "conv": conv, "linear": linear}[config.arch](config, image_shape, how)


def mlp(config, image_shape, how):
    """Dense layers of the widths ``hidden``, and in reverse order in the decoder."""
    pixels, sizes, a = math.prod(image_shape), list(config.hidden), config.activation
    return {
        "encoder": dense_layers([pixels, *sizes], a, a, **how),
        "mean": nn.Dense(sizes[-1], config.latent, **how),
        "logvar": nn.Dense(sizes[-1], config.latent, **how),
        "hidden": dense_layers([config.latent, *sizes[::-1]], a, a, **how),
        "decoder": nn.Dense(sizes[0], pixels, **how),
    }


def linear(config, image_shape, how):
    """q(z|x) = N(xV + c, D) with one D for all x, and output zW + μ; the optimum is known exactly.

    Lucas, Tucker, Grosse & Norouzi 2019.
    """
    pixels = math.prod(image_shape)
    return {"encoder": nn.Sequential(), "mean": nn.Dense(pixels, config.latent, **how),
            "logvar": Constant(config.latent, how["dtype"]),
            "hidden": nn.Sequential(), "decoder": nn.Dense(config.latent, pixels, **how)}


def conv(config, image_shape, how):
    """4×4 convolutions with stride 2 and ``channels`` filters; dense layers for m and v; and the
    mirror image as the decoder."""
    channels, activation = list(config.channels), config.activation
    size = math.prod(features(image_shape, channels))
    found = {"encoder": nn.Sequential(*downwards(image_shape, channels, activation, **how)),
             "mean": nn.Dense(size, config.latent, **how),
             "logvar": nn.Dense(size, config.latent, **how)}
    up = [nn.Dense(config.latent, size, activation, **how),
          *upwards(image_shape, channels, activation, **how)]
    return {**found, "hidden": nn.Sequential(*up[:-2]), "decoder": nn.Sequential(*up[-2:])}
