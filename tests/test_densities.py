"""Mixtures with exact densities, divergences by quadrature, mode counts, and points to train on."""

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgen import data
from scratchgen.data import quadrature
from scratchgen.data.mixture import Mixture
from scratchgen.engine.random import Stream
from scratchgen.errors import UserError

NAMED = tuple(data.DENSITIES)
UNEQUAL = Mixture((0.2, 0.5, 0.3), [[0.0, 1.0], [-1.5, 0.5], [2.0, -1.0]], (0.3, 0.6, 0.9))
LINE = data.mixture1d((-2.0, 0.5, 1.0), (0.4, 0.2, 0.7), (0.5, 0.2, 0.3))
THREE = Mixture((0.7, 0.3), [[0.0, 1.0, 2.0], [1.0, -1.0, 0.5]], (0.5, 0.8))


def stream(name="test"):
    return Stream(3, name)


@st.composite
def mixtures(draw, dimensions=None):
    """Small mixtures whose parts lie within reach of a grid."""
    d = dimensions or draw(st.integers(1, 2))
    k = draw(st.integers(1, 4))
    number = st.floats(-3, 3)
    means = draw(st.lists(st.lists(number, min_size=d, max_size=d), min_size=k, max_size=k))
    parts = np.array(draw(st.lists(st.floats(0.05, 1), min_size=k, max_size=k)))
    std = draw(st.lists(st.floats(0.2, 2), min_size=k, max_size=k))
    return Mixture(parts / parts.sum(), np.array(means), np.array(std))


# ------------------------------------------------------------------------ the law of the draws


@pytest.mark.parametrize("mixture", [UNEQUAL, LINE, THREE], ids=["2-D", "1-D", "3-D"])
def test_moments_of_the_draws(mixture):
    n = 400_000
    x, component = mixture.draw(n, stream())
    w, m, tau = mixture.weights, mixture.means, mixture.std
    mean = w @ m
    covariance = (m - mean).T @ np.diag(w) @ (m - mean) + (w @ tau**2) * np.eye(len(mean))
    spread = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * spread).all()
    assert np.abs(np.cov(x.T, ddof=0) - covariance).max() < 0.02 * np.abs(covariance).max()
    share = np.bincount(component, minlength=len(w)) / n
    assert (np.abs(share - w) < 5 * np.sqrt(w * (1 - w) / n)).all()
    for k in range(len(w)):  # the std of each component: not its variance, and of its own draws
        assert abs(x[component == k].std(axis=0).mean() / tau[k] - 1) < 0.01


