"""What a picture is drawn from: a trained model, the test set it is shown, what training wrote."""

import importlib.util
import inspect
from dataclasses import dataclass, field

import numpy as np

from .. import data
from ..engine.backend import use_backend
from ..train import dataset_of, load, runs
from .frames import frames_of


@dataclass(frozen=True)
class HeldOut:
    """The test items, binarised as those for training: x (N, H, W, C) or (N, D), labels (N,)."""

    x: np.ndarray
    labels: np.ndarray

    def of_each_class(self, each=1, classes=10):
        """The first ``each`` images of each of the first ``classes`` classes, by class.

        As many of the one class of a set without labels.
        """
        if len(np.unique(self.labels)) == 1:
            return self.x[:each * classes]
        found = [np.flatnonzero(self.labels == label)[:each] for label in np.unique(self.labels)]
        return self.x[np.concatenate(found[:classes])]


@dataclass(frozen=True)
class Subject:
    """Everything a picture may ask for, by the names of its parameters."""

    model: object
    test: HeldOut = None
    history: list = field(default_factory=list)     # lines of metrics.jsonl
    density: object = None                          # the Mixture that points were drawn from
    frames: list = field(default_factory=list)      # of the film: see ``film``

    def draw(self, picture):
        """What the function ``picture`` makes of those of these that it names."""
        wanted = inspect.signature(picture).parameters
        return picture(**{name: getattr(self, name) for name in vars(self) if name in wanted})


def subject_of(path):
    """(Subject, its backend) of a run folder."""
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
    """Pictures are drawn on the CPU, so that a run of a GPU can be looked at anywhere."""
    if backend != "cuda":
        return backend
    return "numba" if importlib.util.find_spec("numba") else "numpy"
