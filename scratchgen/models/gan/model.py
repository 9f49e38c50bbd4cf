"""The generative adversarial network. Goodfellow et al. 2014.

A generator G turns noise z ~ N(0, I) into images; a discriminator D says how likely an image is
real. They play

    min_G max_D  V(D, G) = E_x[ln D(x)] + E_z[ln(1 − D(G(z)))].

D descends −V. G descends V ("minimax"), or −E_z[ln D(G(z))] ("non-saturating"): the same fixed
point, and a gradient that does not vanish while D still wins. All of it on logits, D = σ(logit):
−ln D = softplus(−logit) and −ln(1 − D) = softplus(logit). The other games, the penalties and the
ways to confuse D are in ``gan_losses.py``, the networks in ``gan_networks.py``.

With batch norm, real and generated images go through D as two batches, each normalised by its own
statistics, in G's step too. A network's running statistics, which serve when it is in eval mode,
move in its own steps only.
"""

from dataclasses import dataclass, field

import numpy as np

from ... import nn, ops
from ...context import no_grad
from ...engine.random import Stream
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from ..base import Model, numbers, take
from ..by_hand import backward, forward
from .losses import (
    CLEAR,
    LOSSES,
    PENALTIES,
    PLAIN,
    Draws,
    confuse,
    game_named,
    gradient_penalty,
    r1_penalty,
)
from .networks import conv_discriminator, conv_generator, in_mode, perceptron, untouched

POINTS = {"latent": 2, "generator": [128, 128], "discriminator": [128, 128]}


