"""Claims of the theory, each computed in two independent ways: ``scratchgen check claims``.

A claim is a function that returns what it compares: an equation holds if both sides agree to a
tolerance, an inequality if its sides are in order. At least one side of each comes from the code
that trains: the ops, the losses, the models. The other is a closed form or an integral.

    for comparison in sg.study.check_claims():
        print(comparison.claim, comparison.left, comparison.right, comparison.holds)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import data, ops
from ..data.divergences import jensen_shannon
from ..data.mixture import Mixture
from ..engine.backend import use_backend
from ..engine.gradient import grad
from ..engine.random import Stream
from ..engine.tensor import tensor
from ..errors import UserError, unknown
from ..models.gan.losses import losses_named
from ..models.vae.config import VAEConfig
from ..models.vae.model import VAE

LOG_2PI = math.log(2 * math.pi)
CLAIMS: dict[str, Callable[[str | None], list[tuple[Any, ...]]]] = {}
EQUAL, AT_MOST = "=", "≤"


@dataclass(frozen=True)
class Comparison:
    """``left`` ``relation`` ``right``, up to ``tolerance``; or why it was ``skipped``."""

    claim: str
    left_is: str                  # how the left side is computed
    left: float
    relation: str
    right_is: str
    right: float
    tolerance: float
    skipped: str = ""

    @property
    def holds(self) -> bool:
        """NaN never holds."""
        if self.skipped:
            return True
        excess = self.left - self.right
        return excess <= self.tolerance if self.relation == AT_MOST else (
            abs(excess) <= self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and verdict "holds", "fails" or "skipped"."""
        verdict = "skipped" if self.skipped else "holds" if self.holds else "fails"
        number = {n: None if self.skipped else getattr(self, n)
                  for n in ("left", "right", "tolerance")}
        return {"claim": self.claim, "statement": statement(self.claim), "left_is": self.left_is,
                "relation": self.relation, "right_is": self.right_is, **number,
                "verdict": verdict, "reason": self.skipped}


def check_claims(names: Sequence[str] | None = None, data_dir: str | None = None,
                 ) -> list[Comparison]:
    """The comparisons of all claims, or of those named. UserError for an unknown name."""
    for name in names or ():
        if name not in CLAIMS:
            raise unknown("claim", name, tuple(CLAIMS))
    return [Comparison(name, *sides) for name in names or CLAIMS
            for sides in CLAIMS[name](data_dir)]


def statement(name: str) -> str:
    """What a claim says, with its source."""
    return " ".join((CLAIMS[name].__doc__ or "").split())


def claim(name):
    """Registers a function that returns (left_is, left, relation, right_is, right, tolerance)."""
    def register(function):
        CLAIMS[name] = function
        return function
    return register


def equal(left_is, left, right_is, right, tolerance):
    return left_is, float(left), EQUAL, right_is, float(right), tolerance


def at_most(left_is, left, right_is, right, tolerance):
    return left_is, float(left), AT_MOST, right_is, float(right), tolerance


# --- the variational bound -----------------------------------------------------------------------

@claim("elbo-gaussian")
def elbo_of_a_gaussian_model(_):
    """ln p(x) = ELBO + KL(q ‖ p(z|x)) for z ~ N(0, 1), x|z ~ N(w z, s): p(x) = N(0, w² + s)."""
    x, w, s, m, v = 1.5, 0.8, 0.5, 0.3, -0.9           # q = N(m, e^v), not the posterior
    expected = -0.5 * (LOG_2PI + math.log(s) + ((x - w * m)**2 + w**2 * math.exp(v)) / s)
    kl_prior = ops.gaussian_kl(np.array([[m]]), np.array([[v]])).data[0]
    variance = s / (w**2 + s)                          # of p(z|x), whose mean is w x/(w² + s)
    kl = ops.gaussian_kl(np.array([[m]]), np.array([[v]]), np.array([[w * x / (w**2 + s)]]),
                         np.array([[math.log(variance)]])).data[0]
    log_p = ops.gaussian_log_likelihood(np.array([[x]]), np.array([[0.0]]),
                                        np.array([math.log(w**2 + s)])).data[0]
    return [equal("ln p(x) in closed form", log_p, "ELBO + KL(q ‖ p(z|x)), both in closed form",
                  expected - kl_prior + kl, 1e-12)]


