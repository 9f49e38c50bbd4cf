"""Pictures made of images: what goes in, what comes out, what first-layer units look for."""

import math

import numpy as np

from .. import nn
from ..engine.random import Streams
from ..errors import UserError
from .abilities import draws_images, samples_of, title_of
from .mosaic import mosaic, rows_sheet, sheet


def triptych(model, test):
    """Test images of every class: clean, corrupted, reconstructed."""
    if not (draws_images(model) and model.kind == "dae"):
        return None
    c, (clean, noisy, again) = model.config, denoised(model, test.of_each_class())
    how = f"corrupted  $\\tilde x$  ({c.corruption} {c.level:g})" if c.level else "not corrupted"
    return rows_sheet({"clean  $x$": clean, how: noisy,
                       "reconstruction  $g(f(\\tilde x))$": again},
                      f"{title_of(model)}: test images, corrupted and decoded")


def denoised(model, x):
    """Images, the same corrupted as in training, and what the model makes of those."""
    pair = model.draw(x, Streams(model.seed))[0]
    noisy = model.images(pair.noisy)
    return x, noisy, model.reconstruct(noisy)


def reconstructions(model, test):
    """Test images of every class and what their mean codes decode to."""
    if not (draws_images(model) and model.kind == "vae"):
        return None
    x = test.of_each_class()
    return rows_sheet({"test image  $x$": x,
                       "decoded mean of  $q(z|x)$": model.reconstruct(x)},
                      "VAE: test images and their reconstructions")


def samples(model, count=64):
    """Images from random codes."""
    made = samples_of(model, count) if draws_images(model) else None
    if made is None:
        return None
    titles = {"vae": "VAE: samples, decoder means of $z \\sim N(0, I)$",
              "gan": "GAN: samples $G(z)$, $z \\sim N(0, I)$"}
    return sheet(mosaic(made), titles.get(
        model.kind, f"{title_of(model)}: decoder on random codes:\n"
        "it never learned which codes are images"))


# --- filters --------------------------------------------------------------------------------------


def first_weights(model):
    """Weights into the first layer as images (units, H, W, C), or None.

    A dense layer's are as large as the images, a convolution's as its window. The first layer is
    that of the encoder, the features or the discriminator, whichever the model has.
    """
    if not draws_images(model):
        return None
    for name in ("encoder", "features", "classifier", "stack", "discriminator"):
        network = getattr(model, name, None)
        parts = network if isinstance(network, (list, tuple)) else [network]
        for part in parts:
            for layer in part.modules() if isinstance(part, nn.Module) else ():
                weights = _as_images(layer, model)
                if weights is not None:
                    return weights
    return None


def _as_images(layer, model):
    if isinstance(layer, nn.Dense) and layer.w.shape[0] == model.pixels:
        return layer.w.data.T.reshape(-1, *model.image_shape)
    if isinstance(layer, nn.Conv2d) and layer.w.shape[2] == model.image_shape[2]:
        return np.moveaxis(layer.w.data, 3, 0)
    return None


def filters(model, count=100):
    """The weights into units as images: 0 is mid-grey, white and black ±max |w| of each."""
    weights = first_weights(model)
    if weights is None:
        return None
    shown = weights[:count]
    return sheet(mosaic(in_grey(shown)), f"{title_of(model)}: first-layer filters, {len(shown)} "
                 f"of {len(weights)} units\n(mid-grey: 0)")


def in_grey(weights):
    """Weights (units, H, W, C) as images in [0, 1], each with a grey scale of its own."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * weights / np.maximum(largest, np.finfo(weights.dtype).tiny)


def filters_by_corruption(models, count=20):
    """The same units of several denoising autoencoders, a row for each level of corruption.

    Models of one seed start from the same weights, so what differs below one another is what the
    corruption did. UserError unless all have first-layer filters of one size.
    """
    weights = [first_weights(model) for model in models]
    if not weights or any(w is None for w in weights) or len({w.shape[1:] for w in weights}) > 1:
        raise UserError("filters side by side: expected models on images, with first-layer "
                        "filters of one size")
    levels = [getattr(model.config, "level", math.nan) for model in models]
    rows = {}
    for i in np.argsort(levels, kind="stable"):
        c = models[i].config
        name = f"{getattr(c, 'corruption', 'corruption')} {levels[i]:g}"
        name += f"  (run {i + 1})" if name in rows else ""
        rows[name] = in_grey(weights[i][:min(count, *(len(w) for w in weights))])
    return rows_sheet(rows, "The same units as corruption grows", columns=10)
