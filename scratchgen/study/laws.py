"""Laws of everything that draws random numbers: ``scratchgen check laws``.

A gradient check cannot see that a sampler draws from another density than the one declared: a wrong
sampler can have the right gradient of itself. Here each declares its density, and its draws are
tested against it: moments by z-tests, the distribution function by the Kolmogorov–Smirnov test,
identities such as E[score] = 0, the closed-form KL against a Monte Carlo mean, and the pathwise
gradient of an expectation against the analytic one.

All tests of a run together raise a false alarm with probability ``FALSE_ALARMS`` at most: each is
held to this level divided by the number of tests (Bonferroni's inequality).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import data, ops
from ..data.corruption import Gaussian, Masking, SaltAndPepper
from ..data.loader import binarize
from ..engine.gradient import grad
from ..engine.memory import to_host
from ..engine.random import Stream
from ..engine.tensor import constant, tensor
from ..errors import UserError, unknown
from ..nn.initialisers import INITIALISERS

FALSE_ALARMS = 1e-3          # of a whole run
N = 100_000                  # draws of a law


class Trial(NamedTuple):
    """One test of a law: its statistic, and the probability of a larger one under the law."""

    law: str
    test: str
    statistic: float
    p_value: float


class Laws(NamedTuple):
    """The tests of a run, and the p-value below which one fails."""

    trials: list[Trial]
    threshold: float
    seed: int

    def failed(self) -> list[Trial]:
        """NaN fails."""
        return [t for t in self.trials if not t.p_value >= self.threshold]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: {seed, false_alarm_rate, threshold, laws: [{law, test, …, verdict}]}."""
        failed = self.failed()
        return {"seed": self.seed, "false_alarm_rate": FALSE_ALARMS, "threshold": self.threshold,
                "laws": [{**t._asdict(), "verdict": "fails" if t in failed else "holds"}
                         for t in self.trials]}


def check_laws(names: Sequence[str] | None = None, model: Any = None, x: Any = None,
               seed: int = 0) -> Laws:
    """Tests all laws, or those named; with a VAE and images x also its posterior's draws.

    ``seed`` determines every draw: two calls give the same p-values. UserError for an unknown name
    and for a model that draws nothing.
    """
    for name in names or ():
        if name not in LAWS:
            raise unknown("law", name, tuple(LAWS))
    found = {name: LAWS[name] for name in names or LAWS}
    if model is not None:
        if not hasattr(model, "posterior"):
            raise UserError(f"a run of the model {model.kind!r} has no sampler of its own: "
                            "expected a VAE; check laws without a run tests all others")
        found["posterior of the run"] = lambda stream: posterior(model, x, stream)
    trials = [Trial(name, test, float(statistic), float(p)) for name, law in found.items()
              for test, statistic, p in law(Stream(seed, f"laws.{name}"))]
    return Laws(trials, FALSE_ALARMS / len(trials), seed)


# --- tests: (name, statistic, p-value) -----------------------------------------------------------

def mean_test(name, sample, exact):
    """z = (mean − exact)/standard error; two-sided. A sample without spread must equal ``exact``,
    and one without numbers fails."""
    sample = np.asarray(sample, np.float64)
    if sample.size == 0:
        return name, math.nan, 0.0
    error, difference = sample.std() / math.sqrt(sample.size), sample.mean() - exact
    if error == 0:
        return name, difference, float(difference == 0)
    return name, difference / error, math.erfc(abs(difference / error) / math.sqrt(2))


def exact_test(name, holds):
    """What holds for every draw: p is 1 or 0."""
    return name, float(holds), float(holds)


def ks_test(name, sample, cdf):
    """Kolmogorov–Smirnov: D = sup |F_n − F|; p by Kolmogorov's series with Stephens' correction
    of 1970 for finite n."""
    n, f = sample.size, cdf(np.sort(np.asarray(sample, np.float64), axis=None))
    steps = np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - f), np.max(f - steps[:-1]))
    at = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    if at < 0.3:                                       # the series converges slowly; p > 0.99999
        return name, distance, 1.0
    return name, distance, min(1.0, 2 * sum(
        (-1)**(k - 1) * math.exp(-2 * (k * at)**2) for k in range(1, 101)))


