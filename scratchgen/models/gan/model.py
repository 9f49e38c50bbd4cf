"""The generative adversarial network. Goodfellow et al. 2014.

A generator G maps noise z ~ N(0, I) to images. A discriminator D estimates the probability that an
image is real. They play the minimax game (equation (1) of the paper)

    min_G max_D  V(D, G) = E_x[ln D(x)] + E_z[ln(1 − D(G(z)))].

D minimises −V. G minimises V ("minimax"), or −E_z[ln D(G(z))] ("non-saturating"), which has the
same fixed point, and a gradient that does not vanish when D is far better than G (section 3). All
losses are computed from logits, D = σ(logit): −ln D = softplus(−logit) and −ln(1 − D) =
softplus(logit). The other losses, the penalties and the perturbations of D's input are in
``losses.py``, the networks in ``networks.py``.

With batch norm, real and generated images pass D as two batches, each normalised by its own
statistics, also in G's step. A network's running statistics, used in eval mode, are updated only in
steps of that network.
"""


import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ... import nn, ops
from ...context import no_grad
from ...engine.random import Stream
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from ..base import Model, numbers, set_gradients
from ..by_hand import backward, forward
from .config import GANConfig
from .losses import (
    NO_DRAWS,
    UNPERTURBED,
    Draws,
    Perturbation,
    draw_perturbation,
    gradient_penalty,
    losses_named,
    r1_penalty,
)
from .networks import (
    conv_discriminator,
    conv_generator,
    fixed_statistics,
    perceptron,
    training_mode,
)

POINTS = {"latent": 2, "generator": [128, 128], "discriminator": [128, 128]}