def test_the_draws_follow_the_cdf():
    n = 200_000  # Kolmogorov-Smirnov: the distance exceeds 1.95/√n once in a thousand times
    f = LINE.cdf(np.sort(LINE.sample(n, stream())[:, 0]))
    steps = np.arange(n + 1) / n
    distance = max((steps[1:] - f).max(), (f - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_coordinate_of_a_plane_follows_its_cdf(axis):
    marginal = Mixture(UNEQUAL.weights, UNEQUAL.means[:, [axis]], UNEQUAL.std)
    n = 100_000
    f = marginal.cdf(np.sort(UNEQUAL.sample(n, stream())[:, axis]))
    assert np.abs(f - (np.arange(n) + 0.5) / n).max() < 1.95 / math.sqrt(n)


def test_draws_are_a_function_of_the_stream_alone():
    assert np.array_equal(LINE.sample(7, stream()), LINE.sample(7, stream()))
    assert not np.array_equal(LINE.sample(7, stream()), LINE.sample(7, stream("other")))
    assert LINE.sample(0, stream()).shape == (0, 1)


# ------------------------------------------------------------------------ density, score, cdf


@pytest.mark.parametrize("name", NAMED)
def test_named_densities_have_mass_one(name):
    density = data.density_named(name)
    mass, _ = quadrature.integrate([density], lambda x, log_p: np.exp(log_p))
    assert abs(mass - 1) < 1e-12


@settings(max_examples=40, deadline=None)
@given(mixtures())
def test_every_density_has_mass_one(mixture):
    mass, _ = quadrature.integrate([mixture], lambda x, log_p: np.exp(log_p))
    assert abs(mass - 1) < 1e-9


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.lists(st.floats(-6, 6), min_size=2, max_size=2))
def test_the_score_is_the_gradient_of_the_log_density(mixture, place):
    x, step = np.array([place[: mixture.dimensions]]), 1e-3
    for d in range(mixture.dimensions):
        e = step * np.eye(mixture.dimensions)[d]
        # Five points: an error of step⁴, so that the step can stay far above rounding.
        around = [mixture.log_density(x + c * e)[0] for c in (-2, -1, 1, 2)]
        difference = (around[0] - 8 * around[1] + 8 * around[2] - around[3]) / (12 * step)
        scale = max(1.0, np.abs(mixture.score(x)).max())
        assert abs(mixture.score(x)[0, d] - difference) <= 1e-6 * scale


def test_the_log_density_is_the_formula():
    x = np.array([[0.3, -0.2], [1.0, 1.5]])
    terms = [w * np.exp(-np.sum((x - m) ** 2, axis=1) / (2 * t**2)) / (2 * math.pi * t**2)
             for w, m, t in zip(UNEQUAL.weights, UNEQUAL.means, UNEQUAL.std, strict=True)]
    np.testing.assert_allclose(UNEQUAL.log_density(x), np.log(sum(terms)), rtol=1e-13)
    assert data.gaussian().log_density([0.0])[0] == -0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("far", [1e3, 1e8, 1e50, 1e100])
def test_far_from_all_modes_nothing_overflows(far):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        density = data.ring(std=0.01)
        x = np.array([[far, 0.0], [-far, far]])
        log_p, score = density.log_density(x), density.score(x)
        assert np.isfinite(log_p).all() and np.isfinite(score).all()
        np.testing.assert_allclose(score[0], [-(far - 1) / 1e-4, 0], rtol=1e-3, atol=far)
        assert np.isfinite(density.posterior_mean(x, 0.3)).all()
        assert list(data.gaussian().cdf([-far, far])) == [0.0, 1.0]


def test_the_cdf_is_the_integral_of_the_density():
    x = np.linspace(-4, 4, 80_001)
    p = np.exp(LINE.log_density(x))
    found = LINE.cdf(x)
    integral = found[0] + np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2) * (x[1] - x[0])])
    assert np.abs(found - integral).max() < 1e-8
    assert abs(data.gaussian().cdf([1.959963984540054])[0] - 0.975) < 1e-15
    assert 0 < data.gaussian().cdf([-30])[0] < 1e-190  # no cancellation in the tail


def test_points_on_the_line_may_be_flat_and_chunks_do_not_matter(monkeypatch):
    x = np.linspace(-3, 3, 50)
    assert np.array_equal(LINE.log_density(x), LINE.log_density(x[:, None]))
    assert LINE.score(x).shape == (50,) and LINE.score(x[:, None]).shape == (50, 1)
    whole = [LINE.score(x), LINE.log_density(x), LINE.posterior_mean(x, 0.5)]
    monkeypatch.setattr("scratchgen.data.mixture.CHUNK", 8)
    for before, after in zip(whole, [LINE.score(x), LINE.log_density(x),
                                     LINE.posterior_mean(x, 0.5)], strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-14, atol=1e-14)
    assert LINE.log_density(np.empty((0, 1))).shape == (0,)


# ------------------------------------------------------------------------ noise


@settings(max_examples=40, deadline=None)
@given(mixtures(), st.floats(0.01, 3))
def test_smoothing_twice_adds_variances(mixture, std):
    x = np.zeros((1, mixture.dimensions)) + [[0.3]]
    once = mixture.smoothed(std).smoothed(2 * std).log_density(x)
    np.testing.assert_allclose(once, mixture.smoothed(math.sqrt(5) * std).log_density(x),
                               rtol=1e-12, atol=1e-12)


def test_the_smoothed_density_is_the_law_of_noisy_draws():
    n = 200_000
    noisy = LINE.sample(n, stream())[:, 0] + 0.5 * stream("noise").normal(n, np.float64)
    f = LINE.smoothed(0.5).cdf(np.sort(noisy))
    assert np.abs(f - (np.arange(n) + 0.5) / n).max() < 1.95 / math.sqrt(n)


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.floats(0.01, 3), st.floats(-5, 5))
def test_tweedie(mixture, std, place):
    x = np.full((1, mixture.dimensions), place)
    by_score = x + std**2 * mixture.smoothed(std).score(x)
    np.testing.assert_allclose(mixture.posterior_mean(x, std), by_score, rtol=1e-9, atol=1e-9)


