"""Mosaics of images: as pixels, as a figure with a title, as a PNG file.

Figures are made without pyplot and its global state; matplotlib is imported by the functions that
draw, since its import takes a second.
"""

import io
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from ..train.files import write_atomically

DPI = 150
SIDE = 840                   # pixels: the longer side of an enlarged mosaic, approximately
TITLE, LABEL = 13, 12        # font sizes in points, legible on the screen of a phone


def mosaic(images: ArrayLike, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Images (N, H, W, C) in [0, 1], C 1 or 3, in rows and columns: uint8 pixels (H, W, 3).

    Row by row; ``columns`` None: about as many as rows; ``gap`` white pixels between images. Values
    beyond [0, 1] are clipped. Raises UserError for other shapes or types, NaN and infinity.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise UserError(f"images of shape {images.shape}: expected (N, H, W, C), no size 0, "
                        "with C = 1 (grey) or 3 (red, green, blue)")
    if images.dtype.kind != "f":
        raise UserError(f"images of dtype {images.dtype}: expected floats in [0, 1]; divide uint8 "
                        "images by 255")
    bad = np.count_nonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if bad:
        raise UserError(f"{bad} of {len(images)} images contain NaN or infinity: expected finite "
                        "numbers; if they are of a model it has diverged: train again, lower --lr")
    if columns is not None and columns < 1:
        raise UserError(f"columns is {columns}: expected a whole number, 1 or more")
    n, h, w, _ = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    page = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        page[top:top + h, left:left + w] = np.rint(np.clip(image, 0, 1) * 255)
    return page


def enlarged(pixels, side=SIDE):
    """Enlarge each pixel to k × k, without smoothing; the longer side is about ``side``."""
    k = max(1, round(side / max(pixels.shape[:2])))
    return pixels.repeat(k, axis=0).repeat(k, axis=1)


def save_grid(images: ArrayLike, path: str | os.PathLike[str],
              columns: int | None = None) -> Path:
    """Write images (N, H, W, C) in [0, 1] as one PNG, an enlarged ``mosaic``; returns the path.

    Raises UserError if they cannot be drawn or the file cannot be written.
    """
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(content, enlarged(mosaic(images, columns)), format="png", metadata={"Software": None})
    return store(content.getvalue(), path)


def sheet(pixels, title, left=15, bottom=15):
    """A figure of a mosaic without resampling, with a title; margins in pixels."""
    from matplotlib.figure import Figure

    pixels = enlarged(pixels)
    height, width = pixels.shape[:2]
    size = left + max(width, SIDE) + 15, bottom + height + _above(title)
    figure = Figure([s / DPI for s in size], dpi=DPI, facecolor="white")
    show(axes_at(figure, left, bottom, width, height), pixels)
    figure.axes[0].set_title(title, fontsize=TITLE, loc="left")
    return figure


def _above(title):
    """Height of a title in pixels, by its number of lines."""
    return 22 + 34 * (1 + title.count("\n"))


def rows_sheet(rows, title, columns=None):
    """A figure with a mosaic for each item of ``rows``, {the name above it: images}."""
    from matplotlib.figure import Figure

    columns = columns or len(next(iter(rows.values())))
    shown = [enlarged(mosaic(images, columns)) for images in rows.values()]
    gap, top = 44, _above(title)
    width = max(SIDE, *(pixels.shape[1] for pixels in shown))
    height = sum(pixels.shape[0] + gap for pixels in shown) + top + 15
    figure = Figure([(width + 30) / DPI, height / DPI], dpi=DPI, facecolor="white")
    bottom = height - top
    for name, pixels in zip(rows, shown, strict=True):
        bottom -= pixels.shape[0] + gap
        axes = axes_at(figure, 15, bottom, pixels.shape[1], pixels.shape[0])
        show(axes, pixels)
        axes.set_title(name, fontsize=LABEL, loc="left", color="0.25", pad=5)
    figure.text(15 / (width + 30), 1 - 10 / height, title, fontsize=TITLE, va="top")
    return figure


def strip(panels, height=600, gap=60, top=92):
    """One wide figure of mosaics of equal height; ``panels``: (mosaic, title, subtitle) of each.

    Sizes in pixels.
    """
    from matplotlib.figure import Figure

    widths = [round(height * pixels.shape[1] / pixels.shape[0]) for pixels, _, _ in panels]
    size = sum(widths) + gap * (len(panels) + 1), gap // 2 + height + top
    figure = Figure([s / DPI for s in size], dpi=DPI, facecolor="white")
    left = gap
    for (pixels, title, subtitle), width in zip(panels, widths, strict=True):
        axes = axes_at(figure, left, gap // 2, width, height)
        show(axes, enlarged(pixels, 2 * height))
        axes.set_title(subtitle, fontsize=LABEL + 3, loc="left", color="0.3")
        figure.text(left / size[0], 1 - 14 / size[1], title, fontsize=TITLE + 3, va="top",
                    weight="bold")
        left += width + gap
    return figure


def axes_at(figure, left, bottom, width, height):
    """New axes in a rectangle given in pixels."""
    w, h = figure.get_size_inches() * DPI
    return figure.add_axes([left / w, bottom / h, width / w, height / h])


def show(axes, pixels):
    """Fill the axes with the pixels; both coordinates are in [0, 1], to the right and upwards."""
    axes.imshow(pixels, aspect="auto", extent=(0, 1, 0, 1))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=LABEL)


def write(figure, path):
    """Write a figure as PNG, always with the same bytes; returns the path."""
    return store(png(figure), path)


def png(figure):
    """A figure as the bytes of a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def write_film(frames, path, milliseconds=150, last=2000):
    """Write frames, uint8 (H, W, 3) of one size, as a GIF in an endless loop; returns the path.

    Each is shown for ``milliseconds``, the last one for ``last``.
    """
    from PIL import Image

    images = [Image.fromarray(np.ascontiguousarray(frame)).quantize(64, dither=Image.Dither.NONE)
              for frame in frames]
    content, times = io.BytesIO(), [milliseconds] * (len(images) - 1) + [last]
    images[0].save(content, format="GIF", save_all=True, append_images=images[1:], duration=times,
                   loop=0, optimize=False)
    return store(content.getvalue(), path, ".gif")


def store(content, path, suffix=".png"):
    """Write the bytes of a picture and create its folder; UserError if that is not possible."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UserError(f"cannot write a picture to {path}: expected a name that ends in {suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path.parent} ({error.strerror}): check the "
                        "name and its permissions") from None
    write_atomically(path, content)
    return path
