"""The stacked denoising autoencoder. Vincent et al. 2008; JMLR 11 (2010), section 4.

Phase 1, pre-training layer by layer: a denoising autoencoder is trained on the images, the next one
on the first one's codes of *clean* images, and so on. Only the input of the autoencoder that is
being trained is corrupted.

Phase 2, fine-tuning: the encoders become the first layers of a classifier with a logistic layer on
top, which is trained on the cross-entropy of the labels. The last part of the training set is held
out for validation. The weights with the fewest validation errors are kept, and training stops when
no better ones were found within the patience (early stopping with doubled patience, as in the
Theano tutorial).

The phase is a function of the epoch, so a run can be stopped and resumed anywhere.
"""

import contextlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from ... import data, nn, ops
from ...context import no_grad
from ...engine.memory import to_host
from ...engine.random import Stream
from ...engine.tensor import Tensor
from ...errors import UserError
from .. import by_hand
from ..base import Model, numbers
from ..classifier.scores import checked, error_rate, explicit_cross_entropy
from ..dae import DAE

BETTER = 0.995                            # an error below this times the best earns more patience


class SDAE(Model):
    """Stacked denoising autoencoder of sigmoid layers.

    The epochs of the [train] table include pre-training; its lr is that of fine-tuning.
    """

    kind = "sdae"
    optimiser_defaults = {"epochs": 60, "batch_size": 20, "lr": 0.1, "optimizer": "sgd"}
    presets = {
        "default": {},
        "demo": {"data": {"limit": 2000}, "train": {"epochs": 40},
                 "model": {"layers": [300, 300, 300], "pretrain_epochs": 5}},
        # Pre-training helps most with few labels. For comparison: --set model.pretrain=false
        "few-labels": {"data": {"limit": 2000}, "train": {"epochs": 130},
                       "model": {"layers": [500, 500, 500], "levels": [0.25, 0.25, 0.25],
                                 "pretrain_epochs": 30, "patience": 130}},
        # code/SdA.py of the Theano tutorials: batch 1, so days; 1.39 % on validation, 1.30 % on
        # MNIST's test set (pixels there are v/256). The 45 first epochs are pre-training.
        "theano": {"train": {"epochs": 1045, "batch_size": 1, "lr": 0.1, "optimizer": "sgd"},
                   "model": {"pretrain_epochs": 15, "pretrain_lr": 0.001}},
        "points": {"data": {"name": "moons"}, "train": {"epochs": 20, "batch_size": 100,
                                                       "lr": 0.01, "optimizer": "adam"},
                   "model": {"layers": [64, 64], "levels": [0.1, 0.1], "corruption": "gaussian",
                             "output": "linear", "pretrain_epochs": 3, "pretrain_lr": 0.01,
                             "classes": 2}},
    }

    @dataclass
    class Config:
        """The [model] table. ``levels`` has one corruption level for each of ``layers``."""

        layers: list[int] = field(default_factory=lambda: [1000, 1000, 1000], metadata={"low": 1})
        levels: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3], metadata={"low": 0})
        corruption: str = field(default="masking", metadata={"choices": tuple(data.CORRUPTIONS)})
        tied: bool = True
        output: str = field(default="sigmoid", metadata={"choices": ("sigmoid", "linear")})
        pretrain: bool = True
        pretrain_epochs: int = field(default=10, metadata={"low": 1})     # for each layer
        pretrain_lr: float = field(default=0.1, metadata={"above": 0, "low": None})
        classes: int = field(default=10, metadata={"low": 2})
        validation: float = field(default=1 / 6, metadata={"low": 0, "below": 1})
        patience: int = field(default=10, metadata={"low": 1})          # epochs
        init: str = field(default="glorot-sigmoid", metadata={"choices": tuple(nn.INITIALISERS)})

        def __post_init__(self):
            if len(self.layers) != len(self.levels) or not self.layers:
                raise UserError(f"model.layers has {len(self.layers)} layers and model.levels "
                                f"{len(self.levels)} corruption levels: expected one for each")

    config: Config

    def __init__(self, config: Config | None = None,
                 image_shape: tuple[int, ...] = (28, 28, 1), seed: int = 0,
                 dtype: DTypeLike = np.float32) -> None:
        super().__init__(config, image_shape, seed, dtype)
        c, sizes = self.config, [self.pixels, *self.config.layers]
        self.held_out = c.validation
        self.stack = [self.autoencoder(k) for k in range(len(c.layers))] if c.pretrain else []
        self.classifier = nn.Sequential(        # with the stack's first weights, pre-trained or not
            *(nn.Dense(sizes[k], sizes[k + 1], "sigmoid", c.init, self.stream(k), dtype)
              for k in range(len(c.layers))),
            nn.Dense(sizes[-1], c.classes, None, c.init, self.stream("logistic"), dtype))
        for p in self.classifier[-1].parameters():
            p.data[...] = 0
        self.kept = nn.Buffer(np.zeros(self.size(), self.dtype))       # the best weights so far
        self.record = nn.Buffer([np.inf, 0, c.patience])        # their error, epoch; patience

    def stream(self, layer):
        return Stream(self.seed, f"sdae.init.{layer}")

    def autoencoder(self, k):
        """The denoising autoencoder of layer k, whose inputs are the codes of layer k−1."""
        c = self.config
        output = c.output if k == 0 else "sigmoid"              # codes lie in [0, 1]
        config = DAE.Config(hidden=c.layers[k], tied=c.tied, corruption=c.corruption,
                            level=c.levels[k], init=c.init, output=output,
                            loss="bce" if output == "sigmoid" else "mse")
        shape = (c.layers[k - 1],) if k else self.image_shape
        return DAE(config, shape, self.seed, self.dtype, self.stream(k))

    def networks(self) -> dict[str, nn.Module]:
        """The autoencoders and the classifier."""
        return {**{f"layer{k + 1}": dae for k, dae in enumerate(self.stack)},
                "classifier": self.classifier}

    def learning_rate(self, network: str) -> float | None:
        return None if network == "classifier" else self.config.pretrain_lr

    def size(self) -> int:
        """The number of parameters of the classifier, without the decoders."""
        return sum(p.size for p in self.classifier.parameters())

    # --- phases ----------------------------------------------------------------------------------

    @property
    def pretraining(self):
        """The number of epochs of phase 1."""
        return len(self.stack) * self.config.pretrain_epochs

    def layer(self):
        """The index of the autoencoder trained in this epoch; None: fine-tuning.

        After an epoch (in eval mode), the index of the one that was trained in it.
        """
        epoch = self.epoch if self.training else max(self.epoch - 1, 0)
        return epoch // self.config.pretrain_epochs if epoch < self.pretraining else None

    def codes(self, x, depth):
        """The clean codes of pre-trained layer ``depth`` as rows; depth 0: the images."""
        x = self.flat(x)
        with no_grad():
            for dae in self.stack[:depth]:
                x = dae.code(Tensor(x)).data
        return x

    def recording_key(self, optimisers):
        return self.layer()

    def check_data(self, x):
        if self.stack:
            self.stack[0].check_data(x)

    def end_epoch(self, validation):
        if self.epoch == self.pretraining:
            for dense, dae in zip(self.classifier.layers, self.stack, strict=False):
                dense.load_state_dict(dae.encoder.state_dict())
        if self.epoch <= self.pretraining or not validation:
            return
        (best, _, patience), epoch = self.record, self.epoch - self.pretraining
        if validation["error"] < BETTER * best:
            patience = max(patience, 2 * epoch)
        if validation["error"] < best:
            self.record[:2] = validation["error"], self.epoch
            weights = self.classifier.state_dict().values()
            self.kept[...] = np.concatenate([array.ravel() for array in weights])
        self.record[2] = patience

    def finished(self) -> bool:
        return bool(self.held_out) and self.epoch - self.pretraining >= self.record[2]

    @contextlib.contextmanager
    def best_weights(self):
        """A context with the classifier's best weights, if there has been a validation."""
        if np.isinf(self.record[0]):
            yield
            return
        before = self.classifier.state_dict()
        parts = np.split(self.kept, np.cumsum([array.size for array in before.values()])[:-1])
        try:
            self.classifier.load_state_dict({name: part.reshape(array.shape) for (name, array), part
                                             in zip(before.items(), parts, strict=True)})
            yield
        finally:
            self.classifier.load_state_dict(before)

    # --- the loss --------------------------------------------------------------------------------

    def inputs(self, x, streams, labels):
        """(layer, arguments of its loss): a pair (clean, noisy), or images and labels."""
        k = self.layer()
        if k is None:
            return None, self.flat(x), checked(labels, self.config.classes)
        return k, *self.stack[k].draw(self.codes(x, k), streams)

    def loss(self, k, *inputs):
        """{loss} of autoencoder k; k None: {loss, error}, the cross-entropy and the error rate."""
        if k is not None:
            return self.stack[k].loss(*inputs)
        x, labels = inputs
        logits = self.classifier(Tensor(x))
        return {"loss": ops.cross_entropy(logits, labels, "mean"),
                "error": error_rate(logits.data, labels)}

    def explicit_gradients(self, k, *inputs):
        """Every gradient of this phase by the chain rule: (terms, name → array)."""
        if k is not None:
            terms, gradients = self.stack[k].explicit_gradients(*inputs)
            return terms, {f"stack.{k}.{name}": g for name, g in gradients.items()}
        x, labels = inputs
        logits, caches = by_hand.forward(self.classifier, x)
        loss, dlogits = explicit_cross_entropy(logits, labels)
        gradients, _ = by_hand.backward(self.classifier, caches, dlogits)
        return ({"loss": loss, "error": error_rate(logits, labels)},
                {f"classifier.{name}": g for name, g in gradients.items()})

    def training_step(self, x, streams, optimisers, gradient="tape", labels=None):
        k = self.layer()
        name = "classifier" if k is None else f"layer{k + 1}"
        return super().training_step(x, streams, {"model": optimisers[name]}, gradient, labels)

    def evaluate(self, x, streams, labels=None):
        """``loss`` with the best weights, without training."""
        with self.best_weights():
            return self.validate(x, streams, labels)

    def validate(self, x, streams, labels=None):
        """``loss`` with the current weights, without training."""
        with no_grad():
            return numbers(self.loss(*self.inputs(x, streams, labels)))

    def extra_metrics(self, x, streams):
        """The phase and layer; or the best epoch and its error on the held-out items."""
        k = self.layer()
        if k is not None:
            return {"phase": "pre-training", "layer": k + 1}
        best = {"best_epoch": int(self.record[1]), "best_valid_error": float(self.record[0])}
        return {"phase": "fine-tuning", **(best if self.held_out else {})}

    # --- codes, classes and images ---------------------------------------------------------------

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The codes of the classifier's last hidden layer (N, H)."""
        with no_grad(), self.best_weights():
            code = Tensor(self.flat(x))
            for layer in self.classifier.layers[:-1]:
                code = layer(code)
            return to_host(code.data)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The most probable class of each image, int64 (N,)."""
        with no_grad(), self.best_weights():
            return to_host(self.classifier(Tensor(self.flat(x))).data).argmax(axis=1)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Images encoded by all pre-trained encoders, then decoded by their decoders."""
        if not self.stack:
            raise UserError("this model was not pre-trained and has no decoders: train one with "
                            "--set model.pretrain=true")
        rows = self.codes(x, len(self.stack))
        for dae in reversed(self.stack):
            rows = dae.decode(rows)
        return self.images(rows)

    def sample(self, n, seed=0):
        raise UserError("a stacked denoising autoencoder classifies and has no sampler: sample a "
                        "dae, vae or gan")

    decode = None                                           # fine-tuning does not use the decoders
