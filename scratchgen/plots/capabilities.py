"""Queries of a model that the pictures need: its methods, samples, codes and title."""

import numpy as np

from ..errors import UserError

ENCODED_AT_ONCE = 500        # images; limits the memory of the hidden layers


def has(model, *methods):
    """Whether the model has all of these methods (a GAN's ``encode`` is None)."""
    return all(callable(getattr(model, name, None)) for name in methods)


def samples_of(model, n):
    """n samples; None if the model cannot sample (a classifier's ``sample`` raises UserError)."""
    try:
        return np.asarray(model.sample(n), np.float32) if has(model, "sample") else None
    except UserError:
        return None


def draws_images(model):
    """Whether the model's items are images (H, W, C) in grey or colour, not points (D,)."""
    return len(model.image_shape) == 3 and model.image_shape[2] in (1, 3)


def title_of(model):
    """The name of the model in titles: VAE, GAN, Classifier, …"""
    return model.kind.upper() if len(model.kind) <= 4 else model.kind.capitalize()


def codes_of(model, x):
    """Codes (N, Z) of many items, computed in chunks; feature maps are flattened."""
    chunks = np.array_split(x, -(-len(x) // ENCODED_AT_ONCE))
    codes = np.concatenate([model.encode(chunk) for chunk in chunks])
    return codes.reshape(len(codes), -1)
