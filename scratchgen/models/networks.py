"""Encoders and decoders: dense layers, or convolutions. Rows (N, D) in, rows out.

Between images and codes a convolutional coder has its own shape, (N, H, W, C); outside it looks
like any other, so that losses and models need not know which one they use.
"""

import itertools
import math

from .. import nn
from ..errors import UserError

CHANNELS = (32, 64)                       # of conv_encoder, and back
WINDOW = {"size": 4, "stride": 2, "padding": 1}        # (s + 2 − 4)/2 + 1 = s/2: half an even side


def dense_layers(sizes, activation, last, **options):
    """From ``sizes[0]`` to ``sizes[-1]``, with ``activation`` between and ``last`` at the end.

    One layer comes as it is, several as a Sequential.
    """
    activations = [activation] * (len(sizes) - 2) + [last]
    layers = [nn.Dense(i, o, a, **options)
              for i, o, a in zip(sizes[:-1], sizes[1:], activations, strict=True)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def conv_encoder(shape, outputs, last, **options):
    """Rows of images → half as high and wide, 32 channels → again, 64 → codes (N, outputs).

    Rectified convolutions of 4×4; the codes' activation is ``last``.
    """
    filters = {k: v for k, v in options.items() if k != "init"}        # he, for rectified units
    size = math.prod(features(shape, CHANNELS))
    return nn.Sequential(*downwards(shape, CHANNELS, "relu", **filters),
                         nn.Dense(size, outputs, last, **options))


def conv_decoder(inputs, shape, **options):
    """The way back: codes (N, inputs) → rows of logits (N, H·W·C)."""
    filters = {k: v for k, v in options.items() if k != "init"}
    size = math.prod(features(shape, CHANNELS))
    return nn.Sequential(nn.Dense(inputs, size, "relu", **options),
                         *upwards(shape, CHANNELS, "relu", **filters))


def downwards(shape, channels, activation, **options):
    """Layers from rows of images to rows of features: a convolution for each of ``channels``.

    A convolution of 4×4 with stride 2 and padding 1 halves the sides: ⌊s/2⌋.
    """
    planes = zip([shape[-1], *channels], channels, strict=False)
    layers = [[nn.Conv2d(inputs, outputs, **WINDOW, **options), nn.Activation(activation)]
              for inputs, outputs in planes]
    return [nn.Reshape(*shape), *itertools.chain(*layers), nn.Flatten()]


def upwards(shape, channels, activation, **options):
    """The way back, from rows of features to rows of images; no activation after the last layer.

    Where a side was odd, one row more (output_padding) gives it back.
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
    """The sides (H, W) of an image and after each halving; UserError if there are not enough."""
    if len(shape) != 3 or min(shape[:2]) < 2**times:
        raise UserError(f'arch = "conv" halves height and width, convolution by convolution, and '
                        f'the items have shape {"×".join(map(str, shape))}: expected images (H, W, '
                        f'C) of at least {2**times} by {2**times} pixels; choose arch = "mlp"')
    return [tuple(side >> i for side in shape[:2]) for i in range(times + 1)]
