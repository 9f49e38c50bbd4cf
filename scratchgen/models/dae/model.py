"""The denoising autoencoder. Vincent, Larochelle, Bengio & Manzagol 2008; JMLR 11 (2010).

Corrupt an image heavily, encode, decode, and compare with the image *before* corruption:

    x̃ ~ q(x̃ | x)             zero pixels, salt and pepper, or Gaussian noise
    h = s(x̃ W + b)            the code
    y = σ(h W' + b')          the reconstruction, W' = Wᵀ if tied
    loss = d(x, y)            cross-entropy, or squared error

Without corruption an autoencoder with enough units may learn the identity. With squared error,
Gaussian noise and enough capacity it learns the mean of p(x | x̃), and therefore the score:
y − x̃ = std² ∇ ln p(x̃) (Miyasawa 1961; Vincent 2011).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ... import data, nn, ops
from ...context import no_grad
from ...engine.memory import check_values, to_host
from ...engine.random import Stream
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from .. import by_hand
from ..base import Model, binary_cross_entropy
from ..by_hand import sigmoid
from ..networks import conv_decoder, conv_encoder, dense_layers

ACTIVATIONS = ("linear", *nn.Activation.NAMES)


class DAE(Model):
    """Denoising autoencoder with one hidden layer, as in the paper, several, or convolutions."""

    kind = "dae"
    optimiser_defaults = {"epochs": 10, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"}
    presets = {
        "default": {},
        "demo": {"train": {"epochs": 10}, "model": {"level": 0.5}},
        "identity": {"model": {"level": 0.0, "hidden": 1568}},
        "vincent": {"train": {"optimizer": "sgd", "lr": 0.1, "batch_size": 20, "epochs": 15},
                    "model": {"hidden": 500, "level": 0.3}},
        # With a sigmoid code the output stays the mean image for many epochs (200 nats).
        "conv": {"model": {"arch": "conv", "hidden": 128, "activation": "relu", "level": 0.5}},
        "points": {"data": {"name": "ring"}, "train": {"epochs": 40, "lr": 3e-3},
                   "model": {"layers": [64, 64], "hidden": 64, "activation": "tanh", "level": 0.3,
                             "corruption": "gaussian", "loss": "mse", "output": "linear"}},
    }

    @dataclass
    class Config:
        """The [model] table. ``layers``: widths before the code, and in reverse order after it."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv")})
        hidden: int = field(default=1000, metadata={"low": 1})       # units of the code
        layers: list[int] = field(default_factory=list, metadata={"low": 1})
        activation: str = field(default="sigmoid", metadata={"choices": ACTIVATIONS})
        output: str = field(default="sigmoid", metadata={"choices": ("sigmoid", "linear")})
        tied: bool = False
        loss: str = field(default="bce", metadata={"choices": ("bce", "mse")})
        corruption: str = field(default="masking", metadata={"choices": tuple(data.CORRUPTIONS)})
        level: float = field(default=0.25, metadata={"low": 0})
        init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

        def __post_init__(self):
            if self.tied and (self.layers or self.arch == "conv"):
                raise UserError("tied weights are for one dense hidden layer: expected "
                                "tied = false with layers or convolutions")
            if self.loss == "bce" and self.output == "linear":
                raise UserError('loss = "bce" compares with the output of a sigmoid: expected '
                                'output = "sigmoid", or loss = "mse"')

    config: Config

    def __init__(self, config: Config | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32, stream: Stream | None = None) -> None:
        super().__init__(config, image_shape, seed, dtype)
        c = self.config
        options = {"init": c.init, "stream": stream or Stream(seed, "dae.init"), "dtype": dtype}
        self.corrupt = data.corruption_named(c.corruption, c.level)
        self.activation = None if c.activation == "linear" else c.activation
        sizes = [self.pixels, *c.layers, c.hidden]
        if c.arch == "conv":
            self.encoder = conv_encoder(self.image_shape, c.hidden, self.activation, **options)
            self.decoder = conv_decoder(c.hidden, self.image_shape, **options)
        else:
            self.encoder = dense_layers(sizes, self.activation, self.activation, **options)
            self.decoder = nn.TiedDense(self.encoder) if c.tied else dense_layers(
                sizes[::-1], self.activation, None, **options)

    def draw(self, x, streams):
        """The pair (clean, noisy) for a batch of images."""
        rows = self.flat(x)
        check_values(x, self.check_data)
        return (self.corrupt(rows, streams["corruption"]),)

    def check_data(self, x: np.ndarray) -> None:
        if self.config.output == "sigmoid" and not (x.min() >= 0 and x.max() <= 1):
            raise UserError(f"a sigmoid reconstructs values in [0, 1], and the data go from "
                            f'{x.min():.3g} to {x.max():.3g}: expected output = "linear" and '
                            'loss = "mse", for example with --preset points')

    def code(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def logits(self, code: Tensor) -> Tensor:
        return self.decoder(code)

    def loss(self, pair: Any) -> dict[str, Tensor]:
        """{loss} of a pair (clean, noisy), per image: nats, or the squared error for "mse"."""
        h = self.logits(self.code(Tensor(pair.noisy)))
        if self.config.loss == "bce":
            total = ops.bce_with_logits(h, constant(pair.clean))
        else:
            y = h if self.config.output == "linear" else ops.sigmoid(h)
            total = ops.mse(y, constant(pair.clean))
        return {"loss": total / len(pair.clean)}

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, pair: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Every gradient by the chain rule: (terms, name → array).

        Written out for one hidden layer, as in the paper. For deeper and convolutional networks the
        same steps are applied layer by layer.
        """
        if not isinstance(self.encoder, nn.Dense):
            return self.explicit_layer_by_layer(pair)
        x, W, b = pair.noisy, self.encoder.w.data, self.encoder.b.data
        V, c = (W.T if self.config.tied else self.decoder.w.data), self.decoder.b.data
        # forward
        h = by_hand.activate(self.activation, x @ W + b)           # code           (N, H)
        logits = h @ V + c                                         #                (N, D)
        # backward: d· is dL/d·
        loss, dlogits = self.explicit_distance(logits, pair.clean)
        dV = h.T @ dlogits
        dc = dlogits.sum(axis=0)
        dh = dlogits @ V.T
        da = dh * by_hand.slope(self.activation, h)                # before the activation
        dW = x.T @ da
        db = da.sum(axis=0)
        if self.config.tied:                                       # V = Wᵀ: one matrix, two uses
            return {"loss": loss}, {"encoder.w": dW + dV.T, "encoder.b": db, "decoder.b": dc}
        return {"loss": loss}, {"encoder.w": dW, "encoder.b": db, "decoder.w": dV, "decoder.b": dc}

    def explicit_distance(self, logits, clean):
        """(d(x, y), its gradient before the output's activation), means over the batch."""
        n = clean.dtype.type(len(clean))
        if self.config.output == "linear":
            return np.sum((logits - clean) ** 2) / n, 2 * (logits - clean) / n
        y = sigmoid(logits)
        if self.config.loss == "bce":
            # σ'(l) cancels against the derivative of the cross-entropy
            return binary_cross_entropy(logits, clean) / n, (y - clean) / n
        return np.sum((y - clean) ** 2) / n, 2 * (y - clean) / n * y * (1 - y)

    def explicit_layer_by_layer(self, pair):
        h, encoder_cache = by_hand.forward(self.encoder, pair.noisy)
        logits, decoder_cache = by_hand.forward(self.decoder, h)
        loss, dlogits = self.explicit_distance(logits, pair.clean)
        decoder_gradients, dh = by_hand.backward(self.decoder, decoder_cache, dlogits)
        encoder_gradients, _ = by_hand.backward(self.encoder, encoder_cache, dh)
        return {"loss": loss}, {
            **{f"encoder.{name}": g for name, g in encoder_gradients.items()},
            **{f"decoder.{name}": g for name, g in decoder_gradients.items()}}

    # --- codes and images ------------------------------------------------------------------------

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Images of codes (N, Z), or points. A linear output is clipped to [0, 1] for images."""
        with no_grad():
            h = to_host(self.logits(constant(z, self.dtype)).data)
        if self.config.output == "sigmoid":
            return self.images(sigmoid(h))
        return self.images(h if len(self.image_shape) == 1 else np.clip(h, 0, 1))

    def denoise(self, noisy: np.ndarray) -> np.ndarray:
        """The reconstruction of noisy items: the model's estimate of E[x | x̃]."""
        return self.reconstruct(noisy)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Decode random codes in the range of the hidden units.

        Uniform for bounded activations (sigmoid, tanh), a(N(0, 1)) otherwise. Most results are not
        realistic images, because an autoencoder does not model the distribution of its codes.
        """
        stream, shape = Stream(seed, "dae.sample"), (n, self.config.hidden)
        if self.activation in ("sigmoid", "tanh"):
            u = stream.uniform(shape, self.dtype)
            return self.decode(2 * u - 1 if self.activation == "tanh" else u)
        return self.decode(by_hand.activate(self.activation,
                                            to_host(stream.normal(shape, self.dtype))))
