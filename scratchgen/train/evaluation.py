"""Evaluating a model: means of its loss terms over the test items."""

import os
from typing import Any

from .. import data
from ..engine.backend import use_backend
from ..engine.random import Streams
from ..errors import UserError
from ..models import Model
from . import config, runs
from .progress import Position
from .run_data import load_data, notice_changed
from .trained_model import load

EVALUATION_BATCH = 500  # items; fixed, so that test metrics do not depend on train.batch_size


def evaluate_run(path: str | os.PathLike[str],
                 overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """Test means of a stored run, per item; ``overrides`` may replace values of [data] and [run].

    The items must have the shape that the model was trained on, otherwise ``UserError``.
    """
    resolved = runs.open_run(path).config()
    resolved = config.resolve(config.merge(resolved, overrides or {}))
    with use_backend(resolved["run"]["backend"]):
        return _evaluate_folder(path, resolved, same_data=not (overrides or {}).get("data"))


def _evaluate_folder(path, resolved, same_data):
    model, dataset = load(path), load_data(resolved, path)
    state = runs.open_run(path).checkpoint().state
    shape = tuple(state["image_shape"])
    if tuple(dataset.item_shape) != shape:
        raise UserError(
            f"the items of {dataset.name} have shape {tuple(dataset.item_shape)}, "
            f"the model of {path} was trained on {shape}"
        )
    if same_data:
        notice_changed(dataset, state, path)
    return evaluate(model, dataset, resolved)


def evaluate(model: Model, dataset: data.Dataset | data.Points,
             resolved: dict[str, Any]) -> dict[str, float]:
    """Means of the loss and its terms over the test items of ``dataset``, per item.

    Uses random streams of its own, newly seeded: two evaluations give the same numbers, and the
    streams of the training do not advance.
    """
    return mean_terms(model, model.evaluate, dataset.test, resolved)


def mean_terms(model, measure, part, resolved):
    """Means of the terms that ``measure`` returns for each batch of ``part`` = (items, labels)."""
    streams, totals = Streams(resolved["run"]["seed"]), Position()
    model.eval()
    for x, labels in batches(part, resolved):
        terms = measure(x, streams, labels=labels)
        totals.add({name: float(value) for name, value in terms.items()}, len(x))
        totals.advance(len(x))
    model.train()
    return totals.means()


def batches(part, resolved):
    """The items of ``part`` in order, in batches (x, labels) of the run's dtype."""
    loader = data.Loader(
        *part,
        EVALUATION_BATCH,
        resolved["run"]["seed"],
        shuffle=False,
        binarize=resolved["data"]["binarize"],
    )
    dtype = resolved["run"]["dtype"]
    return ((x.astype(dtype, copy=False), labels) for x, labels in loader.batches(0))
