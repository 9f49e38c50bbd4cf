"""Autoencoders with known optimal parameters, trained and compared with them.

Each case is a function ``case(seed, effort, **variant)`` that trains one model and returns its
answers; its docstring states the exact result, and ``effort`` multiplies the steps. Where training
draws noise, the parameters are averaged over the second half of training (Polyak & Juditsky 1992)
and compared by the *expected* loss, which is known in closed form.
"""

import numpy as np

from scratchgen import data, models, optim
from scratchgen.engine.random import Stream, Streams

from .answers import greatest, least, near

D = 7                                     # dimensions of the data
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


def distance(found, exact):
    """‖found − exact‖ / ‖exact‖."""
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


# --- linear autoencoders -------------------------------------------------------------------------

def linear_dae(seed, hidden, corruption="gaussian", level=0.0):
    config = models.DAE.Config(hidden=hidden, activation="linear", output="linear", loss="mse",
                               corruption=corruption, level=level)
    return models.DAE(config, (D,), seed=seed, dtype=np.float64)


def linear_output(model, x):
    w, b = model.encoder.w.data, model.encoder.b.data
    return (x @ w + b) @ model.decoder.w.data + model.decoder.b.data


def as_map(model):
    """The linear map A and offset of x ↦ A x + b that a linear autoencoder is."""
    zero, unit = np.zeros((1, D)), np.eye(D)
    offset = linear_output(model, zero)[0]
    return (linear_output(model, unit) - offset).T, offset


def linear_autoencoder(seed, effort=1, k=3):
    """Linear AE, k units: least loss Σ_{i>k} λ_i, map U_k U_kᵀ (Baldi & Hornik 1989)."""
    x, _, eigenvalues, vectors = cloud(seed)
    model = fit(linear_dae(seed, k), x, steps=6000 * effort, lr=0.02)
    loss = np.mean(np.sum((linear_output(model, x) - x)**2, axis=1))
    basis = np.linalg.qr(model.decoder.w.data.T)[0]
    cosines = np.linalg.svd(basis.T @ vectors[:, :k], compute_uv=False)
    projection, _ = as_map(model)                      # as far off as the angle may be
    off = np.abs(projection - vectors[:, :k] @ vectors[:, :k].T).max()
    return [least("loss Σ_{i>k} λ_i", eigenvalues[k:].sum(), loss, 1e-6, relative=True),
            near("sine of the largest angle to the principal subspace", 0,
                 np.sqrt(max(0, 1 - cosines.min()**2)), 1e-3),
            near("largest entry of A − U_k U_kᵀ", 0, off, 1e-3)]


def linear_dae_with_gaussian_noise(seed, effort=1, s=0.8):
    """Linear DAE, noise N(0, s²): W = C (C + s² I)⁻¹, least loss Σ λ s²/(λ + s²) (Wiener)."""
    x, covariance, eigenvalues, _ = cloud(seed)
    model = fit(linear_dae(seed, 9, level=s), x, steps=1500 * effort, lr=0.01, repeat=4,
                average=True)
    found, _ = as_map(model)
    wiener = covariance @ np.linalg.inv(covariance + s**2 * np.eye(D))
    rest = np.eye(D) - found
    expected = np.trace(rest @ covariance @ rest.T) + s**2 * np.sum(found**2)
    best = np.sum(eigenvalues * s**2 / (eigenvalues + s**2))
    return [near("distance of W from C (C + s² I)⁻¹", 0, distance(found, wiener), 0.02),
            least("expected loss Σ λ s²/(λ + s²)", best, expected, 1e-3, relative=True)]


def linear_dae_with_masking(seed, effort=1, fraction=0.4):
    """Linear DAE, masking: W = P Q⁻¹, least loss tr S − tr W Pᵀ (Chen et al. 2012).

    With S = E x xᵀ and q the chance to survive: Q_ij = S_ij q_i q_j, Q_ii = S_ii q_i, P_ij =
    S_ij q_j; the bias is a feature that is never masked. The data are off the origin, where zeroing
    is not centring.
    """
    x, _, _, _ = cloud(seed, mean=1.5)
    model = fit(linear_dae(seed, 9, "masking", fraction), x, steps=2500 * effort, lr=0.01,
                repeat=4, average=True)
    extended = np.hstack([x, np.ones((len(x), 1))])
    S = extended.T @ extended / len(x)
    q = np.append(np.full(D, 1 - fraction), 1.0)
    Q = S * np.outer(q, q)
    np.fill_diagonal(Q, np.diag(S) * q)
    P = (S * q)[:D]
    best_map = P @ np.linalg.inv(Q)
    best = np.trace(S[:D, :D]) - np.sum(best_map * P)

    def expected_loss(W):
        return np.trace(S[:D, :D]) - 2 * np.sum(W * P) + np.trace(W @ Q @ W.T)
    np.testing.assert_allclose(expected_loss(best_map), best, rtol=1e-10)
    found = np.column_stack(as_map(model))
    return [near("distance of W from P Q⁻¹", 0, distance(found, best_map), 0.03),
            least("expected loss tr S − tr W Pᵀ", best, expected_loss(found), 2e-3, relative=True)]