def test_the_posterior_mean_is_the_mean_of_the_clean_points_nearby():
    n, std, width = 2_000_000, 0.6, 0.02
    clean = LINE.sample(n, stream())[:, 0]
    noisy = clean + std * stream("noise").normal(n, np.float64)
    for place in (-1.5, -0.5, 0.4, 1.3):
        near = clean[np.abs(noisy - place) < width]
        error = 5 * near.std() / math.sqrt(len(near)) + width**2
        assert abs(near.mean() - LINE.posterior_mean([place], std)[0]) < error
    assert LINE.posterior_mean([0.7], 0.0)[0] == pytest.approx(0.7, rel=1e-15)


def test_the_least_error_of_the_ring():
    """8 modes, std 0.1, noise 0.3: 0.102, and by simulation."""
    ring, n, std = data.ring(std=0.1), 400_000, 0.3
    found = ring.mmse(std)
    assert found.value == pytest.approx(0.102, abs=5e-4) and found.error < 1e-5
    clean = ring.sample(n, stream())
    noisy = clean + std * stream("noise").normal((n, 2), np.float64)
    errors = np.sum((ring.posterior_mean(noisy, std) - clean) ** 2, axis=1)
    assert abs(errors.mean() - found.value) < 5 * errors.std() / math.sqrt(n)
    for worse in (1.05, 0.95):  # and no multiple of the optimal step does better
        other = noisy + worse * (ring.posterior_mean(noisy, std) - noisy)
        assert np.mean(np.sum((other - clean) ** 2, axis=1)) > errors.mean()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_least_error_of_a_gaussian_is_wieners(d):
    tau, std = 0.7, 0.4
    found = data.gaussian(np.zeros(d), tau).mmse(std, stream())
    exact = d * tau**2 * std**2 / (tau**2 + std**2)
    assert abs(found.value - exact) < (1e-12 if d < 3 else 5 * found.error)
    assert found.error < 1e-2 * exact


def test_more_dimensions_need_a_stream_for_the_least_error():
    with pytest.raises(UserError, match="pass a stream"):
        THREE.mmse(0.3)


# ------------------------------------------------------------------------ divergences

TABLE = [  # q, JSD(N(0, 1), q) in nats, the discriminator's least loss, Bayes accuracy
    (data.gaussian(0.5), 0.030311, 1.325672, 0.5987),
    (data.gaussian(1.0), 0.111421, 1.163451, 0.6915),
    (data.gaussian(2.0), 0.336831, 0.712633, 0.8413),
    (data.gaussian(3.0), 0.526777, 0.332740, 0.9332),
    (data.gaussian(4.0), 0.632720, 0.120854, 0.9772),
    (data.gaussian(0.0, 2.0), 0.092733, 1.200828, 0.6613),
    (data.gaussian(0.0, 0.5), 0.092733, 1.200828, 0.6613),
]


@pytest.mark.parametrize(("q", "jsd", "loss", "accuracy"), TABLE)
def test_the_published_values_of_two_gaussians(q, jsd, loss, accuracy):
    p = data.gaussian()
    assert abs(data.jensen_shannon(p, q) - jsd) < 6e-7
    assert abs(-data.value_of_game(p, q) - loss) < 6e-7
    assert abs(data.bayes_accuracy(p, q) - accuracy) < 6e-5


def test_two_gaussians_beside_each_other_have_a_bayes_accuracy_of_phi():
    for m in (0.5, 1.0, 3.0):
        exact = data.gaussian().cdf([m / 2])[0]
        assert abs(data.bayes_accuracy(data.gaussian(), data.gaussian(m)) - exact) < 1e-5
        plane = data.bayes_accuracy(data.gaussian([0.0, 0.0]), data.gaussian([0.0, m]))
        assert abs(plane - exact) < 3e-3