def counts_test(name, counts):
    """χ² of counts that should be equal; p by Wilson and Hilferty's approximation of 1931."""
    expected, k = counts.sum() / counts.size, counts.size - 1
    chi2 = np.sum((counts - expected)**2) / expected
    z = ((chi2 / k)**(1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))
    return name, chi2, math.erfc(z / math.sqrt(2)) / 2


def normal_cdf(z):
    """Φ, by the error function of the standard library, number by number."""
    return 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in z.tolist()])


def standard_normal(sample):
    """Tests of a sample of N(0, 1)."""
    return [mean_test("mean 0", sample, 0), mean_test("variance 1", sample**2, 1),
            mean_test("fourth moment 3", sample**4, 3), ks_test("Φ", sample, normal_cdf)]


# --- the laws ------------------------------------------------------------------------------------

LAWS: dict[str, Callable[[Stream], list[tuple[Any, ...]]]] = {}


def law(name):
    """Registers a function of a stream that returns the tests of one law."""
    def register(function):
        LAWS[name] = function
        return function
    return register


@law("normal")
def normal_numbers(stream):
    """Stream.normal: N(0, 1), in both precisions; neighbours are uncorrelated."""
    found = []
    for dtype in (np.float32, np.float64):
        z = stream.normal((N,), dtype).astype(np.float64)
        found += [(f"{np.dtype(dtype).name}: {test}", *rest) for test, *rest in
                  [*standard_normal(z), mean_test("neighbours", z[::2] * z[1::2], 0)]]
    return found


@law("uniform")
def uniform_numbers(stream):
    """Stream.uniform: U[0, 1)."""
    u = stream.uniform((N,), np.float64)
    return [exact_test("within [0, 1)", np.all((u >= 0) & (u < 1))), mean_test("mean ½", u, 0.5),
            ks_test("distribution", u, lambda v: v)]


@law("reparametrize")
def reparametrized_gaussian(stream):
    """z = m + e^(v/2) ε ~ N(m, e^v): with e^v in place of e^(v/2) it would be N(m, e^(2v))."""
    m, v = 0.7, -1.3
    eps = stream.normal((N, 1), np.float64)
    mean, logvar = (tensor(np.full((N, 1), value), requires_grad=True) for value in (m, v))
    z = ops.reparametrize(mean, logvar, constant(eps))
    dm, dv = (g.data for g in grad(ops.sum(ops.square(z)), [mean, logvar]))
    return gaussian_draws(z.data, m, v) + [
        mean_test("∂E[z²]/∂m = 2m", dm, 2 * m),
        mean_test("∂E[z²]/∂v = e^v", dv, math.exp(v))]


def gaussian_draws(z, m, v):
    """Tests of draws z (N, Z) from N(m, e^v), m and v numbers or arrays (N, Z)."""
    precision = np.exp(-np.asarray(v, np.float64))
    score_of_v = ((z - m)**2 * precision - 1) / 2
    m, v = (np.broadcast_to(np.asarray(a, np.float64), z.shape) for a in (m, v))
    log_ratio = ((z**2 - (z - m)**2 * np.exp(-v) - v) / 2).sum(axis=1)      # ln q(z) − ln p(z)
    closed = ops.gaussian_kl(m.copy(), v.copy()).data
    return [*standard_normal((z - m) * np.exp(-v / 2)),
            mean_test("E[∂ ln q/∂m] = 0", (z - m) * precision, 0),
            mean_test("E[∂ ln q/∂v] = 0", score_of_v, 0),
            mean_test("KL to N(0, 1): Monte Carlo = closed form", log_ratio - closed, 0)]


@law("dropout")
def dropped_units(stream):
    """Each unit is 0 with probability p, otherwise x/(1 − p): the mean stays x."""
    p, x = 0.3, 2.0
    y = ops.dropout(np.full(N, x), p, stream.uniform((N,), np.float64)).data
    return [mean_test("dropped with probability p", y == 0, p), mean_test("mean x", y, x),
            exact_test("the others are x/(1 − p)", np.allclose(y[y != 0], x / (1 - p), 1e-14, 0))]


