"""Exact answers, found by our own training: linear autoencoders, linear VAEs, the DAE as a score.

Where training draws noise, the learned parameters are averaged over the second half of training
(Polyak & Juditsky 1992), and held to the exact *expected* loss, which is known in closed form.
"""

import numpy as np
import pytest

from scratchgen import data, models, optim
from scratchgen.random import Stream, Streams

D = 7                                     # dimensions of the data
SEEDS = [0, 1, 2]
STDS = np.array([4.0, 2.5, 1.5, 0.9, 0.6, 0.5, 0.4])


def cloud(seed, n=200, mean=0.0):
    """Points (n, D) about ``mean`` with a known covariance (1/n), eigenvalues and axes."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    x = rng.normal(size=(n, D)) * STDS @ axes.T
    x = x - x.mean(axis=0) + mean
    covariance = np.cov(x.T, bias=True)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return x, covariance, eigenvalues[::-1], vectors[:, ::-1]


def linear_dae(seed, hidden, corruption="gaussian", level=0.0):
    config = models.DAE.Config(hidden=hidden, activation="linear", output="linear", loss="mse",
                               corruption=corruption, level=level)
    return models.DAE(config, (D,), seed=seed, dtype=np.float64)


def fit(model, x, steps, lr, repeat=1, average=False):
    """Adam on all points at once, the rate falling to zero along a cosine; noise drawn anew."""
    optimiser = optim.Adam(model, lr, schedule=None if average else optim.cosine(steps))
    streams, x, mean = Streams(model.seed), np.tile(x, (repeat, 1)), 0.0
    for step in range(steps):
        model.training_step(x, streams, {"model": optimiser})
        if average and step >= steps // 2:
            mean = mean + optimiser.data / (steps - steps // 2)
    if average:
        optimiser.data[...] = mean
    return model


def as_map(model):
    """The linear map A and offset of x ↦ A x + b that a linear autoencoder is."""
    zero, unit = np.zeros((1, D)), np.eye(D)
    offset = linear_output(model, zero)[0]
    return (linear_output(model, unit) - offset).T, offset


def linear_output(model, x):
    w, b = model.encoder.w.data, model.encoder.b.data
    return (x @ w + b) @ model.decoder.w.data + model.decoder.b.data


# --- linear autoencoder: principal components (Baldi & Hornik 1989) ------------------------------

@pytest.mark.parametrize("seed", SEEDS)
def test_linear_autoencoder_finds_the_principal_subspace(seed):
    k = 3
    x, _, eigenvalues, vectors = cloud(seed)
    model = fit(linear_dae(seed, k), x, steps=6000, lr=0.02)
    loss = np.mean(np.sum((linear_output(model, x) - x)**2, axis=1))
    assert abs(loss / eigenvalues[k:].sum() - 1) < 1e-6
    basis = np.linalg.qr(model.decoder.w.data.T)[0]
    cosines = np.linalg.svd(basis.T @ vectors[:, :k], compute_uv=False)
    assert np.sqrt(1 - cosines.min()**2) < 1e-3        # sine of the largest principal angle
    projection, _ = as_map(model)                      # as far off as the angle above may be
    np.testing.assert_allclose(projection, vectors[:, :k] @ vectors[:, :k].T, atol=1e-3)


# --- linear DAE ----------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", SEEDS)
def test_linear_dae_with_gaussian_noise_is_the_wiener_filter(seed):
    """W = C (C + s² I)⁻¹, loss Σ λ s²/(λ + s²)."""
    s = 0.8
    x, covariance, eigenvalues, _ = cloud(seed)
    model = fit(linear_dae(seed, 9, level=s), x, steps=1500, lr=0.01, repeat=4, average=True)
    found, _ = as_map(model)
    wiener = covariance @ np.linalg.inv(covariance + s**2 * np.eye(D))
    assert np.linalg.norm(found - wiener) < 0.02 * np.linalg.norm(wiener)
    rest = np.eye(D) - found
    expected = np.trace(rest @ covariance @ rest.T) + s**2 * np.sum(found**2)
    best = np.sum(eigenvalues * s**2 / (eigenvalues + s**2))
    assert best <= expected < 1.001 * best


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_dae_with_masking_is_the_marginalised_one(seed):
    """W = P Q⁻¹ (Chen et al. 2012), the bias being a feature that is never masked.

    With S = E x xᵀ and q the chance to survive: Q_ij = S_ij q_i q_j, Q_ii = S_ii q_i, P_ij =
    S_ij q_j. The data are off the origin, where zeroing is not centring.
    """
    fraction = 0.4
    x, _, _, _ = cloud(seed, mean=1.5)
    model = fit(linear_dae(seed, 9, "masking", fraction), x, steps=2500, lr=0.01, repeat=4,
                average=True)
    extended = np.hstack([x, np.ones((len(x), 1))])
    S = extended.T @ extended / len(x)
    q = np.append(np.full(D, 1 - fraction), 1.0)
    Q = S * np.outer(q, q)
    np.fill_diagonal(Q, np.diag(S) * q)
    P = (S * q)[:D]
    best_map = P @ np.linalg.inv(Q)

    def expected_loss(W):
        return np.trace(S[:D, :D]) - 2 * np.sum(W * P) + np.trace(W @ Q @ W.T)
    best = expected_loss(best_map)
    np.testing.assert_allclose(best, np.trace(S[:D, :D]) - np.sum(best_map * P), rtol=1e-10)
    found = np.column_stack(as_map(model))
    assert best <= expected_loss(found) < 1.002 * best
    assert np.linalg.norm(found - best_map) < 0.03 * np.linalg.norm(best_map)


# --- the DAE as a score (Vincent 2011) -----------------------------------------------------------

@pytest.mark.parametrize("seed", [0, 1])
def test_dae_on_a_mixture_finds_the_score(seed):
    """r(x̃) − x̃ = s² ∇ ln p_s(x̃), and the loss comes within 3 % of the least that is possible."""
    s, density = 0.3, data.ring(modes=8, radius=1.0, std=0.1)
    config = models.DAE.Config(hidden=64, layers=[64], activation="tanh", output="linear",
                               loss="mse", corruption="gaussian", level=s)
    model = models.DAE(config, (2,), seed=seed)
    steps, points, streams = 4000, Stream(seed, "points"), Streams(seed)
    optimiser = optim.Adam(model, 5e-3, schedule=optim.cosine(steps))
    for _ in range(steps):
        x = density.sample(256, points).astype(np.float32)
        model.training_step(x, streams, {"model": optimiser})
    fresh = Stream(seed + 100, "test")
    clean = density.sample(100_000, fresh)
    noisy = clean + s * fresh.normal(clean.shape, np.float64)
    residual = model.reconstruct(noisy.astype(np.float32)).astype(np.float64) - noisy
    exact = s**2 * density.smoothed(s).score(noisy)
    cosine = np.sum(residual * exact, axis=1) / (
        np.linalg.norm(residual, axis=1) * np.linalg.norm(exact, axis=1))
    assert cosine.mean() > 0.99
    # E‖r − x‖² = mmse + E‖r − r*‖²: the excess without the noise that both terms share
    excess = np.mean(np.sum((residual - exact)**2, axis=1))
    assert 0 <= excess < 0.03 * density.mmse(s).value


# --- linear VAE: probabilistic PCA (Tipping & Bishop 1999; Lucas et al. 2019) --------------------

def linear_vae(seed, latent, **settings):
    config = models.VAE.Config(arch="linear", latent=latent, **settings)
    return models.VAE(config, (D,), seed=seed, dtype=np.float64)


def elbo(model, x):
    """The mean ELBO without sampling: a linear VAE's is known in closed form."""
    terms = model.derivation(x)
    return np.mean(terms["expected_log_likelihood"] - terms["kl_prior"])


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_vae_is_probabilistic_pca(seed):
    """The trained ELBO is pPCA's log-likelihood, the columns are the principal directions."""
    q = 3
    x, _, eigenvalues, vectors = cloud(seed)
    variance = eigenvalues[q:].mean()
    best = -0.5 * (D * np.log(2 * np.pi) + np.log(eigenvalues[:q]).sum()
                   + (D - q) * np.log(variance) + D)
    model = fit(linear_vae(seed, q, decoder="learned-variance", std=1.0), x, steps=4000, lr=0.02,
                repeat=2, average=True)
    assert best - 0.01 < elbo(model, x) <= best + 1e-9
    np.testing.assert_allclose(model.likelihood.variance, variance, rtol=0.02)
    columns = model.decoder.w.data / np.linalg.norm(model.decoder.w.data, axis=1, keepdims=True)
    cosines = np.abs(columns @ vectors[:, :q])
    assert (cosines.max(axis=0) > 0.99).all() and (cosines.max(axis=1) > 0.99).all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("std", [0.75, 1.0, 1.4])
def test_posterior_collapse_follows_the_eigenvalues(beta, std):
    """With a fixed decoder variance σ², the active units are those with λ_j > β σ²."""
    x, _, eigenvalues, _ = cloud(7)
    expected = int(np.sum(eigenvalues > beta * std**2))
    margin = np.abs(eigenvalues / (beta * std**2) - 1).min()
    assert 0 < expected < D and margin > 0.1           # the case is a clear one
    model = fit(linear_vae(1, D - 1, decoder="gaussian", std=std, beta=beta), x, steps=3000,
                lr=0.01, average=True)
    assert model.active_units(x) == min(expected, D - 1)
