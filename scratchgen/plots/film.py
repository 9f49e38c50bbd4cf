"""The film of a run: an animation of the samples after each stored epoch (``frames.py``)."""

import numpy as np

from . import points
from .capabilities import draws_images
from .mosaic import DPI, LABEL, enlarged, mosaic

SIDE = 420                         # pixels: the size of a frame


def film(model, density, frames):
    """Frames of pixels (H, W, 3), one for each epoch; None if there are fewer than two."""
    if len(frames) < 2:
        return None
    if draws_images(model):
        pictures = [enlarged(mosaic(f.samples / np.float32(255)), SIDE) for f in frames]
        return [_with_epoch(pixels, f.epoch) for pixels, f in zip(pictures, frames, strict=True)]
    if frames[0].samples.shape[1] > 2:
        return None
    return [_plot_of_points(frame, frames[-1], density) for frame in frames]


def _with_epoch(pixels, epoch):
    """The pixels below a line of text with the epoch."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + 30), "white")
    page.paste(Image.fromarray(pixels), (0, 30))
    ImageDraw.Draw(page).text((2, 4), f"epoch {epoch}", "black", ImageFont.load_default(18))
    return np.asarray(page)


def _plot_of_points(frame, last, density):
    """A histogram of 1-D samples or a scatter plot of 2-D samples, with the data's density."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
