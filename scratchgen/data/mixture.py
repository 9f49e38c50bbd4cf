"""Mixtures of Gaussians: points whose density, score and optimal denoiser are known exactly.

A generative model that is trained on them can be compared with exact values. All arithmetic is
float64; sums of exponentials are computed as log-sum-exp, so nothing under- or overflows far away
from all modes.

Source: the posterior mean is Miyasawa's (1961) and Tweedie's formula.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..engine.random import Stream
from ..errors import UserError
from .quadrature import integrate

# (LARGEST / SMALLEST_STD)² is finite in float64.
LARGEST, SMALLEST_STD = 1e100, 1e-50
CHUNK = 1 << 20  # point-component pairs at a time; limits the memory of every method
MMSE_DRAWS = 200_000  # in more than two dimensions, where quadrature is not possible
_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class Estimate:
    """A number and its error; the function that returns it says what the error is."""

    value: float
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class Mixture:
    """Σₖ πₖ N(mₖ, τₖ² I) in D dimensions, K components.

    weights π (K,), which sum to 1, or None for equal ones; means m (K, D); ``std`` τ, one number
    or (K,); ``classes`` (K,) integers, the label of a point drawn from each component, by default
    0 … K−1. All are stored as read-only arrays. Points x are (N, D), or (N,) if D is 1.
    Raises UserError for arrays whose shapes do not match and for values that are not finite.
    """

    weights: np.ndarray
    means: np.ndarray
    std: np.ndarray
    classes: np.ndarray = None                      # type: ignore[assignment]

    if TYPE_CHECKING:                               # the arguments; the fields are arrays
        def __init__(self, weights: ArrayLike | None, means: ArrayLike, std: ArrayLike,
                     classes: ArrayLike | None = None) -> None: ...

    def __post_init__(self):
        means = _numbers("means", self.means)
        if means.ndim != 2 or means.size == 0:
            raise UserError(f"the means have shape {means.shape}: expected (K, D), one row a mode")
        k = len(means)
        std = _per_component("std", self.std, k)
        if not (std >= SMALLEST_STD).all():
            raise UserError(f"the smallest std is {std.min():g}: expected numbers above 0, at "
                            f"least {SMALLEST_STD:g}")
        weights = _per_component("weights", 1 / k if self.weights is None else self.weights, k)
        if not (weights > 0).all() or abs(weights.sum() - 1) > 1e-9:
            raise UserError(f"the smallest weight is {weights.min():g} and the sum "
                            f"{weights.sum():.10g}: expected numbers above 0 that sum to 1")
        classes = np.arange(k) if self.classes is None else np.array(self.classes)
        if classes.shape != (k,) or classes.dtype.kind not in "iu":
            raise UserError(f"the classes have shape {classes.shape}: expected {k} whole numbers")
        for name, array in (("weights", weights / weights.sum()), ("means", means), ("std", std),
                            ("classes", classes)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def dimensions(self) -> int:
        """D, the number of coordinates of a point."""
        return self.means.shape[1]

    @property
    def modes(self) -> np.ndarray:
        """The centres of the components, (K, D)."""
        return self.means

    def __repr__(self):
        k, d = self.means.shape
        return f"Mixture({k} components in {d} dimensions, std {np.unique(self.std)})"

    # -- points

    def sample(self, n: int, stream: Stream) -> np.ndarray:
        """n points, float64 (n, D), drawn with random numbers of ``stream``."""
        return self.draw(n, stream)[0]

    def draw(self, n: int, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        """``(points, components)``: n points (n, D), and the component of each, int64 (n,)."""
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 0:
            raise UserError(f"the number of points is {n!r}: expected a whole number, 0 or more")
        upper = np.cumsum(self.weights)[:-1]  # not the last: rounded, it may be less than a draw
        component = np.searchsorted(upper, stream.uniform(n, np.float64), side="right")
        noise = stream.normal((n, self.dimensions), np.float64)
        return self.means[component] + self.std[component, None] * noise, component

    # -- the density

    def log_density(self, x: ArrayLike) -> np.ndarray:
        """ln p(x) in nats, float64 (N,)."""
        return self._by_chunks(self._log_density, x)

    def _log_density(self, x):
        joint = self._log_joint(x)
        largest = joint.max(axis=1)
        return largest + np.log(np.exp(joint - largest[:, None]).sum(axis=1))

    def score(self, x: ArrayLike) -> np.ndarray:
        """∇ₓ ln p(x), float64, of the shape of x."""
        return self._by_chunks(self._score, x).reshape(np.shape(x))

    def _score(self, x):
        pull = self._responsibilities(x) / self.std**2
        # Σₖ γₖ (mₖ − x)/τₖ², with x taken out of the sum
        return pull @ self.means - pull.sum(axis=1, keepdims=True) * x

    def responsibilities(self, x: ArrayLike) -> np.ndarray:
        """γ (N, K): the probability that x was drawn from each component."""
        return self._by_chunks(self._responsibilities, x)

    def _responsibilities(self, x):
        joint = self._log_joint(x)
        weight = np.exp(joint - joint.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def _log_joint(self, x):
        """ln πₖ N(x; mₖ, τₖ² I), (N, K)."""
        # Differences before squares: |x|² − 2xm + |m|² loses digits far from the origin.
        squares = sum((x[:, d, None] / self.std - self.means[:, d] / self.std) ** 2
                      for d in range(self.dimensions))
        log_norm = self.dimensions * (np.log(self.std) + 0.5 * math.log(2 * math.pi))
        return np.log(self.weights) - log_norm - 0.5 * squares

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """P(X ≤ x), float64 (N,); for one dimension only."""
        if self.dimensions != 1:
            raise UserError(f"the cdf of a mixture in {self.dimensions} dimensions: expected 1")
        z = (self.as_points(x) - self.means[:, 0]) / self.std
        return (0.5 * _erfc(-z / math.sqrt(2)).astype(np.float64)) @ self.weights

    # -- noise

    def smoothed(self, std: float) -> "Mixture":
        """The density of x + std·ε with ε ~ N(0, I): the mixture with variances τ² + std²."""
        std = _noise(std)
        return Mixture(self.weights, self.means, np.hypot(self.std, std), self.classes)

    def posterior_mean(self, noisy: ArrayLike, std: float) -> np.ndarray:
        """E[x | x + std·ε = noisy], of the shape of ``noisy``: the denoiser of least squared error.

        Σₖ γₖ (std² mₖ + τₖ² noisy) / (std² + τₖ²), γ the responsibilities of the smoothed mixture;
        equal to noisy + std² ∇ ln p_std(noisy).
        """
        smoothed = self.smoothed(std)
        share = (_noise(std) / smoothed.std) ** 2  # the weight of the mean; 1 − share: of the point

        def mean(x):
            gamma = smoothed._responsibilities(x)
            return (gamma * share) @ self.means + (gamma @ (1 - share))[:, None] * x

        return self._by_chunks(mean, noisy).reshape(np.shape(noisy))

    def mmse(self, std: float, stream: Stream | None = None) -> Estimate:
        """The minimal E‖r(x + std·ε) − x‖² of any denoiser r: D std² − std⁴ E‖∇ ln p_std‖².

        An Estimate. In one and two dimensions by quadrature; the error is the difference from a
        grid with twice the step, an upper bound. In more dimensions it is the mean over 200,000
        draws of ``stream``, and the error is the standard error.
        """
        std, smoothed = _noise(std), self.smoothed(std)

        def posterior_variance(x):
            return self.dimensions * std**2 - std**4 * np.sum(smoothed._score(x) ** 2, axis=1)

        if self.dimensions <= 2:
            fine, coarse = (float(integrate([smoothed], lambda x, log_p: np.exp(log_p)
                                            * posterior_variance(x), coarser)[0])
                            for coarser in (1, 2))
            return Estimate(fine, abs(fine - coarse))
        if stream is None:
            raise UserError(f"the MMSE in {self.dimensions} dimensions is estimated from draws: "
                            "pass a stream")
        values = self._by_chunks(posterior_variance, smoothed.sample(MMSE_DRAWS, stream))
        return Estimate(float(values.mean()), float(values.std() / math.sqrt(MMSE_DRAWS)))

    # -- checks of points

    def _by_chunks(self, f, x):
        """f(x), computed for at most CHUNK point-component pairs at a time."""
        x = self.as_points(x)
        rows = max(1, CHUNK // len(self.weights))
        parts = [f(x[first : first + rows]) for first in range(0, max(len(x), 1), rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def as_points(self, x: ArrayLike) -> np.ndarray:
        """x as float64 (N, D); UserError if it is of another shape or not finite."""
        points = _numbers("points", x)
        if points.ndim == 1 and self.dimensions == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[1] != self.dimensions:
            raise UserError(f"the points have shape {np.shape(x)}: expected (N, {self.dimensions})")
        return points


# ------------------------------------------------------------------------ checks


def _numbers(what, values):
    """A float64 copy; UserError unless all values are finite real numbers up to LARGEST."""
    if isinstance(values, np.ma.MaskedArray):
        raise UserError(f"the {what} are a masked array: expected an array without a mask, which "
                        "would be ignored; fill it, or select with .compressed()")
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        raise UserError(f"the {what} are of dtype {array.dtype}: expected an array of real numbers")
    array = array.astype(np.float64)
    if not (np.abs(array) <= LARGEST).all():
        raise UserError(f"the {what} contain NaN, infinity or numbers beyond {LARGEST:g}: "
                        "expected finite numbers")
    return array


def _per_component(what, values, k):
    array = _numbers(what, values)
    if array.ndim and array.shape != (k,):
        raise UserError(f"the {what} has shape {array.shape}: expected one number or ({k},), "
                        "one for each mean")
    return np.full(k, array) if not array.ndim else array


def _noise(std):
    if not is_real(std) or not 0 <= std <= LARGEST:
        raise UserError(f"the std of the noise is {std!r}: expected a finite number, 0 or more")
    return float(std)


def is_real(value):
    return isinstance(value, Real) and not isinstance(value, bool)
