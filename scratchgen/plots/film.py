"""The film of a run: samples over time, one page for each epoch that was kept (``frames.py``)."""

import numpy as np

from . import points
from .abilities import draws_images
from .mosaic import DPI, LABEL, enlarged, mosaic

SIDE = 420                         # pixels, of a film's page


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
