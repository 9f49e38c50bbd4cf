"""Encoders and decoders: dense layers, or convolutions. Rows (N, D) in, rows out.

Between images and codes a convolutional coder has its own shape, (N, H, W, C); outside it looks
like any other, so that losses and models need not know which one they use.
"""

from .. import nn
from ..errors import UserError

CHANNELS = (32, 64)                       # after the first and the second convolution
WINDOW = {"size": 4, "stride": 2, "padding": 1}


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
    (h, w), _ = halves(shape)
    one, two = CHANNELS
    filters = {k: v for k, v in options.items() if k != "init"}        # he, for rectified units
    return nn.Sequential(
        nn.Reshape(*shape),
        nn.Conv2d(shape[2], one, **WINDOW, **filters), nn.Activation("relu"),
        nn.Conv2d(one, two, **WINDOW, **filters), nn.Activation("relu"),
        nn.Flatten(), nn.Dense(h * w * two, outputs, last, **options))


def conv_decoder(inputs, shape, **options):
    """The way back: codes (N, inputs) → rows of logits (N, H·W·C)."""
    (h, w), ((h2, w2), odd) = halves(shape)
    one, two = CHANNELS
    filters = {k: v for k, v in options.items() if k != "init"}
    return nn.Sequential(
        nn.Dense(inputs, h * w * two, "relu", **options), nn.Reshape(h, w, two),
        nn.ConvTranspose2d(two, one, **WINDOW, output_padding=(h2 - 2 * h, w2 - 2 * w), **filters),
        nn.Activation("relu"),
        nn.ConvTranspose2d(one, shape[2], **WINDOW, output_padding=odd, **filters), nn.Flatten())


def halves(shape):
    """((H, W) after two convolutions, ((H, W) after one, what the last one cut off)).

    A convolution of 4×4 with stride 2 and padding 1 gives ⌊H/2⌋; the transposed one makes up for
    the odd row with output padding, so that any size from 4×4 on comes back as it was.
    """
    if len(shape) != 3 or min(shape[:2]) < 4:
        raise UserError(f'arch = "conv" halves height and width twice, and the items have shape '
                        f'{tuple(shape)}: expected images (H, W, C) of at least 4 by 4 pixels; '
                        'choose arch = "mlp"')
    h, w = shape[0] // 2, shape[1] // 2
    return (h // 2, w // 2), ((h, w), (shape[0] % 2, shape[1] % 2))
