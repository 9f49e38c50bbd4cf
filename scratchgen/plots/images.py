"""Pictures of images: inputs, reconstructions, samples and first-layer filters."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import nn
from ..engine.random import Streams
from ..errors import UserError
from .capabilities import draws_images, samples_of, title_of
from .mosaic import mosaic, rows_sheet, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..models.base import Model


def triptych(model, test):
    """Test images of every class: clean, corrupted, reconstructed."""
    if not (draws_images(model) and model.kind == "dae"):
        return None
    c, (clean, noisy, decoded) = model.config, denoised(model, test.of_each_class())
    middle = f"corrupted  $\\tilde x$  ({c.corruption} {c.level:g})" if c.level else "not corrupted"
    return rows_sheet({"clean  $x$": clean, middle: noisy,
                       "reconstruction  $g(f(\\tilde x))$": decoded},
                      f"{title_of(model)}: test images and their reconstructions")


def denoised(model, x):
    """``(x, corrupted x, reconstruction)``, with the corruption of the training."""
    pair = model.draw(x, Streams(model.seed))[0]
    noisy = model.images(pair.noisy)
    return x, noisy, model.reconstruct(noisy)


def reconstructions(model, test):
    """Test images of every class and the images decoded from their mean codes."""
    if not (draws_images(model) and model.kind == "vae"):
        return None
    x = test.of_each_class()
    return rows_sheet({"test image  $x$": x,
                       "decoded mean of  $q(z|x)$": model.reconstruct(x)},
                      "VAE: test images and their reconstructions")


def samples(model, count=64):
    """Images decoded from random codes."""
    generated = samples_of(model, count) if draws_images(model) else None
    if generated is None:
        return None
    titles = {"vae": "VAE: samples, decoder means for $z \\sim N(0, I)$",
              "gan": "GAN: samples $G(z)$, $z \\sim N(0, I)$"}
    return sheet(mosaic(generated),
                 titles.get(model.kind, f"{title_of(model)}: images decoded from random codes"))


# --- filters --------------------------------------------------------------------------------------


def first_weights(model: "Model") -> np.ndarray | None:
    """Weights of the first layer as images (units, H, W, C), or None.

    Those of a dense layer have the size of the images, those of a convolution the size of its
    filters. The first layer is that of the encoder, the features or the discriminator.
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
    """The weights of the first units as images: 0 is mid-grey, ±max |w| of a unit white or black.
    """
    weights = first_weights(model)
    if weights is None:
        return None
    shown = weights[:count]
    return sheet(mosaic(to_grey(shown)), f"{title_of(model)}: first-layer filters, {len(shown)} "
                 f"of {len(weights)} units\n(mid-grey: 0)")


def to_grey(weights):
    """Weights (units, H, W, C) as images in [0, 1], each scaled by its largest |w|."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * weights / np.maximum(largest, np.finfo(weights.dtype).tiny)


def filters_by_corruption(models: "Sequence[Model]", count: int = 20) -> "Figure":
    """The same units of several denoising autoencoders, a row for each level of corruption.

    Models with the same seed have the same initial weights, so the differences in a column are due
    to the corruption. Raises UserError unless all have first-layer filters of one size.
    """
    weights = [first_weights(model) for model in models]
    if not weights or any(w is None for w in weights) or len({w.shape[1:] for w in weights}) > 1:
        raise UserError("filters_by_corruption compares first-layer filters: expected models of "
                        "images with filters of one size")
    levels = [getattr(model.config, "level", math.nan) for model in models]
    rows = {}
    for i in np.argsort(levels, kind="stable"):
        c = models[i].config
        name = f"{getattr(c, 'corruption', 'corruption')} {levels[i]:g}"
        name += f"  (run {i + 1})" if name in rows else ""
        rows[name] = to_grey(weights[i][:min(count, *(len(w) for w in weights))])
    return rows_sheet(rows, "First-layer filters of the same units, by corruption", columns=10)
