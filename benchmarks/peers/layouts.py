"""Weights from the workloads' convention into a peer's, and gradients back.

A peer that keeps images as N C H W has the features of its flattened images in another order: the
dense layers beside them get their rows and columns permuted once, so that no step pays for it.
"""

import numpy as np

from ..workloads import Conv, ConvTranspose, Dense


def as_channels_first(layer, name, array, back=False):
    """A dense layer's rows and columns for flattened (C, H, W) instead of (H, W, C)."""
    if not isinstance(layer, Dense):
        return array
    if name == "w" and layer.takes:
        array = permuted(array, 0, layer.takes, back)
    if layer.gives:
        array = permuted(array, array.ndim - 1, layer.gives, back)
    return array


def permuted(array, axis, shape, back):
    h, w, c = shape
    order = np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1).ravel()
    return np.take(array, np.argsort(order) if back else order, axis=axis)


def to_torch(layer, name, array, channels_first):
    """(I, O) → (O, I); filters (KH, KW, C, O) → (O, C, KH, KW), transposed ones (C, O, KH, KW)."""
    if channels_first:
        array = as_channels_first(layer, name, array)
    if name == "w":
        axes = {Conv: (3, 2, 0, 1), ConvTranspose: (2, 3, 0, 1)}.get(type(layer), (1, 0))
        array = array.transpose(axes)
    return np.array(array, order="C")


def from_torch(layer, name, array, channels_first):
    if name == "w":
        axes = {Conv: (2, 3, 1, 0), ConvTranspose: (2, 3, 0, 1)}.get(type(layer), (1, 0))
        array = array.transpose(axes)
    return as_channels_first(layer, name, array, back=True) if channels_first else array


def to_jax(layer, name, array, channels_first):
    """Filters of transposed convolutions are rotated by 180°; with N C H W all are (O, C, …)."""
    if channels_first:
        array = as_channels_first(layer, name, array)
    if name == "w" and isinstance(layer, ConvTranspose):
        array = array[::-1, ::-1]
    if name == "w" and isinstance(layer, (Conv, ConvTranspose)) and channels_first:
        array = array.transpose(3, 2, 0, 1)
    return np.array(array, order="C")


def from_jax(layer, name, array, channels_first):
    if name == "w" and isinstance(layer, (Conv, ConvTranspose)) and channels_first:
        array = array.transpose(2, 3, 1, 0)
    if name == "w" and isinstance(layer, ConvTranspose):
        array = array[::-1, ::-1]
    return as_channels_first(layer, name, array, back=True) if channels_first else array