@law("masking")
def masked_components(stream):
    """Masking: 0 with the probability ``fraction``, otherwise unchanged."""
    x = np.full(N, 0.5)
    y = to_host(Masking(0.25)(x, stream).noisy)
    return [mean_test("0 with the fraction", y == 0, 0.25),
            mean_test("the others are unchanged", y[y != 0], 0.5)]


@law("salt-and-pepper")
def salt_and_pepper(stream):
    """With the probability ``fraction`` 0 or 1, equally likely, otherwise unchanged."""
    y = to_host(SaltAndPepper(0.4)(np.full(N, 0.5), stream).noisy)
    return [mean_test("0 with half the fraction", y == 0, 0.2),
            mean_test("1 with half the fraction", y == 1, 0.2),
            mean_test("the others are unchanged", y[(y != 0) & (y != 1)], 0.5)]


@law("gaussian corruption")
def gaussian_corruption(stream):
    """std is the standard deviation, not the variance."""
    y = to_host(Gaussian(0.3)(np.full(N, 0.5), stream).noisy)
    return standard_normal((y - 0.5) / 0.3)


@law("binarisation")
def binarised_pixels(stream):
    """Each pixel is 1 with the probability that is its grey value."""
    grey = np.repeat([0.0, 0.1, 0.5, 0.9, 1.0], N // 5).reshape(5, -1, 1, 1).swapaxes(0, 1).copy()
    y = binarize(grey.reshape(-1, 5, 1, 1), "dynamic", stream)
    return [mean_test(f"P(1) = {p}", y[:, i], p) for i, p in enumerate((0, 0.1, 0.5, 0.9, 1))]


@law("shuffling")
def shuffled_epochs(stream):
    """Each item is equally likely at each place of a permutation, and so is each pair."""
    orders = np.array([stream.permutation(8) for _ in range(N // 10)])
    pairs = np.bincount(orders[:, 0] * 8 + orders[:, 1], minlength=64).reshape(8, 8)
    return [exact_test("a permutation", np.all(np.sort(orders, axis=1) == np.arange(8))),
            *(counts_test(f"item at place {i}", np.bincount(orders[:, i], minlength=8))
              for i in (0, 3, 7)),
            counts_test("first two items", pairs[~np.eye(8, dtype=bool)])]


# The law of each initialiser: "uniform" within ± the number, or "normal" with this std, from the
# fans (300, 200): the formulas of the papers that initialisers.py names.
FANS = (300, 200)
DECLARED = {"glorot": ("uniform", math.sqrt(6 / 500)),
            "glorot-sigmoid": ("uniform", 4 * math.sqrt(6 / 500)),
            "he": ("normal", math.sqrt(2 / 300)), "dcgan": ("normal", 0.02),
            "pytorch": ("uniform", 1 / math.sqrt(300))}


@law("initialisers")
def initial_weights(stream):
    """Every initialiser, as its paper declares it."""
    found = []
    for name, (kind, size) in DECLARED.items():
        w = INITIALISERS[name](FANS, *FANS, stream, np.float64) / size
        tests = standard_normal(w.ravel()) if kind == "normal" else [
            mean_test("variance ⅓ of the limit²", w**2, 1 / 3),
            ks_test("uniform", w, lambda v: np.clip((v + 1) / 2, 0, 1))]
        found += [(f"{name}: {test}", *rest) for test, *rest in tests]
    return found


@law("mixture")
def mixture_draws(stream):
    """Points of a mixture: its distribution function, and E[score] = 0."""
    mixture = data.mixture1d((-2.0, 0.5), (0.4, 0.7), (0.3, 0.7))
    x = mixture.sample(N, stream)
    return [ks_test("distribution", x[:, 0], lambda v: mixture.cdf(v[:, None])),
            mean_test("E[score] = 0", mixture.score(x), 0)]


def posterior(model, x, stream):
    """z drawn from a trained VAE's q(z|x) as in training, for images x."""
    mean, logvar = (a.astype(np.float64) for a in model.posterior(x))
    copies = max(1, N // max(1, mean.size))
    mean, logvar = (np.tile(a, (copies, 1)) for a in (mean, logvar))
    eps = stream.normal(mean.shape, np.float64)
    return gaussian_draws(ops.reparametrize(mean, logvar, eps).data, mean, logvar)
