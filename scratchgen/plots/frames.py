"""Samples kept at the end of epochs, of which the film is made.

The same random numbers at every epoch, so what changes is the model. Sheets lie in
``pictures/epochs/NNNN.npz``; of a long training fewer and fewer are kept.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from .abilities import draws_images, samples_of
from .mosaic import store

IMAGES, POINTS = 36, 1000          # samples of an epoch
FRAMES = 60                        # of a film, at most


@dataclass(frozen=True)
class Frame:
    """Samples (N, H, W, C) or (N, D) after so many finished epochs."""

    epoch: int
    samples: np.ndarray


def wanted(epoch):
    """Whether to keep this epoch: each of the first 30, then about 30 for every doubling."""
    step = 1
    while epoch > 60 * step:
        step *= 2
    return epoch <= 30 or epoch % step == 0


def keep_samples(run, model, epoch):
    """The ``on_epoch`` of a training: writes this epoch's sheet of samples."""
    if not wanted(epoch):
        return
    samples = samples_of(model, IMAGES if draws_images(model) else POINTS)
    if samples is None or not np.isfinite(samples).all():
        return
    if draws_images(model):
        samples = np.rint(np.clip(samples, 0, 1) * 255).astype(np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, samples=samples)
    store(content.getvalue(), run.pictures / "epochs" / f"{epoch:04}.npz", ".npz")


def frames_of(run):
    """The kept sheets of a run as a list of Frames, oldest first, at most FRAMES of them.

    Sheets of epochs that a resumed run has not reached again are left out, damaged ones too.
    """
    last = max((line["epoch"] for line in run.metrics()), default=0)
    found = []
    for path in sorted((run.pictures / "epochs").glob("*.npz")):
        if path.stem.isdigit() and 0 < int(path.stem) <= last:
            found.append((int(path.stem), path))
    if len(found) > FRAMES:                     # the last one always, the others evenly
        kept = np.unique(np.linspace(0, len(found) - 1, FRAMES).round().astype(int))
        found = [found[i] for i in kept]
    frames = [Frame(epoch, _read(path)) for epoch, path in found]
    return [frame for frame in frames if frame.samples is not None]


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["samples"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        # a torn or foreign file: a film without that page
        return None
