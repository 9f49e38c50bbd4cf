"""Encoders and decoders: dense layers, or convolutions. Rows (N, D) in, rows out.

Convolutional networks reshape rows to images (N, H, W, C) inside, so that losses and models are the
same for every architecture.
"""

import itertools
import math

from .. import nn
from ..errors import UserError

CHANNELS = (32, 64)                       # of conv_encoder, and back
WINDOW = {"size": 4, "stride": 2, "padding": 1}        # (s + 2 − 4)/2 + 1 = s/2: half an even side


def dense_layers(sizes, activation, last, **options):
    """Dense layers of the widths ``sizes``: ``activation`` between them, ``last`` at the end.

    A single layer is returned as a Dense, several as a Sequential.
    """
    activations = [activation] * (len(sizes) - 2) + [last]
    layers = [nn.Dense(i, o, a, **options)
              for i, o, a in zip(sizes[:-1], sizes[1:], activations, strict=True)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def conv_encoder(shape, outputs, last, **options):
    """Rows of images → downsampled by 2, 32 channels → again, 64 channels → codes (N, outputs).

    4×4 convolutions with ReLU, then a dense layer with the activation ``last``.
    """
    filters = {k: v for k, v in options.items() if k != "init"}        # he, for ReLU units
    size = math.prod(features(shape, CHANNELS))
    return nn.Sequential(*downwards(shape, CHANNELS, "relu", **filters),
                         nn.Dense(size, outputs, last, **options))


def conv_decoder(inputs, shape, **options):
    """The mirror image of ``conv_encoder``: codes (N, inputs) → rows of logits (N, H·W·C)."""
    filters = {k: v for k, v in options.items() if k != "init"}
    size = math.prod(features(shape, CHANNELS))
    return nn.Sequential(nn.Dense(inputs, size, "relu", **options),
                         *upwards(shape, CHANNELS, "relu", **filters))


def downwards(shape, channels, activation, **options):
    """Layers from rows of images to rows of features: one convolution for each of ``channels``.

    A 4×4 convolution with stride 2 and padding 1 halves height and width: s → ⌊s/2⌋.
    """
    planes = zip([shape[-1], *channels], channels, strict=False)
    layers = [[nn.Conv2d(inputs, outputs, **WINDOW, **options), nn.Activation(activation)]
              for inputs, outputs in planes]
    return [nn.Reshape(*shape), *itertools.chain(*layers), nn.Flatten()]


def upwards(shape, channels, activation, **options):
    """Layers from rows of features to rows of images; no activation after the last.

    Where ``downwards`` halved an odd side, output_padding restores its size.
    """
    planes, layers = [shape[-1], *channels], [nn.Reshape(*features(shape, channels))]
    for i, sides in reversed(list(enumerate(halved(shape, len(channels))[:-1]))):
        odd = tuple(side % 2 for side in sides)
        layers += [nn.ConvTranspose2d(planes[i + 1], planes[i], **WINDOW, output_padding=odd,
                                      **options), nn.Activation(activation)]
    return [*layers[:-1], nn.Flatten()]


def features(shape, channels):
    """(H, W, C) after the last convolution."""
    return (*halved(shape, len(channels))[-1], channels[-1])


def halved(shape, times):
    """(H, W) of an image, and after each of ``times`` halvings. UserError if it is too small."""
    if len(shape) != 3 or min(shape[:2]) < 2**times:
        raise UserError(f'arch = "conv" halves height and width, convolution by convolution, and '
                        f'the items have shape {"×".join(map(str, shape))}: expected images (H, W, '
                        f'C) of at least {2**times} by {2**times} pixels; choose arch = "mlp"')
    return [tuple(side >> i for side in shape[:2]) for i in range(times + 1)]
