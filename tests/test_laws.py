"""Laws that a gradient check cannot see: a wrong sampler can have the right gradient of itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchgen as sg

N = 100_000


def within(sample, exact, errors=5):
    """The mean of the sample (along axis 0) is within so many standard errors of ``exact``."""
    standard_error = np.std(sample, axis=0) / math.sqrt(len(sample))
    assert np.all(np.abs(np.mean(sample, axis=0) - exact) <= errors * standard_error)


def test_reparametrize_has_the_declared_mean_and_variance(backend):
    """Var z = e^logvar: with e^logvar as the standard deviation, it would be e^(2 logvar)."""
    mean, logvar = np.array([0.0, 1.5, -3.0]), np.array([-2.0, 0.7, 1.4])
    eps = sg.Stream(1, "eps").normal((N, 3), np.float64)
    z = sg.reparametrize(np.broadcast_to(mean, eps.shape), np.broadcast_to(logvar, eps.shape),
                         eps).data
    within(z, mean)
    within((z - mean) ** 2, np.exp(logvar))
    within((z - mean) ** 4, 3 * np.exp(2 * logvar))


def log_normal(z, mean, logvar):
    return -0.5 * np.sum(math.log(2 * math.pi) + logvar + (z - mean) ** 2 / np.exp(logvar), axis=-1)


def test_kl_in_closed_form_is_the_monte_carlo_kl(backend):
    """Both forms; z is drawn with reparametrize, so that sampler and KL mean the same variance."""
    m, v = np.array([0.5, -1.0, 2.0]), np.array([-1.5, 0.3, 0.8])
    m2, v2 = np.array([0.0, -0.4, 1.0]), np.array([-0.5, 0.9, 0.1])
    eps = sg.Stream(2, "eps").normal((N, 3), np.float64)
    z = sg.reparametrize(np.broadcast_to(m, eps.shape), np.broadcast_to(v, eps.shape), eps).data
    standard = sg.gaussian_kl(m[None], v[None]).data
    between = sg.gaussian_kl(m[None], v[None], m2[None], v2[None]).data
    assert standard.shape == between.shape == (1,)
    within(log_normal(z, m, v) - log_normal(z, 0.0, np.zeros(3)), standard[0])
    within(log_normal(z, m, v) - log_normal(z, m2, v2), between[0])


def test_kl_is_zero_only_between_equals(rng):
    m, v, m2, v2 = rng.normal(size=(4, 5, 3))
    assert np.array_equal(sg.gaussian_kl(np.zeros((2, 3)), np.zeros((2, 3))).data, [0, 0])
    np.testing.assert_allclose(sg.gaussian_kl(m, v, m, v).data, 0, atol=1e-14)
    assert np.all(sg.gaussian_kl(m, v).data > 0) and np.all(sg.gaussian_kl(m, v, m2, v2).data > 0)
    np.testing.assert_allclose(sg.gaussian_kl(m, v, np.zeros_like(m), np.zeros_like(v)).data,
                               sg.gaussian_kl(m, v).data, rtol=1e-12, equal_nan=False)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.8])
def test_dropout_keeps_the_mean_and_drops_the_fraction(p, backend):
    x = np.array([1.0, -2.0, 5.0])
    uniform = sg.Stream(3, "dropout").uniform((N, 3), np.float64)
    y = sg.dropout(np.broadcast_to(x, (N, 3)), p, uniform).data
    if p == 0:
        assert np.array_equal(y, np.broadcast_to(x, (N, 3)))
        return
    within(y, x)
    within((y == 0).astype(float), p)
    assert np.allclose(y[y != 0] / np.broadcast_to(x, y.shape)[y != 0], 1 / (1 - p))


def test_gaussian_likelihood_integrates_to_one(backend):
    """Trapezoids on [−40, 40]², exact to rounding for so smooth a density."""
    grid = np.linspace(-40, 40, 801)
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = sg.gaussian_log_likelihood(x, np.array([[0.5, -2.0]]), np.array([[-0.7, 1.9]])).data
    assert log_p.shape == (801**2,)
    assert abs(np.sum(np.exp(log_p)) * 0.1**2 - 1) < 1e-9
    variance = np.exp(log_p) @ (x - [0.5, -2.0]) ** 2 * 0.1**2
    np.testing.assert_allclose(variance, np.exp([-0.7, 1.9]), rtol=1e-9, equal_nan=False)


def test_bernoulli_likelihood_sums_to_one(backend, rng):
    logits = rng.normal(size=5) * 3
    x = np.array([[i >> d & 1 for d in range(5)] for i in range(32)], float)
    log_p = sg.bernoulli_log_likelihood(x, np.broadcast_to(logits, x.shape).copy()).data
    np.testing.assert_allclose(np.sum(np.exp(log_p)), 1, rtol=1e-12, equal_nan=False)
    np.testing.assert_allclose(np.exp(log_p) @ x, 1 / (1 + np.exp(-logits)), rtol=1e-12,
                               equal_nan=False)


def test_bce_is_the_negative_bernoulli_likelihood(backend, rng):
    logits, x = rng.normal(size=(4, 3)) * 5, rng.random((4, 3))
    bce = sg.bce_with_logits(logits, x, reduction="none").data
    np.testing.assert_allclose(bce.sum(axis=1), -sg.bernoulli_log_likelihood(x, logits).data,
                               rtol=1e-12, equal_nan=False)
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(bce, -x * np.log(p) - (1 - x) * np.log1p(-p), rtol=1e-9,
                               equal_nan=False)
    for reduction, expected in [("sum", bce.sum()), ("mean", bce.sum() / 12)]:
        np.testing.assert_allclose(sg.bce_with_logits(logits, x, reduction).data, expected,
                                   rtol=1e-12, equal_nan=False)


def test_cross_entropy_is_a_likelihood(backend, rng):
    logits = rng.normal(size=(1, 4)) * 3
    nats = [sg.cross_entropy(logits, np.array([k])).item() for k in range(4)]
    np.testing.assert_allclose(np.sum(np.exp(np.negative(nats))), 1, rtol=1e-12, equal_nan=False)
    many = rng.normal(size=(3, 4))
    np.testing.assert_allclose(sg.cross_entropy(many, np.array([1, 3, 0]), "mean").item() * 3,
                               sg.cross_entropy(many, np.array([1, 3, 0])).item(), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(-700, 700), st.integers(1, 6), st.integers(0, 1))
def test_softmax_and_logsumexp(shift, n, axis):
    x = np.random.default_rng(n).normal(size=(n, 7 - n)) * 10
    p = sg.softmax(x, axis=axis).data
    np.testing.assert_allclose(p.sum(axis=axis), 1, rtol=1e-12, equal_nan=False)
    np.testing.assert_allclose(sg.softmax(x + shift, axis=axis).data, p, rtol=1e-9,
                               equal_nan=False)
    np.testing.assert_allclose(np.log(p), sg.log_softmax(x, axis=axis).data, rtol=1e-9, atol=1e-12,
                               equal_nan=False)
    np.testing.assert_allclose(sg.logsumexp(x + shift, axis=axis).data,
                               sg.logsumexp(x, axis=axis).data + shift, rtol=1e-9, atol=1e-10,
                               equal_nan=False)
    lse = sg.logsumexp(x).item()
    assert x.max() <= lse <= x.max() + math.log(x.size)


def test_sigmoid_family_identities(backend, rng):
    x = rng.normal(size=(3, 4)) * 10
    s, log_s, p = sg.sigmoid(x).data, sg.logsigmoid(x).data, sg.softplus(x).data
    np.testing.assert_allclose(s + sg.sigmoid(-x).data, 1, rtol=1e-12, equal_nan=False)
    np.testing.assert_allclose(np.exp(log_s), s, rtol=1e-12, equal_nan=False)
    np.testing.assert_allclose(p - sg.softplus(-x).data, x, rtol=1e-9, equal_nan=False)
    np.testing.assert_allclose(log_s, -sg.softplus(-x).data, rtol=1e-12, equal_nan=False)
    np.testing.assert_allclose(2 * sg.sigmoid(2 * x).data - 1, sg.tanh(x).data, rtol=1e-9,
                               atol=1e-12, equal_nan=False)
