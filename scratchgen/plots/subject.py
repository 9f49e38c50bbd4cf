"""The inputs of a picture: a trained model, the test set, and the files of the run."""

import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import data
from ..engine.backend import use_backend
from ..train import dataset_of, load, runs
from .frames import Frame, frames_of

if TYPE_CHECKING:
    from ..models.base import Model


@dataclass(frozen=True)
class HeldOut:
    """The test items, binarised as in training: x (N, H, W, C) or (N, D), labels (N,)."""

    x: np.ndarray
    labels: np.ndarray

    def of_each_class(self, each: int = 1, classes: int = 10) -> np.ndarray:
        """The first ``each`` images of each of the first ``classes`` classes, sorted by class.

        For a set without labels, the first ``each · classes`` images.
        """
        if len(np.unique(self.labels)) == 1:
            return self.x[:each * classes]
        found = [np.flatnonzero(self.labels == label)[:each] for label in np.unique(self.labels)]
        return self.x[np.concatenate(found[:classes])]


@dataclass(frozen=True)
class Subject:
    """The arguments of the functions that draw pictures, by the names of their parameters."""

    model: "Model"
    test: HeldOut | None = None
    history: list[dict[str, Any]] = field(default_factory=list)     # lines of metrics.jsonl
    density: data.Mixture | None = None                             # of the data, if known
    frames: list[Frame] = field(default_factory=list)               # of the film

    def draw(self, picture: Callable[..., Any]) -> Any:
        """Call the function ``picture`` with the fields that are among its parameters."""
        names = inspect.signature(picture).parameters
        return picture(**{name: getattr(self, name) for name in vars(self) if name in names})


def subject_of(path: str | os.PathLike[str]) -> tuple[Subject, str]:
    """``(Subject, backend to draw with)`` of a run folder."""
    run = runs.open_run(path)
    resolved = run.config()
    backend = drawing_backend(resolved["run"]["backend"])
    with use_backend(backend):
        model, dataset = load(path), dataset_of(path)
        loader = data.Loader(*dataset.test, len(dataset.test[0]), resolved["run"]["seed"],
                             shuffle=False, binarize=resolved["data"]["binarize"])
        test = HeldOut(*next(iter(loader.batches(0))))
    subject = Subject(model, test, run.metrics(), getattr(dataset, "density", None),
                      frames_of(run))
    return subject, backend


def drawing_backend(backend):
    """The backend to draw with: a CPU backend, so that pictures of GPU runs need no GPU."""
    if backend != "cuda":
        return backend
    return "numba" if importlib.util.find_spec("numba") else "numpy"
