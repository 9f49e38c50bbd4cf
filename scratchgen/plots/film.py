"""Samples over time: a small sheet of them kept at the end of epochs, and the film made of those.

The same random numbers at every epoch, so what changes is the model. Sheets lie in
``pictures/epochs/NNNN.npz``; of a long training fewer and fewer are kept.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from ..mosaic import DPI, LABEL, enlarged, mosaic, store
from .subject import draws_images, samples_of

IMAGES, POINTS = 36, 1000          # samples of an epoch
FRAMES = 60                        # of a film, at most
SIDE = 420                         # pixels, of a film's page


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


def film(model, density, frames):
    """Pages of pixels (H, W, 3), one for each epoch; None if there are fewer than two."""
    if len(frames) < 2:
        return None
    if draws_images(model):
        bodies = [enlarged(mosaic(f.samples / np.float32(255)), SIDE) for f in frames]
        return [_captioned(body, f.epoch) for body, f in zip(bodies, frames, strict=True)]
    if frames[0].samples.shape[1] > 2:
        return None
    return [_page_of_points(frame, frames[-1], density) for frame in frames]


def _captioned(body, epoch):
    """The pixels under a line that names the epoch."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (body.shape[1], body.shape[0] + 30), "white")
    page.paste(Image.fromarray(body), (0, 30))
    ImageDraw.Draw(page).text((2, 4), f"epoch {epoch}", "black", ImageFont.load_default(18))
    return np.asarray(page)


def _page_of_points(frame, last, density):
    """Samples as a histogram on the line, or as dots in the plane, over the data's density."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from . import points

    figure = Figure((4.2, 3.6), dpi=100, facecolor="white", layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    low, high = points.limits(last.samples, density)
    if frame.samples.shape[1] == 1:
        points.draw_histogram(axes, frame.samples, density, low, high)
    else:
        points.draw_plane(axes, frame.samples, density, low, high)
    axes.set_title(f"epoch {frame.epoch}", fontsize=LABEL * 100 / DPI + 3, loc="left")
    axes.tick_params(labelsize=9)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
