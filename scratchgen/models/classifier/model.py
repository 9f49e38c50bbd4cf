"""Representation learning: features and semantics.

    min over θ, W of  (1/N) Σ L(g_W(f_θ(x_i)), y_i)

f_θ maps an image to features, g_W maps features to class logits. ``Classifier`` trains both end to
end. The label y is given, or derived from the data: by how many quarter turns an image was rotated
(Gidaris, Singh & Komodakis 2018). ``Probe`` trains g_W alone, on the fixed features of a trained
model, to measure how much class information the features contain.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from ... import nn, ops
from ...context import no_grad
from ...engine.memory import to_host
from ...engine.random import Stream
from ...engine.tensor import Tensor, constant
from ...errors import UserError
from .. import by_hand
from ..base import Model
from ..networks import conv_encoder, dense_layers
from .scores import accuracy, checked, explicit_cross_entropy

QUARTER_TURNS = 4


class Representation(Model):
    """Base: modules ``features`` (f_θ) and ``semantics`` (g_W), cross-entropy in nats."""

    def class_count(self):
        """The number of classes."""
        return self.config.classes

    def loss(self, x: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
        """{loss, accuracy} of features, or of images if f_θ is trained too."""
        logits = self.forward(Tensor(x))
        return {"loss": ops.cross_entropy(logits, labels, "mean"),
                "accuracy": accuracy(logits.data, labels)}

    def explicit_gradients(self, x: np.ndarray, labels: np.ndarray,
                           ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Every gradient by the chain rule, layer by layer: (terms, name → array)."""
        values, caches = x, []
        for _, network in self.trained():
            values, cache = by_hand.forward(network, values)
            caches.append(cache)
        loss, dy = explicit_cross_entropy(values, labels)
        gradients = {}
        for (name, network), cache in zip(self.trained()[::-1], caches[::-1], strict=True):
            found, dy = by_hand.backward(network, cache, dy)
            gradients.update({f"{name}.{key}": g for key, g in found.items()})
        return {"loss": loss, "accuracy": accuracy(values, labels)}, gradients

    def trained(self):
        """(name, network) of the trained networks, in order."""
        return [("features", self.features), ("semantics", self.semantics)]

    def forward(self, x):
        for _, network in self.trained():
            x = network(x)
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The most probable class of each image, int64 (N,)."""
        with no_grad():
            return to_host(self.semantics(constant(self.encode(x), self.dtype)).data).argmax(axis=1)

    def sample(self, n, seed=0):
        raise UserError(f"a {self.kind} predicts classes and has no sampler: sample a dae, vae or "
                        "gan")

    decode = reconstruct = None


class Classifier(Representation):
    """f_θ and g_W, trained end to end, on given labels or on the rotation of the images."""

    kind = "classifier"
    optimiser_defaults = {"epochs": 10, "batch_size": 100, "lr": 1e-3, "optimizer": "adam"}
    presets = {"default": {}, "demo": {"train": {"epochs": 5}},
               "conv": {"model": {"arch": "conv"}},
               "rotation": {"model": {"arch": "conv", "labels": "rotation"}},
               "points": {"data": {"name": "moons"}, "train": {"epochs": 20},
                          "model": {"layers": [64], "code": 64, "classes": 2}}}

    @dataclass
    class Config:
        """The [model] table. ``code``: the number of features."""

        arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv")})
        layers: list[int] = field(default_factory=lambda: [500], metadata={"low": 1})
        code: int = field(default=128, metadata={"low": 1})
        activation: str = field(default="relu", metadata={"choices": nn.Activation.NAMES})
        hidden: int = field(default=0, metadata={"low": 0})       # units in g_W; 0: logistic
        labels: str = field(default="given", metadata={"choices": ("given", "rotation")})
        classes: int = field(default=10, metadata={"low": 2})     # of the labels that are given

    config: Config

    def __init__(self, config: Config | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32) -> None:
        super().__init__(config, image_shape, seed, dtype)
        c, options = self.config, {"stream": Stream(seed, "classifier.init"), "dtype": dtype}
        if c.labels == "rotation" and (len(image_shape) != 3 or image_shape[0] != image_shape[1]):
            raise UserError(f"labels by rotation need square images, and the items have shape "
                            f'{tuple(image_shape)}: crop or pad them, or use labels = "given"')
        self.features = (
            conv_encoder(self.image_shape, c.code, c.activation, **options) if c.arch == "conv"
            else dense_layers([self.pixels, *c.layers, c.code], c.activation, c.activation,
                              **options))
        self.semantics = classifier(c.code, c.hidden, self.class_count(), **options)

    @property
    def replayable(self):
        """False for labels by rotation, because images are rotated on the host."""
        return self.config.labels != "rotation"

    def class_count(self):
        return QUARTER_TURNS if self.config.labels == "rotation" else self.config.classes

    def inputs(self, x, streams, labels):
        """Rows and labels. For labels by rotation both are made here from the images."""
        if self.config.labels == "rotation":
            x = to_host(x).reshape(len(x), *self.image_shape)
            labels = np.floor(QUARTER_TURNS * to_host(streams["rotation"].uniform(len(x)))).astype(
                np.int64)
            x = rotated(x, labels)
        return self.flat(x), checked(labels, self.class_count())

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The features f_θ(x), (N, F)."""
        with no_grad():
            return to_host(self.features(Tensor(self.flat(x))).data)


