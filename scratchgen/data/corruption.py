"""Corruptions of images for denoising autoencoders, always together with the clean image.

A corruption is called with images and a stream and gives a ``Corrupted`` pair. A loss takes the
pair, feeds ``noisy`` to the network and compares with ``clean``; to train on a noisy target by
mistake, one would have to unpack the pair on purpose.

Source: P. Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010), section 3.3.
"""

import math
from dataclasses import InitVar, dataclass
from numbers import Real

import numpy as np

from ..engine.backend import kernels
from ..engine.memory import contiguous, is_host, native, to_device
from ..errors import UserError, unknown

noise_kernels = kernels("noise")


@dataclass(frozen=True, eq=False)
class Corrupted:
    """What a denoising autoencoder sees (``noisy``) and what it must say (``clean``).

    Two float arrays of the same shape and dtype, both read-only copies: what happens later to the
    arrays they came from does not reach the pair. ``fresh`` says that nobody else holds the noisy
    array, which is then not copied. (On a GPU, where nothing is read-only, they are the arrays
    themselves.)
    """

    clean: np.ndarray
    noisy: np.ndarray
    fresh: InitVar[bool] = False

    def __post_init__(self, fresh):
        clean, noisy = _float_array(self.clean, "clean"), _float_array(self.noisy, "noisy")
        if clean.shape != noisy.shape or clean.dtype != noisy.dtype:
            raise UserError(
                f"the clean array is {clean.dtype} {clean.shape} and the noisy one {noisy.dtype} "
                f"{noisy.shape}: expected the same shape and dtype"
            )
        if is_host(clean):
            clean, noisy = _read_only(clean.copy()), _read_only(noisy if fresh else noisy.copy())
        object.__setattr__(self, "clean", clean)
        object.__setattr__(self, "noisy", noisy)


@dataclass(frozen=True)
class Masking:
    """Each component is set to 0, independently, with probability ``fraction`` (0 to 1)."""

    fraction: float

    def __post_init__(self):
        _check_fraction(self.fraction)

    def __call__(self, x, stream):
        """The Corrupted pair of x, drawn with the numbers of ``stream``."""
        return _corrupted(noise_kernels.masking, x, stream.uniform, self.fraction)


@dataclass(frozen=True)
class SaltAndPepper:
    """Each component, with probability ``fraction`` (0 to 1), becomes 0 or 1 by a fair coin."""

    fraction: float

    def __post_init__(self):
        _check_fraction(self.fraction)

    def __call__(self, x, stream):
        """The Corrupted pair of x, drawn with the numbers of ``stream``."""
        return _corrupted(noise_kernels.salt_and_pepper, x, stream.uniform, self.fraction)


@dataclass(frozen=True)
class Gaussian:
    """Adds ``std`` times a standard normal number to each component.

    Nothing is clipped, so values leave [0, 1]: clipping would pile up probability at 0 and 1, and
    the optimal denoiser would no longer give the score of the smoothed density (Vincent 2011).
    """

    std: float

    def __post_init__(self):
        if not _is_finite_number(self.std) or self.std < 0:
            raise UserError(
                f"the std of the Gaussian corruption is {self.std!r}: expected a finite number, "
                "0 or more (images lie in [0, 1], so 0.1 to 0.5 is usual)"
            )

    def __call__(self, x, stream):
        """The Corrupted pair of x, drawn with the numbers of ``stream``."""
        return _corrupted(noise_kernels.gaussian, x, stream.normal, self.std)


CORRUPTIONS = {"masking": Masking, "salt-and-pepper": SaltAndPepper, "gaussian": Gaussian}


def _corrupted(kernel, x, draw, level):
    """The Corrupted pair of x; the noise is always drawn in float32, so that a float64 check sees
    the same noise as a float32 run."""
    x = contiguous(_float_array(x, "x"))
    noisy = np.empty_like(x)                           # its own memory: it will be frozen
    kernel(x.reshape(-1), draw(x.shape).reshape(-1), level, noisy.reshape(-1))
    return Corrupted(clean=x, noisy=noisy, fresh=True)


def corruption_named(name, level):
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
            "[0, 1]; a Loader gives them, or divide uint8 images by 255"
        )
    return to_device(x)


def _read_only(array):
    """A view of the array, frozen: unlike an array that owns its data, it cannot be unfrozen."""
    array.flags.writeable = False
    return array.view()
