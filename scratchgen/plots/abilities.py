"""What a picture asks of a model: its samples, its codes, what it can do, how it is named."""

import numpy as np

from ..errors import UserError

ENCODED_AT_ONCE = 500        # images; bounds the memory of the hidden layers


def has(model, *abilities):
    """Whether the model has all of these methods (a GAN's ``encode`` is None)."""
    return all(callable(getattr(model, name, None)) for name in abilities)


def samples_of(model, n):
    """n samples, or None if the model makes none (a classifier's ``sample`` refuses)."""
    try:
        return np.asarray(model.sample(n), np.float32) if has(model, "sample") else None
    except UserError:
        return None


def draws_images(model):
    """Whether the model's items are images (H, W, C) in grey or colour, not points (D,)."""
    return len(model.image_shape) == 3 and model.image_shape[2] in (1, 3)


def title_of(model):
    """How a picture names the model: VAE, GAN, …"""
    return model.kind.upper() if len(model.kind) <= 4 else model.kind.capitalize()


def codes_of(model, x):
    """Codes (N, Z) of many items, a few at a time; maps of features become rows."""
    chunks = np.array_split(x, -(-len(x) // ENCODED_AT_ONCE))
    codes = np.concatenate([model.encode(chunk) for chunk in chunks])
    return codes.reshape(len(codes), -1)