def small_vae():
    """A VAE of 6 values and one latent, with random weights large enough that z matters."""
    model = VAE(VAEConfig(hidden=5, latent=1), (1, 6, 1), seed=4, dtype=np.float64)
    stream = Stream(4, "claims")
    for p in model.parameters():
        p.data[...] = stream.normal(p.shape, np.float64)
    x = (stream.uniform((8, 6), np.float64) < 0.5).astype(np.float64)
    return model, x


@claim("elbo-quadrature")
def elbo_by_quadrature(_):
    """The same of a decoder with a hidden layer and Bernoulli pixels, where z is integrated."""
    model, x = small_vae()
    t = model.derivation(x)
    elbo = t["expected_log_likelihood"] - t["kl_prior"]
    return [equal("ln p(x) = ln ∫ p(z) p(x|z) dz, mean of 8 images", t["log_p"].mean(),
                  "ELBO + KL(q ‖ p(z|x))", np.mean(elbo + t["kl_posterior"]), 1e-6),
            at_most("ELBO", elbo.mean(), "ln p(x)", t["log_p"].mean(), 0)]


@claim("iwae-order")
def bounds_of_more_samples_are_tighter(_):
    """L_1 ≤ L_5 ≤ L_50 ≤ ln p(x), Burda et al. 2016, theorem 1; means of a million weights each.

    z ~ N(0, 1), x|z ~ N(z, 1), x = 1.5, q = N(x/2, 2/3).
    """
    x, mean, variance = 1.5, 0.75, 2 / 3
    stream = Stream(1, "claims.iwae")
    bounds, errors = {}, {}
    for k in (1, 5, 50):
        draws = 1_000_000 // k
        z = mean + math.sqrt(variance) * stream.normal((draws, k), np.float64)
        log_w = (-0.5 * (LOG_2PI + z**2) - 0.5 * (LOG_2PI + (x - z)**2)
                 + 0.5 * (LOG_2PI + math.log(variance) + (z - mean)**2 / variance))
        found = ops.logsumexp(log_w, axis=1).data - math.log(k)
        bounds[k], errors[k] = found.mean(), found.std() / math.sqrt(draws)
    log_p = -0.5 * (LOG_2PI + math.log(2) + x**2 / 2)
    kl = ops.gaussian_kl(*(np.array([[v]]) for v in (      # p(z|x) = N(x/2, 1/2)
        mean, math.log(variance), x / 2, math.log(0.5)))).data[0]
    pairs = [(a, b, 4 * math.hypot(errors[a], errors[b])) for a, b in ((1, 5), (5, 50))]
    return [*(at_most(f"L_{a}", bounds[a], f"L_{b}", bounds[b], e) for a, b, e in pairs),
            at_most("L_50", bounds[50], "ln p(x)", log_p, 4 * errors[50]),
            equal("ln p(x) − L_1", log_p - bounds[1], "KL(q ‖ p(z|x)) in closed form", kl,
                  4 * errors[1])]


