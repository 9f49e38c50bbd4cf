"""The base class of the models: configuration, networks with one optimiser each, training step."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import nn
from ..context import no_grad
from ..engine.memory import real_numbers, to_host
from ..engine.random import Streams
from ..engine.tensor import Tensor, constant, plain
from ..errors import UserError
from .by_hand import sigmoid


class Model(nn.Module):
    """Base class of the models.

    Inputs and outputs are images (N, H, W, C) in [0, 1], or points (N, D); ``image_shape`` is the
    shape of one item. Losses are in nats per item: summed over pixels and latents, averaged over
    items. Each model's ``explicit_gradients`` computes the gradient of every parameter in plain
    NumPy, without the recorded graph.

    The trainer sets ``epoch`` and ``step``, the numbers of finished epochs and batches, before
    every step and evaluation, and calls ``end_epoch`` after each epoch.
    """

    kind = Config = None
    presets: dict[str, dict[str, Any]] = {"default": {}}
    optimiser_defaults: dict[str, Any] = {}            # of the [train] table
    epoch: int = 0
    step: int = 0
    held_out: float = 0.0                 # fraction of the training items used for validation
    replayable: bool = True               # whether a GPU can record a step (``capture.py``)
    probes: bool = False                  # whether it reads the features of another run's model

    def __init__(self, config: Any, image_shape: tuple[int, ...], seed: int = 0,
                 dtype: DTypeLike = np.float32) -> None:
        self.config, self.image_shape = config or self.Config(), tuple(image_shape)
        self.seed, self.dtype = seed, np.dtype(dtype)
        self.pixels = int(np.prod(self.image_shape))

    def networks(self) -> dict[str, nn.Module]:
        """Name → network. Each has a separate optimiser."""
        return {"model": self}

    def learning_rate(self, network: str) -> float | None:
        """The learning rate of that network's optimiser; None: that of the [train] table."""
        return None

    def size(self) -> int:
        """The number of parameters."""
        return sum(p.size for p in self.parameters())

    def finished(self) -> bool:
        """Whether to stop training before the last epoch (early stopping)."""
        return False

    def prepare(self, x: np.ndarray) -> None:
        """Called before the first step of a run, with the first training items."""

    def end_epoch(self, validation: Mapping[str, float]) -> None:
        """Called after each epoch with the means over the held-out items ({} if there are none)."""

    def extra_metrics(self, x: np.ndarray, streams: Streams) -> dict[str, Any]:
        """Further metrics of an epoch from a few test items, as values that JSON can store."""
        return {}

    def check_data(self, x: np.ndarray) -> None:
        """UserError for items that this model cannot be trained on."""

    def recording_key(self, optimisers: Mapping[str, Any]) -> Any:
        """A hashable value of everything but arrays that a training step depends on.

        A recorded step (``capture.py``) is recorded again when it changes.
        """
        return ()

    def flat(self, x: np.ndarray) -> np.ndarray:
        """Images (N, H, W, C) as rows (N, D), in the model's precision and on its device."""
        if x.shape[1:] != self.image_shape and x.shape[1:] != (self.pixels,):
            raise UserError(f"images of shape {x.shape[1:]}, but this model was made for "
                            f"{self.image_shape}; give images of that shape")
        if isinstance(x, np.ndarray):
            x = real_numbers(x, "images")
        return constant(x.reshape(len(x), -1), self.dtype).data

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Rows (N, D) as images (N, H, W, C), float32 (NumPy)."""
        return to_host(rows).reshape(len(rows), *self.image_shape).astype(np.float32, copy=False)

    def inputs(self, x, streams, labels):
        """The arguments of ``loss`` and ``explicit_gradients``. Most models ignore the labels."""
        return self.draw(x, streams)

    def training_step(self, x: np.ndarray, streams: Streams, optimisers: Mapping[str, Any],
                      gradient: Literal["tape", "explicit"] = "tape",
                      labels: np.ndarray | None = None) -> dict[str, float]:
        """One update on the images ``x``; returns the loss and its terms, per image."""
        optimiser = optimisers["model"]
        inputs = self.inputs(x, streams, labels)
        if gradient == "explicit":
            terms, gradients = self.explicit_gradients(*inputs)
            set_gradients(self, gradients)
        else:
            optimiser.zero_grad()
            terms = self.loss(*inputs)
            terms["loss"].backward()
        optimiser.step()
        return numbers(terms)

    def evaluate(self, x: np.ndarray, streams: Streams,
                 labels: np.ndarray | None = None) -> dict[str, float]:
        """The loss and its terms per image, without training."""
        with no_grad():
            return numbers(self.loss(*self.inputs(x, streams, labels)))

    def validate(self, x: np.ndarray, streams: Streams,
                 labels: np.ndarray | None = None) -> dict[str, float]:
        """``evaluate`` on held-out items, by which a model may select its weights."""
        return self.evaluate(x, streams, labels)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Codes (N, Z) of images."""
        with no_grad():
            return to_host(self.code(Tensor(self.flat(x))).data)

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Images of codes (N, Z)."""
        with no_grad():
            logits = self.logits(constant(z, self.dtype))
            return self.images(sigmoid(to_host(logits.data)))

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """The decoded codes of images."""
        return self.decode(self.encode(x))


def numbers(terms):
    """Loss terms as floats. Terms on a GPU stay there, since a copy would wait for the GPU."""
    return {name: term if is_on_gpu(term) else float(term) for name, term in (
        (name, plain(value)) for name, value in terms.items())}


def is_on_gpu(term):
    """Whether a term is an array on the GPU."""
    return hasattr(term, "dtype") and not isinstance(term, (np.ndarray, np.generic))


def set_gradients(network, gradients):
    """Set the gradients of the parameters by name, as the backward pass would."""
    for name, p in network.named_parameters().items():
        if name in gradients:
            p.grad = None                 # so that a gradient in use elsewhere is not overwritten
            p.store_gradient(gradients[name])


def binary_cross_entropy(logits, x):
    """−Σ [x ln σ(l) + (1 − x) ln(1 − σ(l))] of logits l, in plain NumPy."""
    return np.sum(np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits))))
