"""The generative adversarial network. Goodfellow et al. 2014.

A generator G turns noise z ~ N(0, I) into images; a discriminator D says how likely an image is
real. They play

    min_G max_D  V(D, G) = E_x[ln D(x)] + E_z[ln(1 − D(G(z)))].

D descends −V. G descends V ("minimax"), or −E_z[ln D(G(z))] ("non-saturating"): the same fixed
point, and a gradient that does not vanish while D still wins. All of it on logits, D = σ(logit):
−ln D = softplus(−logit) and −ln(1 − D) = softplus(logit).
"""

from dataclasses import dataclass, field

import numpy as np

from .. import nn, ops
from ..engine import no_grad
from ..random import Stream
from ..tensor import Tensor
from .model import SLOPES, Model, activate, numbers, sigmoid, take

ACTIVATION = "leaky_relu"


class GAN(Model):
    """Two multi-layer perceptrons. Images are scaled to [−1, 1], where the generator's tanh ends.
    """

    kind = "gan"
    optimiser_defaults = {"epochs": 50, "batch_size": 100, "lr": 2e-4, "optimizer": "adam",
                          "beta1": 0.5}
    presets = {
        "default": {},
        # A small D: on few images a larger one learns them by heart, and its advice turns to noise.
        "demo": {"train": {"epochs": 40, "batch_size": 64, "lr": 5e-4},
                 "model": {"discriminator": [128, 64]}},
        "minimax": {"model": {"loss": "minimax"}},
    }

    @dataclass
    class Config:
        """The [model] table."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp",)})
        latent: int = field(default=100, metadata={"low": 1})
        generator: list[int] = field(default_factory=lambda: [256, 512], metadata={"low": 1})
        discriminator: list[int] = field(default_factory=lambda: [512, 256], metadata={"low": 1})
        loss: str = field(default="non-saturating",
                          metadata={"choices": ("non-saturating", "minimax")})
        d_steps: int = field(default=1, metadata={"low": 1})     # batches for D before G's turn
        g_steps: int = field(default=1, metadata={"low": 1})     # updates of G in a turn
        init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c, stream = self.config, Stream(seed, "gan.init")
        self.generator = perceptron([c.latent, *c.generator, self.pixels], "tanh", c.init, stream,
                                    dtype)
        self.discriminator = perceptron([self.pixels, *c.discriminator, 1], None, c.init, stream,
                                        dtype)

    def networks(self):
        return {"generator": self.generator, "discriminator": self.discriminator}

    def noise(self, n, stream):
        """z ~ N(0, I), (n, Z)."""
        return stream.normal((n, self.config.latent), self.dtype)

    def real(self, x):
        """Images as rows in [−1, 1]."""
        return 2 * self.flat(x) - 1

    # --- the two losses --------------------------------------------------------------------------

    def discriminator_loss(self, x, z):
        """−V(D, G) on rows x in [−1, 1] and noise z, per image; G is fixed.

        {loss, d_real = mean D(x), d_fake = mean D(G(z))}; at equilibrium ln 4, ½ and ½.
        """
        with no_grad():
            fake = self.generator(Tensor(z))
        real_logits, fake_logits = self.discriminator(Tensor(x)), self.discriminator(fake)
        loss = (ops.bce_with_logits(real_logits, np.ones_like(real_logits.data), "mean")
                + ops.bce_with_logits(fake_logits, np.zeros_like(fake_logits.data), "mean"))
        return {"loss": loss, "d_real": sigmoid(real_logits.data).mean(),
                "d_fake": sigmoid(fake_logits.data).mean()}

    def generator_loss(self, z):
        """What G descends, per image; D is fixed: {g_loss}."""
        with self.discriminator.frozen():
            logits = self.discriminator(self.generator(Tensor(z)))
            if self.config.loss == "minimax":           # ln(1 − D) = −softplus(logit)
                loss = -ops.bce_with_logits(logits, np.zeros_like(logits.data), "mean")
            else:                                       # −ln D = softplus(−logit)
                loss = ops.bce_with_logits(logits, np.ones_like(logits.data), "mean")
        return {"g_loss": loss}

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, x, z):
        """Both players' gradients at this point: (terms, name → array).

        The discriminator's are of ``discriminator_loss``, the generator's of ``generator_loss``.
        """
        d_terms, d_gradients = self.explicit_discriminator_gradients(x, z)
        g_terms, g_gradients = self.explicit_generator_gradients(z)
        return {**d_terms, **g_terms}, {
            **{f"discriminator.{name}": g for name, g in d_gradients.items()},
            **{f"generator.{name}": g for name, g in g_gradients.items()}}

    def explicit_discriminator_gradients(self, x, z):
        """d/dl softplus(−l) = σ(l) − 1 on real images, d/dl softplus(l) = σ(l) on generated ones.
        """
        n = x.dtype.type(len(x))
        fake = forward(self.generator, z)[-1]
        real_layers, fake_layers = forward(self.discriminator, x), forward(self.discriminator, fake)
        real_logits, fake_logits = real_layers[-1], fake_layers[-1]
        loss = (np.logaddexp(0, -real_logits).sum() + np.logaddexp(0, fake_logits).sum()) / n
        d_real, d_fake = sigmoid(real_logits), sigmoid(fake_logits)
        from_real, _ = backward(self.discriminator, real_layers, (d_real - 1) / n)
        from_fake, _ = backward(self.discriminator, fake_layers, d_fake / n)
        return ({"loss": loss, "d_real": d_real.mean(), "d_fake": d_fake.mean()},
                {name: from_real[name] + from_fake[name] for name in from_real})

    def explicit_generator_gradients(self, z):
        """Down through D (its parameters untouched) to the image, and on through G."""
        n = z.dtype.type(len(z))
        g_layers = forward(self.generator, z)
        d_layers = forward(self.discriminator, g_layers[-1])
        logits = d_layers[-1]
        if self.config.loss == "minimax":
            loss, dlogits = -np.logaddexp(0, logits).sum() / n, -sigmoid(logits) / n
        else:
            loss, dlogits = np.logaddexp(0, -logits).sum() / n, (sigmoid(logits) - 1) / n
        _, dimage = backward(self.discriminator, d_layers, dlogits)
        gradients, _ = backward(self.generator, g_layers, dimage)
        return {"g_loss": loss}, gradients

    # --- training --------------------------------------------------------------------------------

    def training_step(self, x, streams, optimisers, gradient="tape"):
        """One update of D on this batch; after every ``d_steps`` of them, ``g_steps`` of G."""
        x, d, g = self.real(x), optimisers["discriminator"], optimisers["generator"]
        explicit = gradient == "explicit"
        d.zero_grad()
        terms = self.descend(d, explicit, self.explicit_discriminator_gradients,
                             self.discriminator_loss, x, self.noise(len(x), streams["z"]))
        turn = d.steps % self.config.d_steps == 0
        for _ in range(self.config.g_steps if turn else 0):
            terms.update(self.descend(g, explicit, self.explicit_generator_gradients,
                                      self.generator_loss, self.noise(len(x), streams["z"])))
        if not turn:
            terms.update(self.evaluate_generator(self.noise(len(x), streams["z"])))
        return terms

    @staticmethod
    def descend(optimiser, explicit, by_hand, by_tape, *inputs):
        """One update of one player."""
        optimiser.zero_grad()
        if explicit:
            terms, gradients = by_hand(*inputs)
            take(optimiser.network, gradients)
        else:
            terms = by_tape(*inputs)
            next(iter(terms.values())).backward()
        optimiser.step()
        return numbers(terms)

    def evaluate_generator(self, z):
        with no_grad():
            return numbers(self.generator_loss(z))

    def evaluate(self, x, streams):
        """The losses and D's mean answers per image, without training."""
        z = self.noise(len(x), streams["z"])
        with no_grad():
            return numbers({**self.discriminator_loss(self.real(x), z), **self.generator_loss(z)})

    def decode(self, z):
        """Images of noise (N, Z)."""
        with no_grad():
            return self.images((self.generator(Tensor(np.asarray(z, self.dtype))).data + 1) / 2)

    def sample(self, n, seed=0):
        """Generated images (n, H, W, C)."""
        return self.decode(self.noise(n, Stream(seed, "gan.sample")))

    encode = reconstruct = None                         # a GAN has no encoder


def perceptron(sizes, last, init, stream, dtype):
    """Dense layers with leaky ReLU between them and the activation ``last`` at the end."""
    activations = [ACTIVATION] * (len(sizes) - 2) + [last]
    return nn.Sequential(*(nn.Dense(i, o, a, init, stream, dtype)
                           for i, o, a in zip(sizes[:-1], sizes[1:], activations, strict=True)))


def forward(network, x):
    """The input and every layer's output, plain NumPy."""
    values = [x]
    for layer in network.layers:
        h = values[-1] @ layer.w.data + layer.b.data
        values.append(h if layer.activation is None else activate(layer.activation, h))
    return values


def backward(network, values, dy):
    """From dL/d output: (name → parameter gradient, dL/d input), plain NumPy."""
    gradients = {}
    for i in reversed(range(len(network.layers))):
        layer, x, y = network.layers[i], values[i], values[i + 1]
        dh = dy if layer.activation is None else dy * SLOPES[layer.activation](y)
        gradients[f"layers.{i}.w"], gradients[f"layers.{i}.b"] = x.T @ dh, dh.sum(axis=0)
        dy = dh @ layer.w.data.T
    return gradients, dy
