"""The variational autoencoder. Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014.

The model generates data from a latent z ~ N(0, I) by a decoder p(x|z). The likelihood p(x) =
∫ p(z) p(x|z) dz is intractable. With an encoder q(z|x) = N(m(x), diag e^v(x)),

    ln p(x) = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x)).

The last term is unknown but not negative, so the first two are a lower bound on ln p(x), the ELBO
(Kingma & Welling, equation (3)). The first is estimated with z = m + e^(v/2) ε, ε ~ N(0, I), the
reparametrization, which is differentiable in m and v; the second has a closed form (appendix B).
The loss is the negative ELBO:

    loss = reconstruction + β kl        (nats per image; β = 1 is the bound)

``derivation.py`` computes all four terms of the equation for models where the last is tractable.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ... import ops
from ...context import no_grad
from ...engine.memory import to_host
from ...engine.random import Stream, Streams
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from ..base import Model, binary_cross_entropy, numbers
from ..by_hand import activate, sigmoid, slope
from . import by_hand as vae_by_hand
from . import derivation
from . import networks as vae_networks
from .config import VAEConfig
from .likelihood import likelihood_named

ACTIVE = 0.01                # variance of a unit's posterior mean over the data; Burda et al. 2016
ROWS_AT_ONCE = 4000          # decoded together by log_likelihood: bounds its memory


class VAE(Model):
    """Variational autoencoder. The option ``decoder`` selects p(x|z)."""

    kind = "vae"
    optimiser_defaults = {"epochs": 20, "batch_size": 100, "lr": 1e-3, "optimizer": "adam"}
    presets = {
        "default": {},
        "demo": {"train": {"epochs": 30},
                 "model": {"latent": 2, "activation": "relu", "init": "pytorch"}},
        # The settings of PyTorch's VAE example: 105.6 nats on MNIST's test set after 10 epochs.
        "pytorch-example": {
            "train": {"epochs": 10, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"},
            "model": {"hidden": 400, "latent": 20, "activation": "relu", "init": "pytorch"}},
        "conv": {"model": {"arch": "conv", "activation": "relu", "init": "pytorch"}},
        "fashion": {"data": {"name": "fashion-mnist"},
                    "model": {"arch": "conv", "activation": "relu", "init": "pytorch"}},
        # Burda, Grosse & Salakhutdinov 2016, one stochastic layer, with their first learning rate.
        "iwae": {"train": {"batch_size": 20, "lr": 1e-3, "eps": 1e-4},
                 "data": {"binarize": "dynamic"},
                 "model": {"hidden": [200, 200], "latent": 50, "objective": "iwae", "samples": 5}},
        "points": {"data": {"name": "ring"}, "train": {"epochs": 50},
                   "model": {"hidden": [64, 64], "latent": 2, "decoder": "learned-variance"}},
    }

    Config = VAEConfig
    config: VAEConfig

    def __init__(self, config: VAEConfig | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32) -> None:
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

    def q(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x) = N(mean, e^logvar) of rows x: tensors (mean, logvar), each (N, Z)."""
        h = self.encoder(x)
        return self.mean(h), self.logvar(h)

    def output(self, z: Tensor) -> Tensor:
        """The parameters of p(x|z): logits or means, (N, D)."""
        return self.decoder(self.hidden(z))

    def draw(self, x, streams):
        """The rows and the noise ε (K·N, Z) of a step, K = ``samples``."""
        x = self.flat(x)
        shape = (self.config.samples * len(x), self.config.latent)
        return x, streams["eps"].normal(shape, self.dtype)

    def kl_weight(self) -> float:
        """β min(1, e/warmup) after e finished epochs: 0 in the first, β from epoch ``warmup`` on.

        Bowman et al. 2016, Sønderby et al. 2016.
        """
        c = self.config
        return c.beta * min(1, self.epoch / c.warmup) if c.warmup else c.beta

    def recording_key(self, optimisers):
        return self.kl_weight()

    def loss(self, x: np.ndarray, eps: np.ndarray) -> dict[str, Tensor]:
        """{loss, reconstruction, kl} in nats per image, with this epoch's weight of the KL."""
        return self.terms(x, eps, self.kl_weight(), self.config.free_bits)

    def terms(self, x, eps, weight, free_bits):
        """ELBO:  loss = reconstruction + weight Σ_j max(kl_j, free_bits);  IWAE: see ``iwae``.

        kl_j is the KL of dimension j, averaged over the batch (Kingma et al. 2016, appendix C.8).
        The terms reconstruction and kl are those of the ELBO for either objective.
        """
        samples = len(eps) // len(x)
        mean, logvar = self.q(Tensor(x))
        z = ops.reparametrize(repeat(mean, samples), repeat(logvar, samples), constant(eps))
        kl = ops.mean(ops.gaussian_kl(mean, logvar))
        if self.config.objective == "iwae":
            log_p = self.likelihood.log_p(repeat(x, samples), self.output(z))
            return {"loss": -self.iwae(log_p, z, repeat(logvar, samples), eps, weight, samples),
                    "reconstruction": -log_p.data.mean(), "kl": kl.data}
        reconstruction = self.likelihood.negative_log_likelihood(
            repeat(x, samples), self.output(z)) / len(z)
        penalty = kl
        if free_bits:
            each = ops.mean(np.square(mean) + np.exp(logvar) - logvar - 1, axis=0) / 2
            penalty = ops.sum(np.maximum(each, free_bits))
        if weight != 1:
            penalty = weight * penalty
        return {"loss": reconstruction + penalty,
                "reconstruction": reconstruction, "kl": kl}

    @staticmethod
    def log_weights(log_p, z, logvar, eps, weight=1):
        """ln w = ln p(x|z) + weight [ln p(z) − ln q(z|x)], (K·N,); (z − m)² e^−v = ε² is used."""
        return log_p + weight * 0.5 * ops.sum(eps * eps + logvar - np.square(z), axis=1)

    def iwae(self, log_p, z, logvar, eps, weight, samples):
        """mean_n ln (1/K) Σ_k w_k, a lower bound on ln p(x) that becomes tighter as K grows.

        K = 1: the ELBO. Burda et al. 2016, section 3.
        """
        log_w = self.log_weights(log_p, z, logvar, eps, weight)
        each = ops.logsumexp(ops.reshape(log_w, (samples, -1)), axis=0) - math.log(samples)
        return ops.mean(each)

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, x: np.ndarray, eps: np.ndarray,
                           ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Every gradient by the chain rule: (terms, name → array)."""
        c = self.config
        form = (c.arch, len(c.hidden), c.decoder, c.objective, c.samples, c.free_bits)
        if form == ("mlp", 1, "bernoulli", "elbo", 1, 0):
            return self.one_hidden_layer_gradients(x, eps)
        return vae_by_hand.gradients(self, x, eps)

    def one_hidden_layer_gradients(self, x, eps):
        """The chain rule for one hidden layer on either side and a Bernoulli decoder."""
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
        reconstruction = binary_cross_entropy(logits, x) / n
        kl = np.sum(m**2 + np.exp(v) - v - 1) / 2 / n
        # backward through the decoder: d· is dL/d·
        dlogits = (sigmoid(logits) - x) / n                    # of the cross-entropy with σ(l)
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

    # --- evaluation ------------------------------------------------------------------------------

    def evaluate(self, x: np.ndarray, streams: Streams,
                 labels: np.ndarray | None = None) -> dict[str, float]:
        """The terms per image without training, with the full β and without free bits."""
        with no_grad():
            return numbers(self.terms(*self.draw(x, streams), self.config.beta, 0))

    def log_likelihood(self, x: np.ndarray, k: int = 5000, seed: int = 0) -> np.ndarray:
        """L_k = ln (1/k) Σ p(x|z) p(z)/q(z|x) ≤ ln p(x) of each image, (N,) float64, in nats.

        Uses ``k`` samples from q for each image. Its expectation grows with k and tends to ln p(x);
        L_1 is an unbiased estimate of the ELBO. Burda et al. 2016, section 3.
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

    def derivation(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The terms of the equation for ln p(x): name → (N,) nats; see ``derivation.terms``."""
        return derivation.terms(self, x)

    def kl_per_dimension(self, x: np.ndarray) -> np.ndarray:
        """KL(q(z_j|x) ‖ N(0, 1)) of each dimension j, averaged over images: (Z,) nats."""
        mean, logvar = (a.astype(np.float64) for a in self.posterior(x))
        return np.mean(mean**2 + np.exp(logvar) - logvar - 1, axis=0) / 2

    def active_units(self, x: np.ndarray) -> int:
        """The number of active latents, those with Var_x E_q[z_j|x] > 0.01. Burda et al. 2016."""
        return int(np.sum(self.posterior(x)[0].var(axis=0, dtype=np.float64) > ACTIVE))

    def extra_metrics(self, x: np.ndarray, streams: Streams) -> dict[str, Any]:
        """KL per dimension, active units, the weight of the KL; std of p(x|z) if it is learned."""
        found = {"kl_per_dimension": self.kl_per_dimension(x).tolist(),
                 "active_units": self.active_units(x), "kl_weight": self.kl_weight()}
        if self.config.decoder == "learned-variance":
            found["std"] = math.sqrt(self.likelihood.variance)
        return found

    # --- codes and images ------------------------------------------------------------------------

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """q(z|x) of images: arrays (mean, logvar), each (N, Z)."""
        with no_grad():
            mean, logvar = self.q(Tensor(self.flat(x)))
        return to_host(mean.data), to_host(logvar.data)

    def code(self, x: Tensor) -> Tensor:
        return self.q(x)[0]

    def decode(self, z: ArrayLike) -> np.ndarray:
        """E[x|z] of codes (N, Z); images are clipped to [0, 1], points are not."""
        with no_grad():
            output = to_host(self.output(constant(z, self.dtype)).data)
        mean = self.likelihood.mean(output)
        return self.images(np.clip(mean, 0, 1) if len(self.image_shape) == 3 else mean)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Decoded z ~ N(0, I): the means of p(x|z), (n, H, W, C)."""
        z = Stream(seed, "vae.sample").normal((n, self.config.latent), self.dtype)
        return self.decode(z)


def repeat(x, samples):
    """Rows (N, …) → (samples·N, …): all rows, ``samples`` times; of an array or tensor."""
    if samples == 1:
        return x
    broadcast_to = ops.broadcast_to if isinstance(x, Tensor) else np.broadcast_to
    return broadcast_to(x, (samples, *x.shape)).reshape(samples * len(x), *x.shape[1:])
