"""Samples stored at the end of epochs, for the film.

They use the same random numbers in every epoch, so only the model changes. They are stored in
``pictures/epochs/NNNN.npz``, in a long training not for every epoch.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .capabilities import draws_images, samples_of
from .mosaic import store

if TYPE_CHECKING:
    from ..models.base import Model
    from ..train.runs import Run

IMAGES, POINTS = 36, 1000          # samples per epoch
FRAMES = 60                        # of a film, at most


@dataclass(frozen=True)
class Frame:
    """Samples (N, H, W, C) or (N, D) after ``epoch`` epochs."""

    epoch: int
    samples: np.ndarray


def keeps(epoch):
    """Whether to store this epoch: each of the first 30, then about 30 in each doubling."""
    step = 1
    while epoch > 60 * step:
        step *= 2
    return epoch <= 30 or epoch % step == 0


def keep_samples(run: "Run", model: "Model", epoch: int) -> None:
    """Store samples of the model after ``epoch``; an ``on_epoch`` function of the training."""
    if not keeps(epoch):
        return
    samples = samples_of(model, IMAGES if draws_images(model) else POINTS)
    if samples is None or not np.isfinite(samples).all():
        return
    if draws_images(model):
        samples = np.rint(np.clip(samples, 0, 1) * 255).astype(np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, samples=samples)
    store(content.getvalue(), run.pictures / "epochs" / f"{epoch:04}.npz", ".npz")


def frames_of(run: "Run") -> list[Frame]:
    """The stored samples of a run as a list of at most FRAMES Frames, oldest first.

    Damaged files are omitted, and epochs that a resumed run has not yet reached again.
    """
    last = max((line["epoch"] for line in run.metrics()), default=0)
    found = []
    for path in sorted((run.pictures / "epochs").glob("*.npz")):
        if path.stem.isdigit() and 0 < int(path.stem) <= last:
            found.append((int(path.stem), path))
    if len(found) > FRAMES:                     # at equal distances, including the last one
        kept = np.unique(np.linspace(0, len(found) - 1, FRAMES).round().astype(int))
        found = [found[i] for i in kept]
    frames = [Frame(epoch, _read(path)) for epoch, path in found]
    return [frame for frame in frames if frame.samples is not None]


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["samples"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None                             # a damaged file is omitted from the film
