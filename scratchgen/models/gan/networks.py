"""The networks of a GAN: multi-layer perceptrons, and DCGAN's pair of convolutional ones.

All map rows (N, D) to rows, so that the losses are the same for every architecture.
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
    """z (N, Z) → (N, H/4, W/4, 2·channels) → upsampled by 2, twice → rows (N, H·W·C) in (−1, 1)."""
    h, w, c = quarter_size(shape)
    options = {"init": init, "stream": stream, "dtype": dtype}
    return nn.Sequential(
        nn.Dense(latent, h * w * 2 * channels, **options),
        nn.Reshape(h, w, 2 * channels), batch_norm(2 * channels, init, stream, dtype),
        nn.Activation("relu"),
        nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False, **options),
        batch_norm(channels, init, stream, dtype), nn.Activation("relu"),
        nn.ConvTranspose2d(channels, c, 4, 2, 1, **options), nn.Activation("tanh"), nn.Flatten())


def conv_discriminator(shape, channels, normed, init, stream, dtype):
    """Rows (N, H·W·C) → images → downsampled by 2, twice → one logit per image, (N, 1).

    ``normed``: whether to use batch norm. With a penalty on the gradient at each image there is
    none, because batch norm makes D's output for one image depend on all the others.
    """
    h, w, c = quarter_size(shape)
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


def quarter_size(shape):
    """(H/4, W/4, C), or UserError."""
    if len(shape) != 3 or shape[0] % 4 or shape[1] % 4:
        raise UserError(f'arch = "conv" halves height and width twice, and the items have shape '
                        f'{tuple(shape)}: expected images (H, W, C) with H and W divisible by 4; '
                        'pad them, or choose arch = "mlp"')
    return shape[0] // 4, shape[1] // 4, shape[2]


@contextlib.contextmanager
def fixed_statistics(network):
    """A context in which the running statistics of batch norm are not updated."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm) and m.tracking]
    for layer in layers:
        layer.tracking = False
    try:
        yield network
    finally:
        for layer in layers:
            layer.tracking = True


@contextlib.contextmanager
def training_mode(network, training):
    """A context with the network in training mode (or in eval mode if ``training`` is False)."""
    before = network.training
    network.train(training)
    try:
        yield network
    finally:
        network.train(before)
