"""Integrals over one or two dimensions on a grid, with a check that it is fine and wide enough.

On equal steps the trapezoidal rule has a relative error of 2 exp(−2π² (std/step)²) for a Gaussian:
5·10⁻⁹ for a step of one std, less than rounding for half of one. A grid that is too small or too
coarse would give wrong divergences without any error. So the densities are integrated too, and a
mass other than 1 is an error.
"""

import math

import numpy as np

from ..errors import UserError

# A Gaussian has 1.2e-15 of its mass beyond 8 std.
REACH = 8
STEPS_PER_STD = {1: 100, 2: 4}  # in 1-D points are cheap; the error at kinks (a maximum) is step²
MAX_POINTS = 1 << 22
MASS_TOLERANCE = 1e-6
CHUNK = 1 << 16


def integrate(densities, integrand, coarser=1):
    """``(∫ integrand, masses)``, float64 and (number of densities,).

    ``densities``: Mixtures of 1 or 2 dimensions, which determine the extent and step of the grid.
    ``integrand(x, *log_densities)`` returns (M,) values at the points x (M, D). ``coarser``: a
    factor of the step. Raises UserError unless each density has mass 1 within 10⁻⁶ on the grid.
    """
    axes = _axes(densities, coarser)
    cell = math.prod(axis[1] - axis[0] for axis in axes)
    total, masses = 0.0, np.zeros(len(densities))
    for x in _points(axes):
        logs = [density.log_density(x) for density in densities]
        masses += [cell * np.exp(log).sum() for log in logs]
        total += cell * integrand(x, *logs).sum()
    if not (np.abs(masses - 1) <= MASS_TOLERANCE).all():
        sizes = "×".join(str(len(axis)) for axis in axes)
        raise UserError(
            f"on a grid of {sizes} points the densities have mass "
            f"{', '.join(f'{mass:.6f}' for mass in masses)}: expected 1; their std is too small "
            "for the distance between their modes; use wider or closer modes"
        )
    return total, masses


def _axes(densities, coarser):
    """The coordinates along each dimension."""
    dimensions = {density.dimensions for density in densities}
    if len(dimensions) != 1 or not dimensions <= set(STEPS_PER_STD):
        raise UserError(
            f"densities of {' and '.join(map(str, sorted(dimensions)))} dimensions cannot be "
            "integrated on a grid: expected 1 or 2, the same for all"
        )
    d = dimensions.pop()
    low = np.min([(m.means - REACH * m.std[:, None]).min(axis=0) for m in densities], axis=0)
    high = np.max([(m.means + REACH * m.std[:, None]).max(axis=0) for m in densities], axis=0)
    step = coarser * min(m.std.min() for m in densities) / STEPS_PER_STD[d]
    # The number of points is limited; if the step becomes too coarse, the check of the mass fails.
    most = int(MAX_POINTS ** (1 / d))
    counts = [1 + min(math.ceil(width / step), most) for width in high - low]
    return [np.linspace(*ends) for ends in zip(low, high, counts, strict=True)]


def _points(axes):
    """The points of the grid, (M, D), at most CHUNK at a time."""
    shape = tuple(len(axis) for axis in axes)
    for first in range(0, math.prod(shape), CHUNK):
        indices = np.unravel_index(np.arange(first, min(first + CHUNK, math.prod(shape))), shape)
        yield np.stack([axis[i] for axis, i in zip(axes, indices, strict=True)], axis=1)
