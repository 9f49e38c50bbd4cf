"""The densities by name: ring, grid, moons and a mixture in one dimension.

The sizes of ring and grid are those in Z. Lin et al., "PacGAN" (2018), section 4.1.
"""

import inspect
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError, unknown
from .mixture import LARGEST, Mixture, is_real


def gaussian(mean: ArrayLike = 0.0, std: float = 1.0) -> Mixture:
    """N(mean, std² I) as a Mixture of one component; ``mean`` is a number or (D,)."""
    return Mixture(None, np.reshape(mean, (1, -1)), std)


def mixture1d(means: ArrayLike = (-1.5, 1.5), std: ArrayLike = 0.5,
              weights: ArrayLike | None = None) -> Mixture:
    """A mixture in one dimension; ``std`` is one number or one for each of the means."""
    return Mixture(weights, np.reshape(means, (-1, 1)), std)


def ring(modes: int = 8, radius: float = 1.0, std: float = 0.01) -> Mixture:
    """Gaussians of equal weight at equal distances on a circle.

    The angles are 2πk/modes with k < modes. (A range that includes 2π, as in a well-known
    demonstration of GANs, has two modes at the same position, so one mode fewer.)
    """
    angle = 2 * math.pi * np.arange(_count("modes", modes)) / modes
    circle = on_circle(angle)
    return Mixture(None, _positive("radius", radius) * circle, std)


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """side × side Gaussians of equal weight on a square grid around 0."""
    steps = _positive("spacing", spacing) * (np.arange(_count("side", side)) - (side - 1) / 2)
    return Mixture(None, np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2), std)


def moons(std: float = 0.1, components: int = 64) -> Mixture:
    """Two interleaved half circles of radius 1, each of ``components`` Gaussians along the arc.

    The distance between the Gaussians is less than their std, so they form one smooth band, whose
    density is still known exactly. The class of a point is its moon, 0 or 1.
    """
    angle = math.pi * (np.arange(_count("components", components)) + 0.5) / components
    upper = on_circle(angle)
    lower = np.array([1.0, 0.5]) - upper
    return Mixture(None, np.concatenate([upper, lower]), std, np.repeat([0, 1], components))


def on_circle(angles):
    """(cos, sin) of each angle. Not by NumPy, whose last bit depends on the processor."""
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles])


DENSITIES: dict[str, Callable[..., Mixture]] = {
    "ring": ring, "grid": grid, "moons": moons, "mixture1d": mixture1d}


def density_named(name: str, **options: Any) -> Mixture:
    """The Mixture ``name``; ``options`` are those of the function of that name.

    Raises UserError for an unknown name or option, with the nearest match.
    """
    if not isinstance(name, str) or name not in DENSITIES:
        raise unknown("density", name, DENSITIES)
    known = inspect.signature(DENSITIES[name]).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return DENSITIES[name](**options)


def _positive(what, value):
    if not is_real(value) or not 0 < value <= LARGEST:
        raise UserError(f"{what} is {value!r}: expected a finite number above 0")
    return float(value)


def _count(what, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"{what} is {value!r}: expected a whole number, 1 or more")
    return int(value)