def test_the_optimal_logit_of_two_gaussians_is_a_line():
    x = np.linspace(-5, 5, 31)
    for m in (0.5, 2.0):
        logit = data.optimal_discriminator(data.gaussian(), data.gaussian(m))
        np.testing.assert_allclose(logit(x), -m * x + m**2 / 2, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(mixtures(dimensions=1), mixtures(dimensions=1))
def test_jensen_shannon_is_symmetric_and_bounded_and_is_the_value_of_the_game(p, q):
    jsd = data.jensen_shannon(p, q)
    assert 0 <= jsd <= math.log(2)
    assert abs(jsd - data.jensen_shannon(q, p)) < 1e-12
    logit = data.optimal_discriminator(p, q)

    def value(x, log_p, log_q):  # E_p ln D* + E_q ln(1 − D*), as it stands
        y = logit(x)
        return -np.exp(log_p) * np.logaddexp(0, -y) - np.exp(log_q) * np.logaddexp(0, y)

    assert abs(quadrature.integrate([p, q], value)[0] - data.value_of_game(p, q)) < 1e-9


@settings(max_examples=25, deadline=None)
@given(mixtures())
def test_jensen_shannon_is_zero_at_equality(p):
    assert data.jensen_shannon(p, p) == 0.0
    assert data.value_of_game(p, p) == -math.log(4)
    again = Mixture(p.weights, p.means, p.std)  # weights that are divided by their sum once more
    assert data.jensen_shannon(p, again) < 1e-14


def test_jensen_shannon_of_what_lies_apart_is_ln_2():
    apart = data.jensen_shannon(data.gaussian(-30.0), data.gaussian(30.0))
    assert abs(apart - math.log(2)) < 1e-12
    plane = data.jensen_shannon(data.ring(radius=1.0), data.ring(radius=2.0))
    assert abs(plane - math.log(2)) < 1e-9


def test_jensen_shannon_in_the_plane_equals_the_line():
    """A shift along one axis: the other coordinate cancels."""
    line = data.jensen_shannon(data.gaussian(), data.gaussian(2.0))
    plane = data.jensen_shannon(data.gaussian([0.0, 0.0]), data.gaussian([0.0, 2.0]))
    assert abs(plane - line) < 1e-9


def test_a_grid_that_loses_mass_is_an_error():
    wide = data.gaussian([0.0, 0.0], 100.0)
    with pytest.raises(UserError, match="have mass .*: expected 1"):
        data.jensen_shannon(wide, data.gaussian([0.1, 0.2], 0.01))
    with pytest.raises(UserError, match="3 dimensions cannot be integrated"):
        data.jensen_shannon(THREE, THREE)
    with pytest.raises(UserError, match="1 and 2 dimensions"):
        data.jensen_shannon(LINE, UNEQUAL)
    with pytest.raises(UserError, match="1 and 2 dimensions: expected the same"):
        data.optimal_discriminator(LINE, UNEQUAL)


def test_a_grid_cut_off_is_an_error(monkeypatch):
    monkeypatch.setattr(quadrature, "REACH", 4)
    with pytest.raises(UserError, match="mass 0.99993"):
        data.jensen_shannon(data.gaussian(), data.gaussian())


# ------------------------------------------------------------------------ modes


@pytest.mark.parametrize("density", [data.ring(), data.grid()], ids=["ring", "grid"])
def test_perfect_samples_have_98_89_percent_of_high_quality(density):
    n, k = 400_000, len(density.weights)
    report = data.mode_report(density.sample(n, stream()), density)
    expected = 1 - math.exp(-4.5)
    error = 5 * math.sqrt(expected * (1 - expected) / n)
    assert report.modes == report.captured == k
    assert abs(report.high_quality - expected) < error
    assert sum(report.counts) == round(report.high_quality * n)


@pytest.mark.parametrize(("density", "published"), [(data.ring(), 0.0014), (data.grid(), 0.0048)],
                         ids=["ring", "grid"])
def test_the_reverse_kl_of_perfect_samples(density, published):
    """(K − 1)/(2n) for n samples: 0.0014 and 0.0048 at 2,500."""
    k, runs = len(density.weights), 200
    found, quality = zip(*((r.reverse_kl, sum(r.counts)) for r in (
        data.mode_report(density.sample(2500, stream(f"run {i}")), density)
        for i in range(runs))), strict=True)
    expected = (k - 1) / (2 * np.mean(quality))
    # 2n·KL is χ² with K − 1 degrees of freedom, so its std is expected·√(2/(K − 1)).
    assert abs(np.mean(found) - expected) < 4 * expected * math.sqrt(2 / (k - 1) / runs)
    assert expected == pytest.approx(published, abs=1e-4)


def test_collapsed_and_lost_samples():
    ring = data.ring()
    one = data.mode_report(np.repeat(ring.modes[:1], 10, axis=0), ring)
    assert (one.captured, one.high_quality, one.reverse_kl) == (1, 1.0, pytest.approx(math.log(8)))
    edge = ring.modes[:1] * (1 + np.array([[0.0299], [0.0301]]))
    assert data.mode_report(edge, ring).counts[0] == 1
    none = data.mode_report(np.zeros((5, 2)), ring)
    assert none.captured == 0 and none.high_quality == 0 and math.isnan(none.reverse_kl)
    with pytest.raises(UserError, match="no samples"):
        data.mode_report(np.empty((0, 2)), ring)
    with pytest.raises(UserError, match="NaN"):
        data.mode_report(np.full((3, 2), np.nan), ring)


# ------------------------------------------------------------------------ by name


def test_the_modes_of_a_ring_are_distinct():
    for k in (1, 2, 7, 8):
        modes = data.ring(k, radius=2.0).modes
        np.testing.assert_allclose(np.hypot(*modes.T), 2.0)
        apart = np.linalg.norm(modes[:, None] - modes, axis=2)[~np.eye(k, dtype=bool)]
        assert k == 1 or apart.min() == pytest.approx(4 * math.sin(math.pi / k))


def test_the_grid_is_the_published_one():
    rows = {tuple(row) for row in data.grid().modes}
    assert rows == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert data.ring().std[0] == 0.01 and data.grid().std[0] == 0.05


def test_the_moons_are_two_smooth_bands():
    moons = data.moons()
    x, component = moons.draw(50_000, stream())
    upper = moons.classes[component] == 0
    assert 0.49 < upper.mean() < 0.51
    for points, centre, sign in ((x[upper], (0, 0), 1), (x[~upper], (1, 0.5), -1)):
        assert abs(np.mean(np.hypot(*(points - centre).T)) - 1) < 0.02
        assert np.mean(sign * (points - centre)[:, 1] > -0.2) > 0.98
    along = np.linspace(0.2, 2.9, 500)  # the 64 Gaussians cannot be told apart along an arc
    p = moons.log_density(np.stack([np.cos(along), np.sin(along)], axis=1)[:200])
    assert np.abs(np.diff(p, 2)).max() < 2e-3


def test_densities_by_name():
    assert data.density_named("ring", modes=5, std=0.2).means.shape == (5, 2)
    assert data.density_named("mixture1d").dimensions == 1
    with pytest.raises(UserError, match="unknown density 'rings': did you mean 'ring'"):
        data.density_named("rings")
    with pytest.raises(UserError, match="unknown option of ring 'radus': did you mean 'radius'"):
        data.density_named("ring", radus=2)
    with pytest.raises(UserError, match="unknown density"):
        data.density_named(["ring"])


BAD = [
    (lambda: Mixture(None, [1.0, 2.0], 1.0), r"expected \(K, D\)"),
    (lambda: Mixture(None, np.empty((0, 2)), 1.0), r"expected \(K, D\)"),
    (lambda: Mixture(None, [[1.0], [2.0, 3.0]], 1.0), "real numbers"),
    (lambda: Mixture(None, [[math.nan]], 1.0), "NaN"),
    (lambda: Mixture(None, [["a"]], 1.0), "real numbers"),
    (lambda: data.gaussian(0, 0.0), "smallest std is 0"),
    (lambda: data.gaussian(0, -1.0), "smallest std is -1"),
    (lambda: data.gaussian(0, (1.0, 2.0)), "std has shape"),
    (lambda: data.mixture1d(weights=(0.5, 0.6)), "sum 1.1"),
    (lambda: data.mixture1d(weights=(0.0, 1.0)), "smallest weight is 0"),
    (lambda: data.mixture1d(weights=(1.0,)), "weights has shape"),
    (lambda: Mixture(None, [[1.0]], 1.0, [1.5]), "whole numbers"),
    (lambda: data.ring(modes=0), "modes is 0"),
    (lambda: data.ring(modes=2.5), "modes is 2.5"),
    (lambda: data.ring(radius=-1), "radius is -1"),
    (lambda: data.grid(side="5"), "side is '5'"),
    (lambda: data.grid(spacing=math.inf), "spacing is inf"),
    (lambda: LINE.log_density([[1.0, 2.0]]), r"expected \(N, 1\)"),
    (lambda: UNEQUAL.score([1.0, 2.0]), r"expected \(N, 2\)"),
    (lambda: UNEQUAL.score([[1.0, math.inf]]), "infinity"),
    (lambda: UNEQUAL.cdf([[1.0, 2.0]]), "2 dimensions: expected 1"),
    (lambda: LINE.smoothed(-0.1), "std of the noise is -0.1"),
    (lambda: LINE.posterior_mean([0.0], math.nan), "std of the noise is nan"),
    (lambda: LINE.sample(-1, stream()), "number of points is -1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_values_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_mixture_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        LINE.std = 1
    with pytest.raises(ValueError, match="read-only"):
        LINE.means[0] = 1
    means = np.zeros((2, 1))
    Mixture(None, means, 1.0)
    means[0] = 1  # only our copy is frozen
    assert "8 components in 2 dimensions" in repr(data.ring())


# ------------------------------------------------------------------------ points to train on


@pytest.mark.parametrize("name", NAMED)
def test_a_density_loads_as_points(name):
    points = data.load(name)
    d = points.density.dimensions
    assert points.train_points.shape == (10_000, d) and points.test_points.shape == (2_000, d)
    assert points.train_points.dtype == np.float32 and points.item_shape == (d,)
    assert set(np.unique(points.train_labels)) == set(np.unique(points.density.classes))
    assert not np.array_equal(points.train_points[:2_000], points.test_points)
    assert np.array_equal(points.train_points, data.load(name).train_points)
    with pytest.raises(ValueError, match="read-only"):
        points.train_points[0] = 0
    assert repr(points).startswith(f"Points({name}: 10000 training and 2000 test points in {d} d")


def test_the_labels_are_the_modes():
    points = data.load("ring")
    near = np.linalg.norm(points.train_points - points.density.modes[points.train_labels], axis=1)
    assert near.max() < 0.01 * 6


def test_limit_takes_the_first_points():
    few, all_of_them = data.load("grid", limit=7), data.load("grid")
    assert np.array_equal(few.train_points, all_of_them.train_points[:7])
    assert np.array_equal(few.test.labels, all_of_them.test_labels[:7])
    assert len(data.load("grid", limit=10**6).train_points) == 10_000
    with pytest.raises(UserError, match="limit is 0"):
        data.load("grid", limit=0)


def test_a_loader_gives_points_as_they_are():
    points = data.load("grid", limit=23)
    loader = data.Loader(*points.train, batch_size=5, seed=1)
    order, seen = loader.order(2), 0
    for x, labels in loader.batches(2):
        chosen = order[seen : seen + len(x)]
        assert x.dtype == np.float32 and np.array_equal(x, points.train_points[chosen])
        assert np.array_equal(labels, points.train_labels[chosen])
        seen += len(x)
    assert seen == 23 and np.abs(points.train_points).max() > 1  # not scaled to [0, 1]
    rest = [x for x, _ in data.Loader(*points.train, 5, 1).batches(2, start=3)]
    assert np.array_equal(np.concatenate(rest), points.train_points[order[15:]])


def test_a_loader_refuses_to_binarise_points_and_bad_points():
    points = data.load("ring", limit=10)
    for how in ("threshold", "static", "dynamic"):
        with pytest.raises(UserError, match="data are points: expected 'none'"):
            data.Loader(*points.train, batch_size=5, seed=1, binarize=how)
    broken = points.train_points.copy()
    broken[3, 1] = np.nan
    with pytest.raises(UserError, match="NaN or infinity"):
        data.Loader(broken, points.train_labels, 5, 1)
    with pytest.raises(UserError, match="one integer label per point"):
        data.Loader(points.train_points, points.train_labels[:9], 5, 1)
    with pytest.raises(UserError, match=r"expected \(N, 1\), the dimensions"):
        data.Points("own", LINE, *points.train, *points.test)
    with pytest.raises(UserError, match="expected float32"):
        data.Points("own", UNEQUAL, *points.train, points.test_points.astype(float),
                    points.test_labels)


def test_the_nearest_name_may_be_a_density():
    with pytest.raises(UserError, match="unknown data set 'moon': did you mean 'moons'.*PNG"):
        data.load("moon")


def test_data_load_neither_plots_nor_compiles():
    program = ("import sys, scratchgen.data; "
               "print([m for m in ('PIL', 'matplotlib', 'scipy') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"
