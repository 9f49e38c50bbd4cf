"""What every model has: a configuration, networks with one optimiser each, a training step."""

import numpy as np

from .. import nn
from ..context import no_grad
from ..engine.memory import real_numbers, to_host
from ..engine.tensor import Tensor, constant, plain
from ..errors import UserError
from .by_hand import sigmoid


class Model(nn.Module):
    """Base of the models.

    Images come and go as arrays (N, H, W, C) in [0, 1], points as (N, D); ``image_shape`` is the
    shape of one item. Losses are in nats per item: sums over pixels and latents, means over items.
    ``explicit_gradients`` of each model gives every parameter's gradient by name, in plain NumPy,
    without the tape.

    The trainer sets ``epoch`` and ``step``, the numbers of finished epochs and batches, before
    every step and evaluation, and calls ``end_epoch``; most models need none of it.
    """

    kind = Config = None
    presets = {"default": {}}
    optimiser_defaults = {}               # of the [train] table
    epoch = step = 0
    held_out = 0.0                        # share of the training items that is for validation
    replayable = True                     # whether a GPU can record a step (``capture.py``)
    probes = False                        # whether it reads the features of another run's model

    def __init__(self, config, image_shape, seed=0, dtype=np.float32):
        self.config, self.image_shape = config or self.Config(), tuple(image_shape)
        self.seed, self.dtype = seed, np.dtype(dtype)
        self.pixels = int(np.prod(self.image_shape))

    def networks(self):
        """Name → network; each has an optimiser of its own."""
        return {"model": self}

    def learning_rate(self, network):
        """The learning rate of that network's optimiser; None: the one of [train]."""
        return None

    def size(self):
        """The number of parameters."""
        return sum(p.size for p in self.parameters())

    def finished(self):
        """Whether training should end before the last epoch (early stopping)."""
        return False

    def begin(self, x):
        """Before the first step of a run, with the first of the items to train on."""

    def end_epoch(self, validation):
        """After each epoch, with the means over the held-out items ({} if there are none)."""

    def extra_metrics(self, x, streams):
        """More to log after an epoch than means of terms, from a few test items; JSON-able."""
        return {}

    def refuse(self, x):
        """UserError for items that this model cannot be trained on; called with NumPy's arrays."""

    def phase(self, optimisers):
        """All that a training step's course depends on besides its arrays: a step that is replayed
        (``capture.py``) is recorded anew when this changes."""
        return ()

    def flat(self, x):
        """Images (N, H, W, C) as rows (N, D) in the model's precision, where its weights lie."""
        if x.shape[1:] != self.image_shape and x.shape[1:] != (self.pixels,):
            raise UserError(f"images of shape {x.shape[1:]}, but this model was made for "
                            f"{self.image_shape}; give images of that shape")
        if isinstance(x, np.ndarray):
            x = real_numbers(x, "images")
        return constant(x.reshape(len(x), -1), self.dtype).data

    def images(self, rows):
        """Rows (N, D) as images (N, H, W, C), float32 (NumPy)."""
        return to_host(rows).reshape(len(rows), *self.image_shape).astype(np.float32, copy=False)

    def inputs(self, x, streams, labels):
        """What ``loss`` and ``explicit_gradients`` take; most models have no use for labels."""
        return self.draw(x, streams)

    def training_step(self, x, streams, optimisers, gradient="tape", labels=None):
        """One update on the images ``x``; returns the loss and its terms, per image."""
        optimiser = optimisers["model"]
        inputs = self.inputs(x, streams, labels)
        if gradient == "explicit":
            terms, gradients = self.explicit_gradients(*inputs)
            take(self, gradients)
        else:
            optimiser.zero_grad()
            terms = self.loss(*inputs)
            terms["loss"].backward()
        optimiser.step()
        return numbers(terms)

    def evaluate(self, x, streams, labels=None):
        """The loss and its terms per image, without training."""
        with no_grad():
            return numbers(self.loss(*self.inputs(x, streams, labels)))

    def validate(self, x, streams, labels=None):
        """What ``evaluate`` gives, of held-out items; they may decide which weights are kept."""
        return self.evaluate(x, streams, labels)

    def encode(self, x):
        """Codes (N, Z) of images."""
        with no_grad():
            return to_host(self.code(Tensor(self.flat(x))).data)

    def decode(self, z):
        """Images of codes (N, Z)."""
        with no_grad():
            logits = self.logits(constant(z, self.dtype))
            return self.images(sigmoid(to_host(logits.data)))

    def reconstruct(self, x):
        """Decoded codes of images."""
        return self.decode(self.encode(x))


def numbers(terms):
    """Loss terms as floats; a GPU's stay there, or every step would have to wait for it."""
    return {name: term if is_on_gpu(term) else float(term) for name, term in (
        (name, plain(value)) for name, value in terms.items())}


def is_on_gpu(term):
    """Whether a term is an array of the GPU's."""
    return hasattr(term, "dtype") and not isinstance(term, (np.ndarray, np.generic))


def take(network, gradients):
    """Hand gradients by name to the parameters, as backward would."""
    for name, p in network.named_parameters().items():
        if name in gradients:
            p.grad = None                 # a gradient that somebody holds is left to him
            p.take_gradient(gradients[name])


def bernoulli_nats(logits, x):
    """−Σ [x ln σ(l) + (1 − x) ln(1 − σ(l))], plain NumPy."""
    return np.sum(np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits))))