# --- the DAE as a score --------------------------------------------------------------------------

def dae_as_a_score(seed, effort=1, s=0.3):
    """DAE, ring of 8 Gaussians: r(x̃) − x̃ = s² ∇ ln p_s(x̃), least loss mmse (Vincent 2011)."""
    density = data.ring(modes=8, radius=1.0, std=0.1)
    config = models.DAE.Config(hidden=64, layers=[64], activation="tanh", output="linear",
                               loss="mse", corruption="gaussian", level=s)
    model = models.DAE(config, (2,), seed=seed)
    steps, points, streams = 4000 * effort, Stream(seed, "points"), Streams(seed)
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
    # E‖r − x‖² = mmse + E‖r − r*‖²: the excess without the noise that both terms share
    mmse, excess = density.mmse(s).value, np.mean(np.sum((residual - exact)**2, axis=1))
    return [greatest("mean cosine of residual and s² ∇ ln p_s", 1, cosine.mean(), 0.01),
            least("expected loss: the mmse", mmse, mmse + excess, 0.03, relative=True)]


# --- linear VAEs: probabilistic PCA (Tipping & Bishop 1999; Lucas et al. 2019) -------------------

def linear_vae(seed, latent, **settings):
    config = models.VAE.Config(arch="linear", latent=latent, **settings)
    return models.VAE(config, (D,), seed=seed, dtype=np.float64)


def elbo(model, x):
    """The mean ELBO without sampling: a linear VAE's is known in closed form."""
    terms = model.derivation(x)
    return np.mean(terms["expected_log_likelihood"] - terms["kl_prior"])


def linear_vae_is_ppca(seed, effort=1, q=3):
    """Linear VAE, learned variance: the ELBO is pPCA's log-likelihood, the columns its axes."""
    x, _, eigenvalues, vectors = cloud(seed)
    variance = eigenvalues[q:].mean()
    best = -0.5 * (D * np.log(2 * np.pi) + np.log(eigenvalues[:q]).sum()
                   + (D - q) * np.log(variance) + D)
    model = fit(linear_vae(seed, q, decoder="learned-variance", std=1.0), x, steps=4000 * effort,
                lr=0.02, repeat=2, average=True)
    columns = model.decoder.w.data / np.linalg.norm(model.decoder.w.data, axis=1, keepdims=True)
    cosines = np.abs(columns @ vectors[:, :q])
    worst = min(cosines.max(axis=0).min(), cosines.max(axis=1).min())
    return [greatest("ELBO, nats", best, elbo(model, x), 0.01),
            near("decoder variance: the mean of λ_{i>q}", variance, model.likelihood.variance, 0.02,
                 relative=True),
            greatest("least |cosine| of a column and its axis", 1, worst, 0.01)]


def posterior_collapse(seed, effort=1, *, beta, std):
    """Linear VAE, fixed variance σ²: the active units are those with λ_j > β σ²."""
    x, _, eigenvalues, _ = cloud(7)
    expected = int(np.sum(eigenvalues > beta * std**2))
    margin = np.abs(eigenvalues / (beta * std**2) - 1).min()
    assert 0 < expected < D and margin > 0.1           # the case is a clear one
    model = fit(linear_vae(seed, D - 1, decoder="gaussian", std=std, beta=beta), x,
                steps=3000 * effort, lr=0.01, average=True)
    return [near("active units: number of λ_j > β σ²", expected, model.active_units(x), 0)]


CASES = {
    "linear autoencoder": (linear_autoencoder, [{}]),
    "linear DAE, Gaussian noise": (linear_dae_with_gaussian_noise, [{}]),
    "linear DAE, masking": (linear_dae_with_masking, [{}]),
    "DAE on a ring of Gaussians": (dae_as_a_score, [{}]),
    "linear VAE": (linear_vae_is_ppca, [{}]),
    "linear VAE, fixed variance": (posterior_collapse, [
        {"beta": beta, "std": std} for beta in (1.0, 2.0) for std in (0.75, 1.0, 1.4)]),
}
