"""The losses of a GAN's two players, penalties on D's gradient, and perturbations of D's input.

All losses are functions of the discriminator's output l: a logit, or the critic's score for the
Wasserstein loss. E is the mean over images; α is the one-sided label smoothing, by default 0.

                    D on real images      D on generated        G
    minimax         H(1 − α, l)           H(0, l)               −H(0, l)         Goodfellow 2014
    non-saturating  H(1 − α, l)           H(0, l)               H(1, l)          the same, sect. 3
    least-squares   ½ (l − 1 + α)²        ½ l²                  ½ (l − 1)²       Mao 2017, (a, b, c)
    wasserstein     −l                    l                     −l               = (0, 1, 1)

with H(t, l) = −t ln σ(l) − (1 − t) ln(1 − σ(l)). The Wasserstein critic is unbounded without a
penalty on its gradient. Only the label of real images is smoothed: the optimal discriminator is
then D* = (1 − α) p/(p + q), with p the data and q the generated density. If the label of generated
images were smoothed too, q would appear in the numerator, and G would be rewarded for not moving
(Goodfellow's tutorial of 2016, section 4.2).
"""

from typing import NamedTuple

import numpy as np

from ... import ops
from ...context import enable_grad
from ...engine.gradient import grad
from ...engine.memory import filled
from ...engine.tensor import Tensor
from ..base import binary_cross_entropy
from ..by_hand import sigmoid

LOSSES = ("non-saturating", "minimax", "least-squares", "wasserstein")
PENALTIES = ("none", "gradient", "r1")


# --- the losses ----------------------------------------------------------------------------------

class CrossEntropy(NamedTuple):
    """± E H(t, l)"""

    target: float
    sign: int = 1

    def loss(self, logits):
        target = Tensor(filled(logits.shape, self.target, logits.dtype))
        loss = ops.bce_with_logits(logits, target, "mean")
        return loss if self.sign > 0 else -loss

    def loss_and_gradient(self, logits):
        """(loss, dl): dH/dl = σ(l) − t."""
        scale = logits.dtype.type(self.sign / len(logits))
        target = np.full_like(logits, self.target)
        return scale * binary_cross_entropy(logits, target), scale * (sigmoid(logits) - target)


class HalfSquare(NamedTuple):
    """½ E (l − t)²"""

    target: float

    def loss(self, logits):
        target = Tensor(filled(logits.shape, self.target, logits.dtype))
        return 0.5 * ops.mse(logits, target, "mean")

    def loss_and_gradient(self, logits):
        """(loss, dl): dl = l − t."""
        difference = logits - logits.dtype.type(self.target)
        return 0.5 * np.mean(difference**2), difference / logits.dtype.type(len(logits))


class Score(NamedTuple):
    """± E l"""

    sign: int

    def loss(self, logits):
        return self.sign * ops.mean(logits)

    def loss_and_gradient(self, logits):
        """(loss, dl): dl = ±1."""
        scale = logits.dtype.type(self.sign / len(logits))
        return scale * np.sum(logits), np.full_like(logits, scale)


class Losses(NamedTuple):
    """The three loss functions: D's on real images, D's on generated images, and G's."""

    real: NamedTuple
    fake: NamedTuple
    generator: NamedTuple

    def discriminator_output(self, logits):
        """D's output: the probability that an image is real for a cross-entropy, otherwise l."""
        return ops.sigmoid(logits).data if isinstance(self.real, CrossEntropy) else logits


def losses_named(loss, smoothing=0.0):
    """The losses by name, with the label of real images lowered to 1 − ``smoothing``."""
    label = 1 - smoothing
    return {
        "minimax": Losses(CrossEntropy(label), CrossEntropy(0), CrossEntropy(0, -1)),
        "non-saturating": Losses(CrossEntropy(label), CrossEntropy(0), CrossEntropy(1)),
        "least-squares": Losses(HalfSquare(label), HalfSquare(0), HalfSquare(1)),
        "wasserstein": Losses(Score(-1), Score(1), Score(-1)),
    }[loss]


# --- penalties on D's gradient; their gradients are second derivatives ---------------------------

def slopes_squared(discriminator, x):
    """‖∇D‖² at each row of the array x, (N,): a tensor, which can be differentiated again."""
    with enable_grad():
        x = Tensor(x)
        x.requires_grad = True
        gradient = grad(ops.sum(discriminator(x)), x, create_graph=True)
        return ops.sum(gradient * gradient, axis=1)


def gradient_penalty(discriminator, real, fake, mix):
    """E (‖∇D(x̂)‖ − 1)² at x̂ = u x + (1 − u) G(z), u = ``mix`` (N, 1) uniform. Gulrajani 2017,
    (3).

    The optimal slope is a little larger than 1: in one dimension |D'| = 1 + |F_q − F_p|/(2λ r), r
    being the density of x̂; for a linear critic of N(0, 1) and N(m, 1) it is 1 + |m|/(2λ).
    """
    slopes = np.sqrt(slopes_squared(discriminator, mix * real + (1 - mix) * fake) + 1e-12)
    return ops.mean(np.square(slopes - 1))                 # + 1e-12: √ has no derivative at 0


def r1_penalty(discriminator, real):
    """½ E ‖∇D(x)‖² on real images. Mescheder, Geiger & Nowozin 2018."""
    return 0.5 * ops.mean(slopes_squared(discriminator, real))


# --- perturbations of D's input -------------------------------------------------------------------

class Perturbation(NamedTuple):
    """x ↦ (x + noise) ∘ keep, with arrays (N, D) drawn beforehand. None: that part is left out."""

    noise: np.ndarray | None = None       # instance noise, N(0, std²)
    keep: np.ndarray | None = None        # input dropout: 0, or 1/(1 − p)

    def __call__(self, x):
        x = x if self.noise is None else x + self.noise
        return x if self.keep is None else x * self.keep

    def backward(self, dy):
        """dL/dx."""
        return dy if self.keep is None else dy * self.keep


class Draws(NamedTuple):
    """All random numbers in a loss of D except z."""

    real: Perturbation = Perturbation()  # of real images
    fake: Perturbation = Perturbation()  # of generated images
    mix: np.ndarray | None = None         # of the gradient penalty, (N, 1)


UNPERTURBED, NO_DRAWS = Perturbation(), Draws()


def draw_perturbation(shape, dtype, std, dropout, streams):
    """A Perturbation of rows of ``shape``: instance noise of ``std``, input dropout with
    probability ``dropout``. What is 0 draws nothing from its stream."""
    noise = std * streams["instance-noise"].normal(shape, dtype) if std else None
    keep = None
    if dropout:
        kept = streams["input-dropout"].uniform(shape, dtype) >= dropout
        keep = kept / dtype.type(1 - dropout)
    return Perturbation(noise if noise is None else noise.astype(dtype), keep)