class GAN(Model):
    """Two networks. Images are scaled to [−1, 1], where the generator's tanh ends; points (N, D)
    are left as they are, and the generator's last layer is linear.
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
        "least-squares": {"model": {"loss": "least-squares"}},
        "dcgan": {"train": {"epochs": 25, "batch_size": 64},
                  "model": {"arch": "conv", "init": "dcgan"}},
        "wgan-gp": {"train": {"batch_size": 64, "lr": 1e-4, "beta2": 0.9},
                    "model": {"loss": "wasserstein", "penalty": "gradient", "d_steps": 5}},
        "ring": {"data": {"name": "ring"}, "train": {"epochs": 60, "lr": 1e-3}, "model": POINTS},
        # Without the penalty D wins, and G gives up modes that it had (about 18 of 25).
        "grid": {"data": {"name": "grid"},
                 "train": {"epochs": 40, "lr": 1e-3, "beta1": 0.0, "beta2": 0.99},
                 "model": {**POINTS, "init": "pytorch", "penalty": "r1", "penalty_weight": 1.0}},
        # A heavier penalty holds D at one half although the densities differ: JS 0.13 to 0.23, here
        # 0.02 (three seeds).
        "mixture1d": {"data": {"name": "mixture1d"},
                      "train": {"epochs": 24, "batch_size": 200, "lr": 1e-3, "beta1": 0.0,
                                "beta2": 0.9},
                      "model": {"latent": 1, "generator": [32, 32], "discriminator": [64, 64],
                                "d_steps": 2, "penalty": "r1", "penalty_weight": 0.1}},
    }

    @dataclass
    class Config:
        """The [model] table."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv")})
        latent: int = field(default=100, metadata={"low": 1})
        generator: list[int] = field(default_factory=lambda: [256, 512], metadata={"low": 1})
        discriminator: list[int] = field(default_factory=lambda: [512, 256], metadata={"low": 1})
        channels: int = field(default=64, metadata={"low": 1})   # "conv": next to the image
        loss: str = field(default="non-saturating", metadata={"choices": LOSSES})
        penalty: str = field(default="none", metadata={"choices": PENALTIES})
        penalty_weight: float = field(default=10.0, metadata={"low": 0})         # λ, or R1's γ
        smoothing: float = field(default=0.0, metadata={"low": 0, "below": 1})   # α, real label
        noise: float = field(default=0.0, metadata={"low": 0})   # std on D's input at the start
        noise_epochs: int = field(default=0, metadata={"low": 0})  # until it is 0; 0: it stays
        input_dropout: float = field(default=0.0, metadata={"low": 0, "below": 1})
        d_steps: int = field(default=1, metadata={"low": 1})     # batches for D before G's turn
        g_steps: int = field(default=1, metadata={"low": 1})     # updates of G in a turn
        init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

        def __post_init__(self):
            if self.loss == "wasserstein" and self.smoothing:
                raise UserError("smoothing lowers the label of real images, and the loss "
                                '"wasserstein" has no labels: expected smoothing = 0, or another '
                                "loss")

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c, stream = self.config, Stream(seed, "gan.init")
        self.of_points = len(self.image_shape) == 1
        if c.arch == "conv":
            self.generator = conv_generator(c.latent, self.image_shape, c.channels, c.init, stream,
                                            dtype)
            self.discriminator = conv_discriminator(
                self.image_shape, c.channels, c.penalty == "none", c.init, stream, dtype)
            return
        self.generator = perceptron([c.latent, *c.generator, self.pixels],
                                    None if self.of_points else "tanh", c.init, stream, dtype)
        self.discriminator = perceptron([self.pixels, *c.discriminator, 1], None, c.init, stream,
                                        dtype)

    def networks(self):
        return {"generator": self.generator, "discriminator": self.discriminator}

    # --- what is drawn ---------------------------------------------------------------------------

    def noise(self, n, stream):
        """z ~ N(0, I), (n, Z)."""
        return stream.normal((n, self.config.latent), self.dtype)

    def real(self, x):
        """Images as rows in [−1, 1], points as they are."""
        rows = self.flat(x)
        return rows if self.of_points else ops.affine(rows, 2, -1).data

    def instance_noise(self):
        """The standard deviation on D's input in this epoch: linear from ``noise`` to 0."""
        c = self.config
        left = 1 - self.epoch / c.noise_epochs if c.noise_epochs else 1
        return c.noise * max(0.0, left)

    def phase(self, optimisers):
        """Whether it will be G's turn, and how D is confused."""
        return optimisers["discriminator"].steps % self.config.d_steps, self.instance_noise()

    def confusion(self, n, streams):
        """Instance noise and dropout for n rows on their way into D."""
        return confuse((n, self.pixels), self.dtype, self.instance_noise(),
                       self.config.input_dropout, streams)

    def mix(self, n, streams):
        """Where between a real and a generated image the gradient penalty looks, (n, 1)."""
        return (streams["interpolation"].uniform((n, 1), self.dtype)
                if self.config.penalty == "gradient" else None)

    def draw(self, n, streams):
        """All that is random in one step of D besides z."""
        return Draws(self.confusion(n, streams), self.confusion(n, streams), self.mix(n, streams))

    # --- the two losses --------------------------------------------------------------------------

    def discriminator_loss(self, x, z, draws=PLAIN, smoothing=None):
        """What D descends on rows x and noise z, per image; G is fixed. For "minimax" −V(D, G).

        {loss, d_real = mean D(x), d_fake = mean D(G(z)), penalty if there is one, a part of loss}.
        At equilibrium of the first two games loss = ln 4 and D = ½. Means of D are of what it sees,
        confused or not; ``smoothing`` None: as configured.
        """
        game = game_named(self.config.loss,
                          self.config.smoothing if smoothing is None else smoothing)
        with no_grad(), untouched(self.generator):
            fake = draws.fake(self.generator(Tensor(z)))
        x = draws.real(x)
        real_logits, fake_logits = self.discriminator(Tensor(x)), self.discriminator(fake)
        loss = game.real.tape(real_logits) + game.fake.tape(fake_logits)
        terms = {"loss": loss, "d_real": ops.mean(game.answers(real_logits.data)),
                 "d_fake": ops.mean(game.answers(fake_logits.data))}
        if self.config.penalty != "none":
            penalty = (r1_penalty(self.discriminator, x) if self.config.penalty == "r1" else
                       gradient_penalty(self.discriminator, x, fake.data, draws.mix))
            terms["penalty"] = self.config.penalty_weight * penalty
            terms["loss"] = loss + terms["penalty"]
        return terms

    def generator_loss(self, z, confusion=CLEAR):
        """What G descends, per image; D is fixed: {g_loss}."""
        with self.discriminator.frozen(), untouched(self.discriminator):
            logits = self.discriminator(confusion(self.generator(Tensor(z))))
            return {"g_loss": game_named(self.config.loss).generator.tape(logits)}

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, x, z, draws=PLAIN, confusion=CLEAR):
        """Both players' gradients at this point: (terms, name → array).

        The discriminator's are of ``discriminator_loss``, the generator's of ``generator_loss``.
        UserError with a penalty, which is itself a gradient.
        """
        d_terms, d_gradients = self.explicit_discriminator_gradients(x, z, draws)
        g_terms, g_gradients = self.explicit_generator_gradients(z, confusion)
        return {**d_terms, **g_terms}, {
            **{f"discriminator.{name}": g for name, g in d_gradients.items()},
            **{f"generator.{name}": g for name, g in g_gradients.items()}}

    def explicit_discriminator_gradients(self, x, z, draws=PLAIN):
        """From both of D's terms; of −V: σ(l) − 1 on real images, σ(l) on generated ones."""
        if self.config.penalty != "none":
            raise UserError(f'penalty = "{self.config.penalty}" descends the gradient of a '
                            "gradient, and gradients are written out for losses of first order "
                            'only: use run.gradient = "tape", or penalty = "none"')
        game, D = game_named(self.config.loss, self.config.smoothing), self.discriminator
        with untouched(self.generator):
            fake, _ = forward(self.generator, z)
        real_logits, real_cache = forward(D, draws.real(x))
        fake_logits, fake_cache = forward(D, draws.fake(fake))
        real_loss, d_real = game.real.by_hand(real_logits)
        fake_loss, d_fake = game.fake.by_hand(fake_logits)
        from_real, _ = backward(D, real_cache, d_real)
        from_fake, _ = backward(D, fake_cache, d_fake)
        return ({"loss": real_loss + fake_loss, "d_real": game.answers(real_logits).mean(),
                 "d_fake": game.answers(fake_logits).mean()},
                {name: from_real[name] + from_fake[name] for name in from_real})

    def explicit_generator_gradients(self, z, confusion=CLEAR):
        """Down through D (its parameters untouched) to the image, and on through G."""
        images, g_cache = forward(self.generator, z)
        with untouched(self.discriminator):
            logits, d_cache = forward(self.discriminator, confusion(images))
        loss, dlogits = game_named(self.config.loss).generator.by_hand(logits)
        _, dinput = backward(self.discriminator, d_cache, dlogits)
        gradients, _ = backward(self.generator, g_cache, confusion.backward(dinput))
        return {"g_loss": loss}, gradients

    # --- training --------------------------------------------------------------------------------

    def training_step(self, x, streams, optimisers, gradient="tape", labels=None):
        """One update of D on this batch; after every ``d_steps`` of them, ``g_steps`` of G."""
        x, n, explicit = self.real(x), len(x), gradient == "explicit"
        d, g = optimisers["discriminator"], optimisers["generator"]
        terms = self.descend(d, explicit, self.explicit_discriminator_gradients,
                             self.discriminator_loss, x, self.noise(n, streams["z"]),
                             self.draw(n, streams))
        turn = d.steps % self.config.d_steps == 0
        for _ in range(self.config.g_steps if turn else 0):
            terms.update(self.descend(g, explicit, self.explicit_generator_gradients,
                                      self.generator_loss, self.noise(n, streams["z"]),
                                      self.confusion(n, streams)))
        if not turn:
            terms.update(self.evaluate_generator(self.noise(n, streams["z"]),
                                                 self.confusion(n, streams)))
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

    def evaluate_generator(self, z, confusion=CLEAR):
        """G's loss without training."""
        with no_grad(), untouched(self.generator):
            return numbers(self.generator_loss(z, confusion))

    def evaluate(self, x, streams, labels=None):
        """The losses and D's mean answers per image, without training.

        On plain images and with the plain label 1, whatever D is confused with in training: of the
        first two games the loss is −V. D normalises by the batch, real and generated apart, as in
        training: it has never seen its running statistics at work, which mix the two.
        """
        x, z = self.real(x), self.noise(len(x), streams["z"])
        draws = Draws(mix=self.mix(len(x), streams))
        with no_grad(), untouched(self), in_mode(self.discriminator, training=True):
            terms = self.discriminator_loss(x, z, draws, smoothing=0.0)
            return numbers({**terms, **self.generator_loss(z)})

    def decode(self, z):
        """Images of noise (N, Z), or points."""
        with no_grad(), in_mode(self.generator, training=False):
            rows = self.generator(constant(z, self.dtype)).data
        return self.images(rows if self.of_points else (rows + 1) / 2)

    def sample(self, n, seed=0):
        """Generated images (n, H, W, C), or points (n, D)."""
        return self.decode(self.noise(n, Stream(seed, "gan.sample")))

    encode = reconstruct = None                         # a GAN has no encoder