@claim("active-units")
def active_units_of_the_linear_vae(_):
    """The linear VAE with fixed variance σ² uses latent j if and only if λ_j > β σ², λ_j being an
    eigenvalue of the data's covariance (Lucas et al. 2019, with β: σ² → β σ² in its optimum).

    Data ±√(d λ_j) e_j has the covariance diag(λ). The loss is quadratic in ε, so its mean over
    ε = ±1 is that over N(0, I). At the optimum the tape's gradient must vanish.
    """
    eigenvalues, std, found = np.array([2.0, 0.9, 0.3]), 0.7, []
    x = np.sqrt(len(eigenvalues) * eigenvalues) * np.concatenate([np.eye(3), -np.eye(3)])
    signs = np.array([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    for beta in (1.0, 2.0, 5.0):
        config = VAEConfig(arch="linear", decoder="gaussian", std=std, latent=2, beta=beta)
        model = VAE(config, (3,), dtype=np.float64)
        noise, largest = beta * std**2, eigenvalues[:2]
        w = np.sqrt(np.maximum(largest - noise, 0))    # columns of the decoder: w_j e_j
        for p in model.parameters():
            p.data[...] = 0
        model.decoder.w.data[[0, 1], [0, 1]] = w
        model.mean.w.data[[0, 1], [0, 1]] = w / (w**2 + noise)
        model.logvar.b.data[...] = np.log(noise / (w**2 + noise))
        loss = sum(model.loss(x, np.tile(each, (len(x), 1)))["loss"] for each in signs) / len(signs)
        slopes = grad(loss, model.parameters())
        found += [
            equal(f"active units of the optimum with β = {beta:g}", model.active_units(x),
                  "number of λ_j > β σ²", np.sum(largest > noise), 0),
            equal(f"largest gradient of the loss there, β = {beta:g}",
                  max(np.abs(g.data).max() for g in slopes), "zero", 0, 1e-12)]
    return found


# --- the GAN's game ------------------------------------------------------------------------------

P, Q = data.mixture1d(0.0, 1.0), data.mixture1d(1.0, 1.0)


def value(logit_real, logit_fake):
    """V(D) = E_p ln D + E_q ln(1 − D) with the losses that train: minus D's loss. Arrays (N,)."""
    losses = losses_named("minimax")
    return -(losses.real.loss(tensor(logit_real)).data + losses.fake.loss(tensor(logit_fake)).data)


def weighted_value(logit, p, q):
    """V(D) with weights of the rows in place of the means."""
    losses = losses_named("minimax")
    real, fake = ([loss.loss(tensor(logit[i:i + 1])).data for i in range(len(logit))]
                  for loss in (losses.real, losses.fake))
    return -(p @ np.array(real) + q @ np.array(fake))


def line(n=401, reach=9.0):
    """Points on a line (n,), the weights p dx and q dx, and the optimal logit ln p − ln q."""
    x = np.linspace(-reach, reach + 1, n)
    log_p, log_q = P.log_density(x[:, None]), Q.log_density(x[:, None])
    dx = x[1] - x[0]
    return x, np.exp(log_p) * dx, np.exp(log_q) * dx, log_p - log_q


@claim("value-supremum")
def supremum_of_the_value(_):
    """V(D) ≤ 0, and V → 0 when D separates real from generated images (Goodfellow 2014, (1))."""
    far = [value(np.full(4, t), np.full(4, -t)) for t in (5.0, 40.0)]
    return [at_most("V(D) with logits ±5", far[0], "sup V", 0, 0),
            equal("V(D) with logits ±40", far[1], "sup V", 0, 1e-15)]


@claim("value-at-optimum")
def value_at_the_optimal_discriminator(_):
    """V(D*) = −ln 4 + 2 JSD(p ‖ q), Goodfellow 2014, theorem 1; p = N(0, 1), q = N(1, 1)."""
    _, p, q, logit = line()
    return [equal("V(D*) by the loss, weighted on a grid", weighted_value(logit, p, q),
                  "−ln 4 + 2 JSD(p ‖ q) by quadrature", -math.log(4) + 2 * jensen_shannon(P, Q),
                  1e-9)]


@claim("half-at-equality")
def discriminator_of_equal_densities(_):
    """If p = q, D = ½ everywhere: the gradient of D's loss with respect to every logit is zero
    there, and V = −ln 4."""
    losses, logit = losses_named("non-saturating"), np.zeros(5)
    slope = losses.real.loss_and_gradient(logit)[1] + losses.fake.loss_and_gradient(logit)[1]
    return [equal("largest |dV/dlogit| at D = ½", np.abs(slope).max(), "its value at an optimum",
                  0, 0),
            equal("V(½)", value(logit, logit), "−ln 4", -math.log(4), 1e-15)]


@claim("saturation")
def slope_of_the_minimax_loss(_):
    """∂ ln(1 − D)/∂logit = −D: it vanishes where D rejects, unlike ∂(−ln D)/∂logit = D − 1."""
    found = []
    for at in (-8.0, 0.5):
        logit, d = tensor(np.array([at]), requires_grad=True), 1 / (1 + math.exp(-at))
        losses = {name: losses_named(name).generator for name in ("minimax", "non-saturating")}
        slope = {name: grad(loss.loss(logit), logit).data[0] for name, loss in losses.items()}
        found += [equal(f"slope of the minimax loss at logit {at}, by the tape", slope["minimax"],
                        "−D", -d, 1e-15),
                  equal(f"slope of the non-saturating loss at logit {at}, by the tape",
                        slope["non-saturating"], "D − 1", d - 1, 1e-15)]
    return found


@claim("non-saturating-gradient")
def gradient_of_the_non_saturating_loss(_):
    """E_z ∂_θ[−ln D*(G(z))] = ∂_θ[KL(q ‖ p) − 2 JSD(p ‖ q)] for D* of this θ. Arjovsky & Bottou
    2017, theorem 2.5; G(z) = z + θ, z ~ N(0, 1), p = N(0, 1): the densities N(θ, 1) and N(0, 1)."""
    at = 1.0
    z, dz = np.linspace(-9, 9, 2001, retstep=True)
    weights = np.exp(-0.5 * (z**2 + LOG_2PI)) * dz
    theta = tensor(np.array(at), requires_grad=True)
    x = z + theta
    logit = -0.5 * (np.square(x) - np.square(x - at))  # ln p − ln q, the D* of θ = 1, not of x − θ
    loss = ops.sum(ops.softplus(-logit) * weights)     # E[−ln σ(logit)]

    def divergences(shift):
        q = data.mixture1d(shift, 1.0)
        return shift**2 / 2 - 2 * jensen_shannon(P, q)

    h = 1e-4
    return [equal("gradient of the loss by the tape", grad(loss, theta).data,
                  "gradient of KL − 2 JSD by differences",
                  (divergences(at + h) - divergences(at - h)) / (2 * h), 1e-6)]


@claim("dirac-gan")
def moduli_of_the_dirac_gan(_):
    """Simultaneous gradient steps on f(ψθ) + f(0), f(t) = −ln(1 + e^−t), leave the equilibrium:
    the eigenvalues of the update are 1 ± i h/2. Mescheder, Geiger & Nowozin 2018, lemma 2.3."""
    point = tensor(np.zeros(2), requires_grad=True)    # (θ of the generator, ψ of D)
    game = -ops.softplus(-point[0] * point[1])
    slopes = grad(game, point, create_graph=True)
    rows = [grad(slopes[i], point, create_graph=True).data for i in range(2)]
    found = []
    for h in (0.1, 1.0):
        step = np.eye(2) + h * np.array([-rows[0], rows[1]])       # θ descends, ψ ascends
        found.append(equal(f"modulus of the update with step {h}, by double backward",
                           np.abs(np.linalg.eigvals(step)).max(), "√(1 + h²/4)",
                           math.sqrt(1 + h * h / 4), 1e-12))
    return found


# --- densities and denoising ---------------------------------------------------------------------

@claim("tweedie")
def denoiser_and_score(_):
    """E[x|x̃] = x̃ + σ² ∇ ln p_σ(x̃): Miyasawa 1961; Efron 2011, (1.4). The score is the tape's
    derivative of the log-density of the noisy data."""
    mixture, std = Mixture((0.3, 0.7), [[-1.0, 0.5], [1.0, 0.0]], (0.4, 0.6)), 0.5
    noisy = Stream(1, "claims.tweedie").normal((6, 2), np.float64)
    x, smooth = tensor(noisy, requires_grad=True), mixture.smoothed(std)
    parts = [math.log(w) + ops.gaussian_log_likelihood(x, m[None], np.full(1, 2 * math.log(s)))
             for w, m, s in zip(smooth.weights, smooth.means, smooth.std, strict=True)]
    log_p = ops.logsumexp(ops.stack(parts), axis=0)
    score = grad(ops.sum(log_p), x).data
    error = np.abs(noisy + std**2 * score - mixture.posterior_mean(noisy, std)).max()
    return [equal("largest |x̃ + σ² score − E[x|x̃]| of 6 points", error, "its value", 0, 1e-12)]


@claim("densities-integrate")
def densities_integrate_to_one(_):
    """∫ p dx = 1 of the Gaussian likelihood and of a mixture; Σ_x p(x) = 1 of the Bernoulli."""
    x, dx = np.linspace(-20, 20, 4001, retstep=True)
    log_p = ops.gaussian_log_likelihood(x[:, None], np.array([[0.7]]), np.array([-0.9])).data
    images = np.array([[i >> j & 1 for j in range(4)] for i in range(16)], np.float64)
    bits = ops.bernoulli_log_likelihood(images, np.tile([0.3, -2.0, 5.0, 0.0], (16, 1))).data
    mixture = data.mixture1d((-2.0, 0.5), (0.4, 0.7), (0.3, 0.7))
    return [equal("∫ p of the Gaussian likelihood", np.exp(log_p).sum() * dx, "one", 1, 1e-12),
            equal("∫ p of a mixture", np.exp(mixture.log_density(x[:, None])).sum() * dx, "one", 1,
                  1e-12),
            equal("Σ p of all images of 4 pixels", np.exp(bits).sum(), "one", 1, 1e-12)]


# --- convolutions --------------------------------------------------------------------------------

@claim("adjoint")
def transposed_convolution_is_the_adjoint(_):
    """⟨conv(x, w), y⟩ = ⟨x, convᵀ(y, w)⟩, with stride, padding and dilation."""
    stream = Stream(1, "claims.adjoint")
    x, y, w = (stream.normal(s, np.float64) for s in ((2, 9, 8, 3), (2, 4, 4, 5), (3, 2, 3, 5)))
    options = {"stride": 2, "padding": (1, 0), "dilation": (2, 1)}
    forward = ops.conv2d(x, w, **options).data
    back = ops.conv_transpose2d(y, np.swapaxes(w, 2, 3).copy(), output_padding=0,
                                **options).data
    grown = np.zeros_like(x)
    grown[:, :back.shape[1], :back.shape[2]] = back    # rows and columns that no tap reaches
    return [equal("⟨conv(x), y⟩", np.vdot(forward, y), "⟨x, convᵀ(y)⟩", np.vdot(x, grown), 1e-10)]


@claim("winograd")
def winograd_is_the_definition(_):
    """The 3 × 3 convolution that trains (Winograd's minimal filtering, on the backend numba) beside
    the sum over the taps."""
    stream = Stream(1, "claims.winograd")
    x, w = stream.normal((2, 12, 12, 16), np.float64), stream.normal((3, 3, 16, 16), np.float64)
    with use_backend("numba"):
        fast = ops.conv2d(x, w, padding=1).data
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    slow = sum(padded[:, u:u + 12, v:v + 12] @ w[u, v] for u in range(3) for v in range(3))
    return [equal("largest difference of two images", np.abs(fast - slow).max(), "none", 0, 1e-11)]


# --- published constants of MNIST's test set -----------------------------------------------------

@claim("mnist-constants")
def constants_of_mnist(data_dir):
    """Two numbers that every VAE on MNIST meets: the loss of a collapsed VAE, whose decoder ignores
    z (independent pixels with the training set's means, smoothed by one image), on binary images
    drawn from the test set's grey values; and the least cross-entropy of grey values, Σ H(x)."""
    try:
        mnist = data.load("mnist", data_dir)
    except UserError as error:
        if data_dir is not None:                       # the user expects it there
            raise
        reason = f"needs the complete MNIST: {error}"
        return [(name, math.nan, EQUAL, "published", math.nan, 0.0, reason)
                for name in ("loss of a collapsed VAE", "floor of the grey cross-entropy")]
    train, test = (x.reshape(len(x), -1) / 255.0 for x in (mnist.train_images, mnist.test_images))
    mean = (train.sum(axis=0) + 0.5) / (len(train) + 1)
    logit = np.log(mean) - np.log1p(-mean)
    nats = -ops.bernoulli_log_likelihood(test, np.broadcast_to(logit, test.shape)).data.mean()
    inside = np.clip(test, 1e-300, 1 - 1e-16)
    floor = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside)).sum(axis=1).mean()
    return [equal("loss of a collapsed VAE, nats", nats, "published", 205.81, 0.005),
            equal("floor of the grey cross-entropy, nats", floor, "published", 45.53, 0.005)]
