"""Corruptions of images for denoising autoencoders.

A corruption is called with images and a stream and returns a ``Corrupted`` pair of clean and noisy
images. A loss takes the pair, feeds ``noisy`` to the network and compares with ``clean``, which
prevents training on a noisy target by mistake.

Source: P. Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010), section 3.3.
"""

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from ..engine.backend import kernels
from ..engine.memory import contiguous, is_readable, native, to_device
from ..engine.random import Stream
from ..errors import UserError, unknown

noise_kernels = kernels("noise")


@dataclass(frozen=True, eq=False)
class Corrupted:
    """The input (``noisy``) and the target (``clean``) of a denoising autoencoder.

    Two float arrays of the same shape and dtype, both read-only copies, so that later changes of
    the original arrays do not change the pair. ``fresh``: the noisy array has no other reference
    and is not copied. (On a GPU, which has no read-only arrays, they are not copied.)
    """

    clean: np.ndarray
    noisy: np.ndarray
    fresh: InitVar[bool] = False

    def __post_init__(self, fresh: bool):
        clean, noisy = _float_array(self.clean, "clean"), _float_array(self.noisy, "noisy")
        if clean.shape != noisy.shape or clean.dtype != noisy.dtype:
            raise UserError(
                f"the clean array is {clean.dtype} {clean.shape} and the noisy one {noisy.dtype} "
                f"{noisy.shape}: expected the same shape and dtype"
            )
        if is_readable(clean):
            clean, noisy = _read_only(clean.copy()), _read_only(noisy if fresh else noisy.copy())
        object.__setattr__(self, "clean", clean)
        object.__setattr__(self, "noisy", noisy)


@dataclass(frozen=True)
class Masking:
    """Sets each component to 0, independently, with probability ``fraction`` (0 to 1)."""

    fraction: float

    def __post_init__(self):
        _check_fraction(self.fraction)

    def __call__(self, x: ArrayLike, stream: Stream) -> Corrupted:
        """The Corrupted pair of x, drawn with random numbers of ``stream``."""
        return _corrupted(noise_kernels.masking, x, stream.uniform, self.fraction)


@dataclass(frozen=True)
class SaltAndPepper:
    """Sets each component, with probability ``fraction`` (0 to 1), to 0 or 1, equally likely."""

    fraction: float

    def __post_init__(self):
        _check_fraction(self.fraction)

    def __call__(self, x: ArrayLike, stream: Stream) -> Corrupted:
        """The Corrupted pair of x, drawn with random numbers of ``stream``."""
        return _corrupted(noise_kernels.salt_and_pepper, x, stream.uniform, self.fraction)


@dataclass(frozen=True)
class Gaussian:
    """Adds normal noise of mean 0 and standard deviation ``std`` to each component.

    Values are not clipped to [0, 1]: clipping would concentrate probability at 0 and 1, and the
    optimal denoiser would no longer give the score of the smoothed density (Vincent 2011).
    """

    std: float

    def __post_init__(self):
        if not _is_finite_number(self.std) or self.std < 0:
            raise UserError(
                f"the std of the Gaussian corruption is {self.std!r}: expected a finite number, "
                "0 or more (0.1 to 0.5 is usual for images in [0, 1])"
            )

    def __call__(self, x: ArrayLike, stream: Stream) -> Corrupted:
        """The Corrupted pair of x, drawn with random numbers of ``stream``."""
        return _corrupted(noise_kernels.gaussian, x, stream.normal, self.std)


Corruption = Masking | SaltAndPepper | Gaussian
CORRUPTIONS: dict[str, Callable[[float], Corruption]] = {
    "masking": Masking, "salt-and-pepper": SaltAndPepper, "gaussian": Gaussian}


def _corrupted(kernel, x, draw, level):
    """The Corrupted pair of x.

    The noise is always drawn in float32, so that it is the same in float32 and float64.
    """
    x = contiguous(_float_array(x, "x"))
    noisy = np.empty_like(x)                           # not a pooled buffer: it becomes read-only
    kernel(x.reshape(-1), draw(x.shape).reshape(-1), level, noisy.reshape(-1))
    return Corrupted(clean=x, noisy=noisy, fresh=True)


def corruption_named(name: str, level: float) -> Corruption:
    """The corruption ``name`` of strength ``level``: its fraction, or for "gaussian" its std."""
    if not isinstance(name, str) or name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    return CORRUPTIONS[name](level)


def _check_fraction(fraction):
    if not _is_finite_number(fraction) or not 0 <= fraction <= 1:
        raise UserError(
            f"the corrupted fraction is {fraction!r}: expected a number from 0 (nothing) to 1 (all)"
        )


def _is_finite_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _float_array(x, name):
    x = native(x, name) if isinstance(x, np.ndarray) else to_device(x)
    if x.dtype not in (np.float32, np.float64):
        raise UserError(
            f"{name} is an array of dtype {x.dtype}: expected float32 or float64 images in "
            "[0, 1]; use the batches of a Loader, or divide uint8 images by 255"
        )
    return to_device(x)


def _read_only(array):
    """A read-only view of the array: its ``writeable`` flag cannot be set again."""
    array.flags.writeable = False
    return array.view()
