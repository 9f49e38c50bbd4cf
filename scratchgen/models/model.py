"""What every model has: a configuration, networks with one optimiser each, a training step."""

import numpy as np

from .. import nn
from ..engine import no_grad
from ..errors import UserError
from ..tensor import Tensor

# a'(h) from a(h), for the gradients written out by hand
SLOPES = {
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
    "relu": lambda y: (y > 0).astype(y.dtype),
    "leaky_relu": lambda y: np.where(y > 0, y.dtype.type(1), y.dtype.type(0.2)),
    "elu": lambda y: np.where(y > 0, y.dtype.type(1), y + 1),
    "softplus": lambda y: 1 - np.exp(-y),
}


class Model(nn.Module):
    """Base of the models.

    Images come and go as arrays (N, H, W, C) in [0, 1]. Losses are in nats per image: sums over
    pixels and latents, means over images. ``explicit_gradients`` of each model gives every
    parameter's gradient by name, in plain NumPy, without the tape.
    """

    kind = Config = None
    presets = {"default": {}}
    optimiser_defaults = {}               # of the [train] table

    def __init__(self, config, image_shape, seed=0, dtype=np.float32):
        self.config, self.image_shape = config or self.Config(), tuple(image_shape)
        self.seed, self.dtype = seed, np.dtype(dtype)
        self.pixels = int(np.prod(self.image_shape))

    def networks(self):
        """Name → network; each has an optimiser of its own."""
        return {"model": self}

    def flat(self, x):
        """Images (N, H, W, C) as rows (N, D) in the model's precision."""
        if x.shape[1:] != self.image_shape and x.shape[1:] != (self.pixels,):
            raise UserError(f"images of shape {x.shape[1:]}, but this model was made for "
                            f"{self.image_shape}; give images of that shape")
        return np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)

    def images(self, rows):
        """Rows (N, D) as images (N, H, W, C), float32."""
        return rows.reshape(len(rows), *self.image_shape).astype(np.float32, copy=False)

    def training_step(self, x, streams, optimisers, gradient="tape"):
        """One update on the images ``x``; returns the loss and its terms, per image."""
        optimiser = optimisers["model"]
        inputs = self.draw(x, streams)
        if gradient == "explicit":
            terms, gradients = self.explicit_gradients(*inputs)
            take(self, gradients)
        else:
            optimiser.zero_grad()
            terms = self.loss(*inputs)
            terms["loss"].backward()
        optimiser.step()
        return numbers(terms)

    def evaluate(self, x, streams):
        """The loss and its terms per image, without training."""
        with no_grad():
            return numbers(self.loss(*self.draw(x, streams)))

    def encode(self, x):
        """Codes (N, Z) of images."""
        with no_grad():
            return self.code(Tensor(self.flat(x))).data

    def decode(self, z):
        """Images of codes (N, Z)."""
        with no_grad():
            logits = self.logits(Tensor(np.asarray(z, self.dtype)))
            return self.images(sigmoid(logits.data))

    def reconstruct(self, x):
        """Decoded codes of images."""
        return self.decode(self.encode(x))


def numbers(terms):
    """Loss terms as floats."""
    return {name: float(value) for name, value in terms.items()}


def take(network, gradients):
    """Hand gradients by name to the parameters, as backward would."""
    for name, p in network.named_parameters().items():
        if name in gradients:
            p.take_gradient(gradients[name])


def sigmoid(h):
    """σ(h), plain NumPy."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-h))


def activate(name, h):
    """a(h) by name, plain NumPy; the leaky slope is 0.2."""
    with np.errstate(over="ignore"):
        return {"sigmoid": sigmoid, "tanh": np.tanh, "relu": lambda h: np.maximum(h, 0),
                "leaky_relu": lambda h: np.where(h > 0, h, h * h.dtype.type(0.2)),
                "elu": lambda h: np.where(h > 0, h, np.expm1(np.minimum(h, 0))),
                "softplus": lambda h: np.logaddexp(h, 0)}[name](h)


def bernoulli_nats(logits, x):
    """−Σ [x ln σ(l) + (1 − x) ln(1 − σ(l))], plain NumPy."""
    return np.sum(np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits))))
