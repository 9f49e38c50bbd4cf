"""The denoising autoencoder. Vincent, Larochelle, Bengio & Manzagol 2008; JMLR 11 (2010).

Corrupt an image heavily, encode, decode, and compare with the image *before* corruption:

    x̃ ~ q(x̃ | x)             zero pixels, salt and pepper, or Gaussian noise
    h = s(x̃ W + b)            the code
    y = σ(h W' + b')          the reconstruction, W' = Wᵀ if tied
    loss = d(x, y)            cross-entropy, or squared error

Without corruption an autoencoder with enough units may learn the identity and nothing else.
"""

from dataclasses import dataclass, field

import numpy as np

from .. import data, nn, ops
from ..random import Stream
from ..tensor import Tensor
from .model import SLOPES, Model, activate, bernoulli_nats, sigmoid


class DAE(Model):
    """One hidden layer, as in the paper's stacks."""

    kind = "dae"
    optimiser_defaults = {"epochs": 10, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"}
    presets = {
        "default": {},
        "demo": {"train": {"epochs": 10}, "model": {"level": 0.5}},
        "identity": {"model": {"level": 0.0, "hidden": 1568}},
        "vincent": {"train": {"optimizer": "sgd", "lr": 0.1, "batch_size": 20, "epochs": 15},
                    "model": {"hidden": 500, "level": 0.3}},
    }

    @dataclass
    class Config:
        """The [model] table."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp",)})
        hidden: int = field(default=1000, metadata={"low": 1})
        activation: str = field(default="sigmoid", metadata={"choices": tuple(SLOPES)})
        tied: bool = False
        loss: str = field(default="bce", metadata={"choices": ("bce", "mse")})
        corruption: str = field(default="masking", metadata={"choices": tuple(data.CORRUPTIONS)})
        level: float = field(default=0.25, metadata={"low": 0})

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c, stream = self.config, Stream(seed, "dae.init")
        self.corrupt = data.corruption_named(c.corruption, c.level)
        self.encoder = nn.Dense(self.pixels, c.hidden, c.activation, stream=stream, dtype=dtype)
        self.decoder = nn.TiedDense(self.encoder) if c.tied else nn.Dense(
            c.hidden, self.pixels, stream=stream, dtype=dtype)

    def draw(self, x, streams):
        """The pair (clean, noisy) for a batch of images."""
        return (self.corrupt(self.flat(x), streams["corruption"]),)

    def code(self, x):
        return self.encoder(x)

    def logits(self, code):
        return self.decoder(code)

    def loss(self, pair):
        """Nats per image (squared error per image for "mse"). The target is ``pair.clean``."""
        logits = self.logits(self.code(Tensor(pair.noisy)))
        if self.config.loss == "bce":
            total = ops.bce_with_logits(logits, pair.clean)
        else:
            total = ops.mse(ops.sigmoid(logits), pair.clean)
        return {"loss": total / len(pair.clean)}

    def explicit_gradients(self, pair):
        """Every gradient by the chain rule, on the blackboard: (terms, name → array)."""
        clean, noisy = pair.clean, pair.noisy
        n = clean.dtype.type(len(clean))
        W, b = self.encoder.w.data, self.encoder.b.data
        V, c = (W.T if self.config.tied else self.decoder.w.data), self.decoder.b.data
        # forward
        h = activate(self.config.activation, noisy @ W + b)        # code           (N, H)
        logits = h @ V + c                                         #                (N, D)
        y = sigmoid(logits)                                         # reconstruction (N, D)
        # backward: d· is dL/d·
        if self.config.loss == "bce":
            loss = bernoulli_nats(logits, clean) / n
            dlogits = (y - clean) / n                                   # σ and cross-entropy cancel
        else:
            loss = np.sum((y - clean) ** 2) / n
            dlogits = 2 * (y - clean) / n * y * (1 - y)
        dV = h.T @ dlogits
        dc = dlogits.sum(axis=0)
        dh = dlogits @ V.T
        da = dh * SLOPES[self.config.activation](h)                # before the activation
        dW = noisy.T @ da
        db = da.sum(axis=0)
        if self.config.tied:                                       # V = Wᵀ: one matrix, two uses
            return {"loss": loss}, {"encoder.w": dW + dV.T, "encoder.b": db, "decoder.b": dc}
        return {"loss": loss}, {"encoder.w": dW, "encoder.b": db, "decoder.w": dV, "decoder.b": dc}

    def sample(self, n, seed=0):
        """Decode random codes: uniform in the hidden units' range, the best guess there is.

        An autoencoder never learned which codes are images, so most of these are not
        ("one does not simply sample the latent space").
        """
        u = Stream(seed, "dae.sample").uniform((n, self.config.hidden), self.dtype)
        return self.decode(2 * u - 1 if self.config.activation == "tanh" else u)
