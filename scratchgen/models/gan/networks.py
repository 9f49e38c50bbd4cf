"""The networks of a GAN: multi-layer perceptrons, and DCGAN's pair of convolutional ones.

All take and give rows (N, D), so that the games need not know which they play with.
Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks" (2016): strided convolutions instead of pooling, batch norm in both players
except at D's input and G's output, ReLU in G, leaky ReLU in D.
"""

import contextlib

from ... import nn
from ...errors import UserError

ACTIVATION = "leaky_relu"


def perceptron(sizes, last, init, stream, dtype):
    """Dense layers with leaky ReLU between them and the activation ``last`` at the end."""
    activations = [ACTIVATION] * (len(sizes) - 2) + [last]
    return nn.Sequential(*(nn.Dense(i, o, a, init, stream, dtype)
                           for i, o, a in zip(sizes[:-1], sizes[1:], activations, strict=True)))


def conv_generator(latent, shape, channels, init, stream, dtype):
    """z (N, Z) → (N, H/4, W/4, 2·channels) → twice as wide, twice → rows (N, H·W·C) in (−1, 1)."""
    h, w, c = quarters(shape)
    options = {"init": init, "stream": stream, "dtype": dtype}
    return nn.Sequential(
        nn.Dense(latent, h * w * 2 * channels, **options),
        nn.Reshape(h, w, 2 * channels), batch_norm(2 * channels, init, stream, dtype),
        nn.Activation("relu"),
        nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False, **options),
        batch_norm(channels, init, stream, dtype), nn.Activation("relu"),
        nn.ConvTranspose2d(channels, c, 4, 2, 1, **options), nn.Activation("tanh"), nn.Flatten())


def conv_discriminator(shape, channels, normed, init, stream, dtype):
    """Rows (N, H·W·C) → images → half as wide, twice → one logit each, (N, 1).

    ``normed`` is whether there is batch norm: a penalty on the slope at each image does without,
    since with batch norm D's answer on one image depends on all others.
    """
    h, w, c = quarters(shape)
    options = {"init": init, "stream": stream, "dtype": dtype}
    norm = [batch_norm(2 * channels, init, stream, dtype)] if normed else []
    return nn.Sequential(
        nn.Reshape(*shape),
        nn.Conv2d(c, channels, 4, 2, 1, **options), nn.Activation(ACTIVATION),
        nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=not normed, **options), *norm,
        nn.Activation(ACTIVATION), nn.Flatten(),
        nn.Dense(h * w * 2 * channels, 1, **options))


def batch_norm(channels, init, stream, dtype):
    """Batch norm; with DCGAN's initialisation γ ~ N(1, 0.02²)."""
    layer = nn.BatchNorm(channels, dtype=dtype)
    if init == "dcgan":
        layer.gamma.data += nn.dcgan((channels,), channels, channels, stream, dtype)
    return layer


def quarters(shape):
    """(H/4, W/4, C), or UserError."""
    if len(shape) != 3 or shape[0] % 4 or shape[1] % 4:
        raise UserError(f'arch = "conv" halves height and width twice, and the items have shape '
                        f'{tuple(shape)}: expected images (H, W, C) with H and W divisible by 4; '
                        'pad them, or choose arch = "mlp"')
    return shape[0] // 4, shape[1] // 4, shape[2]


@contextlib.contextmanager
def untouched(network):
    """Inside, running statistics do not move."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm) and m.tracking]
    for layer in layers:
        layer.tracking = False
    try:
        yield network
    finally:
        for layer in layers:
            layer.tracking = True


@contextlib.contextmanager
def in_mode(network, training):
    """Inside, the network is in training mode, or in the other; afterwards in the one it was in."""
    before = network.training
    network.train(training)
    try:
        yield network
    finally:
        network.train(before)