class GAN(Model):
    """Generator and discriminator.

    Images are scaled to [−1, 1], the range of the generator's tanh. Points (N, D) are not scaled,
    and the generator's last layer is linear.
    """

    kind = "gan"
    optimiser_defaults = {"epochs": 50, "batch_size": 100, "lr": 2e-4, "optimizer": "adam",
                          "beta1": 0.5}
    presets = {
        "default": {},
        # A small D: a larger one memorises few images, and its gradient becomes useless to G.
        "demo": {"train": {"epochs": 40, "batch_size": 64, "lr": 5e-4},
                 "model": {"discriminator": [128, 64]}},
        "minimax": {"model": {"loss": "minimax"}},
        "least-squares": {"model": {"loss": "least-squares"}},
        "dcgan": {"train": {"epochs": 25, "batch_size": 64},
                  "model": {"arch": "conv", "init": "dcgan"}},
        "wgan-gp": {"train": {"batch_size": 64, "lr": 1e-4, "beta2": 0.9},
                    "model": {"loss": "wasserstein", "penalty": "gradient", "d_steps": 5}},
        "ring": {"data": {"name": "ring"}, "train": {"epochs": 60, "lr": 1e-3}, "model": POINTS},
        # Without the penalty D becomes too strong, and G loses modes (about 18 of 25 remain).
        "grid": {"data": {"name": "grid"},
                 "train": {"epochs": 40, "lr": 1e-3, "beta1": 0.0, "beta2": 0.99},
                 "model": {**POINTS, "init": "pytorch", "penalty": "r1", "penalty_weight": 1.0}},
        # A larger penalty keeps D near ½ although the densities differ: JS divergence 0.13 to 0.23,
        # here 0.02 (three seeds).
        "mixture1d": {"data": {"name": "mixture1d"},
                      "train": {"epochs": 24, "batch_size": 200, "lr": 1e-3, "beta1": 0.0,
                                "beta2": 0.9},
                      "model": {"latent": 1, "generator": [32, 32], "discriminator": [64, 64],
                                "d_steps": 2, "penalty": "r1", "penalty_weight": 0.1}},
    }

    Config = GANConfig
    config: GANConfig
    generator: nn.Sequential
    discriminator: nn.Sequential

    def __init__(self, config: GANConfig | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32) -> None:
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

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    # --- random inputs ---------------------------------------------------------------------------

    def noise(self, n: int, stream: Stream) -> np.ndarray:
        """z ~ N(0, I), (n, Z)."""
        return stream.normal((n, self.config.latent), self.dtype)

    def real(self, x: np.ndarray) -> np.ndarray:
        """Images as rows in [−1, 1]; points unchanged."""
        rows = self.flat(x)
        return rows if self.of_points else ops.affine(rows, 2, -1).data

    def instance_noise(self) -> float:
        """The std of the noise on D's input in this epoch: linear from ``noise`` to 0."""
        c = self.config
        left = 1 - self.epoch / c.noise_epochs if c.noise_epochs else 1
        return c.noise * max(0.0, left)

    def recording_key(self, optimisers):
        """Whether G is updated in this step, and the instance noise."""
        return optimisers["discriminator"].steps % self.config.d_steps, self.instance_noise()

    def perturbation(self, n, streams):
        """Instance noise and input dropout for n rows of D's input."""
        return draw_perturbation((n, self.pixels), self.dtype, self.instance_noise(),
                       self.config.input_dropout, streams)

    def mix(self, n, streams):
        """The interpolation weights u of the gradient penalty, (n, 1); None without it."""
        return (streams["interpolation"].uniform((n, 1), self.dtype)
                if self.config.penalty == "gradient" else None)

    def draw(self, n, streams):
        """All random numbers in one step of D except z."""
        return Draws(self.perturbation(n, streams), self.perturbation(n, streams),
                     self.mix(n, streams))

    # --- the two losses --------------------------------------------------------------------------

    def discriminator_loss(self, x: np.ndarray, z: np.ndarray, draws: Draws = NO_DRAWS,
                           smoothing: float | None = None) -> dict[str, Tensor]:
        """D's loss on rows x and noise z, per image, with G fixed. For "minimax" −V(D, G).

        {loss, d_real = mean D(x), d_fake = mean D(G(z)), and the penalty, if any, which is part of
        loss}. At the equilibrium of "minimax" and "non-saturating" loss = ln 4 and D = ½. The means
        of D are of the perturbed images. ``smoothing`` None: as configured.
        """
        losses = losses_named(self.config.loss,
                              self.config.smoothing if smoothing is None else smoothing)
        with no_grad(), fixed_statistics(self.generator):
            fake = draws.fake(self.generator(Tensor(z)))
        x = draws.real(x)
        real_logits, fake_logits = self.discriminator(Tensor(x)), self.discriminator(fake)
        loss = losses.real.loss(real_logits) + losses.fake.loss(fake_logits)
        terms = {"loss": loss, "d_real": ops.mean(losses.discriminator_output(real_logits.data)),
                 "d_fake": ops.mean(losses.discriminator_output(fake_logits.data))}
        if self.config.penalty != "none":
            penalty = (r1_penalty(self.discriminator, x) if self.config.penalty == "r1" else
                       gradient_penalty(self.discriminator, x, fake.data, draws.mix))
            terms["penalty"] = self.config.penalty_weight * penalty
            terms["loss"] = loss + terms["penalty"]
        return terms

    def generator_loss(self, z: np.ndarray,
                       perturbation: Perturbation = UNPERTURBED) -> dict[str, Tensor]:
        """G's loss per image, with D fixed: {g_loss}."""
        with self.discriminator.frozen(), fixed_statistics(self.discriminator):
            logits = self.discriminator(perturbation(self.generator(Tensor(z))))
            return {"g_loss": losses_named(self.config.loss).generator.loss(logits)}

    # --- the same gradients by hand --------------------------------------------------------------

    def explicit_gradients(self, x: np.ndarray, z: np.ndarray, draws: Draws = NO_DRAWS,
                           perturbation: Perturbation = UNPERTURBED,
                           ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The gradients of both players at the same parameters: (terms, name → array).

        The discriminator's are of ``discriminator_loss``, the generator's of ``generator_loss``.
        UserError with a penalty, whose gradient is of second order.
        """
        d_terms, d_gradients = self.explicit_discriminator_gradients(x, z, draws)
        g_terms, g_gradients = self.explicit_generator_gradients(z, perturbation)
        return {**d_terms, **g_terms}, {
            **{f"discriminator.{name}": g for name, g in d_gradients.items()},
            **{f"generator.{name}": g for name, g in g_gradients.items()}}

    def explicit_discriminator_gradients(self, x, z, draws=NO_DRAWS):
        """D's gradients, the sum of both terms'. For −V dl = σ(l) − 1 on real images, σ(l) on
        generated ones."""
        if self.config.penalty != "none":
            raise UserError(f'penalty = "{self.config.penalty}" needs the gradient of a gradient, '
                            "and the explicit gradients are of first order "
                            'only: use run.gradient = "tape", or penalty = "none"')
        losses, D = losses_named(self.config.loss, self.config.smoothing), self.discriminator
        with fixed_statistics(self.generator):
            fake, _ = forward(self.generator, z)
        real_logits, real_cache = forward(D, draws.real(x))
        fake_logits, fake_cache = forward(D, draws.fake(fake))
        real_loss, d_real = losses.real.loss_and_gradient(real_logits)
        fake_loss, d_fake = losses.fake.loss_and_gradient(fake_logits)
        from_real, _ = backward(D, real_cache, d_real)
        from_fake, _ = backward(D, fake_cache, d_fake)
        return ({"loss": real_loss + fake_loss,
                 "d_real": losses.discriminator_output(real_logits).mean(),
                 "d_fake": losses.discriminator_output(fake_logits).mean()},
                {name: from_real[name] + from_fake[name] for name in from_real})

    def explicit_generator_gradients(self, z, perturbation=UNPERTURBED):
        """G's gradients: backward through D to its input, the image, then through G."""
        images, g_cache = forward(self.generator, z)
        with fixed_statistics(self.discriminator):
            logits, d_cache = forward(self.discriminator, perturbation(images))
        loss, dlogits = losses_named(self.config.loss).generator.loss_and_gradient(logits)
        _, dinput = backward(self.discriminator, d_cache, dlogits)
        gradients, _ = backward(self.generator, g_cache, perturbation.backward(dinput))
        return {"g_loss": loss}, gradients

    # --- training --------------------------------------------------------------------------------

    def training_step(self, x, streams, optimisers, gradient="tape", labels=None):
        """One update of D on this batch; after every ``d_steps`` of them, ``g_steps`` of G."""
        x, n, explicit = self.real(x), len(x), gradient == "explicit"
        d, g = optimisers["discriminator"], optimisers["generator"]
        terms = self.update(d, explicit, self.explicit_discriminator_gradients,
                            self.discriminator_loss, x, self.noise(n, streams["z"]),
                            self.draw(n, streams))
        update_g = d.steps % self.config.d_steps == 0
        for _ in range(self.config.g_steps if update_g else 0):
            terms.update(self.update(g, explicit, self.explicit_generator_gradients,
                                     self.generator_loss, self.noise(n, streams["z"]),
                                     self.perturbation(n, streams)))
        if not update_g:
            terms.update(self.evaluate_generator(self.noise(n, streams["z"]),
                                                 self.perturbation(n, streams)))
        return terms

    @staticmethod
    def update(optimiser, explicit, explicit_gradients, loss, *inputs):
        """One update of one player, from explicit gradients or by the backward pass."""
        optimiser.zero_grad()
        if explicit:
            terms, gradients = explicit_gradients(*inputs)
            set_gradients(optimiser.network, gradients)
        else:
            terms = loss(*inputs)
            next(iter(terms.values())).backward()
        optimiser.step()
        return numbers(terms)

    def evaluate_generator(self, z, perturbation=UNPERTURBED):
        """G's loss without training."""
        with no_grad(), fixed_statistics(self.generator):
            return numbers(self.generator_loss(z, perturbation))

    def evaluate(self, x, streams, labels=None):
        """The losses and D's mean outputs per image, without training.

        Without perturbations and label smoothing, so the loss of "minimax" and "non-saturating" is
        −V. D's batch norm uses the statistics of the batch, for real and generated images
        separately, as in training; its running statistics mix the two.
        """
        x, z = self.real(x), self.noise(len(x), streams["z"])
        draws = Draws(mix=self.mix(len(x), streams))
        with no_grad(), fixed_statistics(self), training_mode(self.discriminator, training=True):
            terms = self.discriminator_loss(x, z, draws, smoothing=0.0)
            return numbers({**terms, **self.generator_loss(z)})

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Images of noise (N, Z), or points."""
        with no_grad(), training_mode(self.generator, training=False):
            rows = self.generator(constant(z, self.dtype)).data
        return self.images(rows if self.of_points else (rows + 1) / 2)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Generated images (n, H, W, C), or points (n, D)."""
        return self.decode(self.noise(n, Stream(seed, "gan.sample")))

    encode = reconstruct = None                         # a GAN has no encoder
