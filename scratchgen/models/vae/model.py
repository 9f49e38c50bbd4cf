"""The variational autoencoder. Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014.

Data come from a latent z ~ N(0, I) through a decoder, p(x) = ∫ p(z) p(x|z) dz, which nobody can
compute. With an encoder q(z|x) = N(m(x), diag e^v(x)),

    ln p(x) = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x)).

The last term is unknown but not negative, so the first two bound ln p(x) from below. The first is
estimated with z = m + e^(v/2) ε, ε ~ N(0, I), through which it can be differentiated; the second
has a closed form. The loss is minus the bound:

    loss = reconstruction + β kl        (nats per image; β = 1 is the bound)

``derivation`` gives all four quantities of the equation as numbers where the last can be computed.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from ... import nn, ops
from ...context import no_grad
from ...engine.memory import to_host
from ...engine.random import Stream
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from ..base import Model, bernoulli_nats, numbers
from ..by_hand import activate, sigmoid, slope
from . import by_hand as vae_by_hand
from . import derivation
from . import networks as vae_networks
from .likelihood import DECODERS, likelihood_named

ACTIVE = 0.01                # variance of a unit's posterior mean over the data; Burda et al. 2016
ROWS_AT_ONCE = 4000          # decoded together by log_likelihood: bounds its memory


class VAE(Model):
    """Encoder and decoder of one architecture; ``decoder`` says what p(x|z) is."""

    kind = "vae"
    optimiser_defaults = {"epochs": 20, "batch_size": 100, "lr": 1e-3, "optimizer": "adam"}
    presets = {
        "default": {},
        "demo": {"train": {"epochs": 30},
                 "model": {"latent": 2, "activation": "relu", "init": "pytorch"}},
        # The numbers of PyTorch's VAE example: 105.6 nats on MNIST's test set after 10 epochs.
        "pytorch-example": {
            "train": {"epochs": 10, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"},
            "model": {"hidden": 400, "latent": 20, "activation": "relu", "init": "pytorch"}},
        "conv": {"model": {"arch": "conv", "activation": "relu", "init": "pytorch"}},
        "fashion": {"data": {"name": "fashion-mnist"},
                    "model": {"arch": "conv", "activation": "relu", "init": "pytorch"}},
        # Burda, Grosse & Salakhutdinov 2016, one stochastic layer, at the first of their rates.
        "iwae": {"train": {"batch_size": 20, "lr": 1e-3, "eps": 1e-4},
                 "data": {"binarize": "dynamic"},
                 "model": {"hidden": [200, 200], "latent": 50, "objective": "iwae", "samples": 5}},
        "points": {"data": {"name": "ring"}, "train": {"epochs": 50},
                   "model": {"hidden": [64, 64], "latent": 2, "decoder": "learned-variance"}},
    }

    @dataclass
    class Config:
        """The [model] table."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv", "linear")})
        hidden: list[int] = field(default_factory=lambda: [500], metadata={"low": 1})    # mlp
        channels: list[int] = field(default_factory=lambda: [32, 64], metadata={"low": 1})  # conv
        latent: int = field(default=20, metadata={"low": 1})
        activation: str = field(default="tanh", metadata={"choices": nn.Activation.NAMES})
        decoder: str = field(default="bernoulli", metadata={"choices": DECODERS})
        std: float = field(default=0.1, metadata={"above": 0})   # of p(x|z); learned: at the start
        objective: str = field(default="elbo", metadata={"choices": ("elbo", "iwae")})
        samples: int = field(default=1, metadata={"low": 1})     # of z, for each image
        beta: float = field(default=1.0, metadata={"low": 0})
        warmup: int = field(default=0, metadata={"low": 0})      # epochs
        free_bits: float = field(default=0.0, metadata={"low": 0})  # nats for each latent dimension
        init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

        def __post_init__(self):
            self.hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
            if not self.hidden or not self.channels:
                raise UserError("hidden and channels name at least one size; for a VAE without "
                                'hidden layers use arch = "linear"')
            if self.objective == "iwae" and self.free_bits:
                raise UserError("free_bits needs the KL in closed form, which the IWAE does not "
                                'use: expected free_bits = 0 or objective = "elbo"')

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c = self.config
        if len(self.image_shape) == 1 and c.decoder == "bernoulli":
            raise UserError("a Bernoulli decoder is for images in [0, 1], not for points: use "
                            'decoder = "learned-variance", as the preset "points" does')
        parts = vae_networks.build(c, self.image_shape, Stream(seed, "vae.init"), dtype)
        self.encoder, self.mean, self.logvar = (parts[n] for n in ("encoder", "mean", "logvar"))
        self.hidden, self.decoder = parts["hidden"], parts["decoder"]
        self.likelihood = likelihood_named(c.decoder, c.std, dtype)

    # --- the model -------------------------------------------------------------------------------

    def q(self, x):
        """q(z|x) = N(mean, e^logvar) of rows x: tensors (mean, logvar), each (N, Z)."""
        h = self.encoder(x)
        return self.mean(h), self.logvar(h)

    def output(self, z):
        """What p(x|z) is made of: logits or means, (N, D)."""
        return self.decoder(self.hidden(z))

    def draw(self, x, streams):
        """The rows and the noise ε (K·N, Z) of a step, K = ``samples``."""
        x = self.flat(x)
        shape = (self.config.samples * len(x), self.config.latent)
        return x, streams["eps"].normal(shape, self.dtype)

    def kl_weight(self):
        """β min(1, e/warmup) after e whole epochs: 0 in the first one, β from epoch ``warmup`` on.

        Bowman et al. 2016, Sønderby et al. 2016.
        """
        c = self.config
        return c.beta * min(1, self.epoch / c.warmup) if c.warmup else c.beta

    def phase(self, optimisers):
        return self.kl_weight()

    def loss(self, x, eps):
        """{loss, reconstruction, kl} in nats per image, at this epoch's weight of the KL."""
        return self.terms(x, eps, self.kl_weight(), self.config.free_bits)

    def terms(self, x, eps, weight, free_bits):
        """ELBO:  loss = reconstruction + weight Σ_j max(kl_j, free_bits);  IWAE: see ``iwae``.

        kl_j is dimension j's KL, the batch's mean (Kingma et al. 2016, appendix C.8). The terms
        reported as reconstruction and kl are the plain ones, whatever the objective.
        """
        samples = len(eps) // len(x)
        mean, logvar = self.q(Tensor(x))
        z = ops.reparametrize(repeat(mean, samples), repeat(logvar, samples), constant(eps))
        kl = ops.mean(ops.gaussian_kl(mean, logvar))
        if self.config.objective == "iwae":
            log_p = self.likelihood.log_p(repeat(x, samples), self.output(z))
            return {"loss": -self.iwae(log_p, z, repeat(logvar, samples), eps, weight, samples),
                    "reconstruction": -log_p.data.mean(), "kl": kl.data}
        reconstruction = self.likelihood.nats(repeat(x, samples), self.output(z)) / len(z)
        counted = kl
        if free_bits:
            each = ops.mean(np.square(mean) + np.exp(logvar) - logvar - 1, axis=0) / 2
            counted = ops.sum(np.maximum(each, free_bits))
        if weight != 1:
            counted = weight * counted
        return {"loss": reconstruction + counted,
                "reconstruction": reconstruction, "kl": kl}

    @staticmethod
    def log_weights(log_p, z, logvar, eps, weight=1):
        """ln w = ln p(x|z) + weight [ln p(z) − ln q(z|x)], and (z − m)² e^−v = ε²: (K·N,)."""
        return log_p + weight * 0.5 * ops.sum(eps * eps + logvar - np.square(z), axis=1)

    def iwae(self, log_p, z, logvar, eps, weight, samples):
        """mean_n ln (1/K) Σ_k w_k ≤ ln p(x), tighter the larger K; K = 1: ELBO. Burda et al. 2016.
        """
        log_w = self.log_weights(log_p, z, logvar, eps, weight)
        each = ops.logsumexp(ops.reshape(log_w, (samples, -1)), axis=0) - math.log(samples)
        return ops.mean(each)

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, x, eps):
        """Every gradient by the chain rule: (terms, name → array)."""
        c = self.config
        lecture = (c.arch, len(c.hidden), c.decoder, c.objective, c.samples, c.free_bits)
        if lecture == ("mlp", 1, "bernoulli", "elbo", 1, 0):
            return self.blackboard(x, eps)
        return vae_by_hand.gradients(self, x, eps)

    def blackboard(self, x, eps):
        """One hidden layer on either side and a Bernoulli decoder: every line of the chain rule."""
        a, n, beta = self.config.activation, x.dtype.type(len(x)), x.dtype.type(self.kl_weight())
        W, b = self.encoder.w.data, self.encoder.b.data
        Wm, bm, Wv, bv = (p.data for p in (self.mean.w, self.mean.b, self.logvar.w, self.logvar.b))
        U, c = self.hidden.w.data, self.hidden.b.data
        V, d = self.decoder.w.data, self.decoder.b.data
        # forward
        h = activate(a, x @ W + b)
        m, v = h @ Wm + bm, h @ Wv + bv                        # q(z|x) = N(m, e^v)
        std = np.exp(v / 2)
        z = m + std * eps                                      # the reparametrization
        g = activate(a, z @ U + c)
        logits = g @ V + d
        reconstruction = bernoulli_nats(logits, x) / n
        kl = np.sum(m**2 + np.exp(v) - v - 1) / 2 / n
        # backward through the decoder: d· is dL/d·
        dlogits = (sigmoid(logits) - x) / n                    # σ and cross-entropy cancel
        dV, dd = g.T @ dlogits, dlogits.sum(axis=0)
        dg = dlogits @ V.T * slope(a, g)
        dU, dc = z.T @ dg, dg.sum(axis=0)
        dz = dg @ U.T
        # through z = m + e^(v/2) ε:   ∂z/∂m = 1,   ∂z/∂v = ½ e^(v/2) ε
        # and the closed-form KL:      ∂kl/∂m = m/n,  ∂kl/∂v = ½ (e^v − 1)/n
        dm = dz + beta * m / n
        dv = dz * std * eps / 2 + beta * (np.exp(v) - 1) / 2 / n
        # backward through the encoder, where both branches meet
        dWm, dbm = h.T @ dm, dm.sum(axis=0)
        dWv, dbv = h.T @ dv, dv.sum(axis=0)
        dh = (dm @ Wm.T + dv @ Wv.T) * slope(a, h)
        dW, db = x.T @ dh, dh.sum(axis=0)
        terms = {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}
        return terms, {"encoder.w": dW, "encoder.b": db, "mean.w": dWm, "mean.b": dbm,
                       "logvar.w": dWv, "logvar.b": dbv, "hidden.w": dU, "hidden.b": dc,
                       "decoder.w": dV, "decoder.b": dd}

    # --- what the bound is worth -----------------------------------------------------------------

    def evaluate(self, x, streams, labels=None):
        """The terms per image without training: at the whole β, without free bits."""
        with no_grad():
            return numbers(self.terms(*self.draw(x, streams), self.config.beta, 0))

    def log_likelihood(self, x, k=5000, seed=0):
        """L_k = ln (1/k) Σ p(x|z) p(z)/q(z|x) ≤ ln p(x) of each image, (N,) float64, in nats.

        Exactly ``k`` samples from q for each image; in expectation it grows with k, towards ln p.
        L_1 is an unbiased estimate of the ELBO. Burda, Grosse & Salakhutdinov 2016.
        """
        if k < 1:
            raise UserError(f"log_likelihood with k = {k}: expected at least one sample")
        x, stream = self.flat(x), Stream(seed, "vae.log_likelihood")
        chunks = [x[i:i + 100] for i in range(0, len(x), 100)]
        with no_grad():
            totals = [self.log_total(chunk, k, stream) for chunk in chunks]
        return np.concatenate([np.empty(0), *totals]) - math.log(k)

    def log_total(self, x, k, stream):
        """ln Σ w over ``k`` samples of each row, a few at a time."""
        total, (mean, logvar) = np.full(len(x), -np.inf), self.q(Tensor(x))
        at_once = max(1, ROWS_AT_ONCE // len(x))
        for first in range(0, k, at_once):
            samples = min(at_once, k - first)
            eps = stream.normal((samples * len(x), self.config.latent), self.dtype)
            v = repeat(logvar, samples)
            z = ops.reparametrize(repeat(mean, samples), v, constant(eps))
            log_p = self.likelihood.log_p(repeat(x, samples), self.output(z))
            log_w = to_host(self.log_weights(log_p, z, v, eps).data).astype(np.float64)
            total = np.logaddexp(total, np.logaddexp.reduce(log_w.reshape(samples, -1), axis=0))
        return total

    def derivation(self, x):
        """The equation at the top, term by term: name → (N,) nats; see ``derivation.terms``."""
        return derivation.terms(self, x)

    def kl_per_dimension(self, x):
        """KL(q(z_j|x) ‖ N(0, 1)) for each j, the mean over images: (Z,) nats."""
        mean, logvar = (a.astype(np.float64) for a in self.posterior(x))
        return np.mean(mean**2 + np.exp(logvar) - logvar - 1, axis=0) / 2

    def active_units(self, x):
        """How many latents say anything: Var_x E_q[z_j|x] > 0.01. Burda et al. 2016."""
        return int(np.sum(self.posterior(x)[0].var(axis=0, dtype=np.float64) > ACTIVE))

    def extra_metrics(self, x, streams):
        """KL per dimension, active units, the weight of the KL; std of p(x|z) if it is learned."""
        found = {"kl_per_dimension": self.kl_per_dimension(x).tolist(),
                 "active_units": self.active_units(x), "kl_weight": self.kl_weight()}
        if self.config.decoder == "learned-variance":
            found["std"] = math.sqrt(self.likelihood.variance)
        return found

    # --- codes and images ------------------------------------------------------------------------

    def posterior(self, x):
        """q(z|x) of images: arrays (mean, logvar), each (N, Z)."""
        with no_grad():
            mean, logvar = self.q(Tensor(self.flat(x)))
        return to_host(mean.data), to_host(logvar.data)

    def code(self, x):
        return self.q(x)[0]

    def decode(self, z):
        """E[x|z] of codes (N, Z); images are clipped to [0, 1], points are not."""
        with no_grad():
            output = to_host(self.output(constant(z, self.dtype)).data)
        mean = self.likelihood.mean(output)
        return self.images(np.clip(mean, 0, 1) if len(self.image_shape) == 3 else mean)

    def sample(self, n, seed=0):
        """Decode z ~ N(0, I): means of p(x|z), (n, H, W, C)."""
        z = Stream(seed, "vae.sample").normal((n, self.config.latent), self.dtype)
        return self.decode(z)


def repeat(x, samples):
    """Rows (N, …) ``samples`` times, one copy of all after another: array or tensor."""
    if samples == 1:
        return x
    whole = ops.broadcast_to if isinstance(x, Tensor) else np.broadcast_to
    return whole(x, (samples, *x.shape)).reshape(samples * len(x), *x.shape[1:])
