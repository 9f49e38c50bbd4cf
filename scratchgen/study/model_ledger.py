"""The ledgers of a model's losses on a batch of its data: of the whole loss, or of each player."""

from typing import Any

from .. import data
from ..engine.backend import use_backend
from ..engine.random import Streams
from ..models import Model
from ..train import config
from ..train.run_data import load_data
from ..train.trained_model import build
from .ledger import Ledger, ledger


def model_ledger(given: dict[str, Any]) -> dict[str, Ledger]:
    """Name of the loss → its ledger, for a configuration as ``train`` takes it.

    The model has its initial weights; the batch is the first ``train.batch_size`` training items.
    """
    resolved = config.resolve(given)
    with use_backend(resolved["run"]["backend"]):
        dataset, seed = load_data(resolved), resolved["run"]["seed"]
        model = build(resolved, dataset.item_shape)
        loader = data.Loader(*dataset.train, resolved["train"]["batch_size"], seed, shuffle=False,
                             binarize=resolved["data"]["binarize"])
        x, labels = next(iter(loader.batches(0)))
        x = x.astype(model.dtype, copy=False)
        return {name: ledger(loss, model.named_parameters(), seed)
                for name, loss in losses(model, x, labels, Streams(seed)).items()}


def losses(model: Model, x: Any, labels: Any, streams: Streams) -> dict[str, Any]:
    """Name → function that computes the loss, always on the same noise."""
    if model.kind == "gan":
        x, z = model.real(x), model.noise(len(x), streams["z"])
        draws = model.draw(len(x), streams)
        perturbation = model.perturbation(len(x), streams)
        return {"discriminator": lambda: model.discriminator_loss(x, z, draws)["loss"],
                "generator": lambda: model.generator_loss(z, perturbation)["g_loss"]}
    inputs = model.inputs(x, streams, labels)
    return {"loss": lambda: model.loss(*inputs)["loss"]}
