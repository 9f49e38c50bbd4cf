"""Representation learning: features and semantics.

    min over θ, W of  (1/N) Σ L(g_W(f_θ(x_i)), y_i)

f_θ turns an image into features, g_W features into an answer. ``Classifier`` trains both end to
end; the label y may be given, or *derived from the data itself*: by how many quarter turns an image
was rotated (Gidaris, Singh & Komodakis 2018). ``Probe`` keeps the features of any trained model as
they are and trains g_W alone: how well a simple classifier does says what the features know.
"""

from dataclasses import dataclass, field

import numpy as np

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

    def answers(self):
        """The number of classes."""
        return self.config.classes

    def loss(self, x, labels):
        """{loss, accuracy} of what g_W takes (features, or images if f_θ is trained too)."""
        logits = self.forward(Tensor(x))
        return {"loss": ops.cross_entropy(logits, labels, "mean"),
                "accuracy": accuracy(logits.data, labels)}

    def explicit_gradients(self, x, labels):
        """Every gradient by the chain rule, layer by layer: (terms, name → array)."""
        values, caches = x, []
        for _, network in self.trained():
            values, cache = by_hand.forward(network, values)
            caches.append(cache)
        loss, dy = explicit_cross_entropy(values, labels)
        gradients = {}
        for (name, network), cache in zip(self.trained()[::-1], caches[::-1], strict=True):
            own, dy = by_hand.backward(network, cache, dy)
            gradients.update({f"{name}.{key}": g for key, g in own.items()})
        return {"loss": loss, "accuracy": accuracy(values, labels)}, gradients

    def trained(self):
        """(name, network) of what is trained, in order."""
        return [("features", self.features), ("semantics", self.semantics)]

    def forward(self, x):
        for _, network in self.trained():
            x = network(x)
        return x

    def predict(self, x):
        """The most probable class of each image, int64 (N,)."""
        with no_grad():
            return to_host(self.semantics(constant(self.encode(x), self.dtype)).data).argmax(axis=1)

    def sample(self, n, seed=0):
        raise UserError(f"a {self.kind} gives answers and has no sampler: sample a dae, vae or gan")

    decode = reconstruct = None


class Classifier(Representation):
    """f_θ and g_W end to end. Labels given, or the quarter turns by which images are rotated."""

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

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32):
        super().__init__(config, image_shape, seed, dtype)
        c, options = self.config, {"stream": Stream(seed, "classifier.init"), "dtype": dtype}
        if c.labels == "rotation" and (len(image_shape) != 3 or image_shape[0] != image_shape[1]):
            raise UserError(f"labels by rotation need square images, and the items have shape "
                            f'{tuple(image_shape)}: crop or pad them, or use labels = "given"')
        self.features = (
            conv_encoder(self.image_shape, c.code, c.activation, **options) if c.arch == "conv"
            else dense_layers([self.pixels, *c.layers, c.code], c.activation, c.activation,
                              **options))
        self.semantics = classifier(c.code, c.hidden, self.answers(), **options)

    @property
    def replayable(self):
        """Images are rotated on the host."""
        return self.config.labels != "rotation"

    def answers(self):
        return QUARTER_TURNS if self.config.labels == "rotation" else self.config.classes

    def inputs(self, x, streams, labels):
        """Rows and labels; for labels by rotation both are made here, from the images alone."""
        if self.config.labels == "rotation":
            x = to_host(x).reshape(len(x), *self.image_shape)
            labels = np.floor(QUARTER_TURNS * to_host(streams["rotation"].uniform(len(x)))).astype(
                np.int64)
            x = rotated(x, labels)
        return self.flat(x), checked(labels, self.answers())

    def encode(self, x):
        """The features f_θ(x), (N, F)."""
        with no_grad():
            return to_host(self.features(Tensor(self.flat(x))).data)


class Probe(Representation):
    """g_W on the features of a trained model, which stay as they are.

    They are standardised, with mean and standard deviation over the first items of the training
    set: an affine map, which takes from the features nothing but their scale. Sigmoid codes that
    all lie near 0.95 would otherwise hide what they know from any descent of bearable length.
    """

    kind = "probe"
    probes = True
    replayable = False                    # the features pass through the host
    optimiser_defaults = {"epochs": 20, "batch_size": 100, "lr": 1e-2, "optimizer": "adam"}
    presets = {"default": {}, "hidden": {"train": {"lr": 1e-3}, "model": {"hidden": 200}}}

    @dataclass
    class Config:
        """The [model] table. ``features``: the folder of the run whose model gives them."""

        features: str = ""
        hidden: int = field(default=0, metadata={"low": 0})       # units in g_W; 0: logistic
        classes: int = field(default=10, metadata={"low": 2})

    def __init__(self, config=None, image_shape=(28, 28, 1), seed=0, dtype=np.float32, *, features):
        super().__init__(config, image_shape, seed, dtype)
        c, self.features = self.config, features.eval()
        width = features_of(features, np.zeros((2, *self.image_shape), np.float32)).shape[1]
        self.shift = nn.Buffer(np.zeros(width, self.dtype))
        self.scale = nn.Buffer(np.ones(width, self.dtype))
        self.semantics = classifier(width, c.hidden, c.classes, dtype=dtype,
                                    stream=Stream(seed, "probe.init"))

    def networks(self):
        return {"model": self.semantics}

    def trained(self):
        return [("semantics", self.semantics)]

    def size(self):
        """The number of parameters of g_W."""
        return sum(p.size for p in self.semantics.parameters())

    def train(self, mode=True):
        """For g_W; the features stay in eval mode."""
        super().train(mode)
        self.features.eval()
        return self

    def begin(self, x):
        """Measure the features that are to be standardised."""
        features = features_of(self.features, x).astype(np.float64)
        std = features.std(axis=0)
        self.shift[...] = features.mean(axis=0)
        self.scale[...] = np.where(std > 1e-6, std, 1)          # units that are dead stay dead

    def inputs(self, x, streams, labels):
        """Features and labels."""
        return self.flat_features(x), checked(labels, self.config.classes)

    def flat_features(self, x):
        """``encode``, where the weights lie."""
        return constant(self.encode(x), self.dtype).data

    def encode(self, x):
        """The frozen features (N, F), standardised."""
        return (features_of(self.features, x).astype(self.dtype) - self.shift) / self.scale


def classifier(inputs, hidden, classes, **options):
    """g_W: logistic, or with one hidden layer of rectified units."""
    sizes = [inputs, hidden, classes] if hidden else [inputs, classes]
    return dense_layers(sizes, "relu", None, **options)


def features_of(model, x):
    """Features (N, F) of items x: a model's codes; of a GAN, what D has before its verdict."""
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