class Probe(Representation):
    """g_W on the fixed features of a trained model.

    The features are standardised by their mean and standard deviation over the first training
    items. Without this affine map, training on sigmoid codes that are all near 0.95 would take too
    many steps.
    """

    kind = "probe"
    probes = True
    replayable = False                    # the features pass through the host
    optimiser_defaults = {"epochs": 20, "batch_size": 100, "lr": 1e-2, "optimizer": "adam"}
    presets = {"default": {}, "hidden": {"train": {"lr": 1e-3}, "model": {"hidden": 200}}}

    @dataclass
    class Config:
        """The [model] table. ``features``: the folder of the run with the model of the features."""

        features: str = ""
        hidden: int = field(default=0, metadata={"low": 0})       # units in g_W; 0: logistic
        classes: int = field(default=10, metadata={"low": 2})

    config: Config

    def __init__(self, config: Config | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32, *, features: Model) -> None:
        super().__init__(config, image_shape, seed, dtype)
        c, self.features = self.config, features.eval()
        width = features_of(features, np.zeros((2, *self.image_shape), np.float32)).shape[1]
        self.shift = nn.Buffer(np.zeros(width, self.dtype))
        self.scale = nn.Buffer(np.ones(width, self.dtype))
        self.semantics = classifier(width, c.hidden, c.classes, dtype=dtype,
                                    stream=Stream(seed, "probe.init"))

    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.semantics}

    def trained(self):
        return [("semantics", self.semantics)]

    def size(self):
        """The number of parameters of g_W."""
        return sum(p.size for p in self.semantics.parameters())

    def train(self, mode=True):
        """Switch the mode of g_W; the model of the features stays in eval mode."""
        super().train(mode)
        self.features.eval()
        return self

    def prepare(self, x):
        """Measure the mean and standard deviation of the features."""
        features = features_of(self.features, x).astype(np.float64)
        std = features.std(axis=0)
        self.shift[...] = features.mean(axis=0)
        self.scale[...] = np.where(std > 1e-6, std, 1)          # constant features stay constant

    def inputs(self, x, streams, labels):
        """Features and labels."""
        return self.flat_features(x), checked(labels, self.config.classes)

    def flat_features(self, x):
        """``encode``, on the device of the weights."""
        return constant(self.encode(x), self.dtype).data

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The frozen features (N, F), standardised."""
        return (features_of(self.features, x).astype(self.dtype) - self.shift) / self.scale


def classifier(inputs, hidden, classes, **options):
    """g_W: logistic regression, or with one hidden layer of ReLU units."""
    sizes = [inputs, hidden, classes] if hidden else [inputs, classes]
    return dense_layers(sizes, "relu", None, **options)


def features_of(model, x):
    """Features (N, F) of items x: the model's codes; of a GAN, the input of D's last layer."""
    if model.encode is not None:
        return model.encode(x)
    with no_grad():
        value = Tensor(model.real(x))
        for layer in model.discriminator.layers[:-1]:
            value = layer(value)
        return to_host(value.data).reshape(len(x), -1)


def rotated(x, turns):
    """Square images (N, H, H, C), each rotated by its number of quarter turns."""
    out = np.empty_like(x)
    for k in range(QUARTER_TURNS):
        out[turns == k] = np.rot90(x[turns == k], k, axes=(1, 2))
    return out
