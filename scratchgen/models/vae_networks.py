"""The VAE's networks: five modules, whatever the architecture.

    encoder   rows x (N, D)        → h
    mean      h                    → m (N, Z)
    logvar    h                    → v (N, Z):  q(z|x) = N(m, diag e^v)
    hidden    z (N, Z)             → g
    decoder   g                    → output (N, D): logits, or means
"""

import math

import numpy as np

from .. import nn, ops
from ..errors import UserError
from ..tensor import tensor
from . import by_hand
from .coders import dense_layers

FILTER = {"size": 4, "stride": 2, "padding": 1}        # (s + 2 − 4)/2 + 1 = s/2: half an even side


class Constant(nn.Module):
    """The same trained row ``b`` for every input: (N, anything) → (N, Z)."""

    def __init__(self, n, dtype=np.float32):
        self.b = tensor(np.zeros(n, dtype), requires_grad=True)

    def forward(self, x):
        return ops.broadcast_to(self.b, (x.shape[0], *self.b.shape))


def constant_forward(layer, x):
    return np.broadcast_to(layer.b.data, (len(x), *layer.b.shape)), x


def constant_backward(layer, x, dy):
    return {"b": dy.sum(axis=0)}, np.zeros_like(x)


by_hand.LAYERS[Constant] = constant_forward, constant_backward


def build(config, image_shape, stream, dtype):
    """name → module of the five, drawn from ``stream`` in their order."""
    how = {"init": config.init, "stream": stream, "dtype": dtype}
    if config.arch == "conv" and len(image_shape) != 3:
        raise UserError(f'arch = "conv" convolves images, and an item here has shape {image_shape}:'
                        ' expected (H, W, C); use arch = "mlp"')
    return {"mlp": mlp, "conv": conv, "linear": linear}[config.arch](config, image_shape, how)


def mlp(config, image_shape, how):
    """Dense layers of the sizes ``hidden`` to the code, and in reverse order back."""
    pixels, sizes, a = math.prod(image_shape), list(config.hidden), config.activation
    return {
        "encoder": dense_layers([pixels, *sizes], a, a, **how),
        "mean": nn.Dense(sizes[-1], config.latent, **how),
        "logvar": nn.Dense(sizes[-1], config.latent, **how),
        "hidden": dense_layers([config.latent, *sizes[::-1]], a, a, **how),
        "decoder": nn.Dense(sizes[0], pixels, **how),
    }


def linear(config, image_shape, how):
    """q(z|x) = N(xV + c, D) with one D for all x, and output zW + μ: exact answers exist for it.

    Lucas, Tucker, Grosse & Norouzi 2019.
    """
    pixels = math.prod(image_shape)
    return {"encoder": nn.Sequential(), "mean": nn.Dense(pixels, config.latent, **how),
            "logvar": Constant(config.latent, how["dtype"]),
            "hidden": nn.Sequential(), "decoder": nn.Dense(config.latent, pixels, **how)}


def conv(config, image_shape, how):
    """4×4 filters with stride 2, ``channels`` many, down to a dense layer each for m and v; and up.

    An odd side s becomes (s − 1)/2; on the way up one row more (output_padding) gives s back.
    """
    (height, width, colours), channels = image_shape, list(config.channels)
    sides, planes = [(height, width)], [colours, *channels]
    for _ in channels:
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    if min(sides[-1]) < 1:
        raise UserError(f"images of {height}×{width} cannot be halved {len(channels)} times: "
                        f'expected sides of at least {2**len(channels)}; use arch = "mlp" or fewer '
                        "channels")
    down, up = [nn.Reshape(*image_shape)], []
    for inputs, outputs in zip(planes[:-1], planes[1:], strict=True):
        down += [nn.Conv2d(inputs, outputs, **FILTER, **how), nn.Activation(config.activation)]
    features = (*sides[-1], channels[-1])
    size = math.prod(features)
    found = {"encoder": nn.Sequential(*down, nn.Flatten()),
             "mean": nn.Dense(size, config.latent, **how),
             "logvar": nn.Dense(size, config.latent, **how)}
    up = [nn.Dense(config.latent, size, config.activation, **how), nn.Reshape(*features)]
    for i in reversed(range(1, len(channels) + 1)):
        extra = tuple(side % 2 for side in sides[i - 1])
        layer = nn.ConvTranspose2d(planes[i], planes[i - 1], **FILTER, output_padding=extra, **how)
        up += [layer, nn.Activation(config.activation)]
    found["hidden"] = nn.Sequential(*up[:-2])
    found["decoder"] = nn.Sequential(up[-2], nn.Flatten())
    return found
