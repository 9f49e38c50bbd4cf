"""The variational autoencoder. Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014.

Data come from a latent z ~ N(0, I) through a decoder, p(x) = ∫ p(z) p(x|z) dz, which nobody can
compute. With an encoder q(z|x) = N(m(x), diag e^v(x)),

    ln p(x) = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x)).

The last term is unknown but not negative, so the first two bound ln p(x) from below. The first is
estimated with z = m + e^(v/2) ε, ε ~ N(0, I), through which it can be differentiated; the second
has a closed form. The loss is minus the bound:

    loss = reconstruction + β kl        (nats per image; β = 1 is the bound)
"""

from dataclasses import dataclass, field

import numpy as np

from .. import nn, ops
from ..random import Stream
from ..tensor import Tensor
from .model import SLOPES, Model, activate, bernoulli_nats, sigmoid


class VAE(Model):
    """One hidden layer on either side and a Bernoulli decoder (grey pixels allowed)."""

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
    }

    @dataclass
    class Config:
        """The [model] table."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp",)})
        hidden: int = field(default=500, metadata={"low": 1})
        latent: int = field(default=20, metadata={"low": 1})
        activation: str = field(default="tanh", metadata={"choices": tuple(SLOPES)})
        beta: float = field(default=1.0, metadata={"low": 0})
        init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c, shared = self.config, {"stream": Stream(seed, "vae.init"), "dtype": dtype}
        shared["init"] = c.init
        self.encoder = nn.Dense(self.pixels, c.hidden, c.activation, **shared)
        self.mean = nn.Dense(c.hidden, c.latent, **shared)
        self.logvar = nn.Dense(c.hidden, c.latent, **shared)
        self.hidden = nn.Dense(c.latent, c.hidden, c.activation, **shared)
        self.decoder = nn.Dense(c.hidden, self.pixels, **shared)

    def draw(self, x, streams):
        """The images and the noise ε of a step."""
        x = self.flat(x)
        return x, streams["eps"].normal((len(x), self.config.latent), self.dtype)

    def posterior(self, x):
        """q(z|x) as (mean, logvar), each (N, Z)."""
        h = self.encoder(x)
        return self.mean(h), self.logvar(h)

    def code(self, x):
        return self.posterior(x)[0]

    def logits(self, z):
        return self.decoder(self.hidden(z))

    def loss(self, x, eps):
        """{loss, reconstruction, kl} in nats per image."""
        mean, logvar = self.posterior(Tensor(x))
        z = ops.reparametrize(mean, logvar, eps)
        reconstruction = ops.bce_with_logits(self.logits(z), x) / len(x)
        kl = ops.sum(ops.gaussian_kl(mean, logvar)) / len(x)
        return {"loss": reconstruction + self.config.beta * kl,
                "reconstruction": reconstruction, "kl": kl}

    def explicit_gradients(self, x, eps):
        """Every gradient by the chain rule, on the blackboard: (terms, name → array)."""
        a, n, beta = self.config.activation, x.dtype.type(len(x)), x.dtype.type(self.config.beta)
        slope = SLOPES[a]
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
        dg = dlogits @ V.T * slope(g)
        dU, dc = z.T @ dg, dg.sum(axis=0)
        dz = dg @ U.T
        # through z = m + e^(v/2) ε:   ∂z/∂m = 1,   ∂z/∂v = ½ e^(v/2) ε
        # and the closed-form KL:      ∂kl/∂m = m/n,  ∂kl/∂v = ½ (e^v − 1)/n
        dm = dz + beta * m / n
        dv = dz * std * eps / 2 + beta * (np.exp(v) - 1) / 2 / n
        # backward through the encoder, where both branches meet
        dWm, dbm = h.T @ dm, dm.sum(axis=0)
        dWv, dbv = h.T @ dv, dv.sum(axis=0)
        dh = (dm @ Wm.T + dv @ Wv.T) * slope(h)
        dW, db = x.T @ dh, dh.sum(axis=0)
        terms = {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}
        return terms, {"encoder.w": dW, "encoder.b": db, "mean.w": dWm, "mean.b": dbm,
                       "logvar.w": dWv, "logvar.b": dbv, "hidden.w": dU, "hidden.b": dc,
                       "decoder.w": dV, "decoder.b": dd}

    def sample(self, n, seed=0):
        """Decode z ~ N(0, I): pixel means, (n, H, W, C)."""
        z = Stream(seed, "vae.sample").normal((n, self.config.latent), self.dtype)
        return self.decode(z)
