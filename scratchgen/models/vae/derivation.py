"""The terms of the VAE's equation, for models where the last one can be computed.

    ln p(x) = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x))

There are two cases: a linear decoder with a Gaussian p(x|z), where all densities are Gaussian and
each term has a closed form; and any decoder of one or two latents, where z is integrated on a grid.
"""

import math

import numpy as np

from ...context import no_grad
from ...engine.tensor import Tensor
from ...errors import UserError

LOG_2PI = math.log(2 * math.pi)
REACH = 8                    # standard deviations: beyond lies 1.2e-15 of a Gaussian
STEPS_A_STD = 4              # of the narrowest q(z|x)
MOST_POINTS = 1 << 20        # of a grid
DECODED_AT_ONCE = 1 << 13
TOLERANCE = 1e-6             # nats, between a grid and every other of its points


def terms(model, x):
    """{log_p, expected_log_likelihood, kl_prior, kl_posterior} of images, each (N,), in nats.

    log_p = expected_log_likelihood − kl_prior + kl_posterior; the four are computed independently.
    UserError if neither case applies, or if p(z|x) is too narrow for the grid.
    """
    x = model.flat(x)
    if model.config.arch == "linear" and model.config.decoder != "bernoulli":
        return linear_gaussian(model, x.astype(np.float64))
    if model.config.latent > 2:
        raise UserError(f"ln p(x) of {model.config.latent} latents cannot be integrated on a grid: "
                        'expected latent = 1 or 2, or arch = "linear" with a Gaussian decoder; '
                        "log_likelihood(x, k) bounds it for every model")
    return quadrature(model, x)


def kl_prior(mean, logvar):
    """KL(N(mean, e^logvar) ‖ N(0, I)) of rows, (N,)."""
    return np.sum(mean**2 + np.exp(logvar) - logvar - 1, axis=1) / 2


def linear_gaussian(model, x):
    """p(x|z) = N(Wz + μ, s I): with M = WᵀW + s I, p(z|x) = N(M⁻¹Wᵀ(x − μ), s M⁻¹) and
    p(x) = N(μ, WWᵀ + s I). Tipping & Bishop 1999; Lucas et al. 2019.
    """
    mean, logvar = (a.astype(np.float64) for a in model.posterior(x))
    W, mu = (p.data.astype(np.float64) for p in (model.decoder.w, model.decoder.b))
    W, s, d = W.T, model.likelihood.variance, x.shape[1]
    centred, variances = x - mu, np.exp(logvar)
    log_p = log_gaussian(centred, W @ W.T + s * np.eye(d))
    error = np.sum((centred - mean @ W.T)**2, axis=1) + variances @ np.sum(W**2, axis=0)
    M = W.T @ W + s * np.eye(W.shape[1])
    away = mean - np.linalg.solve(M, W.T @ centred.T).T
    closeness = (variances @ np.diag(M) + np.sum(away @ M * away, axis=1)) / s   # precision is M/s
    log_det = W.shape[1] * math.log(s) - np.linalg.slogdet(M)[1]
    return {"log_p": log_p,
            "expected_log_likelihood": -(d * (LOG_2PI + math.log(s)) + error / s) / 2,
            "kl_prior": kl_prior(mean, logvar),
            "kl_posterior": (closeness - W.shape[1] + log_det - logvar.sum(axis=1)) / 2}


def log_gaussian(centred, covariance):
    """ln N(row; 0, covariance) of rows, (N,)."""
    squares = np.sum(centred * np.linalg.solve(covariance, centred.T).T, axis=1)
    return -(len(covariance) * LOG_2PI + np.linalg.slogdet(covariance)[1] + squares) / 2


def quadrature(model, x):
    """Sums over an equidistant grid of z, which converge fast for smooth densities inside it.

    The step is halved until every other point alone gives ln p(x) and ∫ q to TOLERANCE. Halving
    the step raises a Gaussian's relative error to its fourth power, so the full grid is exact.
    """
    mean, logvar = (a.astype(np.float64) for a in model.posterior(x))
    std, error, steps = np.exp(logvar / 2), math.inf, STEPS_A_STD
    while not error < TOLERANCE:
        z, cell, every_other = grid(mean, std, steps)
        log_q = np.stack([log_normal(z, m, v) for m, v in zip(mean, logvar, strict=True)])
        log_likelihood = decoded(model, x, z)                                   # (N, G)
        log_joint = log_likelihood + log_normal(z, 0, np.zeros(z.shape[1]))
        log_p, mass_q = log_integral(log_joint, cell), log_integral(log_q, cell)
        coarse = cell * 2**z.shape[1]
        error = max(np.abs(log_p - log_integral(log_joint[:, every_other], coarse)).max(),
                    np.abs(mass_q).max(), np.abs(log_integral(log_q[:, every_other], coarse)).max())
        steps *= 2
    q = np.exp(log_q) * cell
    return {"log_p": log_p, "expected_log_likelihood": np.sum(q * log_likelihood, axis=1),
            "kl_prior": kl_prior(mean, logvar),
            "kl_posterior": np.sum(q * (log_q - log_joint + log_p[:, None]), axis=1)}


def log_normal(z, mean, logvar):
    """ln N(z; mean, diag e^logvar) of points (G, Z), (G,)."""
    return -np.sum((z - mean)**2 * np.exp(-logvar) + LOG_2PI + logvar, axis=1) / 2


def log_integral(log_values, cell):
    """ln ∫ of each row's values on the grid, (N,)."""
    largest = log_values.max(axis=1, keepdims=True)
    total = np.exp(log_values - largest).sum(axis=1)
    return np.log(total) + largest[:, 0] + math.log(cell)


def grid(mean, std, steps):
    """(points (G, Z), the volume of a cell, a mask of every other point in each direction).

    The grid covers the prior and every q, with ``steps`` points per narrowest std. UserError if it
    would have too many points.
    """
    low = np.minimum(-REACH, (mean - REACH * std).min(axis=0))
    high = np.maximum(REACH, (mean + REACH * std).max(axis=0))
    counts = [math.ceil((b - a) * steps / min(1, std.min())) | 1
              for a, b in zip(low, high, strict=True)]
    if math.prod(counts) > MOST_POINTS:
        raise UserError(f"p(z|x) or q(z|x) of this model is too narrow for a grid of "
                        f"{MOST_POINTS:,} points: expected a wider one; log_likelihood(x, k) "
                        "bounds ln p(x) for every model")
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    z = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    even = np.meshgrid(*[np.arange(n) % 2 == 0 for n in counts], indexing="ij")
    return (z, math.prod(axis[1] - axis[0] for axis in axes),
            np.logical_and.reduce([e.ravel() for e in even]))


def decoded(model, x, z):
    """ln p(x_n|z_g) for all pairs, (N, G) float64."""
    found = np.empty((len(x), len(z)))
    with no_grad():
        for first in range(0, len(z), DECODED_AT_ONCE):
            here = slice(first, first + DECODED_AT_ONCE)
            output = model.output(Tensor(z[here].astype(model.dtype)))
            for n, row in enumerate(x):
                repeated = np.ascontiguousarray(np.broadcast_to(row, output.shape))
                found[n, here] = model.likelihood.log_p(repeated, output).data
    return found
